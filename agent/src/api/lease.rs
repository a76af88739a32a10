//! etcd's Lease service.
//!
//! Grants and revokes are replicated; deadlines are the leader's, so renewing and asking for the time left go to
//! the leader through the node.

use std::pin::Pin;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use proto::etcdserverpb::lease_server::Lease;
use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use proto::replicated::reply::Result as Outcome;
use proto::replicated::request::Op;
use raft_store::auth::Permissions;
use tonic::{Request, Response, Status, Streaming};

use super::interceptor::{Caller, Needs};
use super::status::{self, ApiError};
use super::{Api, validate};

/// Renewals of one stream that are not answered yet.
const RENEWALS_UNDER_WAY: usize = 256;

#[derive(Clone, Debug)]
pub(super) struct LeaseService(pub(super) Arc<Api>);

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let LeaseService(api) = self;
        let caller = api.admit(&request, Needs::Voter).await?;
        let mut request = request.into_inner();
        request.ttl = validate::lease_ttl_seconds(request.ttl, api.node.min_lease_ttl_seconds())?;
        if request.id == 0 {
            request.id = api.node.new_lease_id();
        }
        if api.node.store().lease_count() >= api.options.max_leases {
            return Err(ApiError::TooManyLeases.into());
        }
        match api.propose(&caller, Op::LeaseGrant(request)).await? {
            (header, Outcome::LeaseGrant(response)) => {
                Ok(Response::new(LeaseGrantResponse { header, ..response }))
            }
            _ => Err(ApiError::UnexpectedReply.into()),
        }
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let LeaseService(api) = self;
        let caller = api.admit(&request, Needs::Voter).await?;
        match api
            .propose(&caller, Op::LeaseRevoke(request.into_inner()))
            .await?
        {
            (header, Outcome::LeaseRevoke(_)) => Ok(Response::new(LeaseRevokeResponse { header })),
            _ => Err(ApiError::UnexpectedReply.into()),
        }
    }

    type LeaseKeepAliveStream =
        Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send + 'static>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let LeaseService(api) = self;
        let caller = api.admit(&request, Needs::Voter).await?;
        let ending = {
            let (api, caller) = (api.clone(), caller.clone());
            Box::pin(async move { api.stream_must_end(&caller).await })
        };
        let renewals = KeepAlive::new(api.clone(), caller, request.into_inner(), ending);
        Ok(Response::new(Box::pin(stream::try_unfold(
            renewals,
            KeepAlive::next,
        ))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let LeaseService(api) = self;
        let caller = api.admit(&request, Needs::Voter).await?;
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let ttl = match api.node.lease_time_to_live(id).await {
            Ok(ttl) => ttl,
            Err(error) => match ApiError::from(error) {
                ApiError::LeaseNotFound => -1,
                error => return Err(error.into()),
            },
        };
        // The leader knows the time, this member the keys: it must not be behind what the leader answered.
        api.read_index().await?;
        let store = api.node.store();
        let keys = if keys {
            // The names tell of the keys: all that are answered, and no others, must be the caller's to read.
            let keys = store.lease_keys(id);
            let allowed = |permissions: &Permissions| keys.iter().all(|key| permissions.may_read(key, b""));
            let nothing_more = || std::future::ready(Ok(()));
            api.authorised(&caller, allowed, nothing_more).await?;
            keys
        } else {
            Vec::new()
        };
        let response = match store.lease(id) {
            Some(lease) if ttl >= 0 => LeaseTimeToLiveResponse {
                header: api.header_now(),
                id,
                ttl,
                granted_ttl: lease.granted_ttl_seconds,
                keys,
            },
            _ => LeaseTimeToLiveResponse {
                header: api.header_now(),
                id,
                ttl: -1,
                granted_ttl: 0,
                keys: Vec::new(),
            },
        };
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let LeaseService(api) = self;
        api.admit(&request, Needs::Voter).await?;
        api.read_index().await?;
        let leases = api
            .node
            .store()
            .leases()
            .iter()
            .map(|lease| LeaseStatus { id: lease.id })
            .collect();
        Ok(Response::new(LeaseLeasesResponse {
            header: api.header_now(),
            leases,
        }))
    }
}

/// One client's stream of renewals, answered in order.
struct KeepAlive {
    answers: BoxStream<'static, Result<LeaseKeepAliveResponse, Status>>,
    ending: BoxFuture<'static, ApiError>,
}

impl KeepAlive {
    /// A client with many leases sends its renewals without waiting: they share the confirmations of leadership.
    fn new(
        api: Arc<Api>,
        caller: Caller,
        requests: Streaming<LeaseKeepAliveRequest>,
        ending: BoxFuture<'static, ApiError>,
    ) -> KeepAlive {
        let caller = Arc::new(caller);
        let answers = requests
            .map(move |request| renew(api.clone(), caller.clone(), request))
            .buffered(RENEWALS_UNDER_WAY)
            .boxed();
        KeepAlive { answers, ending }
    }

    /// The next answer; `None` when the client has no more requests.
    async fn next(mut self) -> Result<Option<(LeaseKeepAliveResponse, KeepAlive)>, Status> {
        let answered = tokio::select! {
            answered = self.answers.next() => answered.transpose()?,
            error = &mut self.ending => return Err(error.into()),
        };
        Ok(answered.map(|response| (response, self)))
    }
}

async fn renew(
    api: Arc<Api>,
    caller: Arc<Caller>,
    request: Result<LeaseKeepAliveRequest, Status>,
) -> Result<LeaseKeepAliveResponse, Status> {
    let LeaseKeepAliveRequest { id } =
        request.map_err(|status| status::too_large_message(&status).unwrap_or(status))?;
    api.still_known(&caller)?;
    if !may_renew(&api, &caller, id) {
        return Ok(LeaseKeepAliveResponse {
            header: api.header_now(),
            id,
            ttl: 0,
        });
    }
    // A lease that is gone is an answer, and the stream goes on for the others.
    let ttl = match api.node.lease_keep_alive(id).await.map_err(ApiError::from) {
        Ok(ttl) => ttl,
        Err(ApiError::LeaseNotFound) => 0,
        Err(error) => return Err(Status::from(error)),
    };
    Ok(LeaseKeepAliveResponse {
        header: api.header_now(),
        id,
        ttl,
    })
}

/// Who keeps a lease keeps the keys on it, a stranger's lock for one: that needs what revoking it needs. Whoever may
/// not is told what is told of a lease that is gone, so that its stream goes on for the others. A key that is put on the
/// lease just now is seen with the next renewal.
fn may_renew(api: &Api, caller: &Caller, id: i64) -> bool {
    let store = api.node.store();
    if !store.auth().is_enabled() || store.lease_key_count(id) == 0 {
        return true;
    }
    let keys = store.lease_keys(id);
    let allowed = |permissions: &Permissions| {
        permissions.is_root() || keys.iter().all(|key| permissions.may_write(key, b""))
    };
    api.still_may(caller, allowed).is_ok()
}
