//! Waiting for real conditions, never for time alone.

use std::future::Future;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up on it: far above what it takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(20);

/// Polls until `probe` answers, at most `deadline` long.
///
/// # Errors
/// Says what was waited for.
pub async fn within<T, F>(deadline: Duration, what: &str, mut probe: impl FnMut() -> F) -> Result<T, String>
where
    F: Future<Output = Option<T>>,
{
    let started = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return Ok(found);
        }
        if started.elapsed() > deadline {
            return Err(format!("waited {deadline:?} in vain for {what}"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// [`within`] [`PATIENCE`], or the test fails.
///
/// # Panics
/// When the condition does not come.
pub async fn until<T, F>(what: &str, probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    match within(PATIENCE, what, probe).await {
        Ok(found) => found,
        Err(vain) => panic!("{vain}"),
    }
}
