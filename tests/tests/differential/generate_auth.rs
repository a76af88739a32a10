//! Users, roles, permissions and tokens in generated sequences.

use rand::Rng;
use rand::rngs::StdRng;

use crate::generate::{end, key, once_in, pick};
use crate::op::{As, Auth, Op, Txn, TxnOp};

const USERS: [&str; 3] = ["u1", "u2", "root"];
const ROLES: [&str; 3] = ["r1", "r2", "root"];
const PASSWORDS: [&str; 2] = ["one", "two"];

/// Users and roles to begin with, auth on, and everybody logged in.
pub(crate) fn preparation(random: &mut StdRng) -> Vec<Op> {
    let mut steps = vec![
        Auth::UserAdd {
            name: "root".to_owned(),
            password: "root".to_owned(),
            no_password: false,
        },
        Auth::RoleAdd {
            name: "root".to_owned(),
        },
        Auth::UserGrantRole {
            user: "root".to_owned(),
            role: "root".to_owned(),
        },
    ];
    for (user, role) in [("u1", "r1"), ("u2", "r2")] {
        steps.push(Auth::UserAdd {
            name: user.to_owned(),
            password: "one".to_owned(),
            no_password: false,
        });
        steps.push(Auth::RoleAdd {
            name: role.to_owned(),
        });
        steps.push(Auth::UserGrantRole {
            user: user.to_owned(),
            role: role.to_owned(),
        });
        steps.push(grant(random, role));
        steps.push(grant(random, role));
    }
    steps.push(Auth::Enable);
    for (name, password) in [("root", "root"), ("u1", "one"), ("u2", "one")] {
        steps.push(Auth::Login {
            name: name.to_owned(),
            password: password.to_owned(),
        });
    }
    steps.into_iter().map(Op::Auth).collect()
}

/// Each key has one end only: of two permissions that begin alike etcd 3.5 changes the first, and grants the other twice.
fn grant(random: &mut StdRng, role: &str) -> Auth {
    let key = key(random);
    let range_end = match key.as_str() {
        "a" => "\u{ff}\u{ff}",
        "aa" => "b0",
        "b" => "c",
        "b/1" => "\0",
        _ => "",
    };
    Auth::RoleGrantPermission {
        name: role.to_owned(),
        perm_type: random.random_range(0..3),
        key,
        range_end: range_end.to_owned(),
    }
}

/// Asked by one of the users, or by nobody.
///
/// Three things are left out, as what follows from them could not be compared. Real etcd serves leases and compactions
/// to strangers (compactions: CVE-2026-33413), and here they need permission: only root asks for them. Real etcd 3.5 looks for no permission inside a
/// nested transaction, nor for what a put in one tells of the value before or decides over other keys of its lease:
/// none of it is there. And etcd's interval tree grants some ranges whose end is before their start,
/// which name no key, while here both ends must be allowed.
pub(crate) fn as_someone(random: &mut StdRng, mut op: Op) -> Op {
    upright(&mut op);
    if let Op::Watch(watch) = &mut op {
        // A watch that has lost its permission is over here and goes on in etcd: its id is not asked for again.
        watch.watch_id = 0;
    }
    let roots_own = matches!(
        op,
        Op::Grant(_) | Op::Revoke(_) | Op::KeepAlive(_) | Op::TimeToLive(_) | Op::Leases | Op::Compact(_)
    );
    let administers = matches!(op, Op::Auth(_));
    let user = match random.random_range(0..20) {
        _ if roots_own => "root",
        0 => return op,
        1..13 if administers => "root",
        1..6 => "root",
        6..14 => "u1",
        _ => "u2",
    };
    Op::As(As {
        user: user.to_owned(),
        ask: Box::new(op),
    })
}

/// Makes one key of every range that names none, and takes out what etcd does not check in transactions.
fn upright(op: &mut Op) {
    match op {
        Op::Range(range) => stand(&range.key, &mut range.range_end),
        Op::Delete(delete) => stand(&delete.key, &mut delete.range_end),
        // One without an end needs permission for its first key only in etcd, for all of them here.
        Op::Watch(watch) if watch.range_end == "\0" => watch.range_end.clear(),
        Op::Watch(watch) => stand(&watch.key, &mut watch.range_end),
        Op::Txn(txn) => upright_txn(txn),
        _ => {}
    }
}

fn upright_txn(txn: &mut Txn) {
    for compare in &mut txn.compare {
        stand(&compare.key, &mut compare.range_end);
    }
    for branch in [&mut txn.success, &mut txn.failure] {
        branch.retain(|op| !matches!(op, TxnOp::Txn(_)));
        for op in branch {
            match op {
                TxnOp::Range(range) => stand(&range.key, &mut range.range_end),
                TxnOp::Delete(delete) => stand(&delete.key, &mut delete.range_end),
                TxnOp::Put(put) => {
                    put.prev_kv = false;
                    put.lease = 0;
                }
                TxnOp::Txn(_) | TxnOp::Nothing => {}
            }
        }
    }
}

fn stand(key: &str, range_end: &mut String) {
    if range_end != "\0" && range_end.as_str() <= key {
        range_end.clear();
    }
}

/// A request of the Auth service. Root keeps its password, so that a sequence can be cleaned up after.
pub(crate) fn auth(random: &mut StdRng) -> Op {
    let user = pick(random, &USERS).to_owned();
    let ordinary = pick(random, &["u1", "u2", "u3", ""]).to_owned();
    let role = pick(random, &ROLES).to_owned();
    let password = pick(random, &PASSWORDS).to_owned();
    Op::Auth(match random.random_range(0..100) {
        0..25 => Auth::Login {
            password: if user == "root" && !once_in(random, 10) {
                "root".to_owned()
            } else {
                password
            },
            name: user,
        },
        25..30 => Auth::Enable,
        30..32 => Auth::Disable,
        32..36 => Auth::Status,
        36..42 => Auth::UserAdd {
            name: ordinary,
            password: if once_in(random, 10) {
                String::new()
            } else {
                password
            },
            no_password: once_in(random, 8),
        },
        42..47 => Auth::UserGet { name: user },
        47..49 => Auth::UserList,
        49..52 => Auth::UserDelete { name: ordinary },
        52..56 => Auth::UserChangePassword {
            name: ordinary,
            password,
        },
        56..63 => Auth::UserGrantRole { user, role },
        63..66 => Auth::UserRevokeRole { name: ordinary, role },
        66..70 => Auth::RoleAdd { name: role },
        70..75 => Auth::RoleGet { role },
        75..77 => Auth::RoleList,
        77..79 => Auth::RoleDelete { role },
        79..93 => grant(random, &role),
        _ => Auth::RoleRevokePermission {
            role,
            key: key(random),
            range_end: end(random),
        },
    })
}
