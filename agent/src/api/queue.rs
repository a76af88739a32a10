//! Keys under a prefix, in the order of their creation: what etcd's locks and elections are made of.
//!
//! Each contender's key is the prefix, a slash and its lease in hexadecimal; the oldest key holds, and every other
//! contender waits for the one right before its own to go. Go's concurrency package, `etcdctl lock` and
//! `etcdctl elect` do the same with the same keys, so all of them wait in one queue.
//!
//! Everything is done in the client's name: through the KV and Lease services, which authorise it, and by watches that
//! are authorised as a client's own are. What it must not do: keep a lock or an election in memory. The keys are all there is.

use std::sync::Arc;

use bytes::Bytes;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::kv_server::Kv;
use proto::etcdserverpb::lease_server::Lease;
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::response_op::Response as Answer;
use proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RangeResponse, RequestOp,
    ResponseHeader, TxnRequest, TxnResponse,
};
use proto::mvccpb::KeyValue;
use proto::mvccpb::event::EventType;
use raft_store::watch::{WatchOptions, WatchOutput, Watcher};
use tokio::sync::watch;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Status};

use super::Api;
use super::interceptor::{Caller, Identity};
use super::kv::KvService;
use super::lease::LeaseService;
use super::status::{self, ApiError};

/// Whoever brings no lease gets one of this length, as from etcd.
const LEASE_TTL_SECONDS: i64 = 60;

/// Calls that wait for their turn on one member at once.
pub(super) const WAITERS: usize = 16_384;

/// The client in whose name keys are read, written and watched.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) api: Arc<Api>,
    pub(super) caller: Arc<Caller>,
    metadata: MetadataMap,
    extensions: Extensions,
}

impl Client {
    /// The client of an admitted call.
    pub(super) fn of<T>(api: &Arc<Api>, caller: Caller, request: &Request<T>) -> Client {
        Client {
            api: api.clone(),
            caller: Arc::new(caller),
            metadata: request.metadata().clone(),
            extensions: request.extensions().clone(),
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        Request::from_parts(self.metadata.clone(), self.extensions.clone(), message)
    }

    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        let answer = KvService(self.api.clone()).range(self.request(request)).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(status::of_a_client)
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        let answer = KvService(self.api.clone()).txn(self.request(request)).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(status::of_a_client)
    }

    pub(super) async fn delete(&self, key: Bytes) -> Result<Option<ResponseHeader>, Status> {
        let request = DeleteRangeRequest {
            key,
            ..DeleteRangeRequest::default()
        };
        let answer = KvService(self.api.clone())
            .delete_range(self.request(request))
            .await;
        answer
            .map(|deleted| deleted.into_inner().header)
            .map_err(status::of_a_client)
    }

    /// `lease`, or a new one.
    pub(super) async fn lease(&self, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        let request = LeaseGrantRequest {
            ttl: LEASE_TTL_SECONDS,
            id: 0,
        };
        let granted = LeaseService(self.api.clone())
            .lease_grant(self.request(request))
            .await;
        granted
            .map(|granted| granted.into_inner().id)
            .map_err(status::of_a_client)
    }

    /// Does `op` if the key is still the one created at `create_revision`; its header, or `None` if it is not.
    pub(super) async fn if_created_at(
        &self,
        key: Bytes,
        create_revision: i64,
        op: Op,
    ) -> Result<(bool, Option<ResponseHeader>), Status> {
        let request = TxnRequest {
            compare: vec![created_at(key, create_revision)],
            success: vec![RequestOp { request: Some(op) }],
            failure: Vec::new(),
        };
        let done = self.txn(request).await?;
        Ok((done.succeeded, done.header))
    }

    /// Watches one key, or a range of keys, from a revision on.
    pub(super) async fn watch(
        &self,
        key: Bytes,
        range_end: Bytes,
        start_revision: i64,
    ) -> Result<ClientWatch, Status> {
        let store = self.api.node.store();
        // Before the check, so that no change after it is missed.
        let users = store.auth_changes();
        let opened_by = self
            .api
            .admit_watch(&self.caller, &key, &range_end)
            .await
            .map_err(refused)?;
        let options = WatchOptions {
            key: key.clone(),
            range_end: range_end.clone(),
            start_revision,
            ..WatchOptions::default()
        };
        Ok(ClientWatch {
            watcher: store.watch_hub().watch(options),
            client: self.clone(),
            opened_by,
            key,
            range_end,
            users,
        })
    }
}

fn refused(error: ApiError) -> Status {
    status::of_a_client(error.into())
}

/// A watch in a client's name. It ends with the client's permission to read the keys.
#[derive(Debug)]
pub(super) struct ClientWatch {
    watcher: Watcher,
    client: Client,
    /// `None`: opened while auth was off.
    opened_by: Option<Arc<Identity>>,
    key: Bytes,
    range_end: Bytes,
    users: watch::Receiver<u64>,
}

impl ClientWatch {
    /// What happened next.
    pub(super) async fn next(&mut self) -> Result<WatchOutput, Status> {
        let output = loop {
            tokio::select! {
                output = self.watcher.recv() => break output,
                changed = self.users.changed() => {
                    changed.map_err(|_| ApiError::Stopped)?;
                    self.check()?;
                }
            }
        };
        // An event is published after the users and roles of its position: nothing forbidden gets out.
        self.check()?;
        Ok(output.ok_or(ApiError::Stopped)?)
    }

    fn check(&self) -> Result<(), Status> {
        let ClientWatch { client, .. } = self;
        client
            .api
            .may_watch(
                &client.caller,
                self.opened_by.as_ref(),
                &self.key,
                &self.range_end,
            )
            .map_err(refused)
    }
}

/// The contenders for one name.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    client: Client,
    prefix: Bytes,
}

impl Queue {
    pub(super) fn new(client: Client, name: &[u8]) -> Queue {
        let prefix = [name, b"/"].concat().into();
        Queue { client, prefix }
    }

    /// The prefix, as the two ends of a range.
    pub(super) fn keys(&self) -> (Bytes, Bytes) {
        // The byte after the slash that every prefix ends in.
        let name = self.prefix.strip_suffix(b"/").unwrap_or_default();
        (self.prefix.clone(), [name, b"0"].concat().into())
    }

    /// The oldest key, if there is one.
    pub(super) async fn holder(&self) -> Result<RangeResponse, Status> {
        self.client.range(self.oldest(SortOrder::Ascend, 0, 1)).await
    }

    fn oldest(&self, order: SortOrder, max_create_revision: i64, limit: i64) -> RangeRequest {
        let (key, range_end) = self.keys();
        RangeRequest {
            key,
            range_end,
            limit,
            sort_order: order.into(),
            sort_target: SortTarget::Create.into(),
            max_create_revision,
            ..RangeRequest::default()
        }
    }

    /// Takes the place of `lease`, a new one or the one it already has. It goes on when the client does not: a place
    /// that nobody is there to take any more is given up.
    pub(super) async fn enter(&self, lease: i64, value: Bytes) -> Result<Place, Status> {
        let queue = self.clone();
        let entering = tokio::spawn(async move { queue.enter_as(lease, value).await });
        entering
            .await
            .unwrap_or_else(|_| Err(ApiError::UnexpectedReply.into()))
    }

    async fn enter_as(self, lease: i64, value: Bytes) -> Result<Place, Status> {
        let lease = self.client.lease(lease).await?;
        let key: Bytes = [self.prefix.as_ref(), format!("{lease:x}").as_bytes()]
            .concat()
            .into();
        let holder = op(Op::RequestRange(self.oldest(SortOrder::Ascend, 0, 1)));
        let put = PutRequest {
            key: key.clone(),
            value,
            lease,
            ..PutRequest::default()
        };
        let mine = RangeRequest {
            key: key.clone(),
            ..RangeRequest::default()
        };
        let request = TxnRequest {
            compare: vec![created_at(key.clone(), 0)],
            success: vec![op(Op::RequestPut(put)), holder.clone()],
            failure: vec![op(Op::RequestRange(mine)), holder],
        };
        let done = self.client.txn(request).await?;
        let mut place = Place {
            queue: self,
            key,
            lease,
            create_revision: done.header.map_or(0, |header| header.revision),
            header: done.header,
            earlier_value: None,
            is_first: false,
            // What was there before this call stays if the call ends early.
            is_kept: !done.succeeded,
        };
        let [first, holder] = done.responses.as_slice() else {
            return Err(ApiError::UnexpectedReply.into());
        };
        if let Some(mine) = first_kv(first) {
            place.create_revision = mine.create_revision;
            place.earlier_value = Some(mine.value.clone());
        }
        place.is_first =
            first_kv(holder).is_none_or(|holder| holder.create_revision == place.create_revision);
        Ok(place)
    }
}

fn op(op: Op) -> RequestOp {
    RequestOp { request: Some(op) }
}

fn first_kv(answer: &proto::etcdserverpb::ResponseOp) -> Option<&KeyValue> {
    match &answer.response {
        Some(Answer::ResponseRange(range)) => range.kvs.first(),
        _ => None,
    }
}

/// Revision 0: the key is not there.
fn created_at(key: Bytes, create_revision: i64) -> Compare {
    Compare {
        key,
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        target_union: Some(TargetUnion::CreateRevision(create_revision)),
        ..Compare::default()
    }
}

/// One contender's place. Dropping it gives it up, unless it is kept.
#[derive(Debug)]
pub(super) struct Place {
    queue: Queue,
    pub(super) key: Bytes,
    pub(super) lease: i64,
    pub(super) create_revision: i64,
    /// Of the transaction that took the place.
    pub(super) header: Option<ResponseHeader>,
    /// What the key already held, if it was there.
    pub(super) earlier_value: Option<Bytes>,
    is_first: bool,
    is_kept: bool,
}

impl Place {
    /// Waits until every earlier place is gone. `lost` is the error if the key itself goes, with its lease.
    pub(super) async fn turn(&mut self, lost: ApiError) -> Result<Option<ResponseHeader>, Status> {
        if self.is_first {
            return Ok(self.header);
        }
        let Client { api, caller, .. } = self.queue.client.clone();
        let _waiter = api.waiters.try_acquire().map_err(|_| ApiError::TooManyRequests)?;
        self.is_kept = false;
        tokio::select! {
            turn = self.wait(lost) => turn,
            error = api.stream_must_end(&caller) => Err(error.into()),
        }
    }

    async fn wait(&self, lost: ApiError) -> Result<Option<ResponseHeader>, Status> {
        let client = &self.queue.client;
        loop {
            // The last two keys up to ours: ours, and the one before.
            let last_two = RangeRequest {
                keys_only: true,
                ..self.queue.oldest(SortOrder::Descend, self.create_revision, 2)
            };
            let found = client.range(last_two).await?;
            let mut keys = found.kvs.into_iter();
            if keys
                .next()
                .is_none_or(|mine| mine.create_revision != self.create_revision)
            {
                return Err(lost.into());
            }
            let Some(previous) = keys.next() else {
                return Ok(found.header);
            };
            let from = found.header.map_or(0, |header| header.revision) + 1;
            let mut ours = client.watch(self.key.clone(), Bytes::new(), from).await?;
            let mut theirs = client.watch(previous.key, Bytes::new(), from).await?;
            tokio::select! {
                gone = deleted(&mut theirs) => gone?,
                gone = deleted(&mut ours) => gone?,
            }
        }
    }

    /// Keeps the key; it ends with its lease, or when it is deleted.
    pub(super) fn keep(mut self) -> Bytes {
        self.is_kept = true;
        self.key.clone()
    }

    /// Sets what the key holds, if it is still there.
    pub(super) async fn set(&self, value: Bytes) -> Result<bool, Status> {
        let put = PutRequest {
            key: self.key.clone(),
            value,
            lease: self.lease,
            ..PutRequest::default()
        };
        let (done, _) = self
            .queue
            .client
            .if_created_at(self.key.clone(), self.create_revision, Op::RequestPut(put))
            .await?;
        Ok(done)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let client = self.queue.client.clone();
        let (key, create_revision) = (self.key.clone(), self.create_revision);
        let delete = Op::RequestDeleteRange(DeleteRangeRequest {
            key: key.clone(),
            ..DeleteRangeRequest::default()
        });
        // Ends with the proposal, which has a time limit. If it fails, the lease ends the place.
        tokio::spawn(async move {
            if let Err(status) = client.if_created_at(key, create_revision, delete).await {
                tracing::debug!(%status, "a place in a queue stays until its lease ends");
            }
        });
    }
}

/// Completes when the key may be gone: it was deleted, or the past is no longer known.
async fn deleted(watch: &mut ClientWatch) -> Result<(), Status> {
    loop {
        match watch.next().await? {
            WatchOutput::Events { events, .. } => {
                if events.iter().any(|event| event.r#type() == EventType::Delete) {
                    return Ok(());
                }
            }
            WatchOutput::Compacted { .. } => return Ok(()),
        }
    }
}
