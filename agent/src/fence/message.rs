//! What the agent and the guard say to each other: one line of JSON there, one back, on a socket that only root can open.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Thousands of instances.
const LINE_LIMIT_BYTES: u64 = 4 << 20;

/// The socket, in the guard's folder.
pub(super) const SOCKET: &str = "guard.sock";

/// An instance, as Incus calls it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Name {
    pub(crate) project: String,
    pub(crate) name: String,
}

/// Every instance that the guard is to have. What it has beside these it lets go of.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Feed {
    pub(super) holds: Vec<Hold>,
}

/// One instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hold {
    #[serde(flatten)]
    pub(crate) instance: Name,
    /// It may run until then. `None`: its deadline stays what it was.
    pub(crate) until: Option<Boottime>,
}

/// The instances that may run until the deadline which the feed gave them.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) held: Vec<Name>,
}

/// Milliseconds since the machine was booted, those that it slept counted: the same for all its processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Boottime(u64);

impl Boottime {
    /// Before every other: a deadline that has passed.
    pub(super) const LONG_AGO: Boottime = Boottime(0);

    pub(crate) fn now() -> Boottime {
        // Linux has had this clock since 2.6.39; without it nothing is held.
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
        now.map_or(Boottime(u64::MAX), |now| {
            Boottime(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
        })
    }

    pub(crate) fn after(self, time: Duration) -> Boottime {
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Boottime(self.0.saturating_add(time))
    }

    /// Zero, once it has passed.
    pub(crate) fn left(self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(Boottime::now().0))
    }

    pub(crate) fn has_passed(self) -> bool {
        self <= Boottime::now()
    }
}

pub(super) async fn write<T: Serialize>(stream: &mut UnixStream, message: &T) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

pub(super) async fn read<T: for<'a> Deserialize<'a>>(stream: &mut UnixStream) -> std::io::Result<T> {
    let mut line = Vec::new();
    let mut limited = BufReader::new(stream.take(LINE_LIMIT_BYTES));
    limited.read_until(b'\n', &mut line).await?;
    Ok(serde_json::from_slice(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_passes() {
        let now = Boottime::now();
        assert!(now.has_passed() && Boottime::LONG_AGO.has_passed());
        let later = now.after(Duration::from_secs(1_000));
        assert!(!later.has_passed());
        assert!(later.left() > Duration::from_secs(900));
        assert_eq!(now.left(), Duration::ZERO);
    }
}
