//! Hosts that fall silent, step by step.

use super::*;
use crate::reconciler::desired::{Parser, StoredText};

const KEY: &str = "/tenants/default/bindings/instances/web";

/// Two hosts, of which one may have fallen silent, and what a leader knows.
struct Leader {
    text: &'static str,
    binding: Binding,
    revision: i64,
    ovh: State,
    notes: Notes,
}

fn alive() -> State {
    State::Alive {
        provider: String::new(),
    }
}

impl Leader {
    fn new(failover: &str) -> Leader {
        Leader {
            text: match failover {
                "fenced" => {
                    "kind: instance\nname: web\nplacement: {failover: fenced}\nspec: {source: {type: none}}\n"
                }
                _ => {
                    "kind: instance\nname: web\nplacement: {failover: manual}\nspec: {source: {type: none}}\n"
                }
            },
            binding: Binding {
                host: "ovh".into(),
                epoch: 3,
                fence_seconds: Some(20),
                ..Binding::default()
            },
            revision: 5,
            ovh: State::Silent,
            notes: Notes::default(),
        }
    }

    /// What a pass writes at this time; it is in the store before the next one.
    fn pass(&mut self, now: Instant) -> Option<Binding> {
        let value = serde_json::to_vec(&self.binding).unwrap();
        let texts = [
            ("/tenants/default/desired/instances/web", self.text.as_bytes(), 2),
            (KEY, value.as_slice(), self.revision),
        ];
        let desired = Parser::new("").read(
            9,
            texts
                .map(|(key, value, revision)| StoredText {
                    key: key.as_bytes(),
                    value,
                    created_revision: 2,
                    revision,
                })
                .into_iter(),
        );
        let known = [
            ("ovh".to_owned(), self.ovh.clone()),
            ("ionos".to_owned(), alive()),
        ];
        let hosts = Hosts {
            known: known.into(),
            ..Hosts::default()
        };
        let (writes, _) = bindings(&desired, &hosts, &mut self.notes, (now, SystemTime::UNIX_EPOCH));
        let written = writes.into_iter().next().map(|(_, binding)| binding)?;
        self.binding = written.clone();
        self.revision += 1;
        Some(written)
    }
}

const FENCE: Duration = Duration::from_secs(20);

#[test]
fn a_silent_host_is_noted_and_then_waited_for() {
    let start = Instant::now();
    let mut leader = Leader::new("fenced");
    let noted = leader.pass(start).unwrap();
    assert_eq!(noted.host, "ovh");
    assert_eq!(noted.silent_since.as_deref(), Some("1970-01-01T00:00:00Z"));
    assert_eq!(leader.pass(start), None);
    assert_eq!(
        leader.pass(start + FENCE + CLEAR - Duration::from_millis(1)),
        None
    );
    let moved = leader.pass(start + FENCE + CLEAR).unwrap();
    assert_eq!((moved.host.as_str(), moved.epoch), ("ionos", 4));
    // The new host has said nothing of a fence yet.
    assert_eq!((moved.fence_seconds, moved.silent_since), (None, None));
}

#[test]
fn a_host_that_is_heard_again_keeps_it() {
    let start = Instant::now();
    let mut leader = Leader::new("fenced");
    leader.pass(start).unwrap();
    assert_eq!(leader.pass(start), None);
    leader.ovh = alive();
    let heard = leader.pass(start + FENCE).unwrap();
    assert_eq!((heard.host.as_str(), heard.silent_since), ("ovh", None));
    // Silent once more, it is waited for as long as before.
    leader.ovh = State::Silent;
    leader.pass(start + FENCE).unwrap();
    assert_eq!(leader.pass(start + FENCE), None);
    assert_eq!(leader.pass(start + FENCE + CLEAR), None);
    assert!(leader.pass(start + FENCE + FENCE + CLEAR).is_some());
}

#[test]
fn another_leader_waits_for_itself() {
    let start = Instant::now();
    let mut leader = Leader::new("fenced");
    leader.pass(start).unwrap();
    assert_eq!(leader.pass(start), None);
    leader.notes = Notes::default();
    leader.ovh = State::Awaited;
    assert_eq!(leader.pass(start + FENCE + CLEAR), None);
    leader.ovh = State::Silent;
    assert_eq!(leader.pass(start + FENCE + CLEAR), None);
    assert!(leader.pass(start + (FENCE + CLEAR) * 2).is_some());
}

#[test]
fn what_no_guard_has_stays() {
    let start = Instant::now();
    let far = start + Duration::from_secs(10_000);
    let mut unfenced = Leader::new("fenced");
    unfenced.binding.fence_seconds = None;
    assert_eq!(unfenced.pass(far), None);
    assert_eq!(Leader::new("manual").pass(far), None);
    let mut moving = Leader::new("fenced");
    moving.binding.moving_to = Some("ionos".into());
    assert_eq!(moving.pass(far), None);
}
