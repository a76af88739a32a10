//! Keeps one service: starts its process, notices its end, starts it again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::child::{self, End, Process};
use super::log;
use super::proc::Identity;
use super::record::Record;

const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A process that ran so long has forgiven what was before.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
const LOG_LOOK: Duration = Duration::from_secs(10);

/// How a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not yet.
    Starting,
    /// To be started again, once it has waited; how it ended.
    Waiting(String),
    Running(i32),
    /// And it is not to be started again.
    Ended {
        success: bool,
        why: String,
    },
    /// Because it was told to.
    Stopped,
    /// Killed, and the group of this process is still there: nothing is started beside it.
    Stuck(i32),
}

#[derive(Debug)]
pub(super) struct Keeper {
    folder: PathBuf,
    record: Record,
    stop: CancellationToken,
    says: watch::Sender<State>,
    changed: Arc<Notify>,
    delay: Duration,
}

impl Keeper {
    pub(super) fn new(
        folder: &Path,
        record: Record,
        stop: CancellationToken,
        says: watch::Sender<State>,
        changed: Arc<Notify>,
    ) -> Keeper {
        Keeper {
            folder: folder.to_owned(),
            record,
            stop,
            says,
            changed,
            delay: FIRST_DELAY,
        }
    }

    /// Runs until it is told to stop. A service that ended for good is still told of until then.
    pub(super) async fn run(mut self) {
        let mut process = self.adopt().await;
        if process.is_none()
            && let Some(success) = self.record.ended
        {
            self.say(State::Ended {
                success,
                why: "ended before the agent was started".to_owned(),
            });
            self.stop.cancelled().await;
        }
        while !self.stop.is_cancelled() {
            let (running, begun) = match process.take() {
                Some(running) => (running, Instant::now()),
                None => match self.begin() {
                    Ok(running) => (running, Instant::now()),
                    Err(error) => {
                        let end = End {
                            success: false,
                            why: format!("cannot start {}: {error}", self.record.definition.exec),
                        };
                        self.after(end).await;
                        continue;
                    }
                },
            };
            self.say(State::Running(running.identity.pid));
            let Some(end) = self.attend(running).await else {
                break;
            };
            if begun.elapsed() >= FORGIVEN_AFTER {
                self.delay = FIRST_DELAY;
            }
            self.after(end).await;
        }
        self.say(State::Stopped);
    }

    /// The process of before, or none and nothing left of it.
    async fn adopt(&mut self) -> Option<Process> {
        let before = self.record.process.clone();
        if let Some(process) = before.clone().and_then(Process::adopt) {
            let pid = process.identity.pid;
            info!(service = self.record.definition.name, pid, "adopted");
            return Some(process);
        }
        if let Some(identity) = before {
            self.clear(&identity).await;
        }
        let process = Process::find(&self.record.definition, &self.folder)?;
        let pid = process.identity.pid;
        info!(service = self.record.definition.name, pid, "found and adopted");
        self.remember(&process);
        Some(process)
    }

    fn begin(&mut self) -> std::io::Result<Process> {
        let process = Process::start(&self.record.definition, &self.folder)?;
        self.remember(&process);
        info!(
            service = self.record.definition.name,
            pid = process.identity.pid,
            "started"
        );
        Ok(process)
    }

    fn remember(&mut self, process: &Process) {
        self.record.process = Some(process.identity.clone());
        if let Err(error) = self.record.write(&self.folder) {
            // The next agent will have to look for it.
            warn!(service = self.record.definition.name, %error, "cannot remember the process");
        }
    }

    /// Waits for the process' own end; `None` once it was stopped instead.
    async fn attend(&self, mut process: Process) -> Option<End> {
        let end = loop {
            tokio::select! {
                end = process.ended() => break end,
                () = self.stop.cancelled() => {
                    while !process.stop().await {
                        self.say_stuck(process.identity.pid);
                    }
                    return None;
                }
                () = tokio::time::sleep(LOG_LOOK) => {
                    if let Err(error) = log::cut(&self.folder, log::LOG_BYTES_MAX) {
                        warn!(service = self.record.definition.name, %error, "cannot cut the log");
                    }
                }
            }
        };
        self.clear(&process.identity).await;
        Some(end)
    }

    /// Returns once nothing is left of the group of a process that ended. Each try takes its time, and is bounded.
    async fn clear(&self, identity: &Identity) {
        while !child::kill_others(identity).await {
            self.say_stuck(identity.pid);
        }
    }

    fn say_stuck(&self, pid: i32) {
        if *self.says.borrow() != State::Stuck(pid) {
            warn!(
                service = self.record.definition.name,
                pid, "killed, and still there: nothing is started beside it"
            );
        }
        self.say(State::Stuck(pid));
    }

    /// Says how it ended, and returns when it is time to start it again, or it was told to stop.
    async fn after(&mut self, end: End) {
        let End { success, why } = end;
        let name = &self.record.definition.name;
        if !self.record.definition.restart.applies(success) {
            info!(service = name, "{why}; it stays so");
            self.record.ended = Some(success);
            if let Err(error) = self.record.write(&self.folder) {
                warn!(service = name, %error, "cannot remember that it ended");
            }
            self.say(State::Ended { success, why });
            self.stop.cancelled().await;
            return;
        }
        warn!(
            service = name,
            delay_ms = self.delay.as_millis(),
            "{why}; it will be started again"
        );
        self.say(State::Waiting(why));
        tokio::select! {
            () = tokio::time::sleep(self.delay) => {}
            () = self.stop.cancelled() => {}
        }
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
    }

    fn say(&self, state: State) {
        self.says.send_replace(state);
        self.changed.notify_one();
    }
}
