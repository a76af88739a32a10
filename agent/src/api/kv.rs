//! etcd's KV service.

use std::sync::Arc;

use prost::Message;
use proto::etcdserverpb::kv_server::Kv;
use proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use proto::replicated::reply::Result as Outcome;
use proto::replicated::request::Op;
use raft_store::Store;
use raft_store::auth::Permissions;
use tonic::{Request, Response, Status};

use super::interceptor::Needs;
use super::status::ApiError;
use super::{Api, arrival, txn_headers, validate};

#[derive(Clone, Debug)]
pub(super) struct KvService(pub(super) Arc<Api>);

#[tonic::async_trait]
impl Kv for KvService {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let KvService(api) = self;
        let needs = if request.get_ref().serializable {
            Needs::AnyMember
        } else {
            Needs::Voter
        };
        let caller = api.admit(&request, needs).await?;
        let request = request.into_inner();
        validate::range(&request)?;
        if !request.serializable {
            api.read_index().await?;
        }
        let allowed = |permissions: &Permissions| permissions.may_read(&request.key, &request.range_end);
        let ranges = [&request];
        let client = caller.client();
        let read = || api.read(&client, &ranges, |store| store.range(&request));
        let (found, held) = api.authorised(&caller, allowed, read).await?;
        let answer = RangeResponse {
            header: api.header_at(found.revision),
            kvs: found.kvs,
            more: found.more,
            count: found.count,
        };
        Ok(arrival::holding(answer, held))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let KvService(api) = self;
        let caller = api.admit(&request, Needs::Voter).await?;
        let request = request.into_inner();
        validate::put(&request)?;
        validate::size(request.encoded_len(), api.options.max_request_bytes)?;
        match api.propose(&caller, Op::Put(request)).await? {
            (header, Outcome::Put(response)) => Ok(Response::new(PutResponse { header, ..response })),
            _ => Err(ApiError::UnexpectedReply.into()),
        }
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let KvService(api) = self;
        let caller = api.admit(&request, Needs::Voter).await?;
        let request = request.into_inner();
        validate::delete_range(&request)?;
        validate::size(request.encoded_len(), api.options.max_request_bytes)?;
        match api.propose(&caller, Op::DeleteRange(request)).await? {
            (header, Outcome::DeleteRange(response)) => {
                Ok(Response::new(DeleteRangeResponse { header, ..response }))
            }
            _ => Err(ApiError::UnexpectedReply.into()),
        }
    }

    /// Transactions that only read have no place in the log: they are evaluated here, by what apply evaluates by.
    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let KvService(api) = self;
        let caller = api.admit(&request, Needs::Voter).await?;
        let request = request.into_inner();
        validate::txn(&request, api.options.max_txn_ops)?;
        validate::size(request.encoded_len(), api.options.max_request_bytes)?;
        if let Some(ranges) = Store::ranges_only(&request) {
            // As in etcd; but compares alone, without any range that says otherwise, see the newest state.
            if ranges.is_empty() || !ranges.iter().all(|range| range.serializable) {
                api.read_index().await?;
            }
            let allowed = |permissions: &Permissions| permissions.may_read_txn(&request);
            let client = caller.client();
            let read = || api.read(&client, &ranges, |store| store.read_txn(&request));
            let ((mut response, revision), held) = api.authorised(&caller, allowed, read).await?;
            txn_headers::fill(&mut response.responses, revision);
            let header = api.header_at(revision);
            return Ok(arrival::holding(TxnResponse { header, ..response }, held));
        }
        match api.propose(&caller, Op::Txn(request)).await? {
            (header, Outcome::Txn(mut response)) => {
                let revision = header.map_or(0, |header| header.revision);
                txn_headers::fill(&mut response.responses, revision);
                Ok(Response::new(TxnResponse { header, ..response }))
            }
            _ => Err(ApiError::UnexpectedReply.into()),
        }
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let KvService(api) = self;
        let caller = api.admit(&request, Needs::Voter).await?;
        let request = request.into_inner();
        match api.propose(&caller, Op::Compact(request)).await? {
            (header, Outcome::Compact(_)) => {
                if request.physical {
                    api.node.store().wait_swept().await;
                }
                Ok(Response::new(CompactionResponse { header }))
            }
            _ => Err(ApiError::UnexpectedReply.into()),
        }
    }
}
