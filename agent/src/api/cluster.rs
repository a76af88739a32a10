//! etcd's Cluster service. Member answers carry header revision 0: they are not about keys.

use std::sync::Arc;

use proto::etcdserverpb::cluster_server::Cluster;
use proto::etcdserverpb::{
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest,
    MemberUpdateResponse,
};
use tonic::{Request, Response, Status};

use super::Api;
use super::interceptor::Needs;
use super::status::{ApiError, unimplemented};

#[derive(Clone, Debug)]
pub(super) struct ClusterService(pub(super) Arc<Api>);

impl ClusterService {
    /// Admits a change of the membership, which cannot be made yet.
    async fn refuse_change<T, R>(&self, request: &Request<T>, what: &str) -> Result<Response<R>, Status> {
        self.0.admit(request, Needs::Root).await?;
        Err(unimplemented(what))
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        self.refuse_change(&request, "adding a member").await
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        self.refuse_change(&request, "removing a member").await
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        self.refuse_change(&request, "changing a member's URLs").await
    }

    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let ClusterService(api) = self;
        api.admit(&request, Needs::Voter).await?;
        if request.get_ref().linearizable {
            api.node.read_index().await.map_err(ApiError::from)?;
        }
        Ok(Response::new(MemberListResponse {
            header: api.header_at(0),
            members: api.node.members(),
        }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        self.refuse_change(&request, "promoting a learner").await
    }
}
