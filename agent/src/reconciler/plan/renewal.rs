//! Instances that are made anew because their host was restarted: `--on-restart rebuild` (see `reconciler/restart.rs`).
//!
//! The last word on each instance that is due. Only what its document makes again in full is deleted for it: what people
//! have put there by hand, what is protected or to be kept, and what another host may have or get, stays.

use super::create::create;
use super::keep::{InForce, is_protected, moving_to};
use super::{ObjectPlan, View, references, remove};
use crate::document::{Deletion, DesiredKey, Document, Failover, Managed};
use crate::reconciler::desired::{Text, Wanted};
use crate::reconciler::observe::Object;
use crate::reconciler::ownership::{Claim, Owner};
use crate::reconciler::step::Step;

/// What becomes of an instance that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// It is made anew: the steps are in the plan.
    Now,
    /// It waits for something.
    Later(String),
    /// It is left alone, and why.
    Never(String),
    /// The instance of before is gone.
    Done,
}

/// Says what becomes of an instance, and puts the steps in the place of its plan where there are some.
pub(super) fn renew(view: View<'_>, key: &DesiredKey, birth: &str, plan: &mut Option<ObjectPlan>) -> Renewal {
    let object = view.observed.objects.get(key);
    let Some(object) = object.filter(|object| object.birth() == birth) else {
        return Renewal::Done;
    };
    if !view.context.may_delete {
        return Renewal::Later("waits for a quorum".to_owned());
    }
    let Owner::Ours(claim) = view.owner(key, object) else {
        return Renewal::Never("it is not ours any more".to_owned());
    };
    if view.context.busy.contains(key) {
        return Renewal::Later("somebody is at work on it".to_owned());
    }
    let Some(wanted) = view.desired.documents.get(key) else {
        return Renewal::Never("its document is gone".to_owned());
    };
    let document = match good(view, key, wanted, &claim) {
        Ok(document) => document,
        Err(why) => return Renewal::Never(why),
    };
    if let Some(waits) = waits_for(view, key, document) {
        return Renewal::Later(waits);
    }
    *plan = Some(anew(view, object, &claim, (wanted, document)));
    Renewal::Now
}

/// What is missing to make it anew: a secret, too, without which it would be gone and could not be made.
fn waits_for(view: View<'_>, key: &DesiredKey, document: &Document) -> Option<String> {
    let secret = view.desired.waiting.get(key).cloned();
    secret.or_else(|| references::waits_for(view, document))
}

/// The document that the instance can be made from, or why it is not made anew.
fn good<'a>(
    view: View<'_>,
    key: &DesiredKey,
    wanted: &'a Wanted,
    claim: &Claim,
) -> Result<&'a Document, String> {
    let Text::Good(document) = &wanted.text else {
        return Err("its document is wrong".to_owned());
    };
    if !document.names_host(view.context.host) {
        return Err("its document has it on another host".to_owned());
    }
    if let Some(to) = moving_to(view, key) {
        return Err(format!("it moves to {to}"));
    }
    let binding = view.desired.bindings.get(key).map(|bound| &bound.binding);
    if binding.is_some_and(|binding| binding.moved_from.is_some() && !binding.arrived) {
        return Err("its move to this host is not over".to_owned());
    }
    if document.failover() == Failover::Fenced
        || binding.is_some_and(|binding| binding.fence_seconds.is_some())
    {
        return Err("it is fenced".to_owned());
    }
    if document.lifecycle.managed != Managed::Full {
        return Err("it is managed by hand (lifecycle.managed)".to_owned());
    }
    if document.lifecycle.protect || is_protected(claim) {
        return Err("it is protected (lifecycle.protect)".to_owned());
    }
    let applied = claim.applied.as_ref();
    let was_retained = applied.is_some_and(|applied| applied.lifecycle.deletion == Deletion::Retain);
    if document.lifecycle.deletion == Deletion::Retain || was_retained {
        return Err("it is to be kept (lifecycle.deletion)".to_owned());
    }
    match references::check(view, document) {
        Ok(()) => Ok(document),
        Err(_) => Err("its document is wrong".to_owned()),
    }
}

fn anew(
    view: View<'_>,
    object: &Object,
    claim: &Claim,
    (wanted, document): (&Wanted, &Document),
) -> ObjectPlan {
    let in_force = InForce {
        document,
        revision: wanted.revision,
        created_revision: wanted.created_revision,
    };
    // The brake does not count them: that all of them go is what was asked for.
    let ends = remove::delete(object, claim).into_iter().map(|step| match step {
        Step::Delete { uid } => Step::Discard {
            uid,
            birth: object.birth(),
        },
        step => step,
    });
    ObjectPlan::steps(wanted.revision, ends.chain(create(view, in_force)).collect())
}
