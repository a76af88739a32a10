//! What may differ, and why. Short, and kept so: everything else is a difference, and a defect of ours.

use std::collections::BTreeMap;

use crate::compare::Difference;
use crate::generate::Profile;
use crate::op::Op;

/// How often each entry explained a difference.
pub(crate) type Uses = BTreeMap<&'static str, usize>;

pub(crate) struct Allowed {
    pub(crate) name: &'static str,
    pub(crate) reason: &'static str,
    /// Where it is seen in every run of the full length. Empty: it is a matter of chance.
    pub(crate) seen_in: &'static [Profile],
    explains: fn(&Difference<'_>) -> bool,
}

pub(crate) const ALLOWED: &[Allowed] = &[
    Allowed {
        name: "a second of a lease",
        reason: "the two are asked one after the other, and both round the time that a lease has left",
        seen_in: &[],
        explains: |difference| match difference {
            Difference::Answer { agent, etcd, .. } => match (agent.seconds, etcd.seconds) {
                (Some(ours), Some(theirs)) => agent.text == etcd.text && ours.abs_diff(theirs) <= 1,
                _ => false,
            },
            Difference::Watch { .. } => false,
        },
    },
    Allowed {
        name: "an unknown sort order is refused",
        reason: "etcd 3.5 takes one for no order, etcd 3.6 refuses it as here; an unknown sort target crashes etcd 3.5",
        seen_in: &[Profile::Kv],
        explains: |difference| match difference {
            Difference::Answer { op, agent, .. } => {
                let asked = if let Op::As(asked) = op { &asked.ask } else { *op };
                matches!(asked, Op::Range(range) if !(0..=2).contains(&range.sort_order))
                    && agent.text == "InvalidArgument: etcdserver: invalid sort option"
            }
            Difference::Watch { .. } => false,
        },
    },
    Allowed {
        name: "a compacted watch is over",
        reason: "etcd keeps the id of a watch that a compaction has ended, answers no request for progress on its \
                 stream any more, and cancels it once more when asked; here it is gone with the compaction",
        seen_in: &[Profile::Watch, Profile::Compaction],
        explains: |difference| match difference {
            Difference::Watch { agent, etcd } => without_second_cancels(etcd) == *agent,
            Difference::Answer { .. } => false,
        },
    },
    Allowed {
        name: "who asks comes before what is asked",
        reason: "etcd looks at a request's shape before it looks for a user; here a stranger learns nothing else",
        seen_in: &[],
        explains: |difference| match difference {
            Difference::Answer { agent, etcd, .. } => {
                STRANGER.contains(&agent.text.as_str()) && SHAPES.contains(&etcd.text.as_str())
            }
            Difference::Watch { .. } => false,
        },
    },
    Allowed {
        name: "leases and compactions are nothing for strangers",
        reason: "etcd serves them to whoever has no token, or one that is no longer good; here it is refused",
        seen_in: &[],
        explains: |difference| match difference {
            Difference::Answer { op, agent, .. } => {
                let asked = if let Op::As(asked) = op { &asked.ask } else { *op };
                let open = matches!(
                    asked,
                    Op::Leases
                        | Op::TimeToLive(_)
                        | Op::KeepAlive(_)
                        | Op::Grant(_)
                        | Op::Revoke(_)
                        | Op::Compact(_)
                );
                open && STRANGER.contains(&agent.text.as_str())
            }
            Difference::Watch { .. } => false,
        },
    },
    Allowed {
        name: "a watch ends with its permission",
        reason: "etcd checks a watch when it is created and goes on telling it everything after its user has lost the \
                 keys, the password or the account; here it is canceled, with the words of a refused one",
        seen_in: &[],
        explains: |difference| match difference {
            Difference::Watch { agent, etcd } => agent.split_last().is_some_and(|(last, before)| {
                etcd.starts_with(before) && REVOKED.iter().any(|reason| last.ends_with(reason))
            }),
            Difference::Answer { .. } => false,
        },
    },
];

const STRANGER: [&str; 2] = [
    "InvalidArgument: etcdserver: user name is empty",
    "Unauthenticated: etcdserver: invalid auth token",
];

/// What is wrong with a request, whoever asks.
const SHAPES: [&str; 7] = [
    // Of an operation of no kind.
    "InvalidArgument: etcdserver: key not found",
    "InvalidArgument: etcdserver: key is not provided",
    "InvalidArgument: etcdserver: value is provided",
    "InvalidArgument: etcdserver: lease is provided",
    "InvalidArgument: etcdserver: too many operations in txn request",
    "InvalidArgument: etcdserver: duplicate key given in txn request",
    "InvalidArgument: etcdserver: invalid sort option",
];

/// How the last line of a watch ends whose user may not see its keys any more.
const REVOKED: [&str; 3] = [
    "canceled reason: rpc error: code = PermissionDenied desc = etcdserver: permission denied",
    "canceled reason: rpc error: code = Unauthenticated desc = etcdserver: invalid auth token",
    "canceled reason: rpc error: code = InvalidArgument desc = etcdserver: user name is empty",
];

/// Whether an entry explains the difference; it is counted then.
pub(crate) fn explains(difference: &Difference<'_>, uses: &mut Uses) -> bool {
    let explanation = ALLOWED.iter().find(|allowed| (allowed.explains)(difference));
    if let Some(allowed) = explanation {
        *uses.entry(allowed.name).or_default() += 1;
    }
    explanation.is_some()
}

/// Entries that a full run of the profile must have used, and did not: they excuse nothing any more.
pub(crate) fn unused(profile: Profile, uses: &Uses) -> Vec<&'static str> {
    ALLOWED
        .iter()
        .filter(|allowed| allowed.seen_in.contains(&profile) && !uses.contains_key(allowed.name))
        .map(|allowed| allowed.name)
        .collect()
}

fn without_second_cancels(told: &[String]) -> Vec<String> {
    let mut kept: Vec<String> = Vec::with_capacity(told.len());
    for line in told {
        let follows_compaction = kept
            .last()
            .is_some_and(|last| last.contains(" canceled compacted="));
        if !(follows_compaction && line.ends_with(" canceled")) {
            kept.push(line.clone());
        }
    }
    kept
}
