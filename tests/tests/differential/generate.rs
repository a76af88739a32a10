//! Sequences from a seed. Pure, and without a model of the store: the key space is small and revisions are said
//! relative to the current and the compacted one, so that steps meet each other's keys, leases, revisions and watches.

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use crate::generate_auth;
use crate::op::{
    Cancel, Compact, Compare, Delete, Grant, Lease, Op, Put, Range, Rev, Stream, TimeToLive, Txn, TxnOp,
    Watch, With,
};

/// Few enough to meet again. etcd sorts with an unstable algorithm, which is stable up to twelve elements: with more
/// keys the order of equals would be left to chance.
const KEYS: [&str; 9] = ["\0", "a", "a\0", "aa", "ab", "b", "b/1", "b/2", "\u{ff}"];
/// Between and beyond the keys.
const ENDS: [&str; 8] = ["\0", "a", "ab", "ac", "b", "b0", "c", "\u{ff}\u{ff}"];
const VALUES: [&str; 5] = ["", "1", "2", "22", "\u{0}\u{ff}"];
const LEASES: [i64; 4] = [1, 2, 3, 4];
const STREAMS: usize = 3;
/// What a transaction may hold, in compares or in operations of a branch.
const MAX_TXN_OPS: usize = 128;

/// Which operations a sequence is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Kv,
    Txn,
    Lease,
    Watch,
    Compaction,
    Auth,
    Everything,
}

impl Profile {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Profile::Kv => "kv",
            Profile::Txn => "txn",
            Profile::Lease => "lease",
            Profile::Watch => "watch",
            Profile::Compaction => "compaction",
            Profile::Auth => "auth",
            Profile::Everything => "everything",
        }
    }

    fn weights(self) -> Weights {
        let some = Weights {
            range: 30,
            put: 25,
            delete: 6,
            txn: 5,
            compact: 1,
            lease: 2,
            watch: 0,
            auth: 0,
        };
        match self {
            Profile::Kv => Weights { range: 45, ..some },
            Profile::Txn => Weights { txn: 70, ..some },
            Profile::Lease => Weights { lease: 50, ..some },
            Profile::Watch => Weights {
                range: 2,
                watch: 14,
                txn: 10,
                lease: 4,
                ..some
            },
            Profile::Compaction => Weights {
                compact: 12,
                watch: 6,
                ..some
            },
            Profile::Auth => Weights {
                auth: 40,
                watch: 2,
                ..some
            },
            Profile::Everything => Weights {
                txn: 20,
                lease: 10,
                watch: 4,
                compact: 2,
                ..some
            },
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Weights {
    range: u32,
    put: u32,
    delete: u32,
    txn: u32,
    compact: u32,
    lease: u32,
    watch: u32,
    auth: u32,
}

impl Weights {
    fn kinds(self) -> [(Kind, u32); 8] {
        [
            (Kind::Range, self.range),
            (Kind::Put, self.put),
            (Kind::Delete, self.delete),
            (Kind::Txn, self.txn),
            (Kind::Compact, self.compact),
            (Kind::Lease, self.lease),
            (Kind::Watch, self.watch),
            (Kind::Auth, self.auth),
        ]
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Range,
    Put,
    Delete,
    Txn,
    Compact,
    Lease,
    Watch,
    Auth,
}

/// A sequence of so many operations; the same for the same seed.
pub(crate) fn sequence(profile: Profile, seed: u64, length: usize) -> Vec<Op> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut ops = if profile == Profile::Auth {
        generate_auth::preparation(&mut random)
    } else {
        Vec::new()
    };
    let kinds = profile.weights().kinds();
    while ops.len() < length {
        let kind = kinds
            .choose_weighted(&mut random, |(_, weight)| *weight)
            .expect("a weight above zero")
            .0;
        let op = match kind {
            Kind::Range => Op::Range(any_range(&mut random)),
            Kind::Put => Op::Put(put(&mut random)),
            Kind::Delete => Op::Delete(delete(&mut random)),
            Kind::Txn => Op::Txn(txn(&mut random, 0)),
            Kind::Compact => Op::Compact(compact(&mut random)),
            Kind::Lease => lease(&mut random),
            Kind::Watch => watch(&mut random),
            Kind::Auth => generate_auth::auth(&mut random),
        };
        ops.push(if profile == Profile::Auth {
            generate_auth::as_someone(&mut random, op)
        } else {
            op
        });
    }
    ops
}

/// True once in so many times.
pub(crate) fn once_in(random: &mut StdRng, times: u32) -> bool {
    random.random_ratio(1, times)
}

pub(crate) fn pick<T: Copy>(random: &mut StdRng, from: &[T]) -> T {
    *from.choose(random).expect("something to choose from")
}

/// A key that may be; rarely none.
pub(crate) fn key(random: &mut StdRng) -> String {
    if once_in(random, 80) {
        return String::new();
    }
    pick(random, &KEYS).to_owned()
}

/// Mostly one key; ranges of every kind, inverted ones too.
pub(crate) fn end(random: &mut StdRng) -> String {
    if random.random_bool(0.45) {
        return String::new();
    }
    pick(random, &ENDS).to_owned()
}

/// Around the current and the compacted one.
fn revision(random: &mut StdRng) -> Rev {
    match random.random_range(0..20) {
        0 => Rev::At(pick(random, &[-1, 1, 2, i64::MAX])),
        1 => Rev::Now(random.random_range(1..4)),
        2..=4 => Rev::Compacted(random.random_range(-2..4)),
        _ => Rev::Now(-random.random_range(0..16)),
    }
}

/// As a filter: the latest keys are within a few revisions.
fn revision_filter(random: &mut StdRng) -> Rev {
    if once_in(random, 10) {
        revision(random)
    } else {
        Rev::default()
    }
}

/// Sorted in ways that there are not, too; only alone, as what is refused in a transaction is refused whole. An
/// unknown target is no part of it: real etcd 3.5 dies of one.
fn any_range(random: &mut StdRng) -> Range {
    let mut range = range(random);
    if once_in(random, 40) {
        range.sort_order = pick(random, &[3, -1]);
    }
    range
}

fn range(random: &mut StdRng) -> Range {
    let plain = random.random_bool(0.3);
    let mut range = Range {
        key: key(random),
        range_end: end(random),
        ..Range::default()
    };
    if plain {
        return range;
    }
    range.limit = pick(random, &[0, 0, 0, 1, 2, 3, 5, -1]);
    range.revision = if random.random_bool(0.25) {
        revision(random)
    } else {
        Rev::default()
    };
    range.sort_order = pick(random, &[0, 0, 0, 1, 2]);
    range.sort_target = pick(random, &[0, 0, 1, 2, 3, 4]);
    range.serializable = once_in(random, 6);
    range.keys_only = once_in(random, 6);
    range.count_only = once_in(random, 8);
    range.min_mod_revision = revision_filter(random);
    range.max_mod_revision = revision_filter(random);
    range.min_create_revision = revision_filter(random);
    range.max_create_revision = revision_filter(random);
    range
}

/// None mostly; one that may be, or cannot.
fn lease_of_put(random: &mut StdRng) -> i64 {
    if random.random_bool(0.7) {
        0
    } else if once_in(random, 10) {
        pick(random, &[99, -1])
    } else {
        pick(random, &LEASES)
    }
}

fn put(random: &mut StdRng) -> Put {
    let ignore_value = once_in(random, 10);
    let ignore_lease = once_in(random, 10);
    Put {
        key: key(random),
        value: if ignore_value && !once_in(random, 8) {
            String::new()
        } else {
            pick(random, &VALUES).to_owned()
        },
        lease: if ignore_lease && !once_in(random, 8) {
            0
        } else {
            lease_of_put(random)
        },
        prev_kv: once_in(random, 3),
        ignore_value,
        ignore_lease,
    }
}

fn delete(random: &mut StdRng) -> Delete {
    Delete {
        key: key(random),
        range_end: end(random),
        prev_kv: random.random_bool(0.5),
    }
}

fn txn(random: &mut StdRng, depth: usize) -> Txn {
    if depth == 0 && once_in(random, 100) {
        return large_txn(random);
    }
    // One that may well be valid puts no key twice and deletes none that it puts.
    let careful = random.random_bool(0.75);
    let mut keys = KEYS.to_vec();
    keys.shuffle(random);
    let compares = random.random_range(0..=2);
    Txn {
        compare: (0..compares).map(|_| compare(random)).collect(),
        success: branch(random, depth, careful, &mut keys.clone()),
        failure: branch(random, depth, careful, &mut keys),
    }
}

fn branch(random: &mut StdRng, depth: usize, careful: bool, keys: &mut Vec<&str>) -> Vec<TxnOp> {
    let length = random.random_range(0..=4);
    (0..length)
        .map(|_| txn_op(random, depth, careful, keys))
        .collect()
}

fn txn_op(random: &mut StdRng, depth: usize, careful: bool, keys: &mut Vec<&str>) -> TxnOp {
    let own_key = |keys: &mut Vec<&str>| keys.pop().map(str::to_owned);
    match random.random_range(0..100) {
        0..35 => TxnOp::Range(range(random)),
        35..70 => {
            let mut put = put(random);
            if careful {
                put.key = own_key(keys).unwrap_or(put.key);
            }
            TxnOp::Put(put)
        }
        70..85 => {
            let mut delete = delete(random);
            if careful {
                delete.key = own_key(keys).unwrap_or(delete.key);
                delete.range_end.clear();
            }
            TxnOp::Delete(delete)
        }
        85..99 if depth < 2 => {
            // A nested one of its own keys only: its path is a part of this one's.
            let mut nested = txn(random, depth + 1);
            if careful {
                nested.success = branch(random, depth + 1, true, keys);
                nested.failure = branch(random, depth + 1, true, keys);
            }
            TxnOp::Txn(nested)
        }
        99 if once_in(random, 4) => TxnOp::Nothing,
        _ => TxnOp::Range(range(random)),
    }
}

/// About as much as a transaction may hold, or nests.
fn large_txn(random: &mut StdRng) -> Txn {
    let count = random.random_range(MAX_TXN_OPS - 1..=MAX_TXN_OPS + 1);
    let ranges = || vec![TxnOp::Range(Range::default_of("a")); count];
    match random.random_range(0..3) {
        0 => Txn {
            success: ranges(),
            ..Txn::default()
        },
        1 => Txn {
            failure: ranges(),
            ..Txn::default()
        },
        _ => Txn {
            success: vec![
                TxnOp::Txn(Txn {
                    success: ranges(),
                    ..Txn::default()
                });
                2
            ],
            ..Txn::default()
        },
    }
}

impl Range {
    fn default_of(key: &str) -> Range {
        Range {
            key: key.to_owned(),
            ..Range::default()
        }
    }
}

fn compare(random: &mut StdRng) -> Compare {
    let target = random.random_range(0..5);
    // Rarely an operand of another kind than the target.
    let operand = if once_in(random, 30) {
        random.random_range(0..6)
    } else {
        target
    };
    let with = match operand {
        0 => With::Version(random.random_range(0..4)),
        1 => With::Create(compared_revision(random)),
        2 => With::Mod(compared_revision(random)),
        3 => With::Value(pick(random, &VALUES).to_owned()),
        4 => With::Lease(pick(random, &[0, 1, 2, 3])),
        _ => With::Nothing,
    };
    Compare {
        result: if once_in(random, 60) {
            4
        } else {
            random.random_range(0..4)
        },
        target: if once_in(random, 60) { 5 } else { target },
        key: key(random),
        range_end: if once_in(random, 4) {
            end(random)
        } else {
            String::new()
        },
        with,
    }
}

fn compared_revision(random: &mut StdRng) -> Rev {
    if random.random_bool(0.3) {
        Rev::At(0)
    } else {
        Rev::Now(-random.random_range(0..12))
    }
}

fn compact(random: &mut StdRng) -> Compact {
    Compact {
        revision: match random.random_range(0..10) {
            0 => Rev::At(pick(random, &[0, -1, i64::MAX])),
            1 => Rev::Now(1),
            2 => Rev::Compacted(random.random_range(-1..=0)),
            3..6 => Rev::Compacted(random.random_range(1..10)),
            _ => Rev::Now(-random.random_range(0..20)),
        },
        physical: random.random_bool(0.5),
    }
}

fn lease(random: &mut StdRng) -> Op {
    let id = if once_in(random, 20) {
        pick(random, &[0, 99, -1])
    } else {
        pick(random, &LEASES)
    };
    match random.random_range(0..10) {
        0..4 => Op::Grant(Grant {
            id,
            ttl: if once_in(random, 10) {
                pick(
                    random,
                    &[0, -1, 1, 9_000_000_000, 9_000_000_001, i64::MAX, i64::MIN],
                )
            } else {
                pick(random, &[600, 3600])
            },
        }),
        4..6 => Op::Revoke(Lease { id }),
        6..7 => Op::KeepAlive(Lease { id }),
        7..9 => Op::TimeToLive(TimeToLive {
            id,
            keys: random.random_bool(0.7),
        }),
        _ => Op::Leases,
    }
}

fn watch(random: &mut StdRng) -> Op {
    let stream = random.random_range(0..STREAMS);
    match random.random_range(0..10) {
        0..2 => Op::Cancel(Cancel {
            stream,
            watch_id: random.random_range(0..6),
        }),
        2 => Op::Progress(Stream { stream }),
        _ => Op::Watch(Watch {
            stream,
            key: key(random),
            range_end: end(random),
            start_revision: if random.random_bool(0.4) {
                Rev::At(0)
            } else {
                start_revision(random)
            },
            progress_notify: once_in(random, 5),
            filters: match random.random_range(0..8) {
                0 => vec![0],
                1 => vec![1],
                2 => vec![0, 1],
                3 if once_in(random, 4) => vec![7],
                _ => Vec::new(),
            },
            prev_kv: random.random_bool(0.5),
            watch_id: if once_in(random, 5) {
                pick(random, &[1, 3, 5, -5])
            } else {
                0
            },
            fragment: once_in(random, 6),
        }),
    }
}

/// Not far in the future: the store goes there before the watch can be cancelled.
fn start_revision(random: &mut StdRng) -> Rev {
    match random.random_range(0..20) {
        0 => Rev::At(pick(random, &[-1, 1, 2])),
        1..3 => Rev::Now(random.random_range(1..6)),
        3..7 => Rev::Compacted(random.random_range(-2..4)),
        _ => Rev::Now(-random.random_range(0..20)),
    }
}
