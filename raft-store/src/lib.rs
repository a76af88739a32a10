//! The replicated core: what one member stores and how a replicated request changes it.
//!
//! Two halves meet in openraft and nowhere else:
//! - [`LogStore`] is the write-ahead log: votes and entries, durable before they are acknowledged;
//! - [`StateMachine`] applies committed entries to an MVCC store in sled and feeds the watch hub. [`Store`] is
//!   its read side: cloneable, and readers never wait for one another.
//!
//! The log and the last snapshot are the authority; sled is rebuildable from them.
//!
//! What this crate must not do: no RPC, no clock, no random numbers, no environment. `sled` is named in
//! `backend.rs` only.

mod apply;
pub mod auth;
mod backend;
pub mod convert;
mod hash_check;
mod join_tokens;
mod lease;
mod log_store;
mod migrate;
mod mvcc;
mod raft_types;
pub mod restore;
mod revocations;
mod schema;
pub mod snapshot;
mod state;
mod state_dir;
mod state_machine;
mod stopwatch;
mod store;
mod txn;
pub mod wal;
pub mod watch;

pub use apply::growth_bytes;
pub use hash_check::HashPoint;
pub use join_tokens::JoinTokens;
pub use lease::{LeaseEvent, LeaseFeed, LeaseNews};
pub use log_store::{LogStore, OpenLogError};
pub use raft_types::{
    Command, Entry, LogId, Membership, Node, NodeId, SnapshotMeta, StoredMembership, TypeConfig, Vote,
};
pub use revocations::Revocations;
pub use snapshot::{SnapshotFile, SnapshotReceiver};
pub use state::RaisedBy;
pub use state_machine::{OpenStoreError, StateMachine, StoreOptions};
pub use stopwatch::{DiskWork, Stopwatch};
pub use store::{HashKv, LeaseInfo, MemberAttributes, RangeResult, ReadError, Store};
