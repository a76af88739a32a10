//! etcd's Cluster service. Member answers carry header revision 0: they are not about keys.

use std::sync::Arc;

use proto::etcdserverpb::cluster_server::Cluster;
use proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest,
    MemberUpdateResponse,
};
use proto::peer::member_change::{self, Change};
use proto::peer::{MemberChange, MembersChanged};
use raft_store::auth::Permissions;
use tonic::{Request, Response, Status};

use super::Api;
use super::interceptor::{Caller, Needs};
use super::status::ApiError;
use super::validate;

#[derive(Clone, Debug)]
pub(super) struct ClusterService(pub(super) Arc<Api>);

impl ClusterService {
    /// Changes the membership for root. The log knows no author of such a change, so that users and roles are caught
    /// up with first: nobody passes here who is root only by what this member has not heard of yet.
    async fn change(&self, caller: &Caller, change: Change) -> Result<MembersChanged, Status> {
        let ClusterService(api) = self;
        if api.node.store().auth().is_enabled() {
            api.read_index().await?;
            let nothing = || std::future::ready(Ok(()));
            api.authorised(caller, Permissions::is_root, nothing).await?;
        }
        let change = MemberChange { change: Some(change) };
        Ok(api.node.change_members(change).await.map_err(ApiError::from)?)
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        let caller = self.0.admit(&request, Needs::Root).await?;
        let add = member_change::Add {
            peer_urls: validate::peer_urls(&request.get_ref().peer_ur_ls)?,
            learner: request.get_ref().is_learner,
        };
        let changed = self.change(&caller, Change::Add(add)).await?;
        let added = |member: &&Member| member.id == changed.added;
        Ok(Response::new(MemberAddResponse {
            header: self.0.header_at(0),
            member: changed.members.iter().find(added).cloned(),
            members: changed.members,
        }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        let caller = self.0.admit(&request, Needs::Root).await?;
        let remove = Change::Remove(request.get_ref().id);
        let changed = self.change(&caller, remove).await?;
        Ok(Response::new(MemberRemoveResponse {
            header: self.0.header_at(0),
            members: changed.members,
        }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        let caller = self.0.admit(&request, Needs::Root).await?;
        let MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        let peer_urls = validate::peer_urls(&peer_ur_ls).map_err(|error| {
            // In etcd's order: who is it, then what is it to be.
            match self.0.node.members().iter().any(|member| member.id == id) {
                true => error,
                false => ApiError::MemberNotFound,
            }
        })?;
        let update = member_change::Update { id, peer_urls };
        let changed = self.change(&caller, Change::Update(update)).await?;
        Ok(Response::new(MemberUpdateResponse {
            header: self.0.header_at(0),
            members: changed.members,
        }))
    }

    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let ClusterService(api) = self;
        api.admit(&request, Needs::Voter).await?;
        if request.get_ref().linearizable {
            api.read_index().await?;
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
        let caller = self.0.admit(&request, Needs::Root).await?;
        let promote = Change::Promote(request.get_ref().id);
        let changed = self.change(&caller, promote).await?;
        Ok(Response::new(MemberPromoteResponse {
            header: self.0.header_at(0),
            members: changed.members,
        }))
    }
}
