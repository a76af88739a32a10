//! etcd's v3lock service: locks that wait in the member, held by a key on a lease.

use std::sync::Arc;

use bytes::Bytes;
use proto::v3lockpb::lock_server::Lock;
use proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tonic::{Request, Response, Status};

use super::Api;
use super::interceptor::Needs;
use super::queue::{Client, Queue};
use super::status::ApiError;

#[derive(Clone, Debug)]
pub(super) struct LockService(pub(super) Arc<Api>);

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let LockService(api) = self;
        let caller = api.admit(&request, Needs::Voter).await?;
        let client = Client::of(api, caller, &request);
        let LockRequest { name, lease } = request.into_inner();
        let mut place = Queue::new(client, &name).enter(lease, Bytes::new()).await?;
        let header = place.turn(ApiError::LockSessionExpired).await?;
        Ok(Response::new(LockResponse {
            header,
            key: place.keep(),
        }))
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        let LockService(api) = self;
        let caller = api.admit(&request, Needs::Voter).await?;
        let client = Client::of(api, caller, &request);
        let header = client.delete(request.into_inner().key).await?;
        Ok(Response::new(UnlockResponse { header }))
    }
}
