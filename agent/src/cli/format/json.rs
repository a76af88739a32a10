//! etcdctl's JSON: names as in the `.proto` files, bytes in base64, zero values left out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::response_op::Response;
use proto::mvccpb::event::EventType;
use proto::mvccpb::{Event, KeyValue};
use serde_json::{Map, Value, json};

/// An object that leaves out what is zero, empty or absent, as etcd's encoder does.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        let empty = match &value {
            Value::Null => true,
            Value::Bool(flag) => !flag,
            Value::Number(number) => number.as_i64() == Some(0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(_) => false,
        };
        if !empty {
            self.0.insert(name.to_owned(), value);
        }
        self
    }

    fn value(self) -> Value {
        Value::Object(self.0)
    }
}

fn base64(bytes: &[u8]) -> Value {
    Value::String(STANDARD.encode(bytes))
}

pub(crate) fn header(header: Option<&pb::ResponseHeader>) -> Value {
    let header = header.copied().unwrap_or_default();
    Object::default()
        .with("cluster_id", header.cluster_id)
        .with("member_id", header.member_id)
        .with("revision", header.revision)
        .with("raft_term", header.raft_term)
        .value()
}

fn key_value(kv: &KeyValue) -> Value {
    Object::default()
        .with("key", base64(&kv.key))
        .with("create_revision", kv.create_revision)
        .with("mod_revision", kv.mod_revision)
        .with("version", kv.version)
        .with("value", base64(&kv.value))
        .with("lease", kv.lease)
        .value()
}

fn key_values(kvs: &[KeyValue]) -> Value {
    Value::Array(kvs.iter().map(key_value).collect())
}

pub(crate) fn range(response: &pb::RangeResponse) -> Value {
    Object::default()
        .with("header", header(response.header.as_ref()))
        .with("kvs", key_values(&response.kvs))
        .with("more", response.more)
        .with("count", response.count)
        .value()
}

pub(crate) fn put(response: &pb::PutResponse) -> Value {
    Object::default()
        .with("header", header(response.header.as_ref()))
        .with(
            "prev_kv",
            response.prev_kv.as_ref().map_or(Value::Null, key_value),
        )
        .value()
}

pub(crate) fn delete_range(response: &pb::DeleteRangeResponse) -> Value {
    Object::default()
        .with("header", header(response.header.as_ref()))
        .with("deleted", response.deleted)
        .with("prev_kvs", key_values(&response.prev_kvs))
        .value()
}

pub(crate) fn txn(response: &pb::TxnResponse) -> Value {
    let operation = |operation: &pb::ResponseOp| match &operation.response {
        Some(Response::ResponseRange(response)) => json!({"Response": {"response_range": range(response)}}),
        Some(Response::ResponsePut(response)) => json!({"Response": {"response_put": put(response)}}),
        Some(Response::ResponseDeleteRange(response)) => {
            json!({"Response": {"response_delete_range": delete_range(response)}})
        }
        Some(Response::ResponseTxn(response)) => json!({"Response": {"response_txn": txn(response)}}),
        None => json!({"Response": null}),
    };
    Object::default()
        .with("header", header(response.header.as_ref()))
        .with("succeeded", response.succeeded)
        .with(
            "responses",
            response.responses.iter().map(operation).collect::<Vec<_>>(),
        )
        .value()
}

pub(crate) fn compact(response: &pb::CompactionResponse) -> Value {
    json!({"header": header(response.header.as_ref())})
}

/// A watch answer has no names of its own in etcd's JSON but the Go client's.
pub(crate) fn watch(response: &pb::WatchResponse) -> Value {
    json!({
        "Header": header(response.header.as_ref()),
        "Events": response.events.iter().map(event).collect::<Vec<_>>(),
        "CompactRevision": response.compact_revision,
        "Canceled": response.canceled,
        "Created": response.created,
    })
}

fn event(event: &Event) -> Value {
    Object::default()
        .with("type", i32::from(event.r#type() == EventType::Delete))
        .with("kv", event.kv.as_ref().map_or(Value::Null, key_value))
        .with("prev_kv", event.prev_kv.as_ref().map_or(Value::Null, key_value))
        .value()
}

pub(crate) fn members(response_header: Option<&pb::ResponseHeader>, members: &[pb::Member]) -> Value {
    json!({
        "header": header(response_header),
        "members": members.iter().map(member).collect::<Vec<_>>(),
    })
}

pub(crate) fn member_add(response: &pb::MemberAddResponse) -> Value {
    json!({
        "header": header(response.header.as_ref()),
        "member": response.member.as_ref().map(member),
        "members": response.members.iter().map(member).collect::<Vec<_>>(),
    })
}

fn member(member: &pb::Member) -> Value {
    Object::default()
        .with("ID", member.id)
        .with("name", member.name.as_str())
        .with("peerURLs", member.peer_ur_ls.clone())
        .with("clientURLs", member.client_ur_ls.clone())
        .with("isLearner", member.is_learner)
        .value()
}

pub(crate) fn status(response: &pb::StatusResponse) -> Value {
    Object::default()
        .with("header", header(response.header.as_ref()))
        .with("version", response.version.as_str())
        .with("dbSize", response.db_size)
        .with("leader", response.leader)
        .with("raftIndex", response.raft_index)
        .with("raftTerm", response.raft_term)
        .with("raftAppliedIndex", response.raft_applied_index)
        .with("errors", response.errors.clone())
        .with("dbSizeInUse", response.db_size_in_use)
        .with("isLearner", response.is_learner)
        .with("storageVersion", response.storage_version.as_str())
        .with("dbSizeQuota", response.db_size_quota)
        .value()
}

pub(crate) fn hash_kv(response: &pb::HashKvResponse) -> Value {
    Object::default()
        .with("header", header(response.header.as_ref()))
        .with("hash", response.hash)
        .with("compact_revision", response.compact_revision)
        .with("hash_revision", response.hash_revision)
        .value()
}

pub(crate) fn alarms(response: &pb::AlarmResponse) -> Value {
    let alarm = |alarm: &pb::AlarmMember| {
        Object::default()
            .with("memberID", alarm.member_id)
            .with("alarm", alarm.alarm)
            .value()
    };
    Object::default()
        .with("header", header(response.header.as_ref()))
        .with("alarms", response.alarms.iter().map(alarm).collect::<Vec<_>>())
        .value()
}

/// The header's fields and the answer's own on one level, as the Go client holds a lease's answers.
fn flat(response: Option<&pb::ResponseHeader>, fields: Value) -> Value {
    let mut flat = header(response);
    if let (Value::Object(flat), Value::Object(fields)) = (&mut flat, fields) {
        flat.extend(fields);
    }
    flat
}

pub(crate) fn lease_grant(response: &pb::LeaseGrantResponse) -> Value {
    let fields = json!({"ID": response.id, "TTL": response.ttl, "Error": response.error});
    flat(response.header.as_ref(), fields)
}

pub(crate) fn lease_revoke(response: &pb::LeaseRevokeResponse) -> Value {
    json!({"header": header(response.header.as_ref())})
}

pub(crate) fn lease_keep_alive(response: &pb::LeaseKeepAliveResponse) -> Value {
    flat(
        response.header.as_ref(),
        json!({"ID": response.id, "TTL": response.ttl}),
    )
}

pub(crate) fn lease_time_to_live(response: &pb::LeaseTimeToLiveResponse) -> Value {
    let keys: Value = match response.keys.as_slice() {
        [] => Value::Null,
        keys => keys.iter().map(|key| base64(key)).collect(),
    };
    let fields =
        json!({"id": response.id, "ttl": response.ttl, "granted-ttl": response.granted_ttl, "keys": keys});
    flat(response.header.as_ref(), fields)
}

pub(crate) fn leases(response: &pb::LeaseLeasesResponse) -> Value {
    let leases: Vec<Value> = response
        .leases
        .iter()
        .map(|lease| json!({"id": lease.id}))
        .collect();
    flat(response.header.as_ref(), json!({"leases": leases}))
}

pub(crate) fn move_leader(response: &pb::MoveLeaderResponse) -> Value {
    json!({"header": header(response.header.as_ref())})
}

/// An answer that says nothing but where and when.
pub(crate) fn only_header(response: Option<&pb::ResponseHeader>) -> Value {
    json!({"header": header(response)})
}

pub(crate) fn auth_status(response: &pb::AuthStatusResponse) -> Value {
    Object::default()
        .with("header", header(response.header.as_ref()))
        .with("enabled", response.enabled)
        .with("authRevision", response.auth_revision)
        .value()
}

/// `users` or `roles`.
pub(crate) fn names(response: Option<&pb::ResponseHeader>, what: &str, names: &[String]) -> Value {
    Object::default()
        .with("header", header(response))
        .with(what, names.to_vec())
        .value()
}

pub(crate) fn role_get(response: &pb::AuthRoleGetResponse) -> Value {
    let permission = |permission: &proto::authpb::Permission| {
        Object::default()
            .with("permType", permission.perm_type)
            .with("key", base64(&permission.key))
            .with("range_end", base64(&permission.range_end))
            .value()
    };
    Object::default()
        .with("header", header(response.header.as_ref()))
        .with("perm", response.perm.iter().map(permission).collect::<Vec<_>>())
        .value()
}
