//! One step of a sequence, as data: it is generated, shrunk, printed and pasted as a kept case.
//!
//! A revision is mostly said relative to where the store is when the step runs, so that a step keeps its meaning
//! when others before it are taken away. Field names are the requests' own.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Bytes, one for each character: `"\u{ff}"` is the single byte 255.
pub(crate) type Text = String;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Op {
    Range(Range),
    Put(Put),
    Delete(Delete),
    Txn(Txn),
    Compact(Compact),
    Grant(Grant),
    Revoke(Lease),
    KeepAlive(Lease),
    TimeToLive(TimeToLive),
    Leases,
    Watch(Watch),
    Cancel(Cancel),
    Progress(Stream),
    Auth(Auth),
    /// Another step, asked as a user: with the token of the user's last `Login`.
    As(As),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Range {
    pub(crate) key: Text,
    pub(crate) range_end: Text,
    pub(crate) limit: i64,
    pub(crate) revision: Rev,
    pub(crate) sort_order: i32,
    pub(crate) sort_target: i32,
    pub(crate) serializable: bool,
    pub(crate) keys_only: bool,
    pub(crate) count_only: bool,
    pub(crate) min_mod_revision: Rev,
    pub(crate) max_mod_revision: Rev,
    pub(crate) min_create_revision: Rev,
    pub(crate) max_create_revision: Rev,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Put {
    pub(crate) key: Text,
    pub(crate) value: Text,
    pub(crate) lease: i64,
    pub(crate) prev_kv: bool,
    pub(crate) ignore_value: bool,
    pub(crate) ignore_lease: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Delete {
    pub(crate) key: Text,
    pub(crate) range_end: Text,
    pub(crate) prev_kv: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Txn {
    pub(crate) compare: Vec<Compare>,
    pub(crate) success: Vec<TxnOp>,
    pub(crate) failure: Vec<TxnOp>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TxnOp {
    Range(Range),
    Put(Put),
    Delete(Delete),
    Txn(Txn),
    /// A request of no kind.
    Nothing,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Compare {
    pub(crate) result: i32,
    /// What is compared; `with` may be something else.
    pub(crate) target: i32,
    pub(crate) key: Text,
    pub(crate) range_end: Text,
    pub(crate) with: With,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum With {
    #[default]
    Nothing,
    Version(i64),
    Create(Rev),
    Mod(Rev),
    Value(Text),
    Lease(i64),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Compact {
    pub(crate) revision: Rev,
    pub(crate) physical: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Grant {
    pub(crate) id: i64,
    /// In seconds. One that could run out within the sequence is revoked at once.
    pub(crate) ttl: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Lease {
    pub(crate) id: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TimeToLive {
    pub(crate) id: i64,
    pub(crate) keys: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Watch {
    /// Which of the client's streams.
    pub(crate) stream: usize,
    pub(crate) key: Text,
    pub(crate) range_end: Text,
    pub(crate) start_revision: Rev,
    pub(crate) progress_notify: bool,
    pub(crate) filters: Vec<i32>,
    pub(crate) prev_kv: bool,
    pub(crate) watch_id: i64,
    pub(crate) fragment: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Cancel {
    pub(crate) stream: usize,
    pub(crate) watch_id: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Stream {
    pub(crate) stream: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Auth {
    Enable,
    Disable,
    Status,
    /// Authenticate, and keep the token for the steps that are asked as this user.
    Login {
        name: String,
        password: String,
    },
    UserAdd {
        name: String,
        password: String,
        no_password: bool,
    },
    UserGet {
        name: String,
    },
    UserList,
    UserDelete {
        name: String,
    },
    UserChangePassword {
        name: String,
        password: String,
    },
    UserGrantRole {
        user: String,
        role: String,
    },
    UserRevokeRole {
        name: String,
        role: String,
    },
    RoleAdd {
        name: String,
    },
    RoleGet {
        role: String,
    },
    RoleList,
    RoleDelete {
        role: String,
    },
    RoleGrantPermission {
        name: String,
        perm_type: i32,
        key: Text,
        range_end: Text,
    },
    RoleRevokePermission {
        role: String,
        key: Text,
        range_end: Text,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct As {
    pub(crate) user: String,
    pub(crate) ask: Box<Op>,
}

impl Op {
    /// Whether it leaves the store, its leases and its streams as they are, so that neighbours may be asked at once.
    pub(crate) fn only_reads(&self) -> bool {
        match self {
            Op::Range(_) | Op::TimeToLive(_) | Op::Leases => true,
            Op::As(as_user) => as_user.ask.only_reads(),
            _ => false,
        }
    }

    /// Whether the member that is asked answers from its own state, which may be behind.
    pub(crate) fn reads_own_state(&self) -> bool {
        match self {
            Op::Range(range) => range.serializable,
            Op::Txn(txn) => txn.reads_own_state(),
            Op::As(as_user) => as_user.ask.reads_own_state(),
            _ => false,
        }
    }

    /// One line of JSON, without what is at its default.
    pub(crate) fn line(&self) -> String {
        serde_json::to_string(&self.value()).expect("an operation is plain data")
    }

    /// The same as a tree, for whoever wants to take parts of it away.
    pub(crate) fn value(&self) -> Value {
        let mut value = serde_json::to_value(self).expect("an operation is plain data");
        strip(&mut value);
        value
    }

    /// # Panics
    /// When the line is no operation: a kept case is wrong then.
    pub(crate) fn parse(line: &str) -> Op {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

impl Txn {
    fn reads_own_state(&self) -> bool {
        let mut ops = self.success.iter().chain(&self.failure);
        ops.all(|op| match op {
            TxnOp::Range(range) => range.serializable,
            TxnOp::Txn(nested) => nested.reads_own_state(),
            TxnOp::Put(_) | TxnOp::Delete(_) | TxnOp::Nothing => false,
        })
    }
}

/// Takes away what reading it back fills in again. What `Auth` and `With` hold has no defaults and stays.
fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                if name != "auth" && name != "with" {
                    strip(field);
                }
            }
            fields.retain(|_, field| !is_default(field));
        }
        Value::Array(elements) => elements.iter_mut().for_each(strip),
        _ => {}
    }
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty() || text == "nothing",
        Value::Array(elements) => elements.is_empty(),
        Value::Null | Value::Object(_) => false,
    }
}

/// A revision: a number, or relative to a subject's own state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) enum Rev {
    At(i64),
    /// So far from the current one: `now-3`.
    Now(i64),
    /// So far from the compacted one: `compacted+1`.
    Compacted(i64),
}

/// Where a store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
}

impl Rev {
    pub(crate) fn at(self, place: Place) -> i64 {
        match self {
            Rev::At(revision) => revision,
            Rev::Now(offset) => place.revision + offset,
            Rev::Compacted(offset) => place.compacted + offset,
        }
    }
}

impl Default for Rev {
    fn default() -> Rev {
        Rev::At(0)
    }
}

impl fmt::Display for Rev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rev::At(0) => Ok(()),
            Rev::At(revision) => write!(f, "{revision}"),
            Rev::Now(offset) => write!(f, "now{offset:+}"),
            Rev::Compacted(offset) => write!(f, "compacted{offset:+}"),
        }
    }
}

impl From<Rev> for String {
    fn from(rev: Rev) -> String {
        rev.to_string()
    }
}

impl TryFrom<String> for Rev {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Rev, Self::Error> {
        if text.is_empty() {
            Ok(Rev::At(0))
        } else if let Some(offset) = text.strip_prefix("now") {
            offset.parse().map(Rev::Now)
        } else if let Some(offset) = text.strip_prefix("compacted") {
            offset.parse().map(Rev::Compacted)
        } else {
            text.parse().map(Rev::At)
        }
    }
}
