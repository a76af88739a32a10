//! The deletion brake: a slip in the documents must not empty a host.

use super::{Context, Plan, Report};
use crate::document::Phase;

/// As many deletions as this are never too many.
const FEW: usize = 3;
/// More than one in this many is.
const FRACTION: usize = 5;

/// Takes the deletions out of a plan that may not make them, and says so where they stood.
pub(super) fn apply(plan: &mut Plan, owned: usize, context: Context<'_>) {
    let deletions = plan.objects.values().filter(|object| object.deletes()).count();
    if deletions == 0 {
        return;
    }
    let message = if !context.may_delete {
        plan.wants_confirmation = true;
        "waits for a quorum: nothing is deleted on a view that may be old".to_owned()
    } else if deletions > FEW && deletions * FRACTION > owned {
        format!(
            "held: this would delete {deletions} of our {owned} objects on this host at once; \
             put documents back, or delete by hand what should go"
        )
    } else {
        return;
    };
    for object in plan.objects.values_mut().filter(|object| object.deletes()) {
        object.steps.clear();
        object.report = Report::new(Phase::Pending, message.clone());
    }
}
