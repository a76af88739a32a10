//! The process as the kernel sees it, under Prometheus' usual names.

use std::fs;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// `/proc/PID/stat` counts in these on every Linux that we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Registers what can be read; what cannot is left out rather than reported as 0.
pub(super) fn register(registry: &mut Registry, started_seconds: f64) {
    registry.register(
        "process_start_time_seconds",
        "When the process started",
        float(started_seconds),
    );
    if let Some(seconds) = fs::read_to_string("/proc/self/stat")
        .ok()
        .as_deref()
        .and_then(cpu_seconds)
    {
        let counter = Counter::<f64, AtomicU64>::default();
        counter.inc_by(seconds);
        registry.register("process_cpu_seconds", "User and system CPU time", counter);
    }
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        let sizes = [
            ("process_resident_memory_bytes", "Resident memory", "VmRSS:"),
            ("process_virtual_memory_bytes", "Virtual memory", "VmSize:"),
        ];
        for (name, help, field) in sizes {
            if let Some(kibibytes) = number_after(&status, field) {
                registry.register(name, help, whole(kibibytes.saturating_mul(1024)));
            }
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        registry.register(
            "process_open_fds",
            "Open file descriptors",
            whole(open.count() as u64),
        );
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(most) = number_after(&limits, "Max open files") {
        registry.register(
            "process_max_fds",
            "The most file descriptors that may be open",
            whole(most),
        );
    }
}

/// User and system time are fields 14 and 15, but field 2, the name, may hold blanks and brackets.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

/// The first number on the line that starts with `field`.
fn number_after(text: &str, field: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(field))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

fn whole(value: u64) -> Gauge<u64, AtomicU64> {
    let gauge = Gauge::default();
    gauge.set(value);
    gauge
}

fn float(value: f64) -> Gauge<f64, AtomicU64> {
    let gauge = Gauge::default();
    gauge.set(value);
    gauge
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 33 1000 200";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("7 (agent) S 1"), None);
        let limits =
            "Limit  Soft  Hard  Units\nMax open files            1024                 4096        files\n";
        assert_eq!(number_after(limits, "Max open files"), Some(1024));
        assert_eq!(number_after("VmRSS:\t  512 kB\n", "VmRSS:"), Some(512));
        assert_eq!(
            number_after("Max open files  unlimited\n", "Max open files"),
            None
        );
    }
}
