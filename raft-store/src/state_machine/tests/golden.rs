//! What format 1 looks like in the backend. Members of later versions must read it: a change here is a new format, with
//! a step in `migrate.rs`.

use std::fmt::Write;

use expect_test::expect;
use proto::etcdserverpb::alarm_request::AlarmAction;
use proto::etcdserverpb::{AlarmRequest, AlarmType, LeaseGrantRequest};
use proto::replicated::{PublishMember, request::Op};

use super::auth::users;
use super::fixture::put_request;
use super::{Fixture, compact, delete, put};

#[test]
fn format_1() {
    let mut fixture = Fixture::new();
    fixture.apply_membership(&[1, 2]);
    let alarm = AlarmRequest {
        action: AlarmAction::Activate.into(),
        member_id: 2,
        alarm: AlarmType::Corrupt.into(),
    };
    fixture.apply_all(users());
    let mut leased = put_request("k", "leased");
    leased.lease = 7;
    fixture.apply_all([
        put("k", "v"),
        Op::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 60 }),
        Op::Put(leased),
        put("big", &"x".repeat(4_100)),
        delete("big", ""),
        compact(2),
        Op::PublishMember(PublishMember {
            id: 1,
            name: "ovh".into(),
            client_urls: vec!["http://c".into()],
        }),
        Op::Alarm(alarm),
    ]);
    let state = fixture.machine.shared.state();
    let mut dump = String::new();
    for entry in state.backend.scan(Vec::new()..vec![0xff]) {
        let (key, value) = entry.unwrap();
        let value = match value.len() {
            0..100 => value.escape_ascii().to_string(),
            long => format!("{long} bytes"),
        };
        writeln!(dump, "{}: {value}", key.escape_ascii()).unwrap();
    }
    expect![[r#"
        a\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x02: 
        l\x00\x00\x00\x00\x00\x00\x00\x07: \x00\x00\x00\x00\x00\x00\x00<\x00\x00\x00\x00\x00\x00\x00<
        m|applied: \x08\x01\x10\x01\x18\x10
        m|auth: \x08\x01\x10\x07\x1a\x03key
        m|compacted: \x00\x00\x00\x00\x00\x00\x00\x02
        m|format: \x00\x00\x00\x01
        m|membership: \n\x06\x08\x01\x10\x01\x18\x01\x12\"\n\x04\n\x02\x01\x02\x12\x0c\x08\x01\x12\x08\n\x06host-1\x12\x0c\x08\x02\x12\x08\n\x06host-2
        m|revision: \x00\x00\x00\x00\x00\x00\x00\x05
        owriters: \n\x07writers\x12\x05\x08\x01\x12\x01a
        p\x00\x00\x00\x00\x00\x00\x00\x01: \x08\x01\x12\x03ovh\x1a\x08http://c
        r\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00: \x00\n\x01k\x10\x02\x18\x02 \x01*\x01v
        r\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00: \x00\n\x01k\x10\x02\x18\x03 \x02*\x06leased0\x07
        r\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00: \x02\x00\x00\x00\x02\n\x03big\x10\x04\x18\x04 \x01
        r\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00: 4096 bytes
        r\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01: xxxx
        r\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00: \x01\n\x03big
        uann: \n\x03ann\x12\x04hash\"\x07writers(\x04
        uroot: \n\x04root\x12\x04hash\"\x04root(\x02
    "#]].assert_eq(&dump);
}
