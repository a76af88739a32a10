//! A store in a temporary folder, and requests in few words.

use std::path::Path;

use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, RaftSnapshotBuilder};
use prost::Message;
use proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, request_op,
};
use proto::replicated::{Refusal, Reply, Request, reply, request::Op};
use tempfile::TempDir;

use crate::raft_types::{Command, Entry, LogId, Membership, SnapshotMeta};
use crate::snapshot::{Snapshot, SnapshotFile};
use crate::state_machine::{StateMachine, StoreOptions};
use crate::store::Store;

pub(crate) struct Fixture {
    pub(crate) machine: StateMachine,
    pub(crate) store: Store,
    next_index: u64,
    dir: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        Fixture::open(tempfile::tempdir().unwrap())
    }

    pub(crate) fn open(dir: TempDir) -> Fixture {
        let (machine, store) = StateMachine::open(options(dir.path())).unwrap();
        let next_index = store.applied().map_or(0, |id| id.index()) + 1;
        Fixture {
            machine,
            store,
            next_index,
            dir,
        }
    }

    /// Closes it and opens it again.
    pub(crate) fn reopen(self) -> Fixture {
        Fixture::open(self.close())
    }

    pub(crate) fn close(self) -> TempDir {
        self.dir
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Applies requests as one chunk.
    pub(crate) fn apply_all(&mut self, ops: impl IntoIterator<Item = Op>) -> Vec<Reply> {
        let entries: Vec<Entry> = ops
            .into_iter()
            .map(|op| {
                let request = Request {
                    op: Some(op),
                    ..Request::default()
                };
                self.entry(EntryPayload::Normal(Command(request.encode_to_vec().into())))
            })
            .collect();
        self.apply_entries(&entries)
    }

    pub(crate) fn apply_entries(&mut self, entries: &[Entry]) -> Vec<Reply> {
        self.machine.apply_entries(entries.iter()).unwrap()
    }

    pub(crate) fn entry(&mut self, payload: EntryPayload<Command, u64, crate::Node>) -> Entry {
        let log_id = log_id(self.next_index);
        self.next_index += 1;
        Entry { log_id, payload }
    }

    pub(crate) fn apply(&mut self, op: Op) -> Reply {
        self.apply_all([op]).remove(0)
    }

    /// The result of a request that must not be refused.
    #[track_caller]
    pub(crate) fn done(&mut self, op: Op) -> reply::Result {
        match self.apply(op).result {
            Some(reply::Result::Refused(refusal)) => panic!("refused: {:?}", Refusal::try_from(refusal)),
            result => result.expect("a result"),
        }
    }

    /// Why a request is refused, which it must be, without a trace.
    #[track_caller]
    pub(crate) fn refused(&mut self, op: Op) -> Refusal {
        let before = (self.store.revision(), self.store.hash_kv(0), self.store.leases());
        let reply = self.apply(op);
        let after = (self.store.revision(), self.store.hash_kv(0), self.store.leases());
        assert_eq!(before, after);
        assert_eq!(reply.revision, before.0);
        match reply.result {
            Some(reply::Result::Refused(refusal)) => Refusal::try_from(refusal).unwrap(),
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Every key with its value at a revision, in one line.
    #[track_caller]
    pub(crate) fn shown(&self, revision: i64) -> String {
        let request = RangeRequest {
            revision,
            ..range("\0", "\0")
        };
        let found = self.store.range(&request).unwrap();
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        found
            .kvs
            .iter()
            .map(|kv| format!("{}={}", text(&kv.key), text(&kv.value)))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// A snapshot of what is applied.
    pub(crate) async fn snapshot(&mut self) -> Snapshot {
        let mut builder = self.machine.get_snapshot_builder().await;
        builder.build_snapshot().await.unwrap()
    }

    /// Takes up another store's snapshot.
    pub(crate) async fn install(&mut self, meta: &SnapshotMeta, file: SnapshotFile) {
        self.machine.install_snapshot(meta, file).await.unwrap();
    }

    /// Applies a membership of voters.
    pub(crate) fn apply_membership(&mut self, voters: &[u64]) {
        let nodes: std::collections::BTreeMap<u64, crate::Node> = voters
            .iter()
            .map(|id| {
                (
                    *id,
                    crate::Node {
                        name: format!("host-{id}"),
                        ..crate::Node::default()
                    },
                )
            })
            .collect();
        let membership = Membership::new(vec![voters.iter().copied().collect()], nodes).unwrap();
        let entry = self.entry(EntryPayload::Membership(membership));
        self.apply_entries(&[entry]);
    }
}

pub(crate) fn options(dir: &Path) -> StoreOptions {
    StoreOptions {
        dir: dir.to_owned(),
        cache_bytes: 8 << 20,
        watch_buffer_events: 100,
    }
}

pub(crate) fn log_id(index: u64) -> LogId {
    LogId::new(
        openraft::impls::leader_id_adv::LeaderId { term: 1, node_id: 1 },
        index,
    )
}

pub(crate) fn put(key: &str, value: &str) -> Op {
    Op::Put(put_request(key, value))
}

pub(crate) fn put_request(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: bytes(key),
        value: bytes(value),
        ..PutRequest::default()
    }
}

pub(crate) fn delete(key: &str, range_end: &str) -> Op {
    Op::DeleteRange(DeleteRangeRequest {
        key: bytes(key),
        range_end: bytes(range_end),
        prev_kv: false,
    })
}

pub(crate) fn compact(revision: i64) -> Op {
    Op::Compact(CompactionRequest {
        revision,
        physical: false,
    })
}

pub(crate) fn range(key: &str, range_end: &str) -> RangeRequest {
    RangeRequest {
        key: bytes(key),
        range_end: bytes(range_end),
        ..RangeRequest::default()
    }
}

pub(crate) fn op_put(key: &str, value: &str) -> RequestOp {
    step(request_op::Request::RequestPut(put_request(key, value)))
}

pub(crate) fn op_delete(key: &str, range_end: &str) -> RequestOp {
    let delete = DeleteRangeRequest {
        key: bytes(key),
        range_end: bytes(range_end),
        prev_kv: true,
    };
    step(request_op::Request::RequestDeleteRange(delete))
}

pub(crate) fn op_get(key: &str) -> RequestOp {
    step(request_op::Request::RequestRange(range(key, "")))
}

pub(crate) fn step(request: request_op::Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
