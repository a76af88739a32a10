//! Between openraft's types and their encoding, which the log, the snapshot and the peers share.
//!
//! Decoding never panics: the bytes come from a disk or from another member.

use std::collections::{BTreeMap, BTreeSet};

use openraft::EntryPayload;
use proto::replicated as wire;
use thiserror::Error;

use crate::raft_types::{Command, Entry, LogId, Membership, Node, StoredMembership, Vote};

/// No log comes near this: what says more is damaged or hostile, and would overflow where indexes are counted on.
const MAX_LOG_INDEX: u64 = u64::MAX >> 1;

/// Bytes that decode as protobuf but do not make sense as Raft's types.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConvertError {
    #[error("log index {0}, which no log reaches")]
    LogIndex(u64),
    #[error("an entry without a log id")]
    EntryWithoutLogId,
    #[error("an entry without a payload")]
    EntryWithoutPayload,
    #[error("a membership that names no voters, or a voter that is no node")]
    BadMembership,
}

#[must_use]
pub fn log_id_to_wire(id: &LogId) -> wire::LogId {
    let leader = id.committed_leader_id();
    wire::LogId {
        term: leader.term,
        node_id: leader.node_id,
        index: id.index(),
    }
}

#[must_use]
pub fn log_id_from_wire(id: &wire::LogId) -> LogId {
    LogId::new(
        openraft::impls::leader_id_adv::LeaderId {
            term: id.term,
            node_id: id.node_id,
        },
        id.index,
    )
}

/// # Errors
/// [`ConvertError::LogIndex`].
pub(crate) fn checked_log_id_from_wire(id: &wire::LogId) -> Result<LogId, ConvertError> {
    if id.index > MAX_LOG_INDEX {
        return Err(ConvertError::LogIndex(id.index));
    }
    Ok(log_id_from_wire(id))
}

#[must_use]
pub fn vote_to_wire(vote: &Vote) -> wire::Vote {
    wire::Vote {
        term: vote.leader_id.term,
        node_id: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

#[must_use]
pub fn vote_from_wire(vote: &wire::Vote) -> Vote {
    if vote.committed {
        Vote::new_committed(vote.term, vote.node_id)
    } else {
        Vote::new(vote.term, vote.node_id)
    }
}

#[must_use]
pub fn membership_to_wire(membership: &Membership) -> wire::Membership {
    wire::Membership {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|voters| wire::membership::Config {
                voters: voters.iter().copied().collect(),
            })
            .collect(),
        nodes: membership
            .nodes()
            .map(|(id, node)| {
                (
                    *id,
                    wire::Node {
                        name: node.name.clone(),
                        peer_urls: node.peer_urls.clone(),
                        to_be_voter: node.to_be_voter,
                    },
                )
            })
            .collect(),
    }
}

/// # Errors
/// [`ConvertError::BadMembership`] where a voter is no node.
pub fn membership_from_wire(membership: wire::Membership) -> Result<Membership, ConvertError> {
    let configs: Vec<BTreeSet<u64>> = membership
        .configs
        .into_iter()
        .map(|config| config.voters.into_iter().collect())
        .collect();
    let nodes: BTreeMap<u64, Node> = membership
        .nodes
        .into_iter()
        .map(|(id, node)| {
            (
                id,
                Node {
                    name: node.name,
                    peer_urls: node.peer_urls,
                    to_be_voter: node.to_be_voter,
                },
            )
        })
        .collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|_| ConvertError::BadMembership)
}

#[must_use]
pub fn stored_membership_to_wire(stored: &StoredMembership) -> wire::StoredMembership {
    wire::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to_wire),
        membership: Some(membership_to_wire(stored.membership())),
    }
}

/// # Errors
/// [`ConvertError::BadMembership`] where a voter is no node.
pub fn stored_membership_from_wire(stored: wire::StoredMembership) -> Result<StoredMembership, ConvertError> {
    let membership = membership_from_wire(stored.membership.unwrap_or_default())?;
    Ok(StoredMembership::new(
        stored.log_id.as_ref().map(log_id_from_wire),
        membership,
    ))
}

#[must_use]
pub fn entry_to_wire(entry: &Entry) -> wire::Entry {
    let payload = match &entry.payload {
        EntryPayload::Blank => wire::entry::Payload::Blank(wire::Empty {}),
        EntryPayload::Normal(command) => wire::entry::Payload::Normal(command.0.clone()),
        EntryPayload::Membership(membership) => {
            wire::entry::Payload::Membership(membership_to_wire(membership))
        }
    };
    wire::Entry {
        log_id: Some(log_id_to_wire(&entry.log_id)),
        payload: Some(payload),
    }
}

/// # Errors
/// [`ConvertError`] names what the entry lacks, or has wrong.
pub fn entry_from_wire(entry: wire::Entry) -> Result<Entry, ConvertError> {
    let log_id = entry.log_id.ok_or(ConvertError::EntryWithoutLogId)?;
    let payload = match entry.payload.ok_or(ConvertError::EntryWithoutPayload)? {
        wire::entry::Payload::Blank(_) => EntryPayload::Blank,
        wire::entry::Payload::Normal(bytes) => EntryPayload::Normal(Command(bytes)),
        wire::entry::Payload::Membership(membership) => {
            EntryPayload::Membership(membership_from_wire(membership)?)
        }
    };
    Ok(Entry {
        log_id: checked_log_id_from_wire(&log_id)?,
        payload,
    })
}
