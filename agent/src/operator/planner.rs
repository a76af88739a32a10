//! What the reconciler does for people, behind a seam: nobody here knows how a plan is made.

use std::fmt::Debug;

use futures::future::BoxFuture;
use proto::agent::v1::{
    ClaimRequest, ClaimResponse, LiveObject, PlanRequest, PlanResponse, PlannedObject, ReadLiveRequest,
    ReadLiveResponse,
};
use serde_json::Value;

use super::Operator;
use super::error::{Failure, OperatorError};
use crate::document::{DesiredKey, Kind};

/// Plans that are not carried out, and the taking over of objects.
///
/// - `plan` touches nothing, neither documents nor Incus.
/// - `live` is the object that a document of this key speaks of, in Incus' own fields.
/// - `claim` writes on an object whose it is, where a document names the object here and nobody owns it; `false`:
///   it was ours already.
/// - `may_leave` is whether the instance is here and its binding sends it to that host.
pub trait Planner: Debug + Send + Sync {
    fn plan<'a>(
        &'a self,
        request: &'a PlanRequest,
    ) -> BoxFuture<'a, Result<Vec<PlannedObject>, OperatorError>>;

    fn live<'a>(&'a self, key: &'a DesiredKey) -> BoxFuture<'a, Result<Option<Value>, OperatorError>>;

    fn claim<'a>(&'a self, key: &'a DesiredKey) -> BoxFuture<'a, Result<bool, OperatorError>>;

    /// # Errors
    /// When it may not.
    fn may_leave(&self, key: &DesiredKey, to: &str) -> Result<(), OperatorError>;
}

impl Operator {
    /// A store plans nothing: who asks all hosts hears nothing of it.
    pub(super) async fn plan(&self, request: &PlanRequest) -> Result<PlanResponse, OperatorError> {
        let Some(planner) = &self.planner else {
            return Ok(PlanResponse::default());
        };
        Ok(PlanResponse {
            objects: planner.plan(request).await?,
            hosts: vec![self.host.clone()],
            silent: Vec::new(),
        })
    }

    pub(super) async fn read_live(
        &self,
        request: &ReadLiveRequest,
    ) -> Result<ReadLiveResponse, OperatorError> {
        let key = key(&request.kind, &request.tenant, &request.name)?;
        if self.incus.is_none() && request.host.is_empty() {
            return Ok(ReadLiveResponse::default());
        }
        self.incus()?;
        let live = match &self.planner {
            Some(planner) => planner.live(&key).await?,
            None => None,
        };
        let objects = live.map(|object| LiveObject {
            host: self.host.clone(),
            object: object.to_string().into(),
        });
        Ok(ReadLiveResponse {
            objects: objects.into_iter().collect(),
            silent: Vec::new(),
        })
    }

    pub(super) async fn claim(&self, request: &ClaimRequest) -> Result<ClaimResponse, OperatorError> {
        self.incus()?;
        let key = key(&request.kind, &request.tenant, &request.name)?;
        let planner = self.planner.as_ref().ok_or_else(|| {
            OperatorError::new(
                Failure::Unsupported,
                format!("nothing is reconciled on {}", self.host),
            )
        })?;
        Ok(ClaimResponse {
            host: self.host.clone(),
            unchanged: !planner.claim(&key).await?,
        })
    }
}

/// The document that a request speaks of.
///
/// # Errors
/// When there can be none.
pub(crate) fn key(kind: &str, tenant: &str, name: &str) -> Result<DesiredKey, OperatorError> {
    let wrong = || OperatorError::new(Failure::Invalid, "no document can be named so");
    let kind = Kind::from_word(kind).ok_or_else(wrong)?;
    let named = DesiredKey {
        kind,
        tenant: tenant.to_owned(),
        name: name.to_owned(),
    };
    // What cannot stand in a key must not reach another one.
    if crate::document::parse_desired_key(&named.key()).as_ref() == Some(&named) {
        Ok(named)
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_in_a_key_names_a_document() {
        assert!(key("instance", "default", "web").is_ok());
        assert!(key("project", "", "shop").is_ok());
        for (kind, tenant, name) in [
            ("instanze", "default", "web"),
            ("instance", "", "web"),
            ("project", "default", "shop"),
            ("instance", "a/b", "web"),
            ("instance", "default", "a/b"),
            ("instance", "default", ""),
        ] {
            assert!(key(kind, tenant, name).is_err(), "{kind} {tenant} {name}");
        }
    }
}
