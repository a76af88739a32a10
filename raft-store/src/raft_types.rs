//! Raft's types as this project sets them.

use std::fmt;

use bytes::Bytes;

/// A member's id: as in etcd, derived from its peer URLs and the cluster token, and never reused.
pub type NodeId = u64;

/// An encoded [`proto::replicated::Request`]: opaque to the log and to replication, decoded only by apply.
#[derive(Clone, PartialEq, Eq)]
pub struct Command(pub Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the bytes: they hold users' values, and log files are not the place for those.
        write!(f, "Command({} bytes)", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What the membership knows of a member. Client URLs are published separately once it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The member's name, which is its host's.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Admitted as a learner, to be made a voter as soon as it has caught up: clients are shown a voter.
    pub to_be_voter: bool,
}

openraft::declare_raft_types!(
    /// The type configuration of our Raft group.
    pub TypeConfig:
        D = Command,
        R = proto::replicated::Reply,
        NodeId = NodeId,
        Node = Node,
);

/// A position in the log: who led when it was appended, and its index.
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// Whom a member voted for, in which term.
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// One log entry.
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// Voters and learners.
pub type Membership = openraft::Membership<NodeId, Node>;
/// A membership and where the log set it.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
/// A snapshot's position and membership.
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
