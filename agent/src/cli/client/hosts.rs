//! The questions to our own service: hosts and their instances.

use parking_lot::Mutex;
use proto::agent::v1::attach_request::Request;
use proto::agent::v1::hosts_client::HostsClient;
use proto::agent::v1::{
    AttachRequest, AttachResponse, AttachStart, BackUpRequest, BackUpResponse, ClaimRequest, ClaimResponse,
    CreateSnapshotRequest, CreateSnapshotResponse, ListBackupsRequest, ListBackupsResponse,
    ListInstancesRequest, ListInstancesResponse, ListSnapshotsRequest, ListSnapshotsResponse, PlanRequest,
    PlanResponse, ReadLiveRequest, ReadLiveResponse, RestoreBackupRequest, RestoreBackupResponse,
    RestoreSnapshotRequest, RestoreSnapshotResponse, SwitchInstanceRequest, SwitchInstanceResponse,
};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::{Client, Link, Repeat};
use crate::cli::error::CliError;

/// Largest answer read: a list of very many instances.
const MESSAGE_LIMIT_BYTES: usize = 64 << 20;
/// Messages on their way into a session.
const SESSION_QUEUE: usize = 16;

/// A session in an instance.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) answers: tonic::Streaming<AttachResponse>,
}

impl Client {
    pub(crate) async fn list_instances(
        &self,
        request: ListInstancesRequest,
    ) -> Result<ListInstancesResponse, CliError> {
        self.call(Repeat::Always, async |link| {
            hosts(link).list_instances(request.clone()).await
        })
        .await
    }

    /// Harmless to repeat, but a restart.
    pub(crate) async fn switch_instance(
        &self,
        request: SwitchInstanceRequest,
    ) -> Result<SwitchInstanceResponse, CliError> {
        self.call(Repeat::IfUnsent, async |link| {
            hosts(link).switch_instance(request.clone()).await
        })
        .await
    }

    pub(crate) async fn create_snapshot(
        &self,
        request: CreateSnapshotRequest,
    ) -> Result<CreateSnapshotResponse, CliError> {
        self.call(Repeat::IfUnsent, async |link| {
            hosts(link).create_snapshot(request.clone()).await
        })
        .await
    }

    pub(crate) async fn list_snapshots(
        &self,
        request: ListSnapshotsRequest,
    ) -> Result<ListSnapshotsResponse, CliError> {
        self.call(Repeat::Always, async |link| {
            hosts(link).list_snapshots(request.clone()).await
        })
        .await
    }

    pub(crate) async fn restore_snapshot(
        &self,
        request: RestoreSnapshotRequest,
    ) -> Result<RestoreSnapshotResponse, CliError> {
        self.call(Repeat::IfUnsent, async |link| {
            hosts(link).restore_snapshot(request.clone()).await
        })
        .await
    }

    pub(crate) async fn plan(&self, request: PlanRequest) -> Result<PlanResponse, CliError> {
        self.call(Repeat::Always, async |link| {
            hosts(link).plan(request.clone()).await
        })
        .await
    }

    pub(crate) async fn read_live(&self, request: ReadLiveRequest) -> Result<ReadLiveResponse, CliError> {
        self.call(Repeat::Always, async |link| {
            hosts(link).read_live(request.clone()).await
        })
        .await
    }

    /// Harmless to repeat.
    pub(crate) async fn claim(&self, request: ClaimRequest) -> Result<ClaimResponse, CliError> {
        self.call(Repeat::Always, async |link| {
            hosts(link).claim(request.clone()).await
        })
        .await
    }

    pub(crate) async fn list_backups(
        &self,
        request: ListBackupsRequest,
    ) -> Result<ListBackupsResponse, CliError> {
        self.call(Repeat::Always, async |link| {
            hosts(link).list_backups(request.clone()).await
        })
        .await
    }

    pub(crate) async fn back_up(&self, request: BackUpRequest) -> Result<BackUpResponse, CliError> {
        self.call(Repeat::IfUnsent, async |link| {
            hosts(link).back_up(request.clone()).await
        })
        .await
    }

    pub(crate) async fn restore_backup(
        &self,
        request: RestoreBackupRequest,
    ) -> Result<RestoreBackupResponse, CliError> {
        self.call(Repeat::IfUnsent, async |link| {
            hosts(link).restore_backup(request.clone()).await
        })
        .await
    }

    /// Opens a session: what it was opened to answers, or the first answer says why not.
    pub(crate) async fn attach(&self, start: AttachStart) -> Result<Attached, CliError> {
        let sender = Mutex::new(None);
        let answers = self
            .call(Repeat::IfUnsent, async |link| {
                // A queue for each attempt: one that was refused may have taken from it.
                let (requests, queue) = mpsc::channel(SESSION_QUEUE);
                *sender.lock() = Some(requests);
                let first = tokio_stream::iter([Request::Start(start.clone())]);
                let all = first.chain(ReceiverStream::new(queue));
                let all = all.map(|request| AttachRequest {
                    request: Some(request),
                });
                hosts(link).attach(all).await
            })
            .await?;
        let requests = sender.into_inner();
        let requests = requests.ok_or_else(|| CliError::failed("the session was never opened"))?;
        Ok(Attached { requests, answers })
    }
}

fn hosts(link: Link) -> HostsClient<Link> {
    HostsClient::new(link)
        .max_decoding_message_size(MESSAGE_LIMIT_BYTES)
        .max_encoding_message_size(MESSAGE_LIMIT_BYTES)
}
