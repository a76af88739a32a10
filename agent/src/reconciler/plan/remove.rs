//! An object of ours that no document names any more.
//!
//! Its document is gone, so it is the object that says what is allowed: what was last applied stands on it.

use serde_json::Value;

use super::{ObjectPlan, View, is_builtin};
use crate::document::{Deletion, DesiredKey, Kind, Phase};
use crate::reconciler::observe::{Object, Power};
use crate::reconciler::ownership::{self, Claim};
use crate::reconciler::step::{Change, Step};

/// How long the guest of an instance that is to be deleted may take to shut down.
const LAST_STOP_SECONDS: u32 = 10;

pub(super) fn plan(view: View<'_>, key: &DesiredKey, object: &Object, claim: &Claim) -> ObjectPlan {
    let Some(applied) = &claim.applied else {
        return ObjectPlan::nothing(
            0,
            Phase::Failed,
            "not deleted: what the object remembers of its document cannot be read",
        );
    };
    if applied.lifecycle.protect {
        return ObjectPlan::nothing(
            0,
            Phase::Failed,
            "not deleted: it is protected; put the document back, take lifecycle.protect off, then delete it",
        );
    }
    if applied.lifecycle.deletion == Deletion::Retain || is_builtin(key) {
        return ObjectPlan::steps(0, vec![release(key, object, claim)]);
    }
    if view.desired.revision < claim.revision {
        let message = format!(
            "not deleted: it was made to agree with revision {}, and the store is at {}, so it may have forgotten",
            claim.revision, view.desired.revision
        );
        return ObjectPlan::nothing(0, Phase::Failed, message);
    }
    if let Some(user) = in_use(view, key, object) {
        return ObjectPlan::nothing(0, Phase::Pending, format!("deleted once {user} is gone from it"));
    }
    ObjectPlan::steps(0, delete(object, claim))
}

/// Stops the instance if it runs, and deletes the object.
pub(super) fn delete(object: &Object, claim: &Claim) -> Vec<Step> {
    let runs = matches!(object.power, Power::Running | Power::Frozen);
    let stop = runs.then_some(Step::Stop {
        timeout_seconds: LAST_STOP_SECONDS,
    });
    stop.into_iter()
        .chain([Step::Delete {
            uid: claim.uid.clone(),
        }])
        .collect()
}

/// Takes our keys off; from Incus' own objects also what we set there.
fn release(key: &DesiredKey, object: &Object, claim: &Claim) -> Step {
    let mut changes = Vec::new();
    if is_builtin(key) {
        let nothing = serde_json::Map::new();
        let applied = claim.applied.as_ref().map(|applied| &applied.spec);
        changes = super::compare::compare(key.kind, &nothing, applied, object).changes;
    }
    changes.extend(ownership::KEYS.into_iter().filter_map(|name| {
        let before = object.config.get(name)?;
        Some(Change::Config {
            key: name.to_owned(),
            before: Some(before.clone()),
            after: None,
        })
    }));
    Step::Change { changes }
}

/// Something that keeps an object from being deleted, ours or not.
fn in_use(view: View<'_>, key: &DesiredKey, object: &Object) -> Option<String> {
    match key.kind {
        Kind::Incus | Kind::NetworkForward | Kind::Image | Kind::Instance => None,
        Kind::Host
        | Kind::OsService
        | Kind::File
        | Kind::Service
        | Kind::Backup
        | Kind::Tunnel
        | Kind::Tenant
        | Kind::Template => None,
        Kind::Profile => view
            .observed
            .of_kind(Kind::Instance)
            .find(|(instance, object)| {
                view.project_of(Kind::Profile, &instance.tenant) == key.tenant
                    && object.profiles.contains(&key.name)
            })
            .map(|(instance, _)| instance.to_string()),
        Kind::Project => view
            .observed
            .objects
            .keys()
            .find(|other| other.tenant == key.name && !is_builtin(other))
            .map(ToString::to_string),
        Kind::StoragePool | Kind::NetworkAcl | Kind::Network | Kind::Volume => {
            let users = object.field("used_by").and_then(Value::as_array);
            let user = users.and_then(|users| users.first()?.as_str());
            user.map(|path| path.trim_start_matches("/1.0/").to_owned())
        }
    }
}
