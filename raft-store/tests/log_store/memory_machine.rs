//! The smallest state machine openraft's tests of a log can use.

use std::io;

use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend};
use raft_store::{LogId, SnapshotMeta, StoredMembership, TypeConfig};

type MemorySnapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotMeta>;

/// Remembers what was applied last, and nothing else. Its snapshots are their own metadata.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryMachine {
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<SnapshotMeta>,
}

impl RaftSnapshotBuilder<TypeConfig> for MemoryMachine {
    type SnapshotData = SnapshotMeta;

    async fn build_snapshot(&mut self) -> Result<MemorySnapshot, io::Error> {
        let meta = SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
        };
        Ok(Snapshot {
            meta: meta.clone(),
            snapshot: meta,
        })
    }
}

impl RaftStateMachine<TypeConfig> for MemoryMachine {
    type SnapshotData = SnapshotMeta;
    type SnapshotBuilder = MemoryMachine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            self.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembership::new(self.applied, membership);
            }
            if let Some(responder) = responder {
                responder.send(proto::replicated::Reply::default());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> MemoryMachine {
        // Built at once, so that it is the current one as soon as the builder is asked.
        self.snapshot = Some(SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
        });
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        _snapshot: SnapshotMeta,
    ) -> Result<(), io::Error> {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<MemorySnapshot>, io::Error> {
        Ok(self.snapshot.clone().map(|meta| Snapshot {
            meta: meta.clone(),
            snapshot: meta,
        }))
    }
}
