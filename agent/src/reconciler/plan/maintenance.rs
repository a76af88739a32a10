//! Maintenance: where a host's document says so, nothing is changed there until it says otherwise.
//!
//! What is under way is brought to its end. What is as it should be is still `Ready`; what is not waits, and its status says what for
//! and what would be done. A document of which nothing good was ever seen says nothing: it does not stop a host.

use super::{ObjectPlan, Plan, Report};
use crate::document::{DesiredKey, HostSpec, Kind, Phase};
use crate::reconciler::desired::{Desired, Text};
use crate::reconciler::step::in_words;

/// What the document of a host says that is in force; nothing where there is none.
pub(crate) fn host_spec(desired: &Desired, host: &str) -> HostSpec {
    let wanted = desired.documents.get(&key(host));
    let document = wanted.and_then(|wanted| match &wanted.text {
        Text::Good(document) => Some(document),
        Text::Invalid { last_good, .. } => last_good.as_ref().map(|(_, document)| document),
    });
    document
        .and_then(|document| HostSpec::of(document))
        .unwrap_or_default()
}

/// Takes out of a plan all that would change something, if the host is in maintenance.
pub(crate) fn pause(plan: &mut Plan, desired: &Desired, host: &str) {
    if !host_spec(desired, host).maintenance {
        return;
    }
    let mut waiting = 0;
    for object in plan
        .objects
        .values_mut()
        .filter(|object| !object.steps.is_empty())
    {
        waiting += 1;
        let steps = std::mem::take(&mut object.steps);
        // What is wrong with a document is said first, whatever waits.
        if matches!(object.report.phase, Phase::Progressing | Phase::Pending) {
            let words = in_words(&steps);
            let then = if words.is_empty() {
                String::new()
            } else {
                format!("; then: {words}")
            };
            object.report = Report::new(Phase::Pending, format!("host {host} is in maintenance{then}"));
        }
    }
    let said = match waiting {
        0 => "in maintenance: nothing is changed here".to_owned(),
        1 => "in maintenance: nothing is changed here, and 1 object waits".to_owned(),
        waiting => format!("in maintenance: nothing is changed here, and {waiting} objects wait"),
    };
    if let Some(ObjectPlan { report, .. }) = plan.objects.get_mut(&key(host))
        && report.phase == Phase::Ready
    {
        *report = Report::new(Phase::Stopped, said);
    }
}

fn key(host: &str) -> DesiredKey {
    DesiredKey {
        kind: Kind::Host,
        tenant: String::new(),
        name: host.to_owned(),
    }
}
