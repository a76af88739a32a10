//! A running command, its output collected as it comes.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Releasing a lock or resigning takes a few requests; what takes longer than this is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A child process; it is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Job {
    child: Child,
    printed: watch::Receiver<Vec<String>>,
    stdout: JoinHandle<()>,
    stderr: JoinHandle<String>,
    /// Kept open where the command would take the end of its input for a word to stop.
    input: Option<ChildStdin>,
    timeout: Duration,
}

impl Job {
    /// Starts it and writes its input, which ends there unless it is `held`.
    pub(crate) async fn start(mut command: Command, input: &str, held: bool, timeout: Duration) -> Job {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("start a command");
        let mut stdin = child.stdin.take().expect("its input");
        // A command that refuses its arguments has ended before it reads.
        let _ = stdin.write_all(input.as_bytes()).await;
        let (print, printed) = watch::channel(Vec::new());
        let mut lines = BufReader::new(child.stdout.take().expect("its output"));
        let stdout = tokio::spawn(async move {
            let mut line = Vec::new();
            while lines
                .read_until(b'\n', &mut line)
                .await
                .is_ok_and(|read| read > 0)
            {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                print.send_modify(|printed| printed.push(text));
                line.clear();
            }
        });
        let mut errors = child.stderr.take().expect("its errors");
        let stderr = tokio::spawn(async move {
            let mut text = Vec::new();
            let _ = errors.read_to_end(&mut text).await;
            String::from_utf8_lossy(&text).into_owned()
        });
        Job {
            child,
            printed,
            stdout,
            stderr,
            input: held.then_some(stdin),
            timeout,
        }
    }

    /// Waits until it has printed so many lines; fewer, where it ends before.
    pub(crate) async fn lines(&mut self, count: usize) -> Result<Vec<String>, String> {
        let enough = self.printed.wait_for(|printed| printed.len() >= count);
        let waited = tokio::time::timeout(self.timeout, enough).await.map(drop);
        let printed = self.printed.borrow();
        match waited {
            Ok(()) => Ok(printed.iter().take(count).cloned().collect()),
            Err(_) => Err(format!(
                "{}\n(no more within {:?})",
                printed.join("\n"),
                self.timeout
            )),
        }
    }

    /// Waits for its end: all it printed, errors last, and its exit code.
    pub(crate) async fn finish(mut self) -> (String, Option<i32>) {
        drop(self.input.take());
        let status = tokio::time::timeout(self.timeout, self.child.wait()).await;
        let Ok(status) = status else {
            // The answer says so; the process is gone either way.
            let _ = self.child.kill().await;
            let printed = self.collect().await;
            return (format!("{printed}(no end after its time)"), None);
        };
        let code = status.ok().and_then(|status: ExitStatus| status.code());
        (self.collect().await, Some(code.unwrap_or(-1)))
    }

    async fn collect(self) -> String {
        let _ = self.stdout.await;
        let mut text = String::new();
        for line in self.printed.borrow().iter() {
            text.push_str(line);
            text.push('\n');
        }
        text + &self.stderr.await.unwrap_or_default()
    }

    /// SIGTERM, upon which it lets go of what it holds, and waits for its end.
    pub(crate) async fn stop(mut self) -> (String, Option<i32>) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended already.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        self.timeout = STOP_TIMEOUT;
        self.finish().await
    }
}
