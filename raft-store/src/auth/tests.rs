//! Ranges and permissions, as etcd merges and asks them.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;
use proto::authpb::Permission;
use proto::authpb::permission::Type;
use proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
    RangeRequest, RequestOp, TxnRequest, request_op,
};
use proto::replicated::auth_change::{Change, RolePermission, UserAdd, UserRole};
use proto::replicated::request::Op;
use proto::replicated::{AuthChange, Empty, Refusal};

use super::{Auth, Permissions, ROOT};
use crate::lease::{LeaseChange, Leases};
use crate::mvcc::KeyRange;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn grant(kind: Type, key: &str, range_end: &str) -> Permission {
    Permission {
        perm_type: kind.into(),
        key: bytes(key),
        range_end: bytes(range_end),
    }
}

fn readable(ranges: &[(&str, &str)]) -> Permissions {
    let granted: Vec<Permission> = ranges
        .iter()
        .map(|(key, end)| grant(Type::Read, key, end))
        .collect();
    Permissions::merge(&granted)
}

#[test]
fn what_merged_ranges_hold() {
    let permissions = readable(&[("a", "c"), ("c", "e"), ("m", ""), ("x", "\0"), ("z", "y")]);
    let cases = [
        ("a", "", true),
        ("b", "d", true),
        ("a", "e", true),
        ("a", "e\0", false),
        ("e", "", false),
        ("m", "", true),
        ("m", "m\0", true),
        ("m", "m\0\0", false),
        ("l", "m", false),
        ("w", "", false),
        ("x", "", true),
        ("x", "\0", true),
        ("zz", "\0", true),
        ("w", "\0", false),
        ("a", "\0", false),
        ("\0", "\0", false),
        // Ranges without keys: only where both ends are the user's.
        ("d", "b", true),
        ("b", "b", true),
        ("d", "A", false),
        ("f", "b", false),
        ("zz", "y", true),
        ("zz", "a", false),
    ];
    for (key, range_end, expected) in cases {
        let allowed = permissions.may_read(key.as_bytes(), range_end.as_bytes());
        assert_eq!(allowed, expected, "{key:?} {range_end:?}");
        assert!(!permissions.may_write(key.as_bytes(), range_end.as_bytes()));
    }
    assert!(!readable(&[]).may_read(b"a", b""));
    assert!(readable(&[("\0", "\0")]).may_read(b"\0", b"\0"));
}

proptest! {
    /// Against the definition: a range is allowed when every key in it is, of all keys there may be.
    #[test]
    fn a_range_is_allowed_when_all_its_keys_are(
        granted in prop::collection::vec(("[abc]{1,2}", "([abc]{1,2}|\0)?"), 0..6),
        key in "[abc]{1,2}",
        range_end in "([abc]{1,2}|\0)?",
    ) {
        let ranges: Vec<(&str, &str)> = granted.iter().map(|(key, end)| (key.as_str(), end.as_str())).collect();
        let letters = ["", "\0", "a", "b", "c", "d"];
        let mut keys = BTreeSet::new();
        for one in letters {
            for two in letters {
                for three in letters {
                    keys.insert(format!("{one}{two}{three}"));
                }
            }
        }
        let asked = KeyRange::new(key.as_bytes(), range_end.as_bytes());
        prop_assume!(asked.bounds().is_some());
        let holds = |text: &str| ranges.iter().any(|(key, end)| KeyRange::new(key.as_bytes(), end.as_bytes()).contains(text.as_bytes()));
        let expected = keys.iter().filter(|text| asked.contains(text.as_bytes())).all(|text| holds(text));
        prop_assert_eq!(readable(&ranges).may_read(key.as_bytes(), range_end.as_bytes()), expected);
    }
}

fn put(key: &str, prev_kv: bool, lease: i64) -> request_op::Request {
    request_op::Request::RequestPut(PutRequest {
        key: bytes(key),
        prev_kv,
        lease,
        ..PutRequest::default()
    })
}

fn delete(key: &str, range_end: &str, prev_kv: bool) -> request_op::Request {
    request_op::Request::RequestDeleteRange(DeleteRangeRequest {
        key: bytes(key),
        range_end: bytes(range_end),
        prev_kv,
    })
}

fn get(key: &str) -> request_op::Request {
    request_op::Request::RequestRange(RangeRequest {
        key: bytes(key),
        ..RangeRequest::default()
    })
}

fn compare(key: &str, range_end: &str) -> TxnRequest {
    TxnRequest {
        compare: vec![Compare {
            key: bytes(key),
            range_end: bytes(range_end),
            ..Compare::default()
        }],
        ..TxnRequest::default()
    }
}

fn on_branch(failure: bool, op: request_op::Request) -> TxnRequest {
    let ops = vec![RequestOp { request: Some(op) }];
    if failure {
        TxnRequest {
            failure: ops,
            ..TxnRequest::default()
        }
    } else {
        TxnRequest {
            success: ops,
            ..TxnRequest::default()
        }
    }
}

/// Reads `r`, writes `w`, does both with `b`; lease 1 has a key `w`, lease 2 a foreign key too.
fn somebody() -> (Permissions, Leases) {
    let granted = [
        grant(Type::Read, "r", ""),
        grant(Type::Write, "w", ""),
        grant(Type::Readwrite, "b", ""),
        Permission {
            perm_type: 7,
            key: bytes("u"),
            range_end: Bytes::new(),
        },
    ];
    let mut leases = Leases::default();
    for id in [1, 2] {
        leases.change(&LeaseChange::Grant { id, ttl_seconds: 60 });
    }
    for (key, id) in [("w", 1), ("w2", 2), ("x", 2)] {
        leases.change(&LeaseChange::Attach { key: bytes(key), id });
    }
    (Permissions::merge(&granted), leases)
}

#[test]
fn what_each_operation_needs() {
    let (permissions, leases) = somebody();
    let cases = [
        (put("w", false, 0), true),
        (put("r", false, 0), false),
        (put("u", false, 0), false),
        (put("w", true, 0), false),
        (put("b", true, 0), true),
        (put("w", false, 1), true),
        (put("w", false, 2), false),
        (put("w", false, 9), true),
        (delete("w", "", false), true),
        (delete("w", "", true), false),
        (delete("b", "", true), true),
        (delete("w", "\0", false), false),
        (delete("r", "", false), false),
        (get("r"), true),
        (get("w"), false),
    ];
    for (op, expected) in cases {
        let alone = match op.clone() {
            request_op::Request::RequestPut(put) => Some(Op::Put(put)),
            request_op::Request::RequestDeleteRange(delete) => Some(Op::DeleteRange(delete)),
            _ => None,
        };
        if let Some(alone) = alone {
            assert_eq!(permissions.may(&alone, &leases), expected, "{alone:?}");
        }
        // The same in a Txn, on either branch, however deep.
        for failure in [false, true] {
            let mut txn = on_branch(failure, op.clone());
            for _ in 0..3 {
                assert_eq!(
                    permissions.may(&Op::Txn(txn.clone()), &leases),
                    expected,
                    "{txn:?}"
                );
                txn = on_branch(!failure, request_op::Request::RequestTxn(txn));
            }
        }
    }
    for (key, range_end, expected) in [
        ("r", "", true),
        ("w", "", false),
        ("r", "\0", false),
        ("b", "", true),
    ] {
        let txn = compare(key, range_end);
        assert_eq!(permissions.may(&Op::Txn(txn.clone()), &leases), expected);
        assert_eq!(permissions.may_read_txn(&txn), expected);
        let nested = on_branch(true, request_op::Request::RequestTxn(txn));
        assert_eq!(permissions.may(&Op::Txn(nested.clone()), &leases), expected);
        assert_eq!(permissions.may_read_txn(&nested), expected);
    }
    assert!(!permissions.may_read_txn(&on_branch(false, put("w", false, 0))));
    for (id, expected) in [(1, true), (2, false)] {
        assert_eq!(
            permissions.may(&Op::LeaseRevoke(LeaseRevokeRequest { id }), &leases),
            expected
        );
    }
    assert!(permissions.may(&Op::LeaseGrant(LeaseGrantRequest::default()), &leases));
    let compact = Op::Compact(CompactionRequest::default());
    assert!(!permissions.may(&compact, &leases), "history is everybody's");
    assert!(Permissions::merge(&[grant(Type::Write, "\0", "\0")]).may(&compact, &leases));
    assert!(!permissions.may(&Op::Auth(AuthChange::default()), &leases));
    assert!(Permissions::root().may(&Op::Auth(AuthChange::default()), &leases));
}

fn changed(auth: &mut Auth, change: Change) -> Result<(), Refusal> {
    auth.change(AuthChange { change: Some(change) }).map(|_| ())
}

fn add_user(auth: &mut Auth, name: &str) {
    let add = UserAdd {
        name: name.into(),
        ..UserAdd::default()
    };
    changed(auth, Change::UserAdd(add)).unwrap();
}

fn member_of(user: &str, role: &str) -> UserRole {
    UserRole {
        user: user.into(),
        role: role.into(),
    }
}

#[test]
fn permissions_follow_every_change() {
    let mut auth = Auth::default();
    add_user(&mut auth, "ann");
    changed(&mut auth, Change::RoleAdd("r".into())).unwrap();
    changed(&mut auth, Change::UserGrantRole(member_of("ann", "r"))).unwrap();
    let may = |auth: &Auth| auth.permissions("ann").is_some_and(|ann| ann.may_read(b"k", b""));
    assert!(!may(&auth));
    let range = RolePermission {
        role: "r".into(),
        permission: Some(grant(Type::Read, "k", "")),
    };
    changed(&mut auth, Change::RoleGrantPermission(range.clone())).unwrap();
    assert!(may(&auth));
    changed(&mut auth, Change::RoleRevokePermission(range.clone())).unwrap();
    assert!(!may(&auth));
    changed(&mut auth, Change::RoleGrantPermission(range)).unwrap();
    assert!(may(&auth));
    changed(&mut auth, Change::RoleDelete("r".into())).unwrap();
    assert!(!may(&auth));
    assert!(auth.user("ann").is_some_and(|ann| ann.roles().is_empty()));
    changed(&mut auth, Change::UserGrantRole(member_of("ann", ROOT))).unwrap();
    assert!(may(&auth));
    changed(&mut auth, Change::UserDelete("ann".into())).unwrap();
    assert_eq!(auth.permissions("ann"), None);
}

#[test]
fn who_may_propose() {
    let mut auth = Auth::default();
    for name in [ROOT, "ann"] {
        add_user(&mut auth, name);
    }
    changed(&mut auth, Change::UserGrantRole(member_of(ROOT, ROOT))).unwrap();
    let leases = Leases::default();
    let op = Op::Put(PutRequest::default());
    let ask = |auth: &Auth, user: &str, revision: u64| auth.authorise(user, revision, &op, &leases);
    assert_eq!(ask(&auth, "", 1), Ok(()), "auth is off");
    changed(
        &mut auth,
        Change::Enable(proto::replicated::auth_change::Enable::default()),
    )
    .unwrap();
    let now = auth.revision();
    assert_eq!(ask(&auth, "", 0), Ok(()), "the cluster itself");
    assert_eq!(
        ask(&auth, "", now),
        Err(Refusal::UserEmpty),
        "a client from before"
    );
    assert_eq!(ask(&auth, ROOT, now), Ok(()));
    assert_eq!(ask(&auth, ROOT, now - 1), Err(Refusal::AuthOldRevision));
    assert_eq!(ask(&auth, "ann", now), Err(Refusal::PermissionDenied));
    assert_eq!(ask(&auth, "nobody", now), Err(Refusal::PermissionDenied));
    changed(&mut auth, Change::Disable(Empty {})).unwrap();
    assert_eq!(ask(&auth, "ann", 1), Ok(()));
}
