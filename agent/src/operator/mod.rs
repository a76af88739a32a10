//! What a person asks of this host at once: its instances as they are, switching them, snapshots, sessions in them,
//! and what documents would change here.
//!
//! [`Operator`] does it with the local Incus. Who may ask is decided before, by the member that was asked; which host
//! is meant, too. It must not write documents, and it must not undo what they say for longer than the reconciler
//! needs to notice. It knows no gRPC: `api` serves it to clients, `peer` to the other members.

mod address;
mod backups;
mod error;
mod export;
mod instances;
mod planner;
mod session;
mod tunnel;

use std::sync::Arc;
use std::time::Duration;

use proto::peer::host_outcome::Outcome;
use proto::peer::host_task::Task;
use tokio::sync::Semaphore;

use crate::attended::{Attendance, Attended};
use crate::backup::Keeper;
use crate::document::Kind;
use crate::incus::Incus;

pub use error::{Failure, OperatorError};
pub use export::Exported;
pub(crate) use instances::patience;
pub use planner::Planner;
pub(crate) use planner::key as document_key;
pub use session::{Answers, Requests, SESSION_QUEUE};

/// Sessions at once on one host.
const SESSIONS: usize = 256;
/// Connections through tunnels to instances of one host.
const CONNECTIONS: usize = 512;
/// A list is for a person who waits.
const LIST_LIMIT: Duration = Duration::from_secs(10);

/// Does on this host what is asked of it.
#[derive(Debug)]
pub struct Operator {
    host: String,
    /// As ownership is written on objects.
    cluster: String,
    incus: Option<Incus>,
    /// `None` where nothing is reconciled.
    planner: Option<Arc<dyn Planner>>,
    /// `None` where nothing is backed up.
    keeper: Option<Arc<Keeper>>,
    attended: Attended,
    sessions: Semaphore,
    connections: Semaphore,
}

impl Operator {
    #[must_use]
    pub fn new(
        host: &str,
        cluster_id: u64,
        incus: Option<Incus>,
        planner: Option<Arc<dyn Planner>>,
        keeper: Option<Arc<Keeper>>,
        attended: Attended,
    ) -> Operator {
        Operator {
            host: host.to_owned(),
            cluster: format!("{cluster_id:x}"),
            incus,
            planner,
            keeper,
            attended,
            sessions: Semaphore::new(SESSIONS),
            connections: Semaphore::new(CONNECTIONS),
        }
    }

    /// Does one thing. What changes something may have been done although an error is returned, where that says so.
    ///
    /// # Errors
    /// See [`OperatorError`].
    pub async fn perform(&self, task: Task) -> Result<Outcome, OperatorError> {
        self.perform_here(task)
            .await
            .map_err(|error| match error.failure {
                // Whoever asked may not know which host it came to.
                Failure::Unreachable | Failure::TimedOut => {
                    OperatorError::new(error.failure, format!("host {}: {}", self.host, error.message))
                }
                _ => error,
            })
    }

    async fn perform_here(&self, task: Task) -> Result<Outcome, OperatorError> {
        match task {
            Task::ListInstances(request) => {
                let listed = tokio::time::timeout(LIST_LIMIT, self.list(&request)).await;
                let late = |_| OperatorError::new(Failure::TimedOut, "no answer from Incus in time");
                listed.map_err(late)?.map(Outcome::Instances)
            }
            Task::SwitchInstance(request) => self.switch(&request).await.map(Outcome::Switched),
            Task::CreateSnapshot(request) => {
                self.create_snapshot(&request).await.map(Outcome::SnapshotCreated)
            }
            Task::ListSnapshots(request) => self.snapshots(&request).await.map(Outcome::Snapshots),
            Task::RestoreSnapshot(request) => self.restore(&request).await.map(Outcome::Restored),
            Task::Plan(request) => self.plan(&request).await.map(Outcome::Planned),
            Task::ReadLive(request) => self.read_live(&request).await.map(Outcome::Live),
            Task::Claim(request) => self.claim(&request).await.map(Outcome::Claimed),
            Task::ListBackups(request) => Ok(Outcome::Backups(self.list_backups(&request))),
            Task::BackUp(request) => self.back_up(&request).await.map(Outcome::BackedUp),
            Task::RestoreBackup(request) => self.restore_backup(&request).await.map(Outcome::BackupRestored),
            // `peer` does it: it takes another host.
            Task::FetchBackup(_) => Err(OperatorError::new(
                Failure::Unsupported,
                "nothing is fetched here",
            )),
        }
    }

    /// Takes an instance out of the reconciler's hands, while a command is at work on it.
    async fn attend(
        &self,
        (tenant, name): (&str, &str),
        what: &'static str,
    ) -> Result<Attendance, OperatorError> {
        let key = planner::key(Kind::Instance.singular(), tenant, name)?;
        Ok(self.attended.attend(&key, what).await?)
    }

    fn incus(&self) -> Result<&Incus, OperatorError> {
        self.incus.as_ref().ok_or_else(|| {
            OperatorError::new(
                Failure::NoIncus,
                format!(
                    "host {} has no Incus: its agent runs with --incus-socket none",
                    self.host
                ),
            )
        })
    }
}
