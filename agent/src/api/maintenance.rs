//! etcd's Maintenance service: this member's state, alarms, hashes, snapshots, and handing over leadership.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use proto::etcdserverpb::alarm_request::AlarmAction;
use proto::etcdserverpb::downgrade_request::DowngradeAction;
use proto::etcdserverpb::maintenance_server::Maintenance;
use proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse,
    MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
};
use proto::replicated::reply::Result as Outcome;
use proto::replicated::request::Op;
use raft_store::{HashKv, SnapshotFile};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::interceptor::Needs;
use super::status::ApiError;
use super::{Api, ETCD_CLUSTER_VERSION, ETCD_VERSION};

/// The most that one message of a snapshot carries.
const SNAPSHOT_BLOB_BYTES: usize = 32 * 1024;

/// The SHA-256 at the end of a snapshot.
const SNAPSHOT_HASH_BYTES: usize = 32;

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
            api.read_index().await?;
            let alarms = alarms_asked_for(&request, api.node.store().alarms());
            return Ok(Response::new(AlarmResponse {
                header: api.header_now(),
                alarms,
            }));
        }
        let known =
            AlarmAction::try_from(request.action).is_ok() && AlarmType::try_from(request.alarm).is_ok();
        if !known {
            // Nothing of that name can be raised or cleared. etcd 3.5 stops applying over one.
            return Ok(Response::new(AlarmResponse {
                header: api.header_now(),
                alarms: Vec::new(),
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
        if api.node.disk_is_full() {
            errors.push("the disk of the data directory is nearly full".to_owned());
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

    /// Answers at once, and stalls nothing: the store uses the space of what was removed again by itself, and a file
    /// that has become many times larger than what it holds is written anew when the member starts.
    async fn defragment(
        &self,
        request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        let MaintenanceService(api) = self;
        api.admit(&request, Needs::Root).await?;
        // etcd has no header here either.
        Ok(Response::new(DefragmentResponse { header: None }))
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
        api.admit(&request, Needs::Root).await?;
        let hashed = hash_kv(api, request.get_ref().revision).await?;
        Ok(Response::new(HashKvResponse {
            header: api.header_now(),
            hash: hashed.hash,
            compact_revision: match hashed.compact_revision {
                // To etcd a store that was never compacted is compacted at -1.
                0 => -1,
                revision => revision,
            },
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
                sent = send_file(&file, &sender) => match sent {
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
        Err(downgrade_refusal(request.get_ref()).into())
    }
}

/// As in a `GET`: all, or only of one kind. Whose they are is not asked, in etcd neither.
fn alarms_asked_for(request: &AlarmRequest, mut alarms: Vec<AlarmMember>) -> Vec<AlarmMember> {
    let kind = request.alarm;
    alarms.retain(|alarm| kind == AlarmType::None as i32 || alarm.alarm == kind);
    alarms
}

/// There is no older release to go back to: every version is refused, in etcd's order of checks and with its words.
fn downgrade_refusal(request: &DowngradeRequest) -> ApiError {
    match DowngradeAction::try_from(request.action) {
        Ok(DowngradeAction::Validate | DowngradeAction::Enable) if is_version(&request.version) => {
            ApiError::InvalidDowngradeTarget
        }
        Ok(DowngradeAction::Validate | DowngradeAction::Enable) => ApiError::WrongDowngradeVersion,
        Ok(DowngradeAction::Cancel) => ApiError::NoDowngrade,
        Err(_) => ApiError::UnknownMethod,
    }
}

/// `3.4` or `3.4.0`.
fn is_version(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    matches!(parts.len(), 2 | 3) && parts.iter().all(|part| part.parse::<u32>().is_ok())
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
    file: &SnapshotFile,
    sender: &mpsc::Sender<Result<SnapshotResponse, Status>>,
) -> io::Result<()> {
    let mut blobs = Blobs::new(tokio::fs::File::open(file.path()).await?, file.size_bytes());
    while let Some((blob, remaining_bytes)) = blobs.next().await? {
        // etcd 3.5 sends these two only.
        let response = SnapshotResponse {
            remaining_bytes,
            blob,
            ..Default::default()
        };
        if sender.send(Ok(response)).await.is_err() {
            // The client has gone.
            return Ok(());
        }
    }
    Ok(())
}

/// A snapshot file as the blobs of an answer. The file is as etcd's clients expect a snapshot: whole units, and then
/// the SHA-256 of all before, which is a blob of its own.
#[derive(Debug)]
struct Blobs<R> {
    reader: R,
    /// What is left of the file, the hash not counted.
    content_bytes_left: u64,
    hash_is_left: bool,
}

impl<R: AsyncRead + Unpin> Blobs<R> {
    fn new(reader: R, size_bytes: u64) -> Blobs<R> {
        Blobs {
            reader,
            content_bytes_left: size_bytes.saturating_sub(SNAPSHOT_HASH_BYTES as u64),
            hash_is_left: true,
        }
    }

    /// The next blob, and how many bytes are left after it, the hash not counted.
    async fn next(&mut self) -> io::Result<Option<(Bytes, u64)>> {
        if self.content_bytes_left == 0 && !self.hash_is_left {
            return Ok(None);
        }
        let len = match self.content_bytes_left {
            0 => {
                self.hash_is_left = false;
                SNAPSHOT_HASH_BYTES
            }
            left => usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(SNAPSHOT_BLOB_BYTES),
        };
        let mut blob = vec![0; len];
        self.reader.read_exact(&mut blob).await?;
        self.content_bytes_left = self.content_bytes_left.saturating_sub(len as u64);
        Ok(Some((blob.into(), self.content_bytes_left)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_snapshot_is_sent_as_it_is_with_its_hash_last() {
        for content in [512_usize, 32 * 1024, 32 * 1024 + 512, 102_400] {
            let file: Vec<u8> = (0..content + 32).map(|byte| byte as u8).collect();
            let mut blobs = Blobs::new(file.as_slice(), file.len() as u64);
            let (mut sent, mut last) = (Vec::new(), Bytes::new());
            while let Some((blob, left)) = blobs.next().await.unwrap() {
                assert!(blob.len() <= SNAPSHOT_BLOB_BYTES);
                sent.extend_from_slice(&blob);
                assert_eq!(left as usize, content.saturating_sub(sent.len()));
                last = blob;
            }
            assert_eq!(sent, file);
            assert_eq!(last.len(), 32);
        }
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_is_an_error() {
        let mut blobs = Blobs::new([0_u8; 10].as_slice(), 43);
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
        assert_eq!(ask(2, AlarmType::None), 3, "whoever is named");
        assert_eq!(ask(0, AlarmType::Nospace), 2);
        assert_eq!(ask(2, AlarmType::Corrupt), 1);
    }

    #[test]
    fn no_version_can_be_gone_back_to() {
        let ask = |action: i32, version: &str| {
            downgrade_refusal(&DowngradeRequest {
                action,
                version: version.to_owned(),
            })
        };
        assert_eq!(ask(0, "3.4.0"), ApiError::InvalidDowngradeTarget);
        assert_eq!(ask(1, "3.5"), ApiError::InvalidDowngradeTarget);
        for wrong in ["", "3", "x", "3.x", "3.4.0.0", "3..4"] {
            assert_eq!(ask(0, wrong), ApiError::WrongDowngradeVersion, "{wrong}");
        }
        assert_eq!(ask(2, ""), ApiError::NoDowngrade);
        assert_eq!(ask(7, ""), ApiError::UnknownMethod);
    }
}
