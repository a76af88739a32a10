//! Who calls, and whether this member may serve the call now.
//!
//! Every RPC passes [`Api::admit`] first, and says what it [`Needs`]: the least is a user, so that a call which says
//! nothing special is never served to a stranger. What a user may do with which keys is decided where keys are
//! touched: by apply for what is replicated, by [`Api::authorised`] for what is read here, and by a watch stream for
//! each watch. It must not look at the shape of a request: that is `validate`'s.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Extensions;
use raft_store::auth::{Auth, Permissions};
use tokio::sync::watch;
use tonic::metadata::MetadataMap;

use super::Api;
use super::shares::{Client, ClientAddress};
use super::status::ApiError;
use super::tokens::Rejected;
use crate::node::{Author, RaftView};

/// How often a read starts again because users or roles changed under it.
const READ_ATTEMPTS: usize = 5;

/// The user that there is whenever auth is on.
const ROOT: &str = "root";

/// Who a connection's verified client certificate names: an extension of each request on it, put there by the TLS
/// listener. It names the user only where a call carries no token, and never through the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    pub common_name: String,
}

/// The connection is this machine's root's, by the kernel's word: an extension of each request on it, put there by the
/// local socket. It is root where a call carries no token, and never through the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalRoot;

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

    fn root(self) -> bool {
        matches!(self, Needs::Root | Needs::RootAtAnyMember)
    }
}

/// What a call says of who asks. Nothing of it is verified.
#[derive(Clone, Default)]
pub(super) struct Credentials {
    token: Option<Arc<str>>,
    common_name: Option<Arc<str>>,
    /// `None`: by the local socket, or in this process.
    address: Option<IpAddr>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("common_name", &self.common_name)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// A token counts before a certificate, even where it turns out to be bad.
    fn of(metadata: &MetadataMap, extensions: &Extensions) -> Credentials {
        let token = ["token", "authorization"]
            .iter()
            .find_map(|name| metadata.get(*name))
            .map(|value| value.to_str().unwrap_or_default());
        Credentials {
            token: token.map(|token| without_scheme(token).into()),
            common_name: name_of(extensions).map(Into::into),
            address: extensions.get().map(|ClientAddress(address)| *address),
        }
    }
}

/// Who the connection is, by what its port knows of it.
fn name_of(extensions: &Extensions) -> Option<&str> {
    if extensions.get::<LocalRoot>().is_some() {
        return Some(ROOT);
    }
    let certificate = extensions.get::<ClientCertificate>()?;
    Some(certificate.common_name.as_str()).filter(|name| !name.is_empty())
}

/// `Bearer TOKEN`, as generic HTTP clients write it, or the token alone, as etcd's do.
fn without_scheme(value: &str) -> &str {
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_start(),
        _ => value,
    }
}

/// A user who has proved to be one, and the auth revision that made it or its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) user: String,
    pub(super) changed_revision: u64,
    /// What the proof is good for: the current auth revision, or the one that a JWT was made at.
    pub(super) auth_revision: u64,
}

/// The caller of an admitted call.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The call, and a stream for as long as it lasts, must not be served without a leader.
    pub(super) requires_leader: bool,
    author: Author,
    /// `None`: auth is off, or the call needed nobody in particular.
    identity: Option<Arc<Identity>>,
    credentials: Credentials,
}

impl Caller {
    /// In whose name the call's proposals are made.
    pub(super) fn author(&self) -> &Author {
        &self.author
    }

    /// Whose share of what is bounded the call takes.
    pub(super) fn client(&self) -> Client {
        self.client_as(self.identity.as_ref())
    }

    /// As [`Caller::client`], of a stream whose caller was found to be somebody later.
    pub(super) fn client_as(&self, identity: Option<&Arc<Identity>>) -> Client {
        match (identity, &self.credentials) {
            (Some(identity), _) => Client::User(identity.user.as_str().into()),
            (
                None,
                Credentials {
                    common_name: Some(name),
                    ..
                },
            ) => Client::Certificate(name.clone()),
            (
                None,
                Credentials {
                    address: Some(address),
                    ..
                },
            ) => Client::Address(*address),
            (None, _) => Client::Local,
        }
    }
}

/// What can be said of a call without knowing who calls.
fn arrive(metadata: &MetadataMap, view: &RaftView, needs: Needs) -> Result<bool, ApiError> {
    let requires_leader = metadata.get("hasleader").is_some_and(|value| value == "true");
    if view.is_learner && needs.a_voter() {
        return Err(ApiError::NotSupportedForLearner);
    }
    if requires_leader && view.leader == 0 {
        return Err(ApiError::NoLeader);
    }
    Ok(requires_leader)
}

impl Api {
    /// The first thing every call does. The future does not keep the request.
    pub(super) fn admit<'a, T>(
        &'a self,
        request: &tonic::Request<T>,
        needs: Needs,
    ) -> impl Future<Output = Result<Caller, ApiError>> + Send + use<'a, T> {
        let arrived = arrive(request.metadata(), &self.view(), needs);
        let credentials = Credentials::of(request.metadata(), request.extensions());
        async move {
            let requires_leader = arrived?;
            let (identity, auth) = match needs {
                Needs::Anyone => (None, self.node.store().auth()),
                _ => self.identify(&credentials).await?,
            };
            if let Some(identity) = &identity {
                let permissions = auth.permissions(&identity.user);
                // A certificate may name somebody who is no user.
                let permissions = permissions.ok_or(ApiError::PermissionDenied)?;
                if needs.root() && !permissions.is_root() {
                    return Err(ApiError::PermissionDenied);
                }
            }
            Ok(Caller {
                requires_leader,
                author: author(identity.as_ref(), &auth),
                identity: identity.map(Arc::new),
                credentials,
            })
        }
    }

    /// Who asks, by the users that it was asked of; `None` while auth is off.
    async fn identify(&self, credentials: &Credentials) -> Result<(Option<Identity>, Arc<Auth>), ApiError> {
        let mut auth = self.node.store().auth();
        let mut identity = self.identify_by(credentials, &auth);
        // Another member may know more: of this user, or that auth is off by now. Catch up with it.
        let behind = match identity {
            Err(Rejected::Newer) => true,
            Err(Rejected::Nobody) => self.view().leader != 0,
            _ => false,
        };
        if behind {
            self.node.read_index().await?;
            auth = self.node.store().auth();
            identity = self.identify_by(credentials, &auth);
        }
        Ok((identity?, auth))
    }

    fn identify_by(&self, credentials: &Credentials, auth: &Auth) -> Result<Option<Identity>, Rejected> {
        if !auth.is_enabled() {
            return Ok(None);
        }
        match (&credentials.token, &credentials.common_name) {
            (Some(token), _) => self.tokens.verify(token, auth).map(Some),
            (None, Some(user)) => Ok(Some(Identity {
                user: user.to_string(),
                changed_revision: auth
                    .user(user)
                    .map_or(0, raft_store::auth::User::changed_revision),
                auth_revision: auth.revision(),
            })),
            (None, None) => Err(Rejected::Nobody),
        }
    }

    /// The caller again, after users or roles changed: in whose name to propose now.
    pub(super) async fn author_again(&self, caller: &Caller) -> Result<Author, ApiError> {
        let (identity, auth) = self.identify(&caller.credentials).await?;
        Ok(author(identity.as_ref(), &auth))
    }

    /// Reads what the caller may read. Users and roles are the same before and after the read: an answer never
    /// shows what was forbidden by then.
    pub(super) async fn authorised<R, F>(
        &self,
        caller: &Caller,
        allowed: impl Fn(&Permissions) -> bool + Send + Sync,
        read: impl Fn() -> F + Send + Sync,
    ) -> Result<R, ApiError>
    where
        F: Future<Output = Result<R, ApiError>> + Send,
        R: Send,
    {
        for _ in 0..READ_ATTEMPTS {
            let (identity, auth) = self.identify(&caller.credentials).await?;
            if let Some(identity) = identity {
                if identity.auth_revision < auth.revision() {
                    return Err(ApiError::AuthOldRevision);
                }
                let permissions = auth.permissions(&identity.user);
                if !permissions.is_some_and(|permissions| allowed(&permissions)) {
                    return Err(ApiError::PermissionDenied);
                }
            }
            let answer = read().await;
            if Arc::ptr_eq(&auth, &self.node.store().auth()) {
                return answer;
            }
        }
        Err(ApiError::AuthOldRevision)
    }

    /// Whether a stream's caller is still who it was, whatever became of its token meanwhile: a stream outlives it.
    pub(super) fn still_known(&self, caller: &Caller) -> Result<(), ApiError> {
        let auth = self.node.store().auth();
        match &caller.identity {
            _ if !auth.is_enabled() => Ok(()),
            None => Err(ApiError::UserEmpty),
            Some(identity) => known(identity, &auth),
        }
    }

    /// Whether a stream's caller is still who it was, and still may: as [`Api::still_known`].
    pub(super) fn still_may(
        &self,
        caller: &Caller,
        allowed: impl Fn(&Permissions) -> bool,
    ) -> Result<(), ApiError> {
        self.still_known(caller)?;
        let (Some(identity), auth) = (&caller.identity, self.node.store().auth()) else {
            return Ok(());
        };
        match auth.permissions(&identity.user) {
            Some(permissions) if allowed(&permissions) => Ok(()),
            _ if !auth.is_enabled() => Ok(()),
            _ => Err(ApiError::PermissionDenied),
        }
    }

    /// Who opens a watch, if it may see all of the keys.
    pub(super) async fn admit_watch(
        &self,
        caller: &Caller,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<Option<Arc<Identity>>, ApiError> {
        let (identity, _) = self.identify(&caller.credentials).await?;
        let identity = identity.map(Arc::new);
        self.may_watch(caller, identity.as_ref(), key, range_end)?;
        Ok(identity)
    }

    /// Whether a watch that `identity` opened is still allowed. One that was opened while auth was off is its
    /// stream's caller's.
    pub(super) fn may_watch(
        &self,
        caller: &Caller,
        identity: Option<&Arc<Identity>>,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), ApiError> {
        let auth = self.node.store().auth();
        if !auth.is_enabled() {
            return Ok(());
        }
        let late;
        let identity = match identity {
            Some(identity) => identity.as_ref(),
            None => match self.identify_by(&caller.credentials, &auth)? {
                Some(identity) => {
                    late = identity;
                    &late
                }
                None => return Ok(()),
            },
        };
        known(identity, &auth)?;
        let permissions = auth.permissions(&identity.user);
        if permissions.is_some_and(|permissions| permissions.may_read(key, range_end)) {
            Ok(())
        } else {
            Err(ApiError::PermissionDenied)
        }
    }
}

impl From<Rejected> for ApiError {
    fn from(rejected: Rejected) -> ApiError {
        match rejected {
            Rejected::Nobody => ApiError::UserEmpty,
            Rejected::Invalid | Rejected::Newer => ApiError::InvalidAuthToken,
        }
    }
}

/// Not deleted, and with no other password than it proved itself with.
fn known(identity: &Identity, auth: &Auth) -> Result<(), ApiError> {
    match auth.user(&identity.user) {
        Some(user) if user.changed_revision() == identity.changed_revision => Ok(()),
        Some(_) => Err(ApiError::InvalidAuthToken),
        None => Err(ApiError::PermissionDenied),
    }
}

fn author(identity: Option<&Identity>, auth: &Auth) -> Author {
    match identity {
        Some(identity) => Author::client(identity.user.clone(), identity.auth_revision),
        None => Author::client(String::new(), auth.revision()),
    }
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
            let arrived = arrive(&metadata, &view, needs);
            assert_eq!(arrived, expected, "{has_leader:?} {view:?} {needs:?}");
        }
    }

    #[test]
    fn what_a_call_says_of_who_asks() {
        let certificate = ClientCertificate {
            common_name: "cn".to_owned(),
        };
        let said = |pairs: &[(&'static str, &str)], certificate: Option<&ClientCertificate>| {
            let mut metadata = MetadataMap::new();
            for (name, value) in pairs {
                metadata.insert(*name, value.parse().unwrap());
            }
            let mut extensions = Extensions::new();
            if let Some(certificate) = certificate {
                extensions.insert(certificate.clone());
            }
            let credentials = Credentials::of(&metadata, &extensions);
            assert!(!format!("{credentials:?}").contains("secret"));
            (
                credentials.token.as_deref().map(str::to_owned),
                credentials.common_name.as_deref().map(str::to_owned),
            )
        };
        let token = Some("secret".to_owned());
        assert_eq!(said(&[], None), (None, None));
        assert_eq!(said(&[("token", "secret")], None).0, token);
        assert_eq!(said(&[("authorization", "secret")], None).0, token);
        assert_eq!(said(&[("authorization", "Bearer secret")], None).0, token);
        assert_eq!(said(&[("authorization", "bearer  secret")], None).0, token);
        assert_eq!(
            said(&[("authorization", "x"), ("token", "secret")], None).0,
            token
        );
        assert_eq!(said(&[], Some(&certificate)), (None, Some("cn".to_owned())));
        assert_eq!(said(&[("token", "")], Some(&certificate)).0, Some(String::new()));
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
