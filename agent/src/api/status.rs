//! The one table of errors: what clients are told, and with which code.
//!
//! etcd's clients compare these texts, so each stands here once, letter by letter. Nothing else in the API makes
//! a [`Status`] of its own, except for calls that are not implemented. What a host says, which no etcd does, comes in
//! the host's words.

use proto::peer::MemberRefusal;
use proto::replicated::Refusal;
use raft_store::ReadError;
use tonic::{Code, Status};

use crate::node::{MemberError, NodeError, TokenError};
use crate::operator::{Failure, OperatorError};

/// Why a call has no answer, in etcd's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ApiError {
    // The shape of the request.
    EmptyKey,
    KeyNotFound,
    ValueProvided,
    LeaseProvided,
    TooManyOps,
    DuplicateKey,
    InvalidSortOption,
    RequestTooLarge,
    LeaseTtlTooLarge,
    // What apply or a read says.
    Compacted,
    FutureRevision,
    LeaseNotFound,
    LeaseExists,
    NoSpace,
    Corrupt,
    PermissionDenied,
    AuthOldRevision,
    NotCapable,
    // The state of the member and of its group.
    TimedOut,
    NoLeader,
    LeaderChanged,
    TooManyRequests,
    TooManyLeases,
    TooManyWatches,
    ArrivesTooSlowly,
    NotLeader,
    BadTransferee,
    Stopped,
    NotSupportedForLearner,
    // Who asks, and what of users and roles.
    AuthNotEnabled,
    AuthFailed,
    InvalidAuthToken,
    UserEmpty,
    NoPasswordUser,
    PasswordTooLong,
    RootUserNotExist,
    RootRoleNotExist,
    UserAlreadyExists,
    UserNotFound,
    RoleEmpty,
    RoleAlreadyExists,
    RoleNotFound,
    RoleNotGranted,
    PermissionNotGranted,
    PermissionNotGiven,
    InvalidAuthManagement,
    // Locks and elections.
    /// The lease of a lock that was waited for is over.
    LockSessionExpired,
    NotElected,
    NobodyElected,
    NoLeaderKey,
    // Changes of the membership.
    BadMemberUrls,
    MemberNotFound,
    PeerUrlExists,
    MemberNotLearner,
    LearnerNotReady,
    TooManyLearners,
    NotEnoughStarted,
    Unhealthy,
    // Join tokens, which no etcd has.
    JoinNeedsCertificates,
    JoinTokenShape,
    JoinTokenUnknown,
    JoinTokensTooMany,
    RevocationsTooMany,
    RevocationShape,
    // Secrets, neither.
    SecretName,
    SecretTooLarge,
    SecretsNeedKey,
    /// Apply answered something else than what was asked: a bug, never a client's doing.
    UnexpectedReply,
    InvalidDowngradeTarget,
    WrongDowngradeVersion,
    NoDowngrade,
    UnknownMethod,
    /// A snapshot could not be written or read.
    SnapshotFailed,
}

impl ApiError {
    /// The table.
    pub(super) const fn parts(self) -> (Code, &'static str) {
        use ApiError as E;
        match self {
            E::EmptyKey => (Code::InvalidArgument, "etcdserver: key is not provided"),
            E::KeyNotFound => (Code::InvalidArgument, "etcdserver: key not found"),
            E::ValueProvided => (Code::InvalidArgument, "etcdserver: value is provided"),
            E::LeaseProvided => (Code::InvalidArgument, "etcdserver: lease is provided"),
            E::TooManyOps => (
                Code::InvalidArgument,
                "etcdserver: too many operations in txn request",
            ),
            E::DuplicateKey => (
                Code::InvalidArgument,
                "etcdserver: duplicate key given in txn request",
            ),
            E::InvalidSortOption => (Code::InvalidArgument, "etcdserver: invalid sort option"),
            E::RequestTooLarge => (Code::InvalidArgument, "etcdserver: request is too large"),
            E::LeaseTtlTooLarge => (Code::OutOfRange, "etcdserver: too large lease TTL"),
            E::Compacted => (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
            ),
            E::FutureRevision => (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision is a future revision",
            ),
            E::LeaseNotFound => (Code::NotFound, "etcdserver: requested lease not found"),
            E::LeaseExists => (Code::FailedPrecondition, "etcdserver: lease already exists"),
            E::NoSpace => (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
            ),
            E::Corrupt => (Code::DataLoss, "etcdserver: corrupt cluster"),
            E::PermissionDenied => (Code::PermissionDenied, "etcdserver: permission denied"),
            E::AuthOldRevision => (Code::InvalidArgument, "etcdserver: revision of auth store is old"),
            E::NotCapable => (Code::FailedPrecondition, "etcdserver: not capable"),
            E::TimedOut => (Code::Unavailable, "etcdserver: request timed out"),
            E::NoLeader => (Code::Unavailable, "etcdserver: no leader"),
            E::LeaderChanged => (Code::Unavailable, "etcdserver: leader changed"),
            E::TooManyRequests => (Code::ResourceExhausted, "etcdserver: too many requests"),
            E::TooManyLeases => (
                Code::ResourceExhausted,
                "too many leases: this member grants no more than its --max-leases",
            ),
            E::TooManyWatches => (
                Code::ResourceExhausted,
                "too many watches of one client: --max-client-watches of this member allows no more",
            ),
            E::ArrivesTooSlowly => (Code::DeadlineExceeded, "the request did not arrive within 60 s"),
            E::NotLeader => (Code::FailedPrecondition, "etcdserver: not leader"),
            E::BadTransferee => (Code::FailedPrecondition, "etcdserver: bad leader transferee"),
            E::Stopped => (Code::Unavailable, "etcdserver: server stopped"),
            E::NotSupportedForLearner => (
                Code::FailedPrecondition,
                "etcdserver: rpc not supported for learner",
            ),
            E::AuthNotEnabled => (
                Code::FailedPrecondition,
                "etcdserver: authentication is not enabled",
            ),
            E::AuthFailed => (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
            ),
            E::InvalidAuthToken => (Code::Unauthenticated, "etcdserver: invalid auth token"),
            E::UserEmpty => (Code::InvalidArgument, "etcdserver: user name is empty"),
            // These two are what etcd says by accident: with its libraries' words and no code.
            E::NoPasswordUser => (
                Code::Unknown,
                "auth: authentication failed, password was given for no password user",
            ),
            E::PasswordTooLong => (Code::Unknown, "bcrypt: password length exceeds 72 bytes"),
            E::RootUserNotExist => (Code::FailedPrecondition, "etcdserver: root user does not exist"),
            E::RootRoleNotExist => (
                Code::FailedPrecondition,
                "etcdserver: root user does not have root role",
            ),
            E::UserAlreadyExists => (Code::FailedPrecondition, "etcdserver: user name already exists"),
            E::UserNotFound => (Code::FailedPrecondition, "etcdserver: user name not found"),
            E::RoleEmpty => (Code::InvalidArgument, "etcdserver: role name is empty"),
            E::RoleAlreadyExists => (Code::FailedPrecondition, "etcdserver: role name already exists"),
            E::RoleNotFound => (Code::FailedPrecondition, "etcdserver: role name not found"),
            E::RoleNotGranted => (
                Code::FailedPrecondition,
                "etcdserver: role is not granted to the user",
            ),
            E::PermissionNotGranted => (
                Code::FailedPrecondition,
                "etcdserver: permission is not granted to the role",
            ),
            E::PermissionNotGiven => (Code::InvalidArgument, "etcdserver: permission not given"),
            E::InvalidAuthManagement => (Code::InvalidArgument, "etcdserver: invalid auth management"),
            E::LockSessionExpired => (Code::Unknown, "mutex: session is expired"),
            E::NotElected => (Code::Unknown, "election: not leader"),
            E::NobodyElected => (Code::Unknown, "election: no leader"),
            E::NoLeaderKey => (Code::Unknown, "\"leader\" field must be provided"),
            E::BadMemberUrls => (Code::InvalidArgument, "etcdserver: given member URLs are invalid"),
            E::MemberNotFound => (Code::NotFound, "etcdserver: member not found"),
            E::PeerUrlExists => (Code::FailedPrecondition, "etcdserver: Peer URLs already exists"),
            E::MemberNotLearner => (
                Code::FailedPrecondition,
                "etcdserver: can only promote a learner member",
            ),
            E::LearnerNotReady => (
                Code::FailedPrecondition,
                "etcdserver: can only promote a learner member which is in sync with leader",
            ),
            E::TooManyLearners => (
                Code::FailedPrecondition,
                "etcdserver: too many learner members in cluster",
            ),
            E::NotEnoughStarted => (
                Code::Unknown,
                "etcdserver: re-configuration failed due to not enough started members",
            ),
            E::Unhealthy => (Code::Unavailable, "etcdserver: unhealthy cluster"),
            E::JoinNeedsCertificates => (
                Code::FailedPrecondition,
                "the members have no certificates, or this one no --peer-issuer-file: hosts join with tokens where `agentctl \
                 cluster init` has made them",
            ),
            E::JoinTokenShape => (
                Code::InvalidArgument,
                "a join token needs a host's name, https URLs for its peers and clients, the hash of a secret, and a time of 1 s to \
                 24 h",
            ),
            E::JoinTokenUnknown => (Code::NotFound, "there is no such join token"),
            E::JoinTokensTooMany => (
                Code::ResourceExhausted,
                "there are 100 join tokens: they are forgotten a day after they end",
            ),
            E::RevocationsTooMany => (
                Code::ResourceExhausted,
                "there are 1000 revocations: replace the cluster's authority (agentctl cert rotate), and take them back",
            ),
            E::RevocationShape => (
                Code::InvalidArgument,
                "a revocation names a certificate by its SHA-256, a member or a client",
            ),
            E::SecretName => (
                Code::InvalidArgument,
                "below /tenants/TENANT/secrets/ there are only secrets, each at its name: letters, digits, hyphens, dots and \
                 underscores, at most 63",
            ),
            E::SecretTooLarge => (Code::InvalidArgument, "a secret has at most 64 KiB"),
            E::SecretsNeedKey => (
                Code::FailedPrecondition,
                "this member has no key to seal secrets with: `agentctl secret keygen` makes one for --secrets-key-file, which \
                 every member has",
            ),
            E::InvalidDowngradeTarget => (
                Code::InvalidArgument,
                "etcdserver: invalid downgrade target version",
            ),
            E::WrongDowngradeVersion => (
                Code::InvalidArgument,
                "etcdserver: wrong downgrade target version format",
            ),
            E::NoDowngrade => (Code::FailedPrecondition, "etcdserver: no inflight downgrade job"),
            E::UnknownMethod => (Code::Unknown, "etcdserver: unknown method"),
            E::UnexpectedReply => (Code::Internal, "etcdserver: unexpected answer from apply"),
            E::SnapshotFailed => (Code::Internal, "etcdserver: the snapshot could not be written"),
        }
    }

    pub(super) const fn text(self) -> &'static str {
        self.parts().1
    }

    /// As Go's clients print a status: how etcd gives reasons inside of answers.
    pub(super) fn as_go_prints(self) -> String {
        let (code, text) = self.parts();
        format!("rpc error: code = {code:?} desc = {text}")
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Status {
        let (code, text) = error.parts();
        Status::new(code, text)
    }
}

/// What a host says is for a person: its own words. None is `Unavailable`, which clients take for this member's own
/// silence and ask the next one.
impl From<OperatorError> for Status {
    fn from(error: OperatorError) -> Status {
        let code = match error.failure {
            Failure::Invalid => Code::InvalidArgument,
            Failure::NotFound => Code::NotFound,
            Failure::NoIncus | Failure::Refused => Code::FailedPrecondition,
            Failure::Unsupported => Code::Unimplemented,
            Failure::Unreachable => Code::Aborted,
            Failure::TimedOut => Code::DeadlineExceeded,
            Failure::Busy => Code::ResourceExhausted,
        };
        Status::new(code, error.message)
    }
}

impl From<NodeError> for ApiError {
    fn from(error: NodeError) -> ApiError {
        match error {
            NodeError::Timeout => ApiError::TimedOut,
            NodeError::NoLeader => ApiError::NoLeader,
            NodeError::LeaderChanged => ApiError::LeaderChanged,
            NodeError::TooManyRequests => ApiError::TooManyRequests,
            NodeError::NotLeader => ApiError::NotLeader,
            NodeError::BadTransferee => ApiError::BadTransferee,
            NodeError::LeaseNotFound => ApiError::LeaseNotFound,
            NodeError::NoSpace => ApiError::NoSpace,
            NodeError::Stopped => ApiError::Stopped,
        }
    }
}

impl From<MemberError> for ApiError {
    fn from(error: MemberError) -> ApiError {
        match error {
            MemberError::Node(error) => error.into(),
            MemberError::Refused(refusal) => refusal.into(),
        }
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> ApiError {
        match error {
            TokenError::Node(error) => error.into(),
            TokenError::Refused(refusal) => refusal.into(),
        }
    }
}

impl From<MemberRefusal> for ApiError {
    fn from(refusal: MemberRefusal) -> ApiError {
        match refusal {
            MemberRefusal::Unspecified => ApiError::NotCapable,
            MemberRefusal::MemberNotFound => ApiError::MemberNotFound,
            MemberRefusal::PeerUrlExists => ApiError::PeerUrlExists,
            MemberRefusal::MemberNotLearner => ApiError::MemberNotLearner,
            MemberRefusal::LearnerNotReady => ApiError::LearnerNotReady,
            MemberRefusal::TooManyLearners => ApiError::TooManyLearners,
            MemberRefusal::NotEnoughStarted => ApiError::NotEnoughStarted,
            MemberRefusal::Unhealthy => ApiError::Unhealthy,
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> ApiError {
        match error {
            ReadError::Compacted => ApiError::Compacted,
            ReadError::FutureRevision => ApiError::FutureRevision,
            // The member is about to stop: another one has the answer.
            ReadError::Failed => ApiError::Stopped,
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> ApiError {
        match refusal {
            Refusal::Unspecified => ApiError::UnexpectedReply,
            Refusal::Compacted => ApiError::Compacted,
            Refusal::FutureRevision => ApiError::FutureRevision,
            Refusal::KeyNotFound => ApiError::KeyNotFound,
            Refusal::LeaseNotFound => ApiError::LeaseNotFound,
            Refusal::LeaseExists => ApiError::LeaseExists,
            Refusal::NoSpace => ApiError::NoSpace,
            Refusal::Corrupt => ApiError::Corrupt,
            Refusal::PermissionDenied => ApiError::PermissionDenied,
            Refusal::AuthOldRevision => ApiError::AuthOldRevision,
            Refusal::UnknownRequest => ApiError::NotCapable,
            Refusal::UserEmpty => ApiError::UserEmpty,
            Refusal::RootUserNotExist => ApiError::RootUserNotExist,
            Refusal::RootRoleNotExist => ApiError::RootRoleNotExist,
            Refusal::UserAlreadyExists => ApiError::UserAlreadyExists,
            Refusal::UserNotFound => ApiError::UserNotFound,
            Refusal::RoleEmpty => ApiError::RoleEmpty,
            Refusal::RoleAlreadyExists => ApiError::RoleAlreadyExists,
            Refusal::RoleNotFound => ApiError::RoleNotFound,
            Refusal::RoleNotGranted => ApiError::RoleNotGranted,
            Refusal::PermissionNotGranted => ApiError::PermissionNotGranted,
            Refusal::PermissionNotGiven => ApiError::PermissionNotGiven,
            Refusal::InvalidAuthManagement => ApiError::InvalidAuthManagement,
            Refusal::JoinTokenUnknown
            | Refusal::JoinTokenExpired
            | Refusal::JoinTokenUsed
            | Refusal::JoinTokenRevoked => ApiError::JoinTokenUnknown,
            Refusal::JoinTokensTooMany => ApiError::JoinTokensTooMany,
            Refusal::RevocationsTooMany => ApiError::RevocationsTooMany,
        }
    }
}

/// etcd's lock and election services are clients of its other ones, and pass their errors on by text only.
#[expect(clippy::needless_pass_by_value, reason = "maps errors")]
pub(super) fn of_a_client(status: Status) -> Status {
    Status::unknown(status.message())
}

/// tonic says `OutOfRange` of a message over the limit, gRPC's own servers say `ResourceExhausted`, and clients
/// take `OutOfRange` for a compacted or future revision. `None`: another status, to be left as it is.
pub(super) fn too_large_message(status: &Status) -> Option<Status> {
    if status.code() != Code::OutOfRange {
        return None;
    }
    let rest = status
        .message()
        .strip_prefix("Error, decoded message length too large: found ")?;
    let (found, rest) = rest.split_once(" bytes, the limit is: ")?;
    let limit = rest.strip_suffix(" bytes")?;
    let text = format!("grpc: received message larger than max ({found} vs. {limit})");
    Some(Status::resource_exhausted(text))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn node_errors() {
        let all = [
            NodeError::Timeout,
            NodeError::NoLeader,
            NodeError::LeaderChanged,
            NodeError::TooManyRequests,
            NodeError::NotLeader,
            NodeError::BadTransferee,
            NodeError::LeaseNotFound,
            NodeError::NoSpace,
            NodeError::Stopped,
        ];
        check(
            all,
            &expect![[r#"
                Timeout: Unavailable etcdserver: request timed out
                NoLeader: Unavailable etcdserver: no leader
                LeaderChanged: Unavailable etcdserver: leader changed
                TooManyRequests: ResourceExhausted etcdserver: too many requests
                NotLeader: FailedPrecondition etcdserver: not leader
                BadTransferee: FailedPrecondition etcdserver: bad leader transferee
                LeaseNotFound: NotFound etcdserver: requested lease not found
                NoSpace: ResourceExhausted etcdserver: mvcc: database space exceeded
                Stopped: Unavailable etcdserver: server stopped
            "#]],
        );
    }

    #[test]
    fn member_refusals() {
        check(
            (0..=7).map(|number| MemberRefusal::try_from(number).unwrap()),
            &expect![[r#"
                Unspecified: FailedPrecondition etcdserver: not capable
                MemberNotFound: NotFound etcdserver: member not found
                PeerUrlExists: FailedPrecondition etcdserver: Peer URLs already exists
                MemberNotLearner: FailedPrecondition etcdserver: can only promote a learner member
                LearnerNotReady: FailedPrecondition etcdserver: can only promote a learner member which is in sync with leader
                TooManyLearners: FailedPrecondition etcdserver: too many learner members in cluster
                NotEnoughStarted: Unknown etcdserver: re-configuration failed due to not enough started members
                Unhealthy: Unavailable etcdserver: unhealthy cluster
            "#]],
        );
    }

    #[test]
    fn read_errors() {
        check(
            [ReadError::Compacted, ReadError::FutureRevision, ReadError::Failed],
            &expect![[r#"
                Compacted: OutOfRange etcdserver: mvcc: required revision has been compacted
                FutureRevision: OutOfRange etcdserver: mvcc: required revision is a future revision
                Failed: Unavailable etcdserver: server stopped
            "#]],
        );
    }

    #[test]
    fn refusals() {
        check(
            (0..=79).filter_map(|number| Refusal::try_from(number).ok()),
            &expect![[r#"
                Unspecified: Internal etcdserver: unexpected answer from apply
                Compacted: OutOfRange etcdserver: mvcc: required revision has been compacted
                FutureRevision: OutOfRange etcdserver: mvcc: required revision is a future revision
                KeyNotFound: InvalidArgument etcdserver: key not found
                LeaseNotFound: NotFound etcdserver: requested lease not found
                LeaseExists: FailedPrecondition etcdserver: lease already exists
                NoSpace: ResourceExhausted etcdserver: mvcc: database space exceeded
                Corrupt: DataLoss etcdserver: corrupt cluster
                PermissionDenied: PermissionDenied etcdserver: permission denied
                AuthOldRevision: InvalidArgument etcdserver: revision of auth store is old
                UnknownRequest: FailedPrecondition etcdserver: not capable
                UserEmpty: InvalidArgument etcdserver: user name is empty
                RootUserNotExist: FailedPrecondition etcdserver: root user does not exist
                RootRoleNotExist: FailedPrecondition etcdserver: root user does not have root role
                UserAlreadyExists: FailedPrecondition etcdserver: user name already exists
                UserNotFound: FailedPrecondition etcdserver: user name not found
                RoleEmpty: InvalidArgument etcdserver: role name is empty
                RoleAlreadyExists: FailedPrecondition etcdserver: role name already exists
                RoleNotFound: FailedPrecondition etcdserver: role name not found
                RoleNotGranted: FailedPrecondition etcdserver: role is not granted to the user
                PermissionNotGranted: FailedPrecondition etcdserver: permission is not granted to the role
                PermissionNotGiven: InvalidArgument etcdserver: permission not given
                InvalidAuthManagement: InvalidArgument etcdserver: invalid auth management
                JoinTokenUnknown: NotFound there is no such join token
                JoinTokenExpired: NotFound there is no such join token
                JoinTokenUsed: NotFound there is no such join token
                JoinTokenRevoked: NotFound there is no such join token
                JoinTokensTooMany: ResourceExhausted there are 100 join tokens: they are forgotten a day after they end
                RevocationsTooMany: ResourceExhausted there are 1000 revocations: replace the cluster's authority (agentctl cert rotate), and take them back
            "#]],
        );
    }

    fn check<E>(errors: impl IntoIterator<Item = E>, expected: &expect_test::Expect)
    where
        E: std::fmt::Debug,
        ApiError: From<E>,
    {
        let lines: String = errors
            .into_iter()
            .map(|error| {
                let name = format!("{error:?}");
                let status = Status::from(ApiError::from(error));
                format!("{name}: {:?} {}\n", status.code(), status.message())
            })
            .collect();
        expected.assert_eq(&lines);
    }

    #[test]
    fn only_a_message_over_the_limit_is_renamed() {
        let tonics =
            "Error, decoded message length too large: found 2097160 bytes, the limit is: 2097152 bytes";
        let renamed = too_large_message(&Status::out_of_range(tonics)).unwrap();
        assert_eq!(renamed.code(), Code::ResourceExhausted);
        assert_eq!(
            renamed.message(),
            "grpc: received message larger than max (2097160 vs. 2097152)"
        );
        assert!(too_large_message(&ApiError::Compacted.into()).is_none());
        assert!(too_large_message(&ApiError::NoSpace.into()).is_none());
    }
}
