//! `-w fields`: one name and value on each line, as etcdctl writes them. Easy for scripts.

use proto::etcdserverpb as pb;
use proto::etcdserverpb::response_op::Response;
use proto::mvccpb::KeyValue;
use proto::mvccpb::event::EventType;

/// Lines of `"Name" : value`.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    text: String,
}

impl Fields {
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.text.into_bytes()
    }

    /// A number, a truth, or whatever else needs no quotes.
    pub(crate) fn plain(&mut self, name: &str, value: impl std::fmt::Display) {
        self.text.push_str(&format!("\"{name}\" : {value}\n"));
    }

    /// Bytes as Go quotes them.
    pub(crate) fn quoted(&mut self, name: &str, value: &[u8]) {
        self.plain(name, quote(value));
    }

    /// Between several things in one answer.
    pub(crate) fn gap(&mut self) {
        self.text.push('\n');
    }

    fn key_value(&mut self, prefix: &str, kv: &KeyValue) {
        self.quoted(&format!("{prefix}Key"), &kv.key);
        self.plain(&format!("{prefix}CreateRevision"), kv.create_revision);
        self.plain(&format!("{prefix}ModRevision"), kv.mod_revision);
        self.plain(&format!("{prefix}Version"), kv.version);
        self.quoted(&format!("{prefix}Value"), &kv.value);
        self.plain(&format!("{prefix}Lease"), kv.lease);
    }
}

/// A string in double quotes with Go's escapes (`%q`): `\n`, `\"`, `\x00`, `\u200b`.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_quoted(&mut text, c);
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text.push('"');
    text
}

fn push_quoted(text: &mut String, c: char) {
    match c {
        '"' | '\\' => text.extend(['\\', c]),
        '\x07' => text.push_str("\\a"),
        '\x08' => text.push_str("\\b"),
        '\x0c' => text.push_str("\\f"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        '\x0b' => text.push_str("\\v"),
        '\'' => text.push(c),
        // Rust's and Go's ideas of what can be printed agree but for the newest of Unicode.
        _ if c.escape_debug().len() == 1 => text.push(c),
        '\0'..='\x7f' => text.push_str(&format!("\\x{:02x}", u32::from(c))),
        '\u{80}'..='\u{ffff}' => text.push_str(&format!("\\u{:04x}", u32::from(c))),
        _ => text.push_str(&format!("\\U{:08x}", u32::from(c))),
    }
}

pub(crate) fn header(out: &mut Fields, header: Option<&pb::ResponseHeader>) {
    let header = header.copied().unwrap_or_default();
    out.plain("ClusterID", header.cluster_id);
    out.plain("MemberID", header.member_id);
    out.plain("Revision", header.revision);
    out.plain("RaftTerm", header.raft_term);
}

pub(crate) fn range(out: &mut Fields, answer: &pb::RangeResponse) {
    header(out, answer.header.as_ref());
    for kv in &answer.kvs {
        out.key_value("", kv);
    }
    out.plain("More", answer.more);
    out.plain("Count", answer.count);
}

pub(crate) fn put(out: &mut Fields, answer: &pb::PutResponse) {
    header(out, answer.header.as_ref());
    if let Some(kv) = &answer.prev_kv {
        out.key_value("Prev", kv);
    }
}

pub(crate) fn delete_range(out: &mut Fields, answer: &pb::DeleteRangeResponse) {
    header(out, answer.header.as_ref());
    out.plain("Deleted", answer.deleted);
    for kv in &answer.prev_kvs {
        out.key_value("Prev", kv);
    }
}

pub(crate) fn txn(out: &mut Fields, answer: &pb::TxnResponse) {
    header(out, answer.header.as_ref());
    out.plain("Succeeded", answer.succeeded);
    for operation in &answer.responses {
        match &operation.response {
            Some(Response::ResponseRange(answer)) => range(out, answer),
            Some(Response::ResponsePut(answer)) => put(out, answer),
            Some(Response::ResponseDeleteRange(answer)) => delete_range(out, answer),
            Some(Response::ResponseTxn(answer)) => txn(out, answer),
            None => {}
        }
    }
}

pub(crate) fn compact(out: &mut Fields, answer: &pb::CompactionResponse) {
    header(out, answer.header.as_ref());
}

pub(crate) fn watch(out: &mut Fields, answer: &pb::WatchResponse) {
    header(out, answer.header.as_ref());
    for event in &answer.events {
        let kind = if event.r#type() == EventType::Delete {
            "DELETE"
        } else {
            "PUT"
        };
        out.plain("Type", kind);
        if let Some(kv) = &event.prev_kv {
            out.key_value("Prev", kv);
        }
        if let Some(kv) = &event.kv {
            out.key_value("", kv);
        }
    }
}

pub(crate) fn lease_grant(out: &mut Fields, answer: &pb::LeaseGrantResponse) {
    header(out, answer.header.as_ref());
    out.plain("ID", answer.id);
    out.plain("TTL", answer.ttl);
}

pub(crate) fn lease_revoke(out: &mut Fields, answer: &pb::LeaseRevokeResponse) {
    header(out, answer.header.as_ref());
}

pub(crate) fn lease_keep_alive(out: &mut Fields, answer: &pb::LeaseKeepAliveResponse) {
    header(out, answer.header.as_ref());
    out.plain("ID", answer.id);
    out.plain("TTL", answer.ttl);
}

pub(crate) fn lease_time_to_live(out: &mut Fields, answer: &pb::LeaseTimeToLiveResponse) {
    header(out, answer.header.as_ref());
    out.plain("ID", answer.id);
    out.plain("TTL", answer.ttl);
    out.plain("GrantedTTL", answer.granted_ttl);
    for key in &answer.keys {
        out.quoted("Key", key);
    }
}

pub(crate) fn leases(out: &mut Fields, answer: &pb::LeaseLeasesResponse) {
    header(out, answer.header.as_ref());
    for lease in &answer.leases {
        out.plain("ID", lease.id);
    }
}

pub(crate) fn members(
    out: &mut Fields,
    response_header: Option<&pb::ResponseHeader>,
    members: &[pb::Member],
) {
    header(out, response_header);
    for member in members {
        out.plain("ID", member.id);
        out.quoted("Name", member.name.as_bytes());
        for url in &member.peer_ur_ls {
            out.quoted("PeerURL", url.as_bytes());
        }
        for url in &member.client_ur_ls {
            out.quoted("ClientURL", url.as_bytes());
        }
        out.plain("IsLearner", member.is_learner);
        out.gap();
    }
}

pub(crate) fn status(out: &mut Fields, endpoint: &str, answer: &pb::StatusResponse) {
    header(out, answer.header.as_ref());
    out.quoted("Version", answer.version.as_bytes());
    out.plain("DBSize", answer.db_size);
    out.plain("Leader", answer.leader);
    out.plain("IsLearner", answer.is_learner);
    out.plain("RaftIndex", answer.raft_index);
    out.plain("RaftTerm", answer.raft_term);
    out.plain("RaftAppliedIndex", answer.raft_applied_index);
    out.plain("Errors", format!("[{}]", answer.errors.join(" ")));
    out.quoted("Endpoint", endpoint.as_bytes());
    out.gap();
}

pub(crate) fn hash_kv(out: &mut Fields, endpoint: &str, answer: &pb::HashKvResponse) {
    header(out, answer.header.as_ref());
    out.quoted("Endpoint", endpoint.as_bytes());
    out.plain("Hash", answer.hash);
    out.gap();
}

pub(crate) fn alarms(out: &mut Fields, answer: &pb::AlarmResponse) {
    header(out, answer.header.as_ref());
    for alarm in &answer.alarms {
        out.plain("MemberID", alarm.member_id);
        out.plain("AlarmType", alarm.alarm);
        out.gap();
    }
}

pub(crate) fn move_leader(out: &mut Fields, answer: &pb::MoveLeaderResponse) {
    header(out, answer.header.as_ref());
}

pub(crate) fn auth_status(out: &mut Fields, answer: &pb::AuthStatusResponse) {
    header(out, answer.header.as_ref());
    out.plain("Enabled", answer.enabled);
    out.plain("AuthRevision", answer.auth_revision);
}

pub(crate) fn role_get(out: &mut Fields, answer: &pb::AuthRoleGetResponse) {
    header(out, answer.header.as_ref());
    for permission in &answer.perm {
        // The second blank is etcdctl's.
        out.plain("PermType", format!(" {}", permission.perm_type().as_str_name()));
        out.quoted("Key", &permission.key);
        out.quoted("RangeEnd", &permission.range_end);
    }
}

/// `"Roles" : "a" "b"`.
pub(crate) fn names(out: &mut Fields, name: &str, names: &[String]) {
    let quoted: Vec<String> = names.iter().map(|name| quote(name.as_bytes())).collect();
    out.plain(name, quoted.join(" "));
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn strings_are_quoted_as_go_does() {
        let cases: [(&[u8], &str); 6] = [
            (b"a 'b' \"c\" \\", r#""a 'b' \"c\" \\""#),
            (
                b"\0\x07\x08\t\n\x0b\x0c\r\x1b\x7f",
                r#""\x00\a\b\t\n\v\f\r\x1b\x7f""#,
            ),
            ("é世🦀".as_bytes(), "\"é世🦀\""),
            ("\u{200b}".as_bytes(), r#""\u200b""#),
            (b"\xff\xfea", r#""\xff\xfea""#),
            (b"", "\"\""),
        ];
        for (bytes, expected) in cases {
            assert_eq!(quote(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn an_answer_is_its_fields() {
        let kv = KeyValue {
            key: "a".into(),
            value: "1\n".into(),
            mod_revision: 3,
            ..Default::default()
        };
        let answer = pb::RangeResponse {
            header: Some(pb::ResponseHeader {
                cluster_id: 7,
                revision: 3,
                ..Default::default()
            }),
            kvs: vec![kv],
            count: 1,
            ..Default::default()
        };
        let mut out = Fields::default();
        range(&mut out, &answer);
        expect![[r#"
            "ClusterID" : 7
            "MemberID" : 0
            "Revision" : 3
            "RaftTerm" : 0
            "Key" : "a"
            "CreateRevision" : 0
            "ModRevision" : 3
            "Version" : 0
            "Value" : "1\n"
            "Lease" : 0
            "More" : false
            "Count" : 1
        "#]]
        .assert_eq(&out.text);
    }
}
