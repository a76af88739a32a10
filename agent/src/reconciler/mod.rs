//! The reconciler: keeps this host's Incus as the documents say, and says what it sees.
//!
//! Three tasks, which the server starts. [`Reconciler`] runs passes, one at a time: read the documents from the local
//! applied state (`desired`, `stored`), look at Incus (`observe`), plan (`plan`, pure), hand the steps to one worker
//! per object (`engine`, `execute`, `backoff`), write status where it changed (`status`). Passes are started by
//! `trigger`. Services and files, which are no objects of Incus, are observed, planned and carried out in `services`,
//! within the same passes. [`Alive`] keeps this host's key on its lease, [`Inventory`] says what its Incus has.
//! [`Preview`] plans for people, and carries nothing out. [`Scheduler`] puts instances on hosts, on the Raft leader's
//! member alone.
//!
//! What it must not do:
//! - delete or change what it did not make: `ownership` decides that from keys on the object alone;
//! - delete anything on a view that a quorum did not confirm, or more than a few things at once;
//! - decide while executing: a step is data, and an error leads to a new look, never to a guess;
//! - be woken by its own status, or call the API module.
//!
//! It works without a quorum, from the local applied state: status waits, deletions wait, the rest goes on.

mod alive;
mod backoff;
mod backups;
mod desired;
mod engine;
mod execute;
mod inventory;
mod observe;
mod ownership;
mod placement;
mod plan;
mod preview;
mod restart;
mod secrets;
mod services;
mod status;
mod step;
mod stored;
mod task;
mod trigger;

pub use alive::{Alive, HostAlive};
pub use inventory::Inventory;
pub use placement::{Fencer, Held, Mover, Moves, Scheduler};
pub use preview::Preview;
pub use restart::{Boot, OnRestart};
pub use services::Hands;
pub(crate) use stored::read_prefix;
pub use task::Reconciler;

/// Who this host is.
#[derive(Clone, Debug)]
pub struct ReconcilerOptions {
    /// The host's name, as documents name it: the member's.
    pub host: String,
    /// Whose machine it is. Empty: not said.
    pub provider: String,
    /// Where the host can be reached, for people and other hosts.
    pub addresses: Vec<String>,
}

#[cfg(test)]
mod tests;
