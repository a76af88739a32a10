//! Between openraft's RPC types and the peers' messages.

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use proto::peer::{self, append_response};
use raft_store::convert::{
    ConvertError, entry_from_wire, entry_to_wire, log_id_from_wire, log_id_to_wire,
    stored_membership_from_wire, stored_membership_to_wire, vote_from_wire, vote_to_wire,
};
use raft_store::{LogId, SnapshotMeta, TypeConfig, Vote};
use thiserror::Error;

/// A peer's message that makes no sense.
#[derive(Debug, Error)]
pub(crate) enum WireError {
    #[error("a peer's message lacks its {0}")]
    Lacks(&'static str),
    #[error(transparent)]
    Convert(#[from] ConvertError),
}

pub(crate) fn append_to_wire(request: &AppendEntriesRequest<TypeConfig>) -> peer::AppendRequest {
    peer::AppendRequest {
        vote: Some(vote_to_wire(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_to_wire),
        entries: request.entries.iter().map(entry_to_wire).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_wire),
    }
}

pub(crate) fn append_from_wire(
    request: peer::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    Ok(AppendEntriesRequest {
        vote: required_vote(request.vote.as_ref())?,
        prev_log_id: request.prev_log_id.as_ref().map(log_id_from_wire),
        entries: request
            .entries
            .into_iter()
            .map(entry_from_wire)
            .collect::<Result<_, _>>()?,
        leader_commit: request.leader_commit.as_ref().map(log_id_from_wire),
    })
}

pub(crate) fn append_result_to_wire(result: &StreamAppendResult<TypeConfig>) -> peer::AppendResponse {
    let result = match result {
        Ok(last) => append_response::Result::Matched(append_response::Matched {
            last: last.as_ref().map(log_id_to_wire),
        }),
        Err(StreamAppendError::Conflict(log_id)) => append_response::Result::Conflict(log_id_to_wire(log_id)),
        Err(StreamAppendError::HigherVote(vote)) => append_response::Result::HigherVote(vote_to_wire(vote)),
    };
    peer::AppendResponse { result: Some(result) }
}

pub(crate) fn append_result_from_wire(
    response: peer::AppendResponse,
) -> Result<StreamAppendResult<TypeConfig>, WireError> {
    Ok(match response.result.ok_or(WireError::Lacks("result"))? {
        append_response::Result::Matched(matched) => Ok(matched.last.as_ref().map(log_id_from_wire)),
        append_response::Result::Conflict(log_id) => {
            Err(StreamAppendError::Conflict(log_id_from_wire(&log_id)))
        }
        append_response::Result::HigherVote(vote) => {
            Err(StreamAppendError::HigherVote(vote_from_wire(&vote)))
        }
    })
}

/// A heartbeat's answer in the unary form that openraft's server gives.
pub(crate) fn heartbeat_to_wire(
    response: &AppendEntriesResponse<TypeConfig>,
    prev_log_id: Option<&LogId>,
) -> peer::AppendResponse {
    let result = match response {
        AppendEntriesResponse::Success => append_response::Result::Matched(append_response::Matched {
            last: prev_log_id.map(log_id_to_wire),
        }),
        AppendEntriesResponse::PartialSuccess(last) => {
            append_response::Result::Matched(append_response::Matched {
                last: last.as_ref().map(log_id_to_wire),
            })
        }
        AppendEntriesResponse::Conflict => {
            append_response::Result::Conflict(prev_log_id.map(log_id_to_wire).unwrap_or_default())
        }
        AppendEntriesResponse::HigherVote(vote) => append_response::Result::HigherVote(vote_to_wire(vote)),
    };
    peer::AppendResponse { result: Some(result) }
}

pub(crate) fn vote_request_to_wire(request: &VoteRequest<TypeConfig>) -> peer::VoteRequest {
    peer::VoteRequest {
        vote: Some(vote_to_wire(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_to_wire),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_from_wire(
    request: &peer::VoteRequest,
) -> Result<VoteRequest<TypeConfig>, WireError> {
    let mut vote_request = VoteRequest::new(
        required_vote(request.vote.as_ref())?,
        request.last_log_id.as_ref().map(log_id_from_wire),
    );
    vote_request.leadership_transfer = request.leadership_transfer;
    Ok(vote_request)
}

pub(crate) fn vote_response_to_wire(response: &VoteResponse<TypeConfig>) -> peer::VoteResponse {
    peer::VoteResponse {
        vote: Some(vote_to_wire(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(log_id_to_wire),
    }
}

pub(crate) fn vote_response_from_wire(
    response: &peer::VoteResponse,
) -> Result<VoteResponse<TypeConfig>, WireError> {
    Ok(VoteResponse::new(
        required_vote(response.vote.as_ref())?,
        response.last_log_id.as_ref().map(log_id_from_wire),
        response.granted,
    ))
}

pub(crate) fn snapshot_header_to_wire(
    vote: &Vote,
    meta: &SnapshotMeta,
    size_bytes: u64,
) -> peer::SnapshotHeader {
    peer::SnapshotHeader {
        vote: Some(vote_to_wire(vote)),
        last_log_id: meta.last_log_id.as_ref().map(log_id_to_wire),
        last_membership: Some(stored_membership_to_wire(&meta.last_membership)),
        size_bytes,
    }
}

pub(crate) fn snapshot_header_from_wire(
    header: peer::SnapshotHeader,
) -> Result<(Vote, SnapshotMeta), WireError> {
    let vote = required_vote(header.vote.as_ref())?;
    let membership = header.last_membership.ok_or(WireError::Lacks("membership"))?;
    let meta = SnapshotMeta {
        last_log_id: header.last_log_id.as_ref().map(log_id_from_wire),
        last_membership: stored_membership_from_wire(membership)?,
    };
    Ok((vote, meta))
}

pub(crate) fn transfer_to_wire(request: &TransferLeaderRequest<TypeConfig>) -> peer::TransferLeaderRequest {
    peer::TransferLeaderRequest {
        from: Some(vote_to_wire(request.from_leader())),
        to: *request.to_node_id(),
        last_log_id: request.last_log_id().map(log_id_to_wire),
    }
}

pub(crate) fn transfer_from_wire(
    request: &peer::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, WireError> {
    Ok(TransferLeaderRequest::new(
        required_vote(request.from.as_ref())?,
        request.to,
        request.last_log_id.as_ref().map(log_id_from_wire),
    ))
}

/// openraft keeps the refusal's type to itself, and acts on it only by giving up: its words are enough.
pub(crate) fn transfer_response_to_wire(
    response: &TransferLeaderResponse<TypeConfig>,
) -> peer::TransferLeaderResponse {
    peer::TransferLeaderResponse {
        refused: response.as_ref().err().map(ToString::to_string),
    }
}

pub(crate) fn required_vote(vote: Option<&proto::replicated::Vote>) -> Result<Vote, WireError> {
    vote.map(vote_from_wire).ok_or(WireError::Lacks("vote"))
}
