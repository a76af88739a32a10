//! The inventory: everything the local Incus has, ours or not, as keys under `/hosts/HOST/inventory/`.
//!
//! One task, which the server starts. [`schedule`] says when to look at which collections (after events of Incus, and
//! slowly at everything), [`look`] reads them, [`entry`] (pure) says of each object what is worth keeping, and
//! [`difference`] (pure) what is to be written: what changed, in batches, and nothing where nothing did.
//!
//! What it must not do: decide anything (the reconciler looks for itself), write what moves by itself (counters,
//! `volatile.*`) or what may be a secret (user-data, environment), or write without a quorum's agreement on what
//! stands there already. Without a quorum it waits; the last inventory stays.

mod difference;
mod entry;
mod look;
mod schedule;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use raft_store::ReadError;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, warn};

use self::look::Seen;
use self::schedule::Schedule;
use super::ReconcilerOptions;
use super::execute::in_full;
use super::status::StatusWrite;
use super::stored::{self, WriteError};
use crate::document::{InventoryKind, inventory_prefix};
use crate::incus::{Collection, Incus, IncusError};
use crate::node::Node;
use crate::shutdown::Shutdown;

/// How long to ask for a quorum before trying again later.
const READ_INDEX_LIMIT: Duration = Duration::from_secs(5);
const RECONNECT_FIRST: Duration = Duration::from_secs(1);
const RECONNECT_LONGEST: Duration = Duration::from_secs(30);

/// Keeps this host's inventory.
#[derive(Debug)]
pub struct Inventory {
    node: Node,
    incus: Incus,
    host: String,
    cluster: String,
    /// Kinds of which there is more than is kept, as was said in the log.
    too_many: BTreeSet<InventoryKind>,
}

#[derive(Debug, Error)]
enum InventoryError {
    #[error("incus does not tell")]
    Incus(#[from] IncusError),
    #[error("cannot read what was written before")]
    Read(#[from] ReadError),
    #[error("no quorum")]
    NoQuorum,
    #[error("not written")]
    Write(#[from] WriteError),
}

/// What Incus said has changed since it was last looked at.
#[derive(Debug, Default)]
struct Changed {
    collections: Mutex<BTreeSet<Collection>>,
    notify: Notify,
}

impl Inventory {
    #[must_use]
    pub fn new(node: Node, incus: Incus, options: &ReconcilerOptions) -> Inventory {
        Inventory {
            host: options.host.clone(),
            cluster: format!("{:x}", node.cluster_id()),
            too_many: BTreeSet::new(),
            node,
            incus,
        }
    }

    /// Runs until shutdown. The keys stay: they are what this host had when it was last heard.
    pub async fn run(mut self, shutdown: Shutdown) {
        let changed = Arc::new(Changed::default());
        let incus = self.incus.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = follow(&incus, &changed) => {}
            () = self.work(&changed) => {}
        }
    }

    async fn work(&mut self, changed: &Changed) {
        let mut schedule = Schedule::new(Instant::now());
        loop {
            let due = schedule.take(Instant::now());
            match self.look(&due).await {
                Ok(()) => schedule.done(Instant::now()),
                Err(error) => {
                    // As it must be without a quorum or while Incus restarts.
                    debug!(error = in_full(&error), "the inventory is not up to date");
                    schedule.failed(due, Instant::now());
                }
            }
            self.wait(&mut schedule, changed).await;
        }
    }

    async fn wait(&mut self, schedule: &mut Schedule, changed: &Changed) {
        loop {
            let collections = std::mem::take(&mut *changed.collections.lock());
            schedule.changed(collections, Instant::now());
            tokio::select! {
                () = changed.notify.notified() => {}
                () = sleep_until(schedule.next()) => return,
            }
        }
    }

    /// Looks at some collections and writes what is different there.
    async fn look(&mut self, due: &BTreeSet<Collection>) -> Result<(), InventoryError> {
        let seen = look::look(&self.incus, due, &self.host, &self.cluster).await?;
        self.say_too_many(&seen);
        if self.writes(&seen)?.is_empty() {
            return Ok(());
        }
        // Only what the cluster agreed on says what is new: a member that is behind would write it all again.
        match timeout(READ_INDEX_LIMIT, self.node.read_index()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(InventoryError::NoQuorum),
        }
        let writes = self.writes(&seen)?;
        let keys = writes.len();
        stored::write(self.node.clone(), writes).await?;
        debug!(keys, "inventory written");
        Ok(())
    }

    fn writes(&self, seen: &Seen) -> Result<Vec<StatusWrite>, ReadError> {
        let store = self.node.store();
        let stored = stored::read_prefix(store, &inventory_prefix(&self.host), store.revision())?;
        Ok(difference::writes(
            stored.iter().map(|pair| (pair.key.as_ref(), pair.value.as_ref())),
            seen,
        ))
    }

    /// Once, until it is over.
    fn say_too_many(&mut self, seen: &Seen) {
        for kind in &seen.kinds {
            if !seen.too_many.contains(kind) {
                self.too_many.remove(kind);
            } else if self.too_many.insert(*kind) {
                warn!(
                    kind = kind.plural(),
                    kept = look::ENTRIES_MAX,
                    "incus has more of these than the inventory keeps"
                );
            }
        }
    }
}

/// Follows Incus' events, and connects again whenever they end. Nothing is replayed, so everything is looked at after
/// a connection. Never ends.
async fn follow(incus: &Incus, changed: &Changed) {
    let mut wait = RECONNECT_FIRST;
    loop {
        match incus.changes().await {
            Ok(mut changes) => {
                wait = RECONNECT_FIRST;
                changed.mark(Collection::ALL);
                while let Some(Ok(collection)) = changes.next().await {
                    changed.mark([collection]);
                }
            }
            Err(error) => debug!(error = in_full(&error), "cannot follow the events of incus"),
        }
        sleep(wait).await;
        wait = (wait * 2).min(RECONNECT_LONGEST);
    }
}

impl Changed {
    fn mark(&self, collections: impl IntoIterator<Item = Collection>) {
        self.collections.lock().extend(collections);
        self.notify.notify_one();
    }
}
