//! Backups: snapshots and exports by schedule, of what is on this host, and copies of the other hosts' exports.
//!
//! [`Keeper`] makes and prunes them, and makes instances of them (`restore`); [`Store`] has the files, with a checksum beside each;
//! [`BackupTask`] does what documents of kind backup ask for when it is due, and fetches copies from other hosts. When
//! something was done last is read off what there is: no clock stands still while an agent is down, and what was due
//! meanwhile is done once.
//!
//! What it must not do:
//! - delete a snapshot or a file that no schedule made: the name of a snapshot says which did, a file's companion too;
//! - delete the newest one, whatever the document says, or any of a document that is gone;
//! - put a backup over an instance that is there, unless a person says so, and then what was there stays beside it;
//! - change Incus' own `snapshots.schedule`, or its snapshots.

mod board;
mod keeper;
mod restore;
mod restore_volume;
mod store;
mod task;

pub use board::Board;
pub(crate) use board::Said;
pub use keeper::{KeepError, Keeper};
pub use restore::Restore;
pub use store::{Backup, Incoming, Store, StoreError};
pub use task::BackupTask;
