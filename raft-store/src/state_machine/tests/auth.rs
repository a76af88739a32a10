//! Users and roles: applied, kept, and asked at each request's own position.

use openraft::EntryPayload;
use prost::Message;
use proto::authpb::Permission;
use proto::authpb::permission::Type;
use proto::replicated::auth_change::{Change, Enable, RolePermission, UserAdd, UserRole};
use proto::replicated::{AuthChange, Empty, Refusal, Request, reply, request::Op};

use super::{Fixture, put};
use crate::raft_types::Command;

pub(super) fn change(change: Change) -> Op {
    Op::Auth(AuthChange { change: Some(change) })
}

fn user(name: &str) -> Op {
    change(Change::UserAdd(UserAdd {
        name: name.into(),
        password_hash: "hash".into(),
        no_password: false,
    }))
}

fn grant_role(user: &str, role: &str) -> Op {
    change(Change::UserGrantRole(UserRole {
        user: user.into(),
        role: role.into(),
    }))
}

fn enable() -> Op {
    change(Change::Enable(Enable {
        token_key: "key".into(),
    }))
}

/// Root, and ann, who may write `a`.
pub(super) fn users() -> Vec<Op> {
    let permission = Permission {
        perm_type: Type::Write.into(),
        key: "a".into(),
        range_end: "".into(),
    };
    vec![
        user("root"),
        grant_role("root", "root"),
        user("ann"),
        change(Change::RoleAdd("writers".into())),
        change(Change::RoleGrantPermission(RolePermission {
            role: "writers".into(),
            permission: Some(permission),
        })),
        grant_role("ann", "writers"),
        enable(),
    ]
}

impl Fixture {
    /// What apply answers a user who was checked at `auth_revision`.
    pub(super) fn refused_as(&mut self, user: &str, auth_revision: u64, op: Op) -> Option<Refusal> {
        let request = Request {
            user: user.into(),
            auth_revision,
            op: Some(op),
        };
        let entry = self.entry(EntryPayload::Normal(Command(request.encode_to_vec().into())));
        match self.apply_entries(&[entry]).remove(0).result {
            Some(reply::Result::Refused(refusal)) => Refusal::try_from(refusal).ok(),
            _ => None,
        }
    }
}

#[test]
fn permissions_are_checked_at_the_position_of_the_request() {
    let mut fixture = Fixture::new();
    for op in users() {
        fixture.done(op);
    }
    let now = fixture.store.auth().revision();
    assert_eq!(fixture.refused_as("ann", now, put("a", "1")), None);
    assert_eq!(
        fixture.refused_as("ann", now, put("b", "1")),
        Some(Refusal::PermissionDenied)
    );
    // A change between the check and the position.
    fixture.done(user("zoe"));
    assert_eq!(
        fixture.refused_as("ann", now, put("a", "2")),
        Some(Refusal::AuthOldRevision)
    );
    assert_eq!(fixture.refused_as("ann", now + 1, put("a", "2")), None);
    assert_eq!(
        fixture.refused_as("ann", now + 1, user("eve")),
        Some(Refusal::PermissionDenied)
    );
    assert_eq!(fixture.refused_as("root", now + 1, user("eve")), None);
    assert_eq!(fixture.shown(0), "a=2");
}

#[test]
fn a_client_from_before_auth_was_on_is_not_the_cluster() {
    let mut fixture = Fixture::new();
    for op in users() {
        fixture.done(op);
    }
    let now = fixture.store.auth().revision();
    assert_eq!(
        fixture.refused_as("", now, put("a", "1")),
        Some(Refusal::UserEmpty)
    );
    assert_eq!(fixture.refused_as("", 0, put("a", "1")), None);
}

/// A store elsewhere, from a snapshot of this one.
async fn installed(from: &mut Fixture) -> Fixture {
    let snapshot = from.snapshot().await;
    let mut elsewhere = Fixture::new();
    let mut receiver = elsewhere.store.receive_snapshot().unwrap();
    receiver
        .write(&std::fs::read(snapshot.snapshot.path()).unwrap())
        .unwrap();
    let file = receiver.finish().unwrap();
    elsewhere.install(&snapshot.meta, file).await;
    elsewhere
}

#[tokio::test]
async fn users_survive_a_restart_and_a_snapshot() {
    let mut fixture = Fixture::new();
    for op in users() {
        fixture.done(op);
    }
    let shown = |fixture: &Fixture| {
        let auth = fixture.store.auth();
        let users: Vec<String> = auth
            .user_names()
            .map(|name| {
                let user = auth.user(name).expect("a user");
                format!(
                    "{name} {:?} {:?} {}",
                    user.roles(),
                    user.password_hash(),
                    user.changed_revision()
                )
            })
            .collect();
        let role = auth.role("writers").map(<[Permission]>::to_vec);
        (
            auth.is_enabled(),
            auth.revision(),
            auth.token_key().to_vec(),
            users,
            role,
        )
    };
    let before = shown(&fixture);
    assert!(before.0);
    let mut fixture = fixture.reopen();
    assert_eq!(shown(&fixture), before);
    assert_eq!(shown(&installed(&mut fixture).await), before);
    fixture.done(change(Change::UserDelete("ann".into())));
    let fixture = fixture.reopen();
    assert!(fixture.store.auth().user("ann").is_none());
}

#[test]
fn a_change_is_told_once_it_is_applied() {
    let mut fixture = Fixture::new();
    let changes = fixture.store.auth_changes();
    fixture.done(user("ann"));
    assert!(changes.has_changed().unwrap());
    assert!(fixture.store.auth().user("ann").is_some());
    assert_eq!(fixture.refused(user("ann")), Refusal::UserAlreadyExists);
    fixture.done(change(Change::Disable(Empty {})));
    assert_eq!(fixture.store.auth().revision(), 2, "nothing was changed");
}
