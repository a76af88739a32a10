//! Leases and the keys on them.

use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest,
};

use crate::ask::Ask::{self, Delete, Grant, KeepAlive, Leases, Put, Range, Revoke, TimeToLive};
use crate::ask::{Row, delete, grant, put, range_to, table};

table!("lease", leases);

fn on(key: &str, value: &str, lease: i64) -> Ask {
    Put(PutRequest {
        lease,
        ..put(key, value)
    })
}

fn keys_of(id: i64) -> Ask {
    TimeToLive(LeaseTimeToLiveRequest { id, keys: true })
}

fn leases() -> Vec<Row> {
    let all = || Range(range_to("\0", "\0"));
    vec![
        ("none yet", Leases),
        ("granted", grant(100, 600)),
        ("granted again", grant(100, 600)),
        ("an id is chosen", Grant(LeaseGrantRequest { id: 0, ttl: 600 })),
        ("a TTL below the least is raised", grant(101, 1)),
        ("zero too", grant(102, 0)),
        ("a TTL below zero", grant(103, -5)),
        ("the greatest TTL", grant(104, 9_000_000_000)),
        ("above it", grant(105, 9_000_000_001)),
        ("a negative id", grant(-7, 600)),
        ("another", grant(106, 300)),
        ("revoked", Revoke(LeaseRevokeRequest { id: 104 })),
        ("revoked again", Revoke(LeaseRevokeRequest { id: 104 })),
        ("a key on it", on("b", "1", 100)),
        ("another key on it", on("a", "1", 100)),
        ("a third", on("c", "1", 100)),
        ("its keys", keys_of(100)),
        (
            "without its keys",
            TimeToLive(LeaseTimeToLiveRequest { id: 100, keys: false }),
        ),
        ("a put without a lease takes the key off", Put(put("b", "2"))),
        ("two keys left", keys_of(100)),
        ("a put on another lease moves the key", on("c", "2", 106)),
        ("away from the one", keys_of(100)),
        ("to the other", keys_of(106)),
        (
            "a put that keeps the lease",
            Put(PutRequest {
                ignore_lease: true,
                ..put("c", "3")
            }),
        ),
        ("kept", keys_of(106)),
        ("a delete takes the key off", Delete(delete("c"))),
        ("off", keys_of(106)),
        ("on again", on("c", "4", 106)),
        ("and with it", on("aa", "1", 106)),
        ("the keys and their leases", all()),
        ("renewed", KeepAlive(LeaseKeepAliveRequest { id: 106 })),
        (
            "a lease that is not is not renewed",
            KeepAlive(LeaseKeepAliveRequest { id: 999 }),
        ),
        ("nor has it time to live", keys_of(999)),
        ("nor can it be revoked", Revoke(LeaseRevokeRequest { id: 999 })),
        (
            "a revoke deletes its keys in one revision",
            Revoke(LeaseRevokeRequest { id: 106 }),
        ),
        ("gone", all()),
        (
            "a revoke without keys: no revision",
            Revoke(LeaseRevokeRequest { id: 101 }),
        ),
        ("a revoke of the rest", Revoke(LeaseRevokeRequest { id: 100 })),
        ("one key without a lease is left", all()),
        ("its id may be used again", grant(100, 600)),
        ("without the keys of before", keys_of(100)),
    ]
}
