//! One member's process: started, ended, and noticed when it ends by itself.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// How much of a log's end is shown.
const TAIL_BYTES: u64 = 4 << 10;
const TAIL_LINES: usize = 12;

/// How to end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// SIGTERM: it hands over and finishes.
    Drain,
    /// SIGKILL: as if its provider were gone.
    Kill,
}

/// A process ended, whoever wanted it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    /// Which member, in the layout's order.
    pub(super) index: usize,
    pub(super) status: Option<ExitStatus>,
}

/// The running process. The task behind it owns the child, so that a signal never goes to a process id that has
/// become somebody else's.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) pid: u32,
    end: mpsc::Sender<End>,
}

impl Running {
    /// Starts `agent run` with the arguments; its end is told to `ended`.
    pub(super) fn start(
        index: usize,
        executable: &Path,
        arguments: &[String],
        log: &Path,
        ended: mpsc::Sender<Ended>,
    ) -> io::Result<Self> {
        let out = OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = Command::new(executable);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        // Ctrl-C in the terminal is for us alone: the members are drained in order.
        command.process_group(0).kill_on_drop(true);
        // Variables that set flags would set them for all three.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AGENT_"))
        {
            command.env_remove(name);
        }
        let child = command.spawn()?;
        let pid = child
            .id()
            .ok_or_else(|| io::Error::other("the process has no id"))?;
        let (end, orders) = mpsc::channel(4);
        tokio::spawn(watch(index, child, pid, orders, ended));
        Ok(Self { pid, end })
    }

    /// Tells it to end. That it has is told by [`Ended`].
    pub(super) fn end(&self, how: End) {
        // A full or closed channel: it was told often enough, or is gone.
        let _ = self.end.try_send(how);
    }
}

async fn watch(
    index: usize,
    mut child: Child,
    pid: u32,
    mut orders: mpsc::Receiver<End>,
    ended: mpsc::Sender<Ended>,
) {
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.ok(),
            order = orders.recv() => match order {
                Some(End::Drain) => terminate(pid),
                // Dropped without an order: nobody is left to want it.
                Some(End::Kill) | None => {
                    let _ = child.start_kill();
                    break child.wait().await.ok();
                }
            },
        }
    };
    let _ = ended.send(Ended { index, status }).await;
}

/// The child is not yet waited for, so the process id is still its own.
fn terminate(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
}

/// The last lines of a log, indented.
pub(super) fn tail(log: &Path) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    if last.is_empty() {
        "  (it is empty)".to_owned()
    } else {
        format!("  {}", last.join("\n  "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str, log: &Path) -> (Running, mpsc::Receiver<Ended>) {
        let (ended, ends) = mpsc::channel(1);
        let arguments = ["-c".to_owned(), script.to_owned()];
        (
            Running::start(7, Path::new("/bin/sh"), &arguments, log, ended).unwrap(),
            ends,
        )
    }

    #[tokio::test]
    async fn an_end_is_told_and_the_log_has_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let (_running, mut ends) = start("for i in $(seq 20); do echo line $i >&2; done; exit 3", &log);
        let ended = ends.recv().await.unwrap();
        assert_eq!(
            (ended.index, ended.status.and_then(|status| status.code())),
            (7, Some(3))
        );
        let tail = tail(&log);
        assert!(
            tail.starts_with("  line 9\n") && tail.ends_with("  line 20"),
            "{tail}"
        );
    }

    #[tokio::test]
    async fn it_ends_when_told() {
        let dir = tempfile::tempdir().unwrap();
        for (how, signal) in [(End::Drain, 15), (End::Kill, 9)] {
            let (running, mut ends) = start("exec cat /dev/zero >/dev/null", &dir.path().join("log"));
            running.end(how);
            let status = ends.recv().await.unwrap().status.unwrap();
            assert_eq!(
                std::os::unix::process::ExitStatusExt::signal(&status),
                Some(signal)
            );
        }
    }
}
