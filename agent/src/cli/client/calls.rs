//! Every question the commands ask, one method each, and whether it may be asked twice.

use futures::{StreamExt, stream};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::auth_client::AuthClient;
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::watch_request::RequestUnion;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tonic::{Response, Status};

use super::{Client, Link, Repeat};
use crate::cli::error::CliError;

/// Largest answer read, and largest request sent.
const MESSAGE_LIMIT_BYTES: usize = 16 << 20;

impl Client {
    pub(crate) async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, CliError> {
        self.call(Repeat::Always, async |link| kv(link).range(request.clone()).await)
            .await
    }

    pub(crate) async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, CliError> {
        self.call(Repeat::IfUnsent, async |link| kv(link).put(request.clone()).await)
            .await
    }

    pub(crate) async fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, CliError> {
        self.call(Repeat::IfUnsent, async |link| {
            kv(link).delete_range(request.clone()).await
        })
        .await
    }

    pub(crate) async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, CliError> {
        self.call(Repeat::IfUnsent, async |link| kv(link).txn(request.clone()).await)
            .await
    }

    /// A transaction that leaves the same behind however often it is applied: it may be sent again.
    pub(crate) async fn repeatable_txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, CliError> {
        self.call(Repeat::Always, async |link| kv(link).txn(request.clone()).await)
            .await
    }

    pub(crate) async fn compact(
        &self,
        request: pb::CompactionRequest,
    ) -> Result<pb::CompactionResponse, CliError> {
        self.call(Repeat::IfUnsent, async |link| kv(link).compact(request).await)
            .await
    }

    pub(crate) async fn member_list(&self) -> Result<pb::MemberListResponse, CliError> {
        // Linearizable would need a quorum, and who is a member is asked for most when there is none.
        let request = pb::MemberListRequest { linearizable: false };
        self.call(Repeat::Always, async |link| {
            ClusterClient::new(link).member_list(request).await
        })
        .await
    }

    pub(crate) async fn member_add(
        &self,
        request: pb::MemberAddRequest,
    ) -> Result<pb::MemberAddResponse, CliError> {
        self.call(Repeat::IfUnsent, async |link| {
            ClusterClient::new(link).member_add(request.clone()).await
        })
        .await
    }

    pub(crate) async fn member_remove(&self, id: u64) -> Result<pb::MemberRemoveResponse, CliError> {
        let request = pb::MemberRemoveRequest { id };
        self.call(Repeat::IfUnsent, async |link| {
            ClusterClient::new(link).member_remove(request).await
        })
        .await
    }

    pub(crate) async fn member_update(
        &self,
        request: pb::MemberUpdateRequest,
    ) -> Result<pb::MemberUpdateResponse, CliError> {
        self.call(Repeat::IfUnsent, async |link| {
            ClusterClient::new(link).member_update(request.clone()).await
        })
        .await
    }

    pub(crate) async fn member_promote(&self, id: u64) -> Result<pb::MemberPromoteResponse, CliError> {
        let request = pb::MemberPromoteRequest { id };
        self.call(Repeat::IfUnsent, async |link| {
            ClusterClient::new(link).member_promote(request).await
        })
        .await
    }

    pub(crate) async fn status(&self) -> Result<pb::StatusResponse, CliError> {
        self.call(Repeat::Always, async |link| {
            maintenance(link).status(pb::StatusRequest {}).await
        })
        .await
    }

    pub(crate) async fn alarms(&self) -> Result<pb::AlarmResponse, CliError> {
        let request = pb::AlarmRequest::default();
        self.call(Repeat::Always, async |link| {
            maintenance(link).alarm(request).await
        })
        .await
    }

    /// Raises or clears an alarm. Harmless to repeat.
    pub(crate) async fn set_alarm(&self, request: pb::AlarmRequest) -> Result<pb::AlarmResponse, CliError> {
        self.call(Repeat::Always, async |link| {
            maintenance(link).alarm(request).await
        })
        .await
    }

    pub(crate) async fn hash_kv(&self, revision: i64) -> Result<pb::HashKvResponse, CliError> {
        let request = pb::HashKvRequest { revision };
        self.call(Repeat::Always, async |link| {
            maintenance(link).hash_kv(request).await
        })
        .await
    }

    pub(crate) async fn move_leader(&self, target: u64) -> Result<pb::MoveLeaderResponse, CliError> {
        let request = pb::MoveLeaderRequest { target_id: target };
        self.call(Repeat::IfUnsent, async |link| {
            maintenance(link).move_leader(request).await
        })
        .await
    }

    /// Gives space back to the file system. It may take as long as the store is large.
    pub(crate) async fn defragment(&self) -> Result<pb::DefragmentResponse, CliError> {
        self.call(Repeat::Always, async |link| {
            maintenance(link).defragment(pb::DefragmentRequest {}).await
        })
        .await
    }

    pub(crate) async fn snapshot(&self) -> Result<tonic::Streaming<pb::SnapshotResponse>, CliError> {
        self.call(Repeat::Always, async |link| {
            maintenance(link).snapshot(pb::SnapshotRequest {}).await
        })
        .await
    }

    pub(crate) async fn lease_grant(
        &self,
        request: pb::LeaseGrantRequest,
    ) -> Result<pb::LeaseGrantResponse, CliError> {
        self.call(Repeat::IfUnsent, async |link| {
            lease(link).lease_grant(request).await
        })
        .await
    }

    pub(crate) async fn lease_revoke(&self, id: i64) -> Result<pb::LeaseRevokeResponse, CliError> {
        let request = pb::LeaseRevokeRequest { id };
        self.call(Repeat::IfUnsent, async |link| {
            lease(link).lease_revoke(request).await
        })
        .await
    }

    pub(crate) async fn lease_time_to_live(
        &self,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, CliError> {
        self.call(Repeat::Always, async |link| {
            lease(link).lease_time_to_live(request).await
        })
        .await
    }

    pub(crate) async fn leases(&self) -> Result<pb::LeaseLeasesResponse, CliError> {
        let request = pb::LeaseLeasesRequest {};
        self.call(Repeat::Always, async |link| {
            lease(link).lease_leases(request).await
        })
        .await
    }

    /// Renews once. Harmless to repeat: a renewal sets the deadline, it does not add to it.
    pub(crate) async fn lease_keep_alive(&self, id: i64) -> Result<pb::LeaseKeepAliveResponse, CliError> {
        let request = pb::LeaseKeepAliveRequest { id };
        self.call(Repeat::Always, async |link| {
            let stream = stream::iter([request]);
            let mut answers = lease(link).lease_keep_alive(stream).await?.into_inner();
            let answer = answers.message().await?;
            answer
                .map(Response::new)
                .ok_or_else(|| Status::unavailable("the member closed the stream"))
        })
        .await
    }

    /// A question to the Auth service that changes nothing.
    pub(crate) async fn ask_auth<T>(
        &self,
        ask: impl AsyncFn(AuthClient<Link>) -> Result<Response<T>, Status>,
    ) -> Result<T, CliError> {
        self.call(Repeat::Always, async |link| ask(AuthClient::new(link)).await)
            .await
    }

    /// A change of users, roles, or of authentication itself.
    pub(crate) async fn change_auth<T>(
        &self,
        change: impl AsyncFn(AuthClient<Link>) -> Result<Response<T>, Status>,
    ) -> Result<T, CliError> {
        self.call(Repeat::IfUnsent, async |link| change(AuthClient::new(link)).await)
            .await
    }

    /// Opens a watch stream at whichever endpoint is there, and says at which.
    pub(crate) async fn watch(
        &self,
        request: pb::WatchCreateRequest,
    ) -> Result<(String, tonic::Streaming<pb::WatchResponse>), CliError> {
        let (_never, ticks) = watch::channel(());
        self.watch_with_progress(request, &ticks).await
    }

    /// The same; at each of `ticks` the member is asked how far it is.
    pub(crate) async fn watch_with_progress(
        &self,
        request: pb::WatchCreateRequest,
        ticks: &watch::Receiver<()>,
    ) -> Result<(String, tonic::Streaming<pb::WatchResponse>), CliError> {
        let create = pb::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(request)),
        };
        let stream = self
            .call(Repeat::Always, async |link| {
                let questions = WatchStream::from_changes(ticks.clone()).map(|()| pb::WatchRequest {
                    request_union: Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})),
                });
                // The request side stays open: a member may take its end for the end of the watch.
                let requests = stream::iter([create.clone()])
                    .chain(questions)
                    .chain(stream::pending());
                let client = WatchClient::new(link).max_decoding_message_size(MESSAGE_LIMIT_BYTES);
                let mut client = client.max_encoding_message_size(MESSAGE_LIMIT_BYTES);
                client.watch(requests).await
            })
            .await?;
        Ok((self.answering().to_owned(), stream))
    }
}

fn kv(link: Link) -> KvClient<Link> {
    KvClient::new(link)
        .max_decoding_message_size(MESSAGE_LIMIT_BYTES)
        .max_encoding_message_size(MESSAGE_LIMIT_BYTES)
}

fn lease(link: Link) -> LeaseClient<Link> {
    LeaseClient::new(link).max_decoding_message_size(MESSAGE_LIMIT_BYTES)
}

fn maintenance(link: Link) -> MaintenanceClient<Link> {
    MaintenanceClient::new(link).max_decoding_message_size(MESSAGE_LIMIT_BYTES)
}
