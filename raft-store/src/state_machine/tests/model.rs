//! Random requests against a naive store: every revision a full copy.
//!
//! Two stores get the same requests, one in single entries, the other in chunks and with restarts. Both must answer
//! alike, read alike at every revision, and hash alike.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::{Compare, LeaseGrantRequest, LeaseRevokeRequest, RangeRequest, TxnRequest};
use proto::mvccpb::KeyValue;
use proto::replicated::{Refusal, reply, request::Op};

use super::fixture::{bytes, put_request};
use super::{Fixture, compact, delete, op_delete, op_put, put, range};
use crate::watch::{History, HistoryQuery};

const KEYS: [&str; 5] = ["a", "b", "ba", "c", "d"];
const LEASE: i64 = 7;

#[derive(Clone, Debug)]
enum Step {
    Put(usize, u8),
    /// With the one lease; refused while it is not granted.
    PutLeased(usize, u8),
    Delete(usize, usize),
    /// If the key's version is this: delete the first range and put the second key, else put the second key.
    Txn(usize, i64, (usize, usize), usize),
    /// This many revisions below the current one.
    Compact(i64),
    Grant,
    Revoke,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 0..KEYS.len();
    let step = prop_oneof![
        6 => (key(), any::<u8>()).prop_map(|(k, v)| Step::Put(k, v)),
        2 => (key(), any::<u8>()).prop_map(|(k, v)| Step::PutLeased(k, v)),
        3 => (key(), key()).prop_map(|(k, e)| Step::Delete(k, e)),
        3 => (key(), 0..3_i64, (0..2_usize, 0..3_usize), 3..5_usize)
            .prop_map(|(k, version, range, put)| Step::Txn(k, version, range, put)),
        1 => (-1..6_i64).prop_map(Step::Compact),
        1 => Just(Step::Grant),
        1 => Just(Step::Revoke),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What the store must be, written down without cleverness.
#[derive(Default)]
struct Model {
    /// The keys at each revision; the first is revision 1.
    revisions: Vec<BTreeMap<Bytes, KeyValue>>,
    compacted: i64,
    leased: bool,
}

impl Model {
    fn new() -> Model {
        Model {
            revisions: vec![BTreeMap::new()],
            ..Model::default()
        }
    }

    fn revision(&self) -> i64 {
        i64::try_from(self.revisions.len()).unwrap()
    }

    fn now(&self) -> BTreeMap<Bytes, KeyValue> {
        self.revisions.last().unwrap().clone()
    }

    fn put(&self, keys: &mut BTreeMap<Bytes, KeyValue>, key: usize, value: &str, lease: i64) {
        let key = bytes(KEYS[key]);
        let next = self.revision() + 1;
        let before = keys.get(&key);
        let kv = KeyValue {
            key: key.clone(),
            value: bytes(value),
            lease,
            create_revision: before.map_or(next, |kv| kv.create_revision),
            mod_revision: next,
            version: before.map_or(1, |kv| kv.version + 1),
        };
        keys.insert(key, kv);
    }

    /// Applies one step: the request to send, and why it must be refused.
    fn step(&mut self, step: &Step) -> Option<(Op, Option<Refusal>)> {
        let mut keys = self.now();
        let mut writes = true;
        let mut refusal = None;
        let op = match step {
            Step::Put(key, value) => {
                self.put(&mut keys, *key, &value.to_string(), 0);
                put(KEYS[*key], &value.to_string())
            }
            Step::PutLeased(key, value) => {
                let mut request = put_request(KEYS[*key], &value.to_string());
                request.lease = LEASE;
                if self.leased {
                    self.put(&mut keys, *key, &value.to_string(), LEASE);
                } else {
                    refusal = Some(Refusal::LeaseNotFound);
                }
                Op::Put(request)
            }
            Step::Delete(from, to) => {
                writes = remove(&mut keys, *from, *to);
                delete(KEYS[*from], KEYS[*to])
            }
            Step::Txn(key, version, (from, to), written) => {
                let holds = keys.get(KEYS[*key].as_bytes()).map_or(0, |kv| kv.version) == *version;
                if holds {
                    remove(&mut keys, *from, *to);
                }
                self.put(&mut keys, *written, "txn", 0);
                let compare = Compare {
                    key: bytes(KEYS[*key]),
                    target: CompareTarget::Version.into(),
                    result: CompareResult::Equal.into(),
                    target_union: Some(TargetUnion::Version(*version)),
                    ..Compare::default()
                };
                let write = op_put(KEYS[*written], "txn");
                Op::Txn(TxnRequest {
                    compare: vec![compare],
                    success: vec![op_delete(KEYS[*from], KEYS[*to]), write.clone()],
                    failure: vec![write],
                })
            }
            Step::Compact(below) => {
                writes = false;
                let at = self.revision() - below;
                if at > self.revision() {
                    refusal = Some(Refusal::FutureRevision);
                } else if at == 0 && self.compacted == 0 {
                    // Nothing to remove, and nothing wrong with that.
                } else if at <= self.compacted {
                    refusal = Some(Refusal::Compacted);
                } else {
                    self.compacted = at;
                }
                compact(at)
            }
            Step::Grant => {
                writes = false;
                refusal = self.leased.then_some(Refusal::LeaseExists);
                self.leased = true;
                Op::LeaseGrant(LeaseGrantRequest { id: LEASE, ttl: 10 })
            }
            Step::Revoke => {
                let before = keys.len();
                keys.retain(|_, kv| kv.lease != LEASE);
                writes = keys.len() < before;
                refusal = (!self.leased).then_some(Refusal::LeaseNotFound);
                self.leased = false;
                Op::LeaseRevoke(LeaseRevokeRequest { id: LEASE })
            }
            Step::Restart => return None,
        };
        if writes && refusal.is_none() {
            self.revisions.push(keys);
        }
        Some((op, refusal))
    }

    /// Compares every readable revision.
    fn check_reads(&self, fixture: &Fixture) {
        assert_eq!(fixture.store.revision(), self.revision());
        assert_eq!(fixture.store.compacted_revision(), self.compacted);
        for (revision, keys) in (1..)
            .zip(&self.revisions)
            .skip_while(|(r, _)| *r < self.compacted)
        {
            let found = fixture
                .store
                .range(&RangeRequest {
                    revision,
                    ..range("\0", "\0")
                })
                .unwrap();
            assert_eq!(
                found.kvs,
                keys.values().cloned().collect::<Vec<_>>(),
                "at revision {revision}"
            );
            let limited = fixture
                .store
                .range(&RangeRequest {
                    revision,
                    limit: 2,
                    ..range("b", "d")
                })
                .unwrap();
            let within = keys.range(bytes("b")..bytes("d")).count();
            assert_eq!(
                (limited.count, limited.more),
                (i64::try_from(within).unwrap(), within > 2)
            );
        }
        let leased: Vec<_> = self
            .now()
            .into_values()
            .filter(|kv| kv.lease == LEASE)
            .map(|kv| kv.key)
            .collect();
        assert_eq!(fixture.store.lease_keys(LEASE), leased);
    }

    /// Compares the events since the compacted revision.
    fn check_history(&self, fixture: &Fixture) {
        let shared = &fixture.store.shared;
        let query = HistoryQuery {
            key: b"\0",
            range_end: b"\0",
            from: self.compacted.max(2),
            to: self.revision(),
            max_events: usize::MAX,
            max_bytes: usize::MAX,
            prev_kv: true,
        };
        let found = shared.events(&query).unwrap();
        assert_eq!(found.through, self.revision());
        let mut events = found.events.into_iter().peekable();
        for (at, pair) in (2..)
            .zip(self.revisions.windows(2))
            .skip_while(|(at, _)| *at < query.from)
        {
            let [before, after] = pair else { panic!() };
            let mut replayed = before.clone();
            while let Some(event) = events.next_if(|event| event.kv.as_ref().unwrap().mod_revision == at) {
                let kv = event.kv.unwrap();
                // What the compacted revision itself replaced is gone.
                let previous = before.get(&kv.key).filter(|_| at > self.compacted);
                assert_eq!(event.prev_kv.as_ref(), previous, "before revision {at}");
                match event.r#type {
                    0 => replayed.insert(kv.key.clone(), kv),
                    _ => replayed.remove(&kv.key),
                };
            }
            assert_eq!(&replayed, after, "revision {at}");
        }
        assert_eq!(events.next(), None);
    }
}

/// Removes a range; whether there was anything.
fn remove(keys: &mut BTreeMap<Bytes, KeyValue>, from: usize, to: usize) -> bool {
    let before = keys.len();
    keys.retain(|key, _| !(KEYS[from].as_bytes() <= key.as_ref() && key.as_ref() < KEYS[to].as_bytes()));
    keys.len() < before
}

fn check(steps: &[Step]) {
    let mut model = Model::new();
    let mut single = Fixture::new();
    let mut chunked = Fixture::new();
    let mut chunk = Vec::new();
    for step in steps {
        let Some((op, refusal)) = model.step(step) else {
            chunked.apply_all(chunk.drain(..));
            model.check_reads(&chunked);
            chunked = chunked.reopen();
            model.check_reads(&chunked);
            continue;
        };
        let reply = single.apply(op.clone());
        assert_eq!(reply.revision, model.revision(), "{step:?}");
        let refused = match reply.result.unwrap() {
            reply::Result::Refused(refusal) => Some(Refusal::try_from(refusal).unwrap()),
            _ => None,
        };
        assert_eq!(refused, refusal, "{step:?}");
        chunk.push(op);
    }
    chunked.apply_all(chunk);
    for fixture in [&single, &chunked] {
        model.check_reads(fixture);
        model.check_history(fixture);
    }
    assert_eq!(single.store.size_bytes().1, chunked.store.size_bytes().1);
    for revision in model.compacted.max(1)..=model.revision() {
        assert_eq!(
            single.store.hash_kv(revision).unwrap(),
            chunked.store.hash_kv(revision).unwrap()
        );
    }
}

proptest! {
    // A failure is written with its seed to `proptest-regressions/`, and tried first from then on.
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_what_a_naive_one_would_be(steps in steps()) {
        check(&steps);
    }
}
