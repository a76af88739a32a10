//! etcd's v3election service: whoever holds the oldest key under a name leads, and the key says what it proclaims.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::{DeleteRangeRequest, PutRequest, ResponseHeader};
use proto::mvccpb::KeyValue;
use proto::mvccpb::event::EventType;
use proto::v3electionpb::election_server::Election;
use proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use raft_store::watch::WatchOutput;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Api;
use super::interceptor::Needs;
use super::queue::{Client, ClientWatch, Queue};
use super::status::ApiError;

/// Leaders that wait for a slow observer.
const OBSERVED: usize = 8;

#[derive(Clone, Debug)]
pub(super) struct ElectionService(pub(super) Arc<Api>);

#[tonic::async_trait]
impl Election for ElectionService {
    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let ElectionService(api) = self;
        let caller = api.admit(&request, Needs::Voter).await?;
        let client = Client::of(api, caller, &request);
        let CampaignRequest { name, lease, value } = request.into_inner();
        let mut place = Queue::new(client, &name).enter(lease, value.clone()).await?;
        if place
            .earlier_value
            .as_ref()
            .is_some_and(|earlier| *earlier != value)
            && !place.set(value).await?
        {
            return Err(ApiError::NotElected.into());
        }
        place.turn(ApiError::NotElected).await?;
        let (header, rev, lease) = (place.header, place.create_revision, place.lease);
        let key = place.keep();
        Ok(Response::new(CampaignResponse {
            header,
            leader: Some(LeaderKey {
                name,
                key,
                rev,
                lease,
            }),
        }))
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let ElectionService(api) = self;
        let caller = api.admit(&request, Needs::Voter).await?;
        let client = Client::of(api, caller, &request);
        let ProclaimRequest { leader, value } = request.into_inner();
        let LeaderKey { key, rev, lease, .. } = leader.ok_or(ApiError::NoLeaderKey)?;
        let put = PutRequest {
            key: key.clone(),
            value,
            lease: client.lease(lease).await?,
            ..PutRequest::default()
        };
        match client.if_created_at(key, rev, Op::RequestPut(put)).await? {
            (true, header) => Ok(Response::new(ProclaimResponse { header })),
            (false, _) => Err(ApiError::NotElected.into()),
        }
    }

    async fn leader(&self, request: Request<LeaderRequest>) -> Result<Response<LeaderResponse>, Status> {
        let ElectionService(api) = self;
        let caller = api.admit(&request, Needs::Voter).await?;
        let queue = Queue::new(Client::of(api, caller, &request), &request.get_ref().name);
        let found = queue.holder().await?;
        let kv = found.kvs.into_iter().next().ok_or(ApiError::NobodyElected)?;
        Ok(Response::new(LeaderResponse {
            header: found.header,
            kv: Some(kv),
        }))
    }

    type ObserveStream = Pin<Box<dyn Stream<Item = Result<LeaderResponse, Status>> + Send + 'static>>;

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let ElectionService(api) = self;
        let caller = api.admit(&request, Needs::Voter).await?;
        let client = Client::of(api, caller, &request);
        let queue = Queue::new(client.clone(), &request.get_ref().name);
        let (leaders, receiver) = mpsc::channel(OBSERVED);
        let observer = Observer {
            client,
            queue,
            leaders,
        };
        tokio::spawn(observer.run());
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }

    async fn resign(&self, request: Request<ResignRequest>) -> Result<Response<ResignResponse>, Status> {
        let ElectionService(api) = self;
        let caller = api.admit(&request, Needs::Voter).await?;
        let client = Client::of(api, caller, &request);
        let LeaderKey { key, rev, .. } = request.into_inner().leader.ok_or(ApiError::NoLeaderKey)?;
        let delete = Op::RequestDeleteRange(DeleteRangeRequest {
            key: key.clone(),
            ..DeleteRangeRequest::default()
        });
        // Whoever does not lead has nothing to resign from, and that is well too.
        let (_, header) = client.if_created_at(key, rev, delete).await?;
        Ok(Response::new(ResignResponse { header }))
    }
}

/// Tells one client who leads, and what the leader proclaims, from now on.
struct Observer {
    client: Client,
    queue: Queue,
    leaders: mpsc::Sender<Result<LeaderResponse, Status>>,
}

/// Why nobody observes any more.
enum Over {
    ClientGone,
    With(Status),
}

impl From<Status> for Over {
    fn from(status: Status) -> Over {
        Over::With(status)
    }
}

impl Observer {
    /// Ends with the client, or with a status.
    async fn run(self) {
        let leaders = self.leaders.clone();
        let Client { api, caller, .. } = self.client.clone();
        let status = tokio::select! {
            over = self.observe() => match over {
                Ok(never) => match never {},
                Err(Over::ClientGone) => return,
                Err(Over::With(status)) => status,
            },
            error = api.stream_must_end(&caller) => error.into(),
            () = leaders.closed() => return,
        };
        // A client that does not read loses the last word, and sees the stream end.
        let _ = leaders.try_send(Err(status));
    }

    async fn observe(&self) -> Result<Infallible, Over> {
        loop {
            let found = self.queue.holder().await?;
            let leader = match found.kvs.into_iter().next() {
                Some(kv) => Some(LeaderResponse {
                    header: found.header,
                    kv: Some(kv),
                }),
                None => self.first_put(found.header).await?,
            };
            if let Some(leader) = leader {
                self.follow(leader).await?;
            }
        }
    }

    /// The first key that is put under the name; `None`: it has to be looked for again.
    async fn first_put(&self, header: Option<ResponseHeader>) -> Result<Option<LeaderResponse>, Over> {
        let (key, range_end) = self.queue.keys();
        let revision = header.map_or(0, |header| header.revision);
        let mut watch = self.client.watch(key, range_end, revision + 1).await?;
        loop {
            let events = next_events(&mut watch).await?;
            if events.is_empty() {
                return Ok(None);
            }
            if let Some((_, kv)) = events.into_iter().find(|(is_delete, _)| !is_delete) {
                return Ok(Some(self.at_its_revision(kv)));
            }
        }
    }

    /// Tells of the leader and of all that it proclaims, until its key is gone or its past is.
    async fn follow(&self, leader: LeaderResponse) -> Result<(), Over> {
        let from = leader.header.map_or(0, |header| header.revision) + 1;
        let key = leader.kv.as_ref().map(|kv| kv.key.clone()).unwrap_or_default();
        let mut watch = self.client.watch(key, Bytes::new(), from).await?;
        self.tell(leader).await?;
        loop {
            let events = next_events(&mut watch).await?;
            if events.is_empty() {
                return Ok(());
            }
            for (is_delete, kv) in events {
                if is_delete {
                    return Ok(());
                }
                self.tell(self.at_its_revision(kv)).await?;
            }
        }
    }

    fn at_its_revision(&self, kv: KeyValue) -> LeaderResponse {
        LeaderResponse {
            header: self.client.api.header_at(kv.mod_revision),
            kv: Some(kv),
        }
    }

    async fn tell(&self, leader: LeaderResponse) -> Result<(), Over> {
        self.leaders.send(Ok(leader)).await.map_err(|_| Over::ClientGone)
    }
}

/// What happened next, and whether each is a deletion; nothing: the past is no longer known.
async fn next_events(watch: &mut ClientWatch) -> Result<Vec<(bool, KeyValue)>, Status> {
    match watch.next().await? {
        WatchOutput::Events { events, .. } => Ok(events
            .into_iter()
            .filter_map(|event| {
                let is_delete = event.r#type() == EventType::Delete;
                event.kv.map(|kv| (is_delete, kv))
            })
            .collect()),
        WatchOutput::Compacted { .. } => Ok(Vec::new()),
    }
}
