//! Multi-version concurrency control: every change of every key, readable at every revision since the last
//! compaction.
//!
//! A write puts its records into a batch and its versions into the index, and nobody sees either until apply has
//! written the batch and published the revision. A read takes the published revision, finds in the index which
//! record each key had then, and fetches those. So readers and the writer never wait for one another for longer than
//! one look-up, and a read at a fixed revision is a snapshot.
//!
//! What it must not do: know of leases, of Raft, or of who asks.

mod compaction;
mod hash;
mod history;
mod index;
mod key_index;
mod key_range;
mod read;
pub(crate) mod record;
mod revision;
mod write;

pub(crate) use compaction::{Pin, Sweeper};
pub(crate) use hash::hash;
pub(crate) use history::events;
pub(crate) use index::Index;
pub(crate) use key_index::{Version, Visible};
pub(crate) use key_range::KeyRange;
pub(crate) use read::{ReadFailure, View};
pub(crate) use revision::Revision;
pub(crate) use write::{WriteTxn, Writer};
