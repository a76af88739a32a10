//! What becomes of fenced instances whose host says nothing. Decided by the leader, from what stands in the bindings.
//!
//! First a note goes into the binding: from then on the silent host puts off no deadline (see [`crate::fence`]). Only when
//! the longest deadline that it can have given has passed, and what a guard needs beyond that, another host is chosen.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::choose::{Decision, Hosts, State, decide_one};
use crate::document::{Binding, DesiredKey, Document, Failover, rfc3339_utc};
use crate::fence::CLEAR;
use crate::reconciler::desired::{Bound, Desired, Text};

/// When notes were first seen here, by the binding that has them.
#[derive(Debug, Default)]
pub(super) struct Notes(HashMap<(DesiredKey, i64), Instant>);

/// What bindings are to become, and when to look again at the latest.
pub(super) fn bindings(
    desired: &Desired,
    hosts: &Hosts,
    notes: &mut Notes,
    now: (Instant, SystemTime),
) -> (Vec<(DesiredKey, Binding)>, Option<Instant>) {
    let (instant, time) = now;
    notes.0.retain(|(key, revision), _| {
        desired
            .bindings
            .get(key)
            .is_some_and(|bound| bound.revision == *revision)
    });
    let mut becomes = Vec::new();
    let mut look_again: Option<Instant> = None;
    for (key, bound) in &desired.bindings {
        let binding = &bound.binding;
        if is_heard(hosts, &binding.host) {
            if binding.silent_since.is_some() {
                let heard = Binding {
                    silent_since: None,
                    ..binding.clone()
                };
                becomes.push((key.clone(), heard));
            }
            continue;
        }
        let Some((document, fence)) = fenced(desired, key, bound) else {
            continue;
        };
        if is_awaited(hosts, &binding.host) {
            continue;
        }
        let Some(since) = &binding.silent_since else {
            let noted = Binding {
                silent_since: Some(rfc3339_utc(time)),
                ..binding.clone()
            };
            becomes.push((key.clone(), noted));
            continue;
        };
        let seen = *notes.0.entry((key.clone(), bound.revision)).or_insert(instant);
        let over = seen + fence + CLEAR;
        if instant < over {
            look_again = Some(look_again.map_or(over, |other| other.min(over)));
            continue;
        }
        if let Decision::Host { host, reason } = decide_one(desired, key, document, hosts) {
            let bound = Binding {
                host,
                epoch: binding.epoch + 1,
                since: rfc3339_utc(time),
                reason: format!(
                    "{} said nothing since {since}, and its fence has stopped its copy; {reason}",
                    binding.host
                ),
                ..Binding::default()
            };
            becomes.push((key.clone(), bound));
        }
    }
    (becomes, look_again)
}

/// The document of an instance that may be taken over, and how long its host may have let it run.
fn fenced<'a>(desired: &'a Desired, key: &DesiredKey, bound: &Bound) -> Option<(&'a Document, Duration)> {
    let Text::Good(document) = &desired.documents.get(key)?.text else {
        return None;
    };
    let binding = &bound.binding;
    // Its host has said that it keeps to this; a move is ended by whom it concerns.
    let fence = Duration::from_secs(binding.fence_seconds?);
    let may = document.failover() == Failover::Fenced && binding.moving_to.is_none();
    (may && binding.bound_host().is_some()).then_some((document, fence))
}

fn is_heard(hosts: &Hosts, host: &str) -> bool {
    matches!(
        hosts.known.get(host),
        Some(State::Alive { .. } | State::InMaintenance { .. } | State::WithoutIncus)
    )
}

fn is_awaited(hosts: &Hosts, host: &str) -> bool {
    matches!(hosts.known.get(host), Some(State::Awaited))
}

#[cfg(test)]
mod tests;
