//! Join tokens: changes of them, stamped with the leader's time, and letting in a host that comes with one.
//!
//! The order is what makes a second attempt find what the first has left: the token is used by the host's key before
//! the membership is touched, and the host is a member, without a vote yet, before it gets its certificate.

use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;
use proto::peer::{MemberChange, MemberRefusal, forward_request, member_change};
use proto::replicated::join_token_change::{Change, Create, Use};
use proto::replicated::{JoinToken, JoinTokenChange, Refusal, Request, reply, request::Op};
use raft_store::Command;
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use super::propose::Attempt;
use super::{Author, MemberError, Node, NodeError};

/// Why a change of the tokens was not made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    #[error("{0:?}")]
    Refused(Refusal),
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// Why a host is not let in.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum JoinRefusal {
    #[error(
        "there is no such join token in this cluster: the text is not complete, or the token was forgotten a day after it \
         ended. Make a new one: agentctl token create --host {0}"
    )]
    Unknown(String),
    #[error("the join token has expired. Make a new one: agentctl token create --host {0}")]
    Expired(String),
    #[error(
        "the join token was used already, by another machine or with another key: each is good for one host, once. Make \
         a new one: agentctl token create --host {0}"
    )]
    Used(String),
    #[error("the join token was revoked. Make a new one: agentctl token create --host {0}")]
    Revoked(String),
    #[error(
        "the join token is for host {token}, and this is {host}. Make one for it: agentctl token create --host {host}"
    )]
    OtherHost { token: String, host: String },
    #[error(
        "host {name} is a member of the cluster ({id:x}) that has run, and this machine has nothing of its data. If that \
         one is lost for good, make a token that says so: agentctl token create --host {name} --replace"
    )]
    Taken { name: String, id: u64 },
    #[error("{url} is where member {name} is reached: one of the two has another address")]
    UrlTaken { url: String, name: String },
    /// It may be different in a moment.
    #[error("{0}")]
    NotNow(String),
}

impl Node {
    /// Makes a join token, of which the caller keeps the secret. Its id is chosen by the caller, too.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub async fn create_join_token(
        &self,
        author: &Author,
        token: JoinToken,
        ttl_seconds: u64,
    ) -> Result<JoinToken, TokenError> {
        let create = Create {
            token: Some(token),
            ttl_seconds,
        };
        self.change_join_tokens(author, Change::Create(create)).await
    }

    /// # Errors
    /// See [`TokenError`].
    pub async fn revoke_join_token(&self, author: &Author, id: u64) -> Result<JoinToken, TokenError> {
        self.change_join_tokens(author, Change::Revoke(id)).await
    }

    /// Makes a host a member, once its token is known to be good: it votes when it has caught up.
    ///
    /// # Errors
    /// See [`JoinRefusal`].
    pub async fn let_in(&self, host: &str, wanted: Use) -> Result<JoinToken, JoinRefusal> {
        let refused = |refusal| token_refusal(refusal, host);
        // What is surely wrong costs no entry in the log.
        self.read_index().await.map_err(|error| not_now(&error))?;
        let known = self.store().join_tokens();
        let token = known.may_use(&wanted, now()).map_err(refused)?;
        if !token.host.eq_ignore_ascii_case(host) {
            return Err(JoinRefusal::OtherHost {
                token: token.host.clone(),
                host: host.to_owned(),
            });
        }
        let token = match self
            .change_join_tokens(&Author::CLUSTER, Change::Use(wanted))
            .await
        {
            Ok(token) => token,
            Err(TokenError::Refused(refusal)) => return Err(refused(refusal)),
            Err(TokenError::Node(error)) => return Err(not_now(&error)),
        };
        self.make_member(&token).await?;
        Ok(token)
    }

    async fn make_member(&self, token: &JoinToken) -> Result<(), JoinRefusal> {
        let members = self.members();
        let has_run = |id: u64| self.store().member_attributes(id).is_some();
        for member in &members {
            let its_url = member.peer_ur_ls.contains(&token.peer_url);
            let its_name = member.name.eq_ignore_ascii_case(&token.host);
            if its_name && has_run(member.id) {
                if !token.replace {
                    return Err(JoinRefusal::Taken {
                        name: token.host.clone(),
                        id: member.id,
                    });
                }
                self.change_for_join(member_change::Change::Remove(member.id))
                    .await?;
                tracing::info!(
                    host = token.host,
                    member = format!("{:x}", member.id),
                    "a lost member is replaced"
                );
            } else if its_url && has_run(member.id) {
                return Err(JoinRefusal::UrlTaken {
                    url: token.peer_url.clone(),
                    name: member.name.clone(),
                });
            } else if its_url {
                // From an attempt before, which has not run yet.
                return Ok(());
            }
        }
        let add = member_change::Add {
            peer_urls: vec![token.peer_url.clone()],
            learner: false,
        };
        self.change_for_join(member_change::Change::Add(add)).await
    }

    async fn change_for_join(&self, change: member_change::Change) -> Result<(), JoinRefusal> {
        let changed = self.change_members(MemberChange { change: Some(change) }).await;
        match changed {
            Ok(_) => Ok(()),
            Err(MemberError::Node(error)) => Err(not_now(&error)),
            Err(MemberError::Refused(refusal)) => Err(JoinRefusal::NotNow(
                match refusal {
                    MemberRefusal::NotEnoughStarted => {
                        "another host was let in and does not run yet: one joins after the other"
                    }
                    MemberRefusal::Unhealthy => {
                        "a member is down, or too new: hosts join while all others are up (agentctl endpoint status)"
                    }
                    _ => "the membership has just changed",
                }
                .to_owned(),
            )),
        }
    }

    async fn change_join_tokens(&self, author: &Author, change: Change) -> Result<JoinToken, TokenError> {
        let request = Request {
            user: author.user().to_owned(),
            auth_revision: author.auth_revision(),
            op: Some(Op::JoinToken(JoinTokenChange {
                now: 0,
                change: Some(change),
            })),
        };
        let deadline = Instant::now() + self.timeouts().request;
        let answered = timeout_at(deadline, self.stamped_until_answered(request)).await;
        let result = answered.map_err(|_| NodeError::Timeout)??;
        match result {
            Some(reply::Result::JoinToken(token)) => Ok(token),
            Some(reply::Result::Refused(refusal)) => Err(TokenError::Refused(
                Refusal::try_from(refusal).unwrap_or_default(),
            )),
            _ => Err(TokenError::Refused(Refusal::UnknownRequest)),
        }
    }

    async fn stamped_until_answered(&self, request: Request) -> Result<Option<reply::Result>, NodeError> {
        loop {
            let view = self.view();
            let attempt = if view.leader == self.member_id() {
                match stamped(request.clone()) {
                    Some(command) => self.propose_here(command).await?.await,
                    None => return Ok(None),
                }
            } else if view.leader != 0 {
                let bytes = request.encode_to_vec().into();
                self.attempt_at(view.leader, forward_request::Request::JoinToken(bytes))
                    .await
            } else {
                Attempt::NotProposed
            };
            match attempt {
                Attempt::Applied { reply, .. } => return Ok(reply.result),
                Attempt::OutcomeUnknown => return Err(NodeError::LeaderChanged),
                Attempt::NotProposed => self.wait_for_leader(view).await,
            }
        }
    }
}

/// A change of the tokens at this member's time: the leader's. `None` for any other request.
pub(super) fn stamped(mut request: Request) -> Option<Command> {
    match &mut request.op {
        Some(Op::JoinToken(change)) => change.now = now(),
        _ => return None,
    }
    Some(Command(request.encode_to_vec().into()))
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

fn token_refusal(refusal: Refusal, host: &str) -> JoinRefusal {
    let host = host.to_owned();
    match refusal {
        Refusal::JoinTokenExpired => JoinRefusal::Expired(host),
        Refusal::JoinTokenUsed => JoinRefusal::Used(host),
        Refusal::JoinTokenRevoked => JoinRefusal::Revoked(host),
        Refusal::JoinTokenUnknown => JoinRefusal::Unknown(host),
        other => JoinRefusal::NotNow(format!("the cluster refuses it: {other:?}")),
    }
}

fn not_now(error: &NodeError) -> JoinRefusal {
    let words = match error {
        NodeError::NoLeader | NodeError::Timeout => {
            "the cluster has no quorum now: most of its members must be up to let a host in".to_owned()
        }
        other => format!("the cluster is busy with itself: {other}"),
    };
    JoinRefusal::NotNow(words)
}
