//! Plans of all hosts, objects as they are, and taking them over: the part of our own service that is about documents.
//!
//! A plan shows what the caller may READ, and is asked about documents that the caller may READ; taking over needs
//! WRITE on the document's key.

use parking_lot::Mutex;
use proto::agent::v1::{
    ClaimRequest, ClaimResponse, PlanRequest, PlanResponse, PlannedObject, ReadLiveRequest, ReadLiveResponse,
    SilentHost,
};
use proto::peer::host_outcome::Outcome;
use proto::peer::host_task::Task;
use raft_store::auth::Permissions;
use tonic::Status;

use super::Api;
use super::interceptor::Caller;
use super::status::ApiError;
use crate::operator::{Failure, OperatorError, document_key};

/// Documents in one plan.
const DOCUMENTS_LIMIT: usize = 16_384;

impl Api {
    pub(super) async fn plan(&self, caller: &Caller, request: PlanRequest) -> Result<PlanResponse, Status> {
        let named = request.documents.len() + request.deleted_keys.len();
        if named > DOCUMENTS_LIMIT {
            let message = format!("a plan is made for at most {DOCUMENTS_LIMIT} documents");
            return Err(OperatorError::new(Failure::Invalid, message).into());
        }
        // Before any host works on it.
        let named = |permissions: &Permissions| {
            let documents = request.documents.iter().map(|document| &document.key);
            let mut keys = documents.chain(&request.deleted_keys);
            keys.all(|key| permissions.may_read(key.as_bytes(), b""))
        };
        self.authorised(caller, named, || async { Ok(()) }).await?;
        let mut planned = PlanResponse::default();
        let (answers, silent) = self.ask_all(&request.host, &Task::Plan(request.clone())).await;
        planned.silent = silent;
        for answer in answers {
            let Outcome::Planned(of_host) = answer else {
                return Err(ApiError::UnexpectedReply.into());
            };
            planned.objects.extend(of_host.objects);
            planned.hosts.extend(of_host.hosts);
        }
        let visible = Mutex::new(None);
        let look = |permissions: &Permissions| {
            let may_see = |object: &&PlannedObject| {
                document_key(&object.kind, &object.tenant, &object.name)
                    .is_ok_and(|key| permissions.may_read(key.key().as_bytes(), b""))
            };
            *visible.lock() = Some(planned.objects.iter().filter(may_see).cloned().collect());
            named(permissions)
        };
        self.authorised(caller, look, || async { Ok(()) }).await?;
        if let Some(visible) = visible.into_inner() {
            planned.objects = visible;
        }
        Ok(planned)
    }

    pub(super) async fn read_live(
        &self,
        caller: &Caller,
        request: ReadLiveRequest,
    ) -> Result<ReadLiveResponse, Status> {
        let key = document_key(&request.kind, &request.tenant, &request.name)?.key();
        let allowed = |permissions: &Permissions| permissions.may_read(key.as_bytes(), b"");
        self.authorised(caller, allowed, || async { Ok(()) }).await?;
        let (answers, silent) = self
            .ask_all(&request.host, &Task::ReadLive(request.clone()))
            .await;
        let mut live = ReadLiveResponse {
            objects: Vec::new(),
            silent,
        };
        for answer in answers {
            let Outcome::Live(of_host) = answer else {
                return Err(ApiError::UnexpectedReply.into());
            };
            live.objects.extend(of_host.objects);
        }
        Ok(live)
    }

    pub(super) async fn claim(
        &self,
        caller: &Caller,
        request: ClaimRequest,
    ) -> Result<ClaimResponse, Status> {
        let key = document_key(&request.kind, &request.tenant, &request.name)?.key();
        let allowed = |permissions: &Permissions| permissions.may_write(key.as_bytes(), b"");
        self.authorised(caller, allowed, || async { Ok(()) }).await?;
        let host = request.host.clone();
        match self.hosts.perform(&host, Task::Claim(request)).await? {
            Outcome::Claimed(claimed) => Ok(claimed),
            _ => Err(ApiError::UnexpectedReply.into()),
        }
    }

    /// What all hosts answer, or the one that is named; and who was asked in vain.
    pub(super) async fn ask_all(&self, host: &str, task: &Task) -> (Vec<Outcome>, Vec<SilentHost>) {
        self.hosts.ask_all(host, task).await
    }
}
