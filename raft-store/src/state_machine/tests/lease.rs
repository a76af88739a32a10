//! Leases, alarms, live bytes, and what members publish.

use proto::etcdserverpb::alarm_request::AlarmAction;
use proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, LeaseCheckpoint, LeaseCheckpointRequest, LeaseGrantRequest,
    LeaseRevokeRequest, TxnRequest,
};
use proto::replicated::{LeaseCheckpoints, LeaseExpire, PublishMember, Refusal, reply, request::Op};

use super::fixture::put_request;
use super::{Fixture, compact, delete, op_delete, op_put, put};
use crate::lease::{LeaseEvent, LeaseNews};
use crate::state::RaisedBy;
use crate::store::{LeaseInfo, MemberAttributes};

fn grant(id: i64) -> Op {
    Op::LeaseGrant(LeaseGrantRequest { id, ttl: 60 })
}

fn alarm(action: AlarmAction, member_id: u64, alarm: AlarmType) -> Op {
    Op::Alarm(AlarmRequest {
        action: action.into(),
        member_id,
        alarm: alarm.into(),
    })
}

fn revoke(id: i64) -> Op {
    Op::LeaseRevoke(LeaseRevokeRequest { id })
}

fn put_leased(key: &str, lease: i64) -> Op {
    let mut request = put_request(key, "v");
    request.lease = lease;
    Op::Put(request)
}

#[test]
fn a_lease_takes_its_keys_with_it_in_one_revision() {
    let mut fixture = Fixture::new();
    let reply::Result::LeaseGrant(granted) = fixture.done(grant(7)) else {
        panic!()
    };
    assert_eq!((granted.id, granted.ttl), (7, 60));
    assert_eq!(fixture.refused(grant(7)), Refusal::LeaseExists);
    assert_eq!(fixture.refused(revoke(8)), Refusal::LeaseNotFound);
    fixture.apply_all([
        grant(8),
        put_leased("b", 7),
        put_leased("a", 7),
        put_leased("c", 7),
        put_leased("d", 8),
    ]);
    // A put without the lease takes a key off it; one with another moves it; a delete ends it.
    fixture.apply_all([put("b", "free"), put_leased("d", 7), delete("c", "")]);
    assert_eq!(fixture.store.lease_keys(7), ["a", "d"]);
    assert_eq!(fixture.store.lease_keys(8), Vec::<bytes::Bytes>::new());

    let mut fixture = fixture.reopen();
    assert_eq!(fixture.store.lease_keys(7), ["a", "d"]);
    let mut keep = put_request("a", "kept");
    keep.ignore_lease = true;
    fixture.done(Op::Put(keep));
    assert_eq!(fixture.store.lease_keys(7), ["a", "d"]);
    let before = fixture.store.revision();
    assert_eq!(fixture.apply(revoke(7)).revision, before + 1);
    assert_eq!(
        (fixture.shown(0), fixture.store.lease(7)),
        ("b=free".to_owned(), None)
    );
    assert_eq!(
        fixture.apply(revoke(8)).revision,
        before + 1,
        "no keys, no revision"
    );
    assert_eq!(fixture.store.leases(), []);
}

#[test]
fn one_chunk_sees_its_own_leases() {
    let mut fixture = Fixture::new();
    let replies = fixture.apply_all([grant(1), put_leased("a", 1), revoke(1), put_leased("b", 1)]);
    assert_eq!(
        replies.iter().map(|reply| reply.revision).collect::<Vec<_>>(),
        [1, 2, 3, 3]
    );
    assert_eq!(
        replies[3].result,
        Some(reply::Result::Refused(Refusal::LeaseNotFound.into()))
    );
    assert_eq!(fixture.reopen().shown(0), "");
}

#[test]
fn checkpoints_survive_a_restart() {
    let mut fixture = Fixture::new();
    fixture.done(grant(1));
    let checkpoint = |id, remaining_ttl| LeaseCheckpoint { id, remaining_ttl };
    let request = LeaseCheckpointRequest {
        checkpoints: vec![checkpoint(1, 20), checkpoint(9, 5)],
    };
    fixture.done(Op::LeaseCheckpoint(request));
    let other_term = LeaseCheckpoints {
        term: 2,
        checkpoints: vec![checkpoint(1, 10)],
    };
    fixture.done(Op::LeaseCheckpoints(other_term));
    let expect = LeaseInfo {
        id: 1,
        granted_ttl_seconds: 60,
        remaining_ttl_seconds: 20,
    };
    assert_eq!(fixture.store.leases(), std::slice::from_ref(&expect));
    assert_eq!(fixture.reopen().store.lease(1), Some(expect));
}

/// Entries of the fixture are of term 1.
#[test]
fn expiry_gives_each_lease_its_revision_and_holds_for_its_own_term_only() {
    let mut fixture = Fixture::new();
    fixture.apply_all([1, 2, 3, 4].map(grant));
    fixture.apply_all([
        put_leased("b", 2),
        put_leased("a", 2),
        put_leased("c", 1),
        put_leased("d", 4),
    ]);
    let before = fixture.store.revision();
    let expire = |term, ids: &[i64]| {
        Op::LeaseExpire(LeaseExpire {
            term,
            ids: ids.to_vec(),
        })
    };
    let other_term = fixture.apply(expire(2, &[1, 2, 3, 4]));
    assert_eq!(
        (other_term.revision, fixture.store.lease_count()),
        (before, 4),
        "another leader may have renewed them"
    );
    // The third has no keys, and the ninth is not there.
    let expired = fixture.apply(expire(1, &[2, 9, 3, 1]));
    assert_eq!(expired.revision, before + 2);
    assert_eq!(
        fixture.shown(before + 1),
        "c=v d=v",
        "the keys of one lease go together"
    );
    assert_eq!(fixture.shown(0), "d=v");
    let left: Vec<i64> = fixture.store.leases().iter().map(|lease| lease.id).collect();
    assert_eq!(left, [4]);
    assert_eq!(fixture.reopen().store.lease_key_count(4), 1);
}

#[tokio::test]
async fn the_feed_tells_what_came_and_went_and_pages_show_all() {
    let mut fixture = Fixture::new();
    fixture.done(grant(5));
    let mut feed = fixture.store.lease_feed();
    fixture.apply_all([grant(7), put("a", "v"), grant(-2), revoke(5), revoke(9)]);
    let granted = |id| LeaseEvent::Granted { id, ttl_seconds: 60 };
    let told = [granted(7), granted(-2), LeaseEvent::Gone { id: 5 }];
    assert_eq!(feed.next().await, Some(LeaseNews::Events(told.into())));

    let ids = |after, max| {
        let page = fixture.store.leases_after(after, max);
        page.iter().map(|lease| lease.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(None, 1), [-2]);
    assert_eq!(ids(Some(-2), 9), [7]);
    assert_eq!(ids(Some(7), 9), Vec::<i64>::new());
}

#[test]
fn alarms_answer_as_etcd_and_stop_what_they_must() {
    let mut fixture = Fixture::new();
    fixture.done(put("a", "1"));
    let mut answer = |op| match fixture.done(op) {
        reply::Result::Alarm(response) => response
            .alarms
            .iter()
            .map(|a| (a.member_id, a.alarm))
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        answer(alarm(AlarmAction::Activate, 2, AlarmType::Nospace)),
        [(2, 1)]
    );
    assert_eq!(
        answer(alarm(AlarmAction::Activate, 1, AlarmType::Corrupt)),
        [(1, 2)]
    );
    assert_eq!(answer(alarm(AlarmAction::Activate, 1, AlarmType::None)), []);
    assert_eq!(
        answer(alarm(AlarmAction::Get, 0, AlarmType::None)),
        [(1, 2), (2, 1)]
    );
    assert_eq!(answer(alarm(AlarmAction::Get, 0, AlarmType::Nospace)), [(2, 1)]);
    let mut fixture = fixture.reopen();
    assert_eq!(
        fixture.store.alarms()[0],
        AlarmMember {
            member_id: 1,
            alarm: 2
        }
    );
    assert_eq!(fixture.refused(delete("a", "")), Refusal::Corrupt);
    fixture.done(alarm(AlarmAction::Deactivate, 1, AlarmType::Corrupt));
    assert_eq!(fixture.refused(put("a", "2")), Refusal::NoSpace);
    assert_eq!(fixture.refused(grant(1)), Refusal::NoSpace);
    fixture.done(delete("a", ""));
    fixture.done(alarm(AlarmAction::Deactivate, 2, AlarmType::Nospace));
    fixture.done(put("a", "2"));
}

/// Members lift what they raised themselves, so it is kept who did.
#[test]
fn an_alarm_that_a_client_raised_stays_the_clients() {
    let mut fixture = Fixture::new();
    let raise = |member_id| alarm(AlarmAction::Activate, member_id, AlarmType::Nospace);
    let raised_by = |fixture: &Fixture| {
        let alarms = fixture.store.alarms_raised_by();
        alarms
            .iter()
            .map(|(alarm, by)| (alarm.member_id, *by))
            .collect::<Vec<_>>()
    };
    fixture.done(raise(1));
    fixture.done(raise(2));
    assert_eq!(fixture.refused_as("", 1, raise(2)), None);
    assert_eq!(fixture.refused_as("", 1, raise(3)), None);
    fixture.done(raise(3));
    let expected = [
        (1, RaisedBy::Members),
        (2, RaisedBy::Client),
        (3, RaisedBy::Client),
    ];
    assert_eq!(raised_by(&fixture), expected);
    assert_eq!(raised_by(&fixture.reopen()), expected);
}

#[test]
fn live_bytes_grow_with_history_and_shrink_when_it_is_given_up() {
    let mut fixture = Fixture::new();
    for _ in 0..16 {
        fixture.done(put("k", &"v".repeat(500)));
    }
    assert_eq!(
        fixture.store.live_bytes(),
        16 * 629,
        "each counts its key, its value and 128 bytes"
    );
    let revision = fixture.store.revision();
    fixture.done(compact(revision));
    assert_eq!(fixture.store.live_bytes(), 629);
    fixture.done(put("k", ""));
    // Counted from disk it is the same, however much was swept.
    let live = fixture.store.live_bytes();
    assert_eq!(fixture.reopen().store.live_bytes(), live);
}

#[test]
fn a_txn_that_may_put_is_refused_without_space_whichever_branch_it_would_take() {
    let mut fixture = Fixture::new();
    fixture.done(alarm(AlarmAction::Activate, 2, AlarmType::Nospace));
    let txn = |op| {
        Op::Txn(TxnRequest {
            success: vec![],
            failure: vec![op],
            compare: vec![],
        })
    };
    assert_eq!(fixture.refused(txn(op_put("k", ""))), Refusal::NoSpace);
    fixture.done(txn(op_delete("x", "")));
}

#[test]
fn the_alarms_of_a_member_go_with_it() {
    let mut fixture = Fixture::new();
    fixture.apply_membership(&[1, 2, 3]);
    for (id, kind) in [
        (2, AlarmType::Corrupt),
        (3, AlarmType::Nospace),
        (9, AlarmType::Nospace),
    ] {
        fixture.done(alarm(AlarmAction::Activate, id, kind));
    }
    fixture.apply_membership(&[1, 3]);
    let members = |fixture: &Fixture| {
        let alarms = fixture.store.alarms();
        alarms.iter().map(|alarm| alarm.member_id).collect::<Vec<_>>()
    };
    assert_eq!(members(&fixture), [3, 9], "9 never was a member");
    assert_eq!(members(&fixture.reopen()), [3, 9]);
}

#[test]
fn members_publish_themselves() {
    let mut fixture = Fixture::new();
    let member = PublishMember {
        id: 5,
        name: "ovh".into(),
        client_urls: vec!["http://127.0.0.1:1".into()],
    };
    fixture.done(Op::PublishMember(member.clone()));
    let expect = Some(MemberAttributes {
        name: member.name,
        client_urls: member.client_urls,
    });
    assert_eq!(fixture.store.member_attributes(5), expect);
    assert_eq!(fixture.store.member_attributes(6), None);
    assert_eq!(fixture.reopen().store.member_attributes(5), expect);
}
