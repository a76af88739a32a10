//! How a number of requests went, in three figures. Pure.

use std::time::Duration;

/// Throughput, the slowest, and how much they vary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Statistics {
    pub(super) per_second: f64,
    pub(super) slowest_s: f64,
    pub(super) stddev_s: f64,
}

impl Statistics {
    pub(super) fn of(took: &[Duration], elapsed: Duration) -> Self {
        let seconds: Vec<f64> = took.iter().map(Duration::as_secs_f64).collect();
        let count = seconds.len().max(1) as f64;
        let mean = seconds.iter().sum::<f64>() / count;
        let variance = seconds.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / count;
        Self {
            per_second: seconds.len() as f64 / elapsed.as_secs_f64().max(f64::EPSILON),
            slowest_s: seconds.iter().copied().fold(0.0, f64::max),
            stddev_s: variance.sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_figures() {
        let took = [2, 4, 4, 4, 5, 5, 7, 9].map(Duration::from_secs);
        let figures = Statistics::of(&took, Duration::from_secs(4));
        assert_eq!(
            (figures.per_second, figures.slowest_s, figures.stddev_s),
            (2.0, 9.0, 2.0)
        );
        let none = Statistics::of(&[], Duration::ZERO);
        assert_eq!((none.per_second, none.slowest_s, none.stddev_s), (0.0, 0.0, 0.0));
    }
}
