//! The task that fetches what moves to this host.
//!
//! A move is asked for in the binding (`moving_to`), and every step is taken by whom it concerns, from what stands there
//! and in Incus, so that each may be repeated by an agent that was killed in between:
//!
//! 1. the host that has the instance stops it, and keeps it stopped (`plan::keep`);
//! 2. this task copies it: into a file, checked by size and checksum, then into Incus;
//! 3. one transaction binds it here, one epoch later. Until then it runs nowhere, and is whole on the old host;
//! 4. the reconciler starts it, as it does with everything that is bound here;
//! 5. this task notes that it arrived, and only then the old host deletes its copy.
//!
//! What fails ends the move: the instance starts again where it was.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use proto::agent::v1::InstanceRef;
use proto::peer::ExportRequest;
use proto::peer::export_chunk::Chunk;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::record::{RecordError, replace};
use crate::document::{Binding, DesiredKey, Phase, Status, rfc3339_utc, status_key};
use crate::incus::{Incus, IncusError, Kind};
use crate::node::Node;
use crate::operator::{Failure, OperatorError};
use crate::peer::Hosts;
use crate::reconciler::desired::{Bound, Desired};
use crate::reconciler::execute::in_full;
use crate::reconciler::observe::Object;
use crate::reconciler::ownership::{self, Owner};
use crate::reconciler::stored;
use crate::shutdown::Shutdown;

/// Between two looks at a move that is under way.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// What may pass (a guest that takes its time to shut down, a host that does not answer) is waited for so long.
const GIVE_UP_AFTER: Duration = Duration::from_secs(90);

/// What a binding asks of the host that an instance moves to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    key: DesiredKey,
    bound: Bound,
}

/// The moves to this host that are not done.
pub(crate) fn moves_to(desired: &Desired, host: &str) -> Vec<Move> {
    let concerns = |binding: &Binding| {
        let comes = binding.moving_to.as_deref() == Some(host) && binding.host != host;
        let settles = binding.host == host && binding.moved_from.is_some() && !binding.arrived;
        comes || settles
    };
    let moves = desired
        .bindings
        .iter()
        .filter(|(_, bound)| concerns(&bound.binding));
    moves
        .map(|(key, bound)| Move {
            key: key.clone(),
            bound: bound.clone(),
        })
        .collect()
}

/// Fetches instances that move here, one at a time.
#[derive(Debug)]
pub struct Mover {
    node: Node,
    incus: Incus,
    hosts: Hosts,
    moves: watch::Receiver<Vec<Move>>,
    /// What has been received of an instance, until Incus has it.
    folder: PathBuf,
    /// When a move was first seen, by its binding's revision.
    since: HashMap<(DesiredKey, i64), Instant>,
}

#[derive(Debug, Error)]
enum MoveError {
    /// Time may help.
    #[error("{0}")]
    Later(String),
    #[error("{0}")]
    Failed(String),
}

impl From<IncusError> for MoveError {
    fn from(error: IncusError) -> MoveError {
        match error {
            IncusError::Unreachable { .. } | IncusError::Timeout { .. } => MoveError::Later(in_full(&error)),
            error => MoveError::Failed(in_full(&error)),
        }
    }
}

impl From<OperatorError> for MoveError {
    fn from(error: OperatorError) -> MoveError {
        match error.failure {
            Failure::Busy | Failure::Unreachable | Failure::TimedOut => MoveError::Later(error.message),
            _ => MoveError::Failed(error.message),
        }
    }
}

impl From<std::io::Error> for MoveError {
    fn from(error: std::io::Error) -> MoveError {
        MoveError::Failed(format!("what was copied cannot be kept: {error}"))
    }
}

impl From<RecordError> for MoveError {
    fn from(error: RecordError) -> MoveError {
        MoveError::Later(in_full(&error))
    }
}

impl Mover {
    #[must_use]
    pub fn new(node: Node, incus: Incus, hosts: Hosts, moves: Moves, folder: PathBuf) -> Mover {
        Mover {
            node,
            incus,
            hosts,
            moves: moves.0,
            folder,
            since: HashMap::new(),
        }
    }

    /// Runs until shutdown. A move that is under way then is taken up by the next start.
    pub async fn run(mut self, shutdown: Shutdown) {
        // What an agent that was killed had received.
        let _ = fs::remove_dir_all(&self.folder).await;
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.work() => {}
        }
    }

    async fn work(&mut self) {
        loop {
            let moves = self.moves.borrow_and_update().clone();
            let now = Instant::now();
            self.since
                .retain(|(key, revision), _| moves.iter().any(|one| one.is(key, *revision)));
            for one in &moves {
                let id = (one.key.clone(), one.bound.revision);
                let since = *self.since.entry(id).or_insert(now);
                self.advance(one, since).await;
            }
            let changed = if moves.is_empty() {
                self.moves.changed().await
            } else {
                timeout(LOOK_AGAIN, self.moves.changed()).await.unwrap_or(Ok(()))
            };
            if changed.is_err() {
                return;
            }
        }
    }

    async fn advance(&self, one: &Move, since: Instant) {
        let binding = &one.bound.binding;
        if binding.host == self.node.name() {
            if self.is_up(one) {
                let arrived = Binding {
                    arrived: true,
                    ..binding.clone()
                };
                self.write(one, &arrived).await;
            }
            return;
        }
        let error = match self.fetch(one).await {
            Ok(()) => {
                info!(instance = one.key.to_string(), from = binding.host, "moved here");
                return;
            }
            Err(MoveError::Later(_)) if since.elapsed() < GIVE_UP_AFTER => return,
            Err(error) => error,
        };
        warn!(instance = one.key.to_string(), from = binding.host, %error, "not moved here");
        let stays = Binding {
            moving_to: None,
            reason: format!("the move to {} failed: {error}", self.node.name()),
            ..binding.clone()
        };
        self.write(one, &stays).await;
    }

    /// Copies the instance and binds it here.
    async fn fetch(&self, one: &Move) -> Result<(), MoveError> {
        let binding = &one.bound.binding;
        let (project, name) = (&one.key.tenant, &one.key.name);
        let request = ExportRequest {
            instance: Some(InstanceRef {
                tenant: project.clone(),
                name: name.clone(),
                host: binding.host.clone(),
            }),
            to: self.node.name().to_owned(),
            daemon: self.incus.server().await?.fingerprint,
        };
        let mut chunks = self.hosts.export(&binding.host, request).await?;
        let same_daemon = match chunks.next().await? {
            Some(Chunk::Start(start)) => start.same_daemon,
            _ => {
                return Err(MoveError::Failed(
                    "the copy does not begin as it should".to_owned(),
                ));
            }
        };
        if same_daemon {
            // Members that share one Incus: the instance is here, and stopped, once the other side has nothing to add.
            if chunks.next().await?.is_some() {
                return Err(MoveError::Failed("more was sent than was asked for".to_owned()));
            }
            return self.bind_here(one).await;
        }
        self.make_room(one).await?;
        fs::create_dir_all(&self.folder).await?;
        let path = self.folder.join(format!("{project}-{name}"));
        let received = self.receive(&path, &mut chunks).await;
        let imported = match received {
            Ok(()) => self.import(one, &path).await,
            Err(error) => Err(error),
        };
        let _ = fs::remove_file(&path).await;
        imported?;
        self.bind_here(one).await
    }

    async fn receive(
        &self,
        path: &std::path::Path,
        chunks: &mut crate::peer::ExportChunks,
    ) -> Result<(), MoveError> {
        let mut file = File::create(path).await?;
        let mut hash = Sha256::new();
        let mut size_bytes = 0_u64;
        loop {
            match chunks.next().await? {
                Some(Chunk::Data(data)) => {
                    hash.update(&data);
                    size_bytes += data.len() as u64;
                    file.write_all(&data).await?;
                }
                Some(Chunk::End(end)) => {
                    file.flush().await?;
                    let is_whole = end.size_bytes == size_bytes && end.sha256 == hash.finalize().as_slice();
                    return if is_whole {
                        Ok(())
                    } else {
                        Err(MoveError::Later("the copy was damaged on its way".to_owned()))
                    };
                }
                Some(Chunk::Start(_)) | None => {
                    return Err(MoveError::Later("the copy ended too soon".to_owned()));
                }
            }
        }
    }

    async fn import(&self, one: &Move, path: &std::path::Path) -> Result<(), MoveError> {
        // An import that an agent began and did not live to see may be in its way for a moment.
        let imported = self
            .incus
            .import_instance(&one.key.tenant, &one.key.name, path)
            .await;
        imported.map_err(|error| MoveError::Later(in_full(&error)))
    }

    /// An instance of that name may be what an earlier attempt left: it names the old host as its maker, and it never
    /// ran here. Any other is somebody's.
    async fn make_room(&self, one: &Move) -> Result<(), MoveError> {
        let (project, name) = (&one.key.tenant, &one.key.name);
        let Some(live) = self.incus.get(Kind::Instance, project, name).await? else {
            return Ok(());
        };
        let config = Object::new(one.key.kind, live.object.clone()).config;
        let cluster = format!("{:x}", self.node.cluster_id());
        let here = self.node.name();
        let is_left_over = match ownership::owner(&config, &cluster, &one.key) {
            Owner::Ours(claim) => claim.host.as_deref() == Some(one.bound.binding.host.as_str()),
            _ => false,
        };
        if !is_left_over || live.status() != "Stopped" {
            return Err(MoveError::Failed(format!(
                "{here} has an instance {name} already: look at it, and delete or rename it"
            )));
        }
        Ok(self.incus.delete(Kind::Instance, project, name).await?)
    }

    async fn bind_here(&self, one: &Move) -> Result<(), MoveError> {
        let before = &one.bound.binding;
        let binding = Binding {
            host: self.node.name().to_owned(),
            epoch: before.epoch + 1,
            since: rfc3339_utc(SystemTime::now()),
            reason: format!("moved from {}", before.host),
            moving_to: None,
            moved_from: Some(before.host.clone()),
            ..Binding::default()
        };
        if replace(&self.node, &one.key, one.bound.revision, &binding).await? {
            return Ok(());
        }
        // Called off, or bound elsewhere meanwhile. What was copied is made room for by the next move.
        Err(MoveError::Later("the binding was changed meanwhile".to_owned()))
    }

    async fn write(&self, one: &Move, binding: &Binding) {
        // Where that is not possible now, the next look tries again.
        if let Err(error) = replace(&self.node, &one.key, one.bound.revision, binding).await {
            tracing::debug!(error = in_full(&error), "a binding was not written");
        }
    }

    /// Whether this host has said, since the instance was bound here, that it is as its document says.
    fn is_up(&self, one: &Move) -> bool {
        let key = status_key(&one.key, self.node.name());
        let Ok(Some(pair)) = stored::read_one(self.node.store(), key.into()) else {
            return false;
        };
        let status = serde_json::from_slice::<Status>(&pair.value).ok();
        let is_up = status.is_some_and(|status| matches!(status.phase, Phase::Ready | Phase::Stopped));
        is_up && pair.mod_revision > one.bound.revision
    }
}

impl Move {
    fn is(&self, key: &DesiredKey, revision: i64) -> bool {
        self.key == *key && self.bound.revision == revision
    }
}

/// What the reconciler sees of the moves to its host.
#[derive(Clone, Debug)]
pub struct Moves(pub(in crate::reconciler) watch::Receiver<Vec<Move>>);
