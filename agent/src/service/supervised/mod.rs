//! Services as processes of this agent, for a host without systemd.
//!
//! [`Supervisor`] is the task, which the server starts; [`Supervised`] asks it. Each service has a folder below the
//! member's data directory with its record (what is run, and as which process) and its log. A process is started in a
//! group of its own, is started again when it ends (at once at first, then at most once a minute), and is stopped with
//! its whole group: SIGTERM, and SIGKILL ten seconds later.
//!
//! **An agent that ends leaves the processes running, and the next one adopts them**, by process id, moment of birth and
//! boot: the restart of an agent is no reason for an outage, as it is none for instances. One that was killed before it wrote
//! down what it had started left a mark in that process' environment, by which it is found. So a process writes to its log
//! itself, which is cut from outside when it grows; and of an adopted process that ends nobody learns the exit code, so
//! it counts as failed. What a process left behind in its group when it ended is killed before it is started again.

mod child;
mod keeper;
mod log;
mod proc;
mod record;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Activity, Definition, Loaded, ServiceError, UnitSeen};
use crate::shutdown::Shutdown;
use keeper::{Keeper, State};
pub(crate) use proc::{Identity, boot};
use record::Record;

/// Orders that wait; the caller of one more waits with it.
const ORDERS_MAX: usize = 16;
/// Services are stopped one after the other, each killed in the end.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// Asks the supervisor. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Supervised {
    dir: PathBuf,
    orders: mpsc::Sender<Order>,
    services: Services,
    changed: Arc<Notify>,
}

/// Keeps the services of this host running.
#[derive(Debug)]
pub struct Supervisor {
    dir: PathBuf,
    orders: mpsc::Receiver<Order>,
    services: Services,
    changed: Arc<Notify>,
    /// From before, and not begun yet.
    found: Vec<Keeper>,
    keepers: JoinSet<()>,
}

/// Changed by the supervisor only; looking waits for nobody.
type Services = Arc<Mutex<HashMap<String, Service>>>;

/// One service, as far as the supervisor itself knows it.
#[derive(Clone, Debug)]
struct Service {
    stop: CancellationToken,
    state: watch::Receiver<State>,
}

#[derive(Debug)]
enum Order {
    Start(Definition, oneshot::Sender<Result<(), ServiceError>>),
    Stop(String, oneshot::Sender<Result<(), ServiceError>>),
}

impl Supervised {
    /// Runs this, in place of whatever runs under its name.
    ///
    /// # Errors
    /// When the supervisor has stopped, or what runs does not end.
    pub async fn start(&self, definition: Definition) -> Result<(), ServiceError> {
        self.ask(|answer| Order::Start(definition, answer)).await?
    }

    /// Stops it and forgets it, with its log.
    ///
    /// # Errors
    /// As for [`Supervised::start`].
    pub async fn stop(&self, name: &str) -> Result<(), ServiceError> {
        self.ask(|answer| Order::Stop(name.to_owned(), answer)).await?
    }

    /// How it is.
    #[must_use]
    pub fn look(&self, name: &str) -> UnitSeen {
        let Some(state) = self
            .services
            .lock()
            .get(name)
            .map(|service| service.state.borrow().clone())
        else {
            return UnitSeen::missing();
        };
        let with_last_line = |detail: String| match log::last_line(&self.dir.join(name)) {
            Some(line) if detail.is_empty() => line,
            Some(line) => format!("{detail}: {line}"),
            None => detail,
        };
        let (activity, detail) = match state {
            State::Starting => (Activity::Starting, String::new()),
            State::Waiting(why) => (Activity::Restarting, with_last_line(why)),
            State::Running(_) => (Activity::Active, String::new()),
            State::Ended { success: true, why } => (Activity::Inactive, why),
            State::Ended { success: false, why } => (Activity::Failed, with_last_line(why)),
            State::Stopped => (Activity::Inactive, String::new()),
            State::Stuck(pid) => (
                Activity::Stopping,
                format!("the group of process {pid} was killed and is still there"),
            ),
        };
        UnitSeen {
            loaded: Loaded::From(String::new()),
            enabled: None,
            activity,
            detail,
        }
    }

    /// Something started or ended since this was last waited for.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, ServiceError> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.orders.send(order(answer)).await.ok()?;
            answered.await.ok()
        };
        match tokio::time::timeout(ANSWER_LIMIT, asked).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(ServiceError::Supervised("the agent is stopping".to_owned())),
            Err(_) => Err(ServiceError::Supervised(format!(
                "no answer within {} s",
                ANSWER_LIMIT.as_secs()
            ))),
        }
    }
}

impl Supervisor {
    /// For the services whose folders are in `dir`. They are known from now on, and kept once this runs.
    #[must_use]
    pub fn new(dir: &Path) -> (Supervisor, Supervised) {
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        let (services, changed) = (Services::default(), Arc::new(Notify::new()));
        let mut supervisor = Supervisor {
            dir: dir.to_owned(),
            orders,
            services: Arc::clone(&services),
            changed: Arc::clone(&changed),
            found: Vec::new(),
            keepers: JoinSet::new(),
        };
        for (folder, record) in record::read_all(dir) {
            let keeper = supervisor.keeper(&folder, record);
            supervisor.found.push(keeper);
        }
        let supervised = Supervised {
            dir: dir.to_owned(),
            orders: sender,
            services,
            changed,
        };
        (supervisor, supervised)
    }

    /// Runs until shutdown, and leaves the processes to the next one.
    pub async fn run(mut self, shutdown: Shutdown) {
        for keeper in self.found.drain(..) {
            self.keepers.spawn(keeper.run());
        }
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                order = self.orders.recv() => match order {
                    Some(order) => self.take(order).await,
                    None => break,
                },
                Some(ended) = self.keepers.join_next() => if let Err(error) = ended {
                    warn!(%error, "the keeper of a service stopped");
                },
            }
        }
        self.keepers.shutdown().await;
    }

    async fn take(&mut self, order: Order) {
        // Whoever asked may have gone: what was ordered is done all the same.
        match order {
            Order::Start(definition, answer) => {
                let started = self.start(definition).await;
                let _ = answer.send(started);
            }
            Order::Stop(name, answer) => {
                let stopped = self.stop(&name).await;
                let _ = answer.send(stopped);
            }
        }
    }

    async fn start(&mut self, definition: Definition) -> Result<(), ServiceError> {
        let folder = self.dir.join(&definition.name);
        self.end(&definition.name).await?;
        let record = Record::new(definition);
        record.write(&folder).map_err(|error| {
            ServiceError::Supervised(format!("cannot write {}: {error}", folder.display()))
        })?;
        let keeper = self.keeper(&folder, record);
        self.keepers.spawn(keeper.run());
        Ok(())
    }

    async fn stop(&mut self, name: &str) -> Result<(), ServiceError> {
        self.end(name).await?;
        let folder = self.dir.join(name);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(ServiceError::Supervised(
                format!("cannot remove {}: {error}", folder.display()),
            )),
            _ => Ok(()),
        }
    }

    /// Stops the process, if there is one, and waits until it is gone. One that cannot be killed keeps its keeper, which
    /// goes on trying.
    async fn end(&mut self, name: &str) -> Result<(), ServiceError> {
        let service = self.services.lock().get(name).cloned();
        let Some(mut service) = service else {
            return Ok(());
        };
        service.stop.cancel();
        let ended = service
            .state
            .wait_for(|state| matches!(state, State::Stopped | State::Stuck(_)))
            .await;
        // A keeper that is gone has nothing left to stop.
        if ended.is_ok_and(|state| *state != State::Stopped) {
            return Err(ServiceError::StillThere {
                service: name.to_owned(),
                waited_seconds: child::KILL_LIMIT.as_secs(),
            });
        }
        self.services.lock().remove(name);
        Ok(())
    }

    fn keeper(&mut self, folder: &Path, record: Record) -> Keeper {
        let stop = CancellationToken::new();
        let (says, state) = watch::channel(State::Starting);
        let name = record.definition.name.clone();
        let keeper = Keeper::new(folder, record, stop.clone(), says, Arc::clone(&self.changed));
        self.services.lock().insert(name, Service { stop, state });
        keeper
    }
}

#[cfg(test)]
mod tests;
