//! openraft's view of the store: applies committed entries, builds and installs snapshots.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures::{FutureExt, Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use proto::replicated::Reply;
use thiserror::Error;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::apply::Applier;
use crate::backend::{Backend, BackendError, catch_damage};
use crate::migrate::MigrateError;
use crate::raft_types::{Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig};
use crate::snapshot::{Snapshot, SnapshotBuilder, SnapshotFile, Snapshots, build_state, empty_state};
use crate::state::State;
use crate::state_dir::StateDir;
use crate::stopwatch::{DiskWork, Stopwatch, Timed};
use crate::store::{Shared, Store};
use crate::watch::Publisher;

/// The most entries, and bytes of entries, that are applied as one chunk.
const CHUNK_ENTRIES: usize = 1_024;
const CHUNK_BYTES: usize = 4 << 20;
/// A chunk that is larger gives the other tasks of its thread a chance to move.
const QUICK_ENTRIES: usize = 64;
const QUICK_BYTES: usize = 256 << 10;

/// Where the store lives and how much it may hold.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The folder of sled's directories, the `CURRENT` pointer and the snapshots.
    pub dir: PathBuf,
    /// sled's page cache, in bytes.
    pub cache_bytes: u64,
    /// Events kept for one watcher that reads slower than writes arrive; past that it catches up from history.
    pub watch_buffer_events: usize,
}

/// The one writer of a [`Store`].
pub struct StateMachine {
    options: StoreOptions,
    state_dir: StateDir,
    shared: Arc<Shared>,
    applier: Applier,
    publisher: Publisher,
    /// A storage failure leaves memory ahead of the disk: nothing may be applied on top of it.
    timed: Timed,
    failed: bool,
}

/// Why a store was not opened.
#[derive(Debug, Error)]
pub enum OpenStoreError {
    /// The disk, or the operating system, said no.
    #[error("cannot open the store in {path}")]
    Io { path: PathBuf, source: io::Error },
    /// It was written by a later version. Nothing was changed.
    #[error("the store in {path} has format {found}, which is newer than this version reads")]
    NewerFormat { path: PathBuf, found: u32 },
}

impl std::fmt::Debug for StateMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateMachine")
            .field("dir", &self.options.dir)
            .finish_non_exhaustive()
    }
}

impl StateMachine {
    /// Opens or creates the store. A sled directory that does not open or verify is discarded and rebuilt from
    /// the last snapshot (and then, by openraft, from the log).
    ///
    /// # Errors
    /// See [`OpenStoreError`].
    pub fn open(options: StoreOptions) -> Result<(StateMachine, Store), OpenStoreError> {
        let failed = |source| OpenStoreError::Io {
            path: options.dir.clone(),
            source,
        };
        let state_dir = StateDir::open(&options.dir).map_err(failed)?;
        let snapshots = Snapshots::open(options.dir.join("snapshots")).map_err(failed)?;
        let state = Arc::new(open_state(&options, &state_dir, &snapshots)?);
        let (shared, publisher) = Shared::new(Arc::clone(&state), snapshots, options.watch_buffer_events);
        let applier = Applier::new(state);
        let store = Store::new(Arc::clone(&shared));
        let machine = StateMachine {
            options,
            state_dir,
            shared,
            applier,
            publisher,
            timed: Timed::default(),
            failed: false,
        };
        machine.shared.resume();
        Ok((machine, store))
    }

    /// Measures every batch from now on.
    pub fn time_with(&self, stopwatch: Arc<dyn Stopwatch>) {
        self.timed.with(stopwatch);
    }

    fn apply_chunk(&mut self, chunk: Chunk) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("the store failed before"));
        }
        let quick = chunk.items.len() <= QUICK_ENTRIES && chunk.bytes <= QUICK_BYTES;
        let entries = chunk.items.iter().map(|(entry, _)| entry);
        let replies = if quick {
            self.apply_entries(entries)
        } else {
            blocking(|| self.apply_entries(entries))
        };
        let replies = replies.inspect_err(|_| self.failed = true)?;
        for ((_, responder), reply) in chunk.items.into_iter().zip(replies) {
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    /// One batch, one publication.
    fn apply_entries<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a Entry>,
    ) -> Result<Vec<Reply>, BackendError> {
        self.applier.begin(&self.publisher);
        let replies = entries
            .map(|entry| self.applier.apply(entry))
            .collect::<Result<_, _>>()?;
        let committed = self
            .timed
            .run(DiskWork::StoreCommit, || self.applier.commit(&self.publisher))?;
        self.shared.applied(committed);
        for point in self.applier.take_hash_points() {
            self.shared.offer_hash_point(point);
        }
        Ok(replies)
    }

    fn install(&mut self, snapshot: &SnapshotFile) -> io::Result<()> {
        // Kept first: after a crash in between, openraft finds it and installs it again.
        let snapshot = self.shared.snapshots.keep_installed(snapshot)?;
        let state = Arc::new(build_state(&self.state_dir, &snapshot, self.options.cache_bytes)?);
        self.applier = Applier::new(Arc::clone(&state));
        let old = self.shared.replace(Arc::clone(&state));
        let revision = state.published.read().revision;
        self.publisher.reset(revision);
        old.sweeper.stop();
        old.backend.retire();
        tracing::info!(path = %snapshot.path().display(), revision, "snapshot installed");
        Ok(())
    }
}

impl Drop for StateMachine {
    fn drop(&mut self) {
        self.shared.state().sweeper.stop();
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applier.applied(), self.applier.membership().clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(first) = entries.next().await {
            let mut chunk = Chunk::default();
            chunk.push(first?);
            // What is there already is applied together; nothing waits for company.
            let mut failure = None;
            while chunk.has_room() {
                match entries.next().now_or_never() {
                    Some(Some(Ok(item))) => chunk.push(item),
                    Some(Some(Err(error))) => {
                        failure = Some(error);
                        break;
                    }
                    Some(None) | None => break,
                }
            }
            self.apply_chunk(chunk)?;
            if let Some(error) = failure {
                return Err(error);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder::new(Arc::clone(&self.shared.snapshots), self.shared.state())
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        // Not `meta`: the file's own was verified with the file.
        blocking(|| self.install(&snapshot)).inspect_err(|_| self.failed = true)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let current = self.shared.snapshots.current();
        Ok(current.map(|file| Snapshot {
            meta: file.meta().clone(),
            snapshot: file,
        }))
    }
}

/// Entries that are applied together, and who waits for each.
#[derive(Default)]
struct Chunk {
    items: Vec<EntryResponder<TypeConfig>>,
    bytes: usize,
}

impl Chunk {
    fn push(&mut self, item: EntryResponder<TypeConfig>) {
        if let EntryPayload::Normal(command) = &item.0.payload {
            self.bytes += command.0.len();
        }
        self.items.push(item);
    }

    fn has_room(&self) -> bool {
        self.items.len() < CHUNK_ENTRIES && self.bytes < CHUNK_BYTES
    }
}

/// Runs what takes long where it holds up no other task.
fn blocking<R>(work: impl FnOnce() -> R) -> R {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

fn open_state(
    options: &StoreOptions,
    state_dir: &StateDir,
    snapshots: &Snapshots,
) -> Result<State, OpenStoreError> {
    let failed = |source| OpenStoreError::Io {
        path: options.dir.clone(),
        source,
    };
    let Some(folder) = state_dir.current().map_err(failed)? else {
        return empty_state(state_dir, options.cache_bytes).map_err(failed);
    };
    let loaded = catch_damage(&folder, || {
        State::load(Backend::open(&folder, options.cache_bytes)?)
    });
    let damage = match loaded {
        Ok(state) => return Ok(state),
        Err(MigrateError::Newer { found }) => {
            return Err(OpenStoreError::NewerFormat { path: folder, found });
        }
        Err(MigrateError::Backend(error @ BackendError::Io { .. })) => return Err(failed(error.into())),
        Err(MigrateError::Backend(damage @ BackendError::Damaged { .. })) => damage,
    };
    let snapshot = snapshots.current();
    tracing::warn!(
        %damage,
        snapshot = snapshot.as_ref().map_or("none".into(), |file| file.path().display().to_string()),
        "the store is discarded and rebuilt from the last snapshot and the log"
    );
    let rebuilt = match snapshot {
        Some(snapshot) => build_state(state_dir, &snapshot, options.cache_bytes),
        None => empty_state(state_dir, options.cache_bytes),
    };
    let state = rebuilt.map_err(failed)?;
    std::fs::remove_dir_all(&folder).map_err(failed)?;
    Ok(state)
}

#[cfg(test)]
pub(crate) mod tests;
