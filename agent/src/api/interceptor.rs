//! Who calls, and whether this member may serve the call now.
//!
//! Every RPC passes [`admit`] first: it is the one place where callers will be authorised. It must not look into
//! the request itself: that is `validate`'s.

use std::time::Duration;

use tokio::sync::watch;
use tonic::metadata::MetadataMap;

use crate::api::status::ApiError;
use crate::node::{Author, RaftView};

/// What a call needs, of the caller and of the member that serves it. The least that a call may need of its caller
/// is a name: whoever needs none says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// A user, at a member that has all data and votes. What the user may do with which keys is decided where they
    /// are touched.
    Voter,
    /// A user, at any member: the answer is about itself, or explicitly from its own state only.
    AnyMember,
    /// The root role, at a member that has all data and votes.
    Root,
    /// The root role, at any member.
    RootAtAnyMember,
    /// Nobody in particular, at a member that has all data and votes: logging in, and streams whose requests are
    /// authorised one by one.
    Anyone,
}

impl Needs {
    fn a_voter(self) -> bool {
        matches!(self, Needs::Voter | Needs::Root | Needs::Anyone)
    }
}

/// The caller, as far as it says who it is. Until auth is on, whatever it says is accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Caller {
    /// The call, and a stream for as long as it lasts, must not be served without a leader.
    pub(super) requires_leader: bool,
    author: Author,
}

impl Caller {
    /// In whose name the call's proposals are made.
    pub(super) fn author(&self) -> &Author {
        &self.author
    }
}

/// Who a connection's verified client certificate names: an extension of each request on it. It names the user only
/// where a call carries no token, and never through the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    pub common_name: String,
}

/// Admits a call.
pub(super) fn admit(metadata: &MetadataMap, view: &RaftView, needs: Needs) -> Result<Caller, ApiError> {
    let requires_leader = metadata.get("hasleader").is_some_and(|value| value == "true");
    if view.is_learner && needs.a_voter() {
        return Err(ApiError::NotSupportedForLearner);
    }
    if requires_leader && view.leader == 0 {
        return Err(ApiError::NoLeader);
    }
    Ok(Caller {
        requires_leader,
        author: Author::default(),
    })
}

/// Completes when there has been no leader for `patience`, or when the member has stopped.
pub(super) async fn leader_lost(mut view: watch::Receiver<RaftView>, patience: Duration) {
    loop {
        if view.wait_for(|view| view.leader == 0).await.is_err() {
            return;
        }
        match tokio::time::timeout(patience, view.wait_for(|view| view.leader != 0)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_admitted() {
        let led = RaftView {
            leader: 1,
            ..RaftView::default()
        };
        let leaderless = RaftView::default();
        let learner = RaftView {
            is_learner: true,
            ..led
        };
        let cases = [
            (None, led, Needs::Voter, Ok(false)),
            (Some("true"), led, Needs::Voter, Ok(true)),
            (Some("false"), leaderless, Needs::Voter, Ok(false)),
            (Some("true"), leaderless, Needs::Voter, Err(ApiError::NoLeader)),
            (
                Some("true"),
                leaderless,
                Needs::AnyMember,
                Err(ApiError::NoLeader),
            ),
            (None, leaderless, Needs::Voter, Ok(false)),
            (None, learner, Needs::Voter, Err(ApiError::NotSupportedForLearner)),
            (None, learner, Needs::AnyMember, Ok(false)),
        ];
        for (has_leader, view, needs, expected) in cases {
            let mut metadata = MetadataMap::new();
            if let Some(value) = has_leader {
                metadata.insert("hasleader", value.parse().unwrap());
            }
            let admitted = admit(&metadata, &view, needs).map(|caller| caller.requires_leader);
            assert_eq!(admitted, expected, "{has_leader:?} {view:?} {needs:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_loss_is_forgiven() {
        let patience = Duration::from_secs(3);
        let (sender, receiver) = watch::channel(RaftView {
            leader: 1,
            ..RaftView::default()
        });
        let lost = leader_lost(receiver, patience);
        tokio::pin!(lost);

        let waits =
            |seconds| tokio::time::timeout(Duration::from_secs(seconds), std::future::pending::<()>());
        sender.send_modify(|view| view.leader = 0);
        tokio::select! { () = &mut lost => panic!("too early"), _ = waits(2) => {} }
        sender.send_modify(|view| view.leader = 2);
        tokio::select! { () = &mut lost => panic!("there is a leader"), _ = waits(60) => {} }
        sender.send_modify(|view| view.leader = 0);
        let since = tokio::time::Instant::now();
        lost.await;
        assert_eq!(since.elapsed(), patience);
    }
}
