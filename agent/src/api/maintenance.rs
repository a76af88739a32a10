//! etcd's Maintenance service: this member's state, alarms, hashes, snapshots, and handing over leadership.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use proto::etcdserverpb::alarm_request::AlarmAction;
use proto::etcdserverpb::maintenance_server::Maintenance;
use proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse,
    MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
};
use proto::replicated::reply::Result as Outcome;
use proto::replicated::request::Op;
use raft_store::{HashKv, SnapshotFile};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::interceptor::Needs;
use super::status::{ApiError, unimplemented};
use super::{Api, ETCD_CLUSTER_VERSION, ETCD_VERSION};

/// The most that one message of a snapshot carries.
const SNAPSHOT_BLOB_BYTES: usize = 32 * 1024;

/// A saved snapshot is this many bytes times n, and its hash: what tells clients that the hash is there.
const SNAPSHOT_UNIT_BYTES: u64 = 512;

/// Messages of a snapshot that wait for a slow client.
const SNAPSHOT_QUEUE: usize = 8;

#[derive(Clone, Debug)]
pub(super) struct MaintenanceService(pub(super) Arc<Api>);

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        let MaintenanceService(api) = self;
        let needs = match request.get_ref().action() {
            AlarmAction::Get => Needs::Voter,
            AlarmAction::Activate | AlarmAction::Deactivate => Needs::Root,
        };
        let caller = api.admit(&request, needs).await?;
        let request = request.into_inner();
        if request.action() == AlarmAction::Get {
            api.node.read_index().await.map_err(ApiError::from)?;
            let alarms = alarms_asked_for(&request, api.node.store().alarms());
            return Ok(Response::new(AlarmResponse {
                header: api.header_now(),
                alarms,
            }));
        }
        match api.propose(&caller, Op::Alarm(request)).await? {
            (header, Outcome::Alarm(response)) => Ok(Response::new(AlarmResponse { header, ..response })),
            _ => Err(ApiError::UnexpectedReply.into()),
        }
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let MaintenanceService(api) = self;
        api.admit(&request, Needs::AnyMember).await?;
        let view = api.view();
        let store = api.node.store();
        let (on_disk_bytes, live_bytes) = store.size_bytes();
        let mut errors: Vec<String> = store.alarms().iter().map(alarm_text).collect();
        if view.leader == 0 {
            errors.insert(0, ApiError::NoLeader.text().to_owned());
        }
        Ok(Response::new(StatusResponse {
            header: api.header_now(),
            version: ETCD_VERSION.to_owned(),
            db_size: saturate(on_disk_bytes),
            leader: view.leader,
            raft_index: view.committed_index,
            raft_term: view.term,
            raft_applied_index: view.applied_index,
            errors,
            db_size_in_use: saturate(live_bytes),
            is_learner: view.is_learner,
            storage_version: ETCD_CLUSTER_VERSION.to_owned(),
            db_size_quota: saturate(api.options.quota_bytes),
            downgrade_info: None,
        }))
    }

    /// There is nothing to defragment: the store gives space back by itself.
    async fn defragment(
        &self,
        request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        let MaintenanceService(api) = self;
        api.admit(&request, Needs::Root).await?;
        Ok(Response::new(DefragmentResponse {
            header: api.header_now(),
        }))
    }

    async fn hash(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let MaintenanceService(api) = self;
        api.admit(&request, Needs::Root).await?;
        let hashed = hash_kv(api, 0).await?;
        Ok(Response::new(HashResponse {
            header: api.header_now(),
            hash: hashed.hash,
        }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        let MaintenanceService(api) = self;
        api.admit(&request, Needs::Voter).await?;
        let hashed = hash_kv(api, request.get_ref().revision).await?;
        Ok(Response::new(HashKvResponse {
            header: api.header_now(),
            hash: hashed.hash,
            compact_revision: hashed.compact_revision,
            hash_revision: hashed.hash_revision,
        }))
    }

    type SnapshotStream = ReceiverStream<Result<SnapshotResponse, Status>>;

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let MaintenanceService(api) = self;
        let caller = api.admit(&request, Needs::RootAtAnyMember).await?;
        let file = api.node.store().export_snapshot().await.map_err(|error| {
            tracing::warn!(%error, "could not write a snapshot for a client");
            ApiError::SnapshotFailed
        })?;
        let (sender, receiver) = mpsc::channel(SNAPSHOT_QUEUE);
        let api = api.clone();
        tokio::spawn(async move {
            // The task ends with the file, with the client, or with the member.
            let failure = tokio::select! {
                sent = send_file(&api, &file, &sender) => match sent {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::warn!(%error, "could not read a snapshot for a client");
                        ApiError::SnapshotFailed
                    }
                },
                error = api.stream_must_end(&caller) => error,
                () = sender.closed() => return,
            };
            let _ = sender.send(Err(failure.into())).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        let MaintenanceService(api) = self;
        api.admit(&request, Needs::Root).await?;
        api.node
            .move_leader(request.get_ref().target_id)
            .await
            .map_err(ApiError::from)?;
        Ok(Response::new(MoveLeaderResponse {
            header: api.header_now(),
        }))
    }

    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        self.0.admit(&request, Needs::Root).await?;
        Err(unimplemented("downgrading the cluster"))
    }
}

/// As in a `GET`: all, or only one member's, or only of one kind.
fn alarms_asked_for(request: &AlarmRequest, mut alarms: Vec<AlarmMember>) -> Vec<AlarmMember> {
    let kind = request.alarm;
    alarms.retain(|alarm| {
        (request.member_id == 0 || alarm.member_id == request.member_id)
            && (kind == AlarmType::None as i32 || alarm.alarm == kind)
    });
    alarms
}

/// An alarm as etcd's status shows it, its last blank included.
fn alarm_text(alarm: &AlarmMember) -> String {
    format!(
        "memberID:{} alarm:{} ",
        alarm.member_id,
        alarm.alarm().as_str_name()
    )
}

fn saturate(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Hashing reads all records: it has a thread of its own.
async fn hash_kv(api: &Api, revision: i64) -> Result<HashKv, ApiError> {
    let store = api.node.store().clone();
    let hashed = tokio::task::spawn_blocking(move || store.hash_kv(revision)).await;
    Ok(hashed.map_err(|_| ApiError::Stopped)??)
}

async fn send_file(
    api: &Api,
    file: &SnapshotFile,
    sender: &mpsc::Sender<Result<SnapshotResponse, Status>>,
) -> io::Result<()> {
    let mut blobs = Blobs::new(tokio::fs::File::open(file.path()).await?, file.size_bytes());
    while let Some((blob, remaining_bytes)) = blobs.next().await? {
        let response = SnapshotResponse {
            header: api.header_now(),
            remaining_bytes,
            blob,
            version: ETCD_CLUSTER_VERSION.to_owned(),
        };
        if sender.send(Ok(response)).await.is_err() {
            // The client has gone.
            return Ok(());
        }
    }
    Ok(())
}

/// A file as the blobs of a snapshot: its bytes, zeroes up to a whole unit, and the SHA-256 of all before.
#[derive(Debug)]
struct Blobs<R> {
    reader: R,
    file_bytes_left: u64,
    padding_bytes_left: u64,
    /// `None` once the hash was given.
    hasher: Option<Sha256>,
}

impl<R: AsyncRead + Unpin> Blobs<R> {
    fn new(reader: R, size_bytes: u64) -> Blobs<R> {
        let padding_bytes_left = size_bytes.next_multiple_of(SNAPSHOT_UNIT_BYTES) - size_bytes;
        Blobs {
            reader,
            file_bytes_left: size_bytes,
            padding_bytes_left,
            hasher: Some(Sha256::new()),
        }
    }

    /// The next blob, and how many bytes are left after it, the hash not counted.
    async fn next(&mut self) -> io::Result<Option<(Bytes, u64)>> {
        let Some(hasher) = &mut self.hasher else {
            return Ok(None);
        };
        let left = self.file_bytes_left + self.padding_bytes_left;
        if left == 0 {
            let hash = self.hasher.take().map(Sha256::finalize).unwrap_or_default();
            return Ok(Some((Bytes::copy_from_slice(&hash), 0)));
        }
        let len = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(SNAPSHOT_BLOB_BYTES);
        let mut blob = vec![0; len];
        let from_file = usize::try_from(self.file_bytes_left)
            .unwrap_or(usize::MAX)
            .min(len);
        let (read, _padding) = blob.split_at_mut(from_file);
        self.reader.read_exact(read).await?;
        self.file_bytes_left -= from_file as u64;
        self.padding_bytes_left -= (len - from_file) as u64;
        hasher.update(&blob);
        Ok(Some((blob.into(), left - len as u64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn snapshots_are_padded_and_end_in_their_hash() {
        for size in [
            0_usize,
            1,
            511,
            512,
            513,
            32 * 1024 - 1,
            32 * 1024,
            32 * 1024 + 1,
            100_000,
        ] {
            let file: Vec<u8> = (0..size).map(|byte| byte as u8).collect();
            let mut blobs = Blobs::new(file.as_slice(), size as u64);
            let mut all = Vec::new();
            let mut left_before = None;
            while let Some((blob, left)) = blobs.next().await.unwrap() {
                assert!(blob.len() <= SNAPSHOT_BLOB_BYTES);
                if let Some(before) = left_before {
                    assert!(
                        before == left + blob.len() as u64 || (before, left) == (0, 0),
                        "size {size}"
                    );
                }
                left_before = Some(left);
                all.extend_from_slice(&blob);
            }
            assert_eq!(left_before, Some(0));
            let (body, hash) = all.split_at(all.len() - 32);
            assert_eq!(body.len() % 512, 0, "size {size}");
            assert!(
                body.starts_with(&file) && body[size..].iter().all(|byte| *byte == 0),
                "size {size}"
            );
            assert_eq!(hash, Sha256::digest(body).as_slice(), "size {size}");
        }
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_is_an_error() {
        let mut blobs = Blobs::new([0_u8; 10].as_slice(), 11);
        assert_eq!(
            blobs.next().await.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn alarms() {
        let alarm = |member_id, alarm: AlarmType| AlarmMember {
            member_id,
            alarm: alarm.into(),
        };
        let all = vec![
            alarm(1, AlarmType::Nospace),
            alarm(2, AlarmType::Nospace),
            alarm(2, AlarmType::Corrupt),
        ];
        assert_eq!(alarm_text(&all[0]), "memberID:1 alarm:NOSPACE ");
        let ask = |member_id, kind: AlarmType| {
            let request = AlarmRequest {
                action: 0,
                member_id,
                alarm: kind.into(),
            };
            alarms_asked_for(&request, all.clone()).len()
        };
        assert_eq!(ask(0, AlarmType::None), 3);
        assert_eq!(ask(2, AlarmType::None), 2);
        assert_eq!(ask(0, AlarmType::Nospace), 2);
        assert_eq!(ask(2, AlarmType::Corrupt), 1);
        assert_eq!(ask(3, AlarmType::None), 0);
    }
}
