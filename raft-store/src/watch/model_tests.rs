//! Random writes, compactions, snapshots and watchers against a plain list of all that was ever written.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::task::Poll;

use proptest::prelude::*;
use proto::mvccpb::Event;
use proto::mvccpb::event::EventType;

use super::fake_store::*;
use super::key_range::Keys;
use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Keys by number, `true` for a put.
    Write(Vec<(u8, bool)>),
    /// The write is readable; the next step of this kind, or any write, publishes it.
    WriteUnpublished(u8),
    /// This far back from the current revision.
    Compact(i64),
    /// Start relative to the current revision; `None` for start 0.
    Watch {
        keys: (u8, u8),
        start: Option<i64>,
        prev_kv: bool,
        no_put: bool,
        no_delete: bool,
    },
    Recv(usize),
    Progress(usize),
    Drop(usize),
    /// Writes arrive by a snapshot instead of one by one.
    Reset(Vec<u8>),
    ScanLimit(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0_u8..6;
    prop_oneof![
        8 => prop::collection::vec((key.clone(), prop::bool::weighted(0.7)), 1..5).prop_map(Step::Write),
        2 => key.clone().prop_map(Step::WriteUnpublished),
        1 => (0_i64..8).prop_map(Step::Compact),
        3 => (
            (key.clone(), 0_u8..8),
            prop::option::of(-8_i64..4),
            any::<bool>(),
            prop::bool::weighted(0.1),
            prop::bool::weighted(0.1)
        )
            .prop_map(|(keys, start, prev_kv, no_put, no_delete)| Step::Watch {
                keys,
                start,
                prev_kv,
                no_put,
                no_delete
            }),
        6 => any::<usize>().prop_map(Step::Recv),
        3 => any::<usize>().prop_map(Step::Progress),
        1 => any::<usize>().prop_map(Step::Drop),
        1 => prop::collection::vec(key, 1..4).prop_map(Step::Reset),
        1 => (1_usize..6).prop_map(Step::ScanLimit),
    ]
}

/// A watcher, and what it must receive.
struct Watched {
    watcher: Watcher,
    options: WatchOptions,
    keys: Keys,
    start: i64,
    /// The last revision of which something was received.
    received: i64,
    over: bool,
}

/// Steps against a plain list of all that was ever written.
struct Model {
    store: FakeStore,
    /// By revision: every event, with its `prev_kv`.
    written: BTreeMap<i64, Vec<Event>>,
    unpublished: Option<(i64, Vec<Event>, bool)>,
    watched: Vec<Watched>,
}

impl Model {
    fn new(buffer_events: usize) -> Model {
        Model {
            store: FakeStore::new(buffer_events),
            written: BTreeMap::new(),
            unpublished: None,
            watched: Vec::new(),
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Write(changes) => {
                self.publish();
                self.write(&changes);
                self.publish();
            }
            Step::WriteUnpublished(key) => {
                self.publish();
                self.write(&[(key, true)]);
            }
            Step::Compact(back) => {
                let revision = self.store.revision() - back;
                if revision > self.store.history.compacted_revision() {
                    self.store.compact(revision);
                }
            }
            Step::Watch {
                keys,
                start,
                prev_kv,
                no_put,
                no_delete,
            } => {
                self.watch(
                    keys,
                    start,
                    &WatchOptions {
                        prev_kv,
                        no_put,
                        no_delete,
                        ..WatchOptions::default()
                    },
                );
            }
            Step::Recv(n) => {
                if let Some(n) = self.pick(n) {
                    self.recv(n);
                }
            }
            Step::Progress(n) => {
                if let Some(n) = self.pick(n) {
                    self.check_progress(n);
                }
            }
            Step::Drop(n) => {
                if let Some(n) = self.pick(n) {
                    self.watched.swap_remove(n);
                }
            }
            Step::Reset(keys) => {
                self.publish();
                for key in keys {
                    self.write(&[(key, true)]);
                }
                self.unpublished = None;
                self.store.publisher().reset(self.store.revision());
            }
            Step::ScanLimit(limit) => self.store.history.scan_limit.store(limit, Ordering::SeqCst),
        }
    }

    fn pick(&self, n: usize) -> Option<usize> {
        n.checked_rem(self.watched.len())
    }

    fn publish(&mut self) {
        if let Some((revision, events, wanted)) = self.unpublished.take() {
            self.store.publish(revision, events, wanted);
        }
    }

    fn write(&mut self, changes: &[(u8, bool)]) {
        let value = format!("value {}", self.store.revision());
        // Each key once, and deletes only of what is there: apply sees to both.
        let by_key: BTreeMap<String, bool> = changes
            .iter()
            .map(|(key, put)| (format!("k{key}"), *put))
            .collect();
        let changes: Vec<Change<'_>> = by_key
            .iter()
            .filter(|(key, put)| **put || self.store.has_key(key))
            .map(|(key, put)| (key.as_str(), put.then_some(value.as_str())))
            .collect();
        if changes.is_empty() {
            return;
        }
        let wanted = self.store.publisher().wants_prev_kv();
        let (revision, events) = self.store.write_unpublished(&changes);
        self.written.insert(revision, events.clone());
        self.unpublished = Some((revision, events, wanted));
    }

    fn watch(&mut self, (from, to): (u8, u8), start: Option<i64>, flags: &WatchOptions) {
        let end = match to {
            7 => "\0".to_owned(),
            to if to > from => format!("k{to}"),
            _ => String::new(),
        };
        let start_revision = start.map_or(0, |start| (self.store.revision() + start).max(1));
        let options = WatchOptions {
            start_revision,
            prev_kv: flags.prev_kv,
            no_put: flags.no_put,
            no_delete: flags.no_delete,
            ..options(&format!("k{from}"), &end)
        };
        let watcher = self.store.hub.watch(options.clone());
        assert_eq!(watcher.created_revision(), self.store.revision());
        let start = if start_revision == 0 {
            self.store.revision() + 1
        } else {
            start_revision
        };
        let keys = Keys::from_request(options.key.clone(), options.range_end.clone());
        self.watched.push(Watched {
            watcher,
            options,
            keys,
            start,
            received: start - 1,
            over: false,
        });
    }

    fn recv(&mut self, n: usize) {
        let compacted = self.store.history.compacted_revision();
        let published = self.published();
        let watched = &mut self.watched[n];
        match recv_now(&mut watched.watcher) {
            Poll::Pending => {
                assert!(!watched.over);
                let owed = watched.owed(&self.written, watched.received + 1, published);
                assert!(owed.is_empty(), "waits, and is owed {owed:?}");
            }
            Poll::Ready(None) => assert!(watched.over),
            Poll::Ready(Some(WatchOutput::Compacted { compact_revision })) => {
                assert!(!watched.over);
                assert_eq!(compact_revision, compacted);
                assert!(
                    watched.received + 1 < compacted,
                    "had received {}",
                    watched.received
                );
                watched.over = true;
            }
            Poll::Ready(Some(WatchOutput::Events { revision, events })) => {
                assert!(!watched.over);
                assert!(revision <= published, "{revision} has not been published");
                let owed = watched.owed(&self.written, watched.received + 1, revision);
                assert_same(&events, &owed, compacted);
                watched.received = revision;
            }
        }
    }

    fn check_progress(&mut self, n: usize) {
        let published = self.published();
        let watched = &self.watched[n];
        if let Some(progress) = watched.watcher.progress() {
            assert!(!watched.over);
            assert_eq!(progress, published);
            assert!(progress >= watched.received && progress + 1 >= watched.start);
            let owed = watched.owed(&self.written, watched.received + 1, progress);
            assert!(owed.is_empty(), "progress {progress}, and is owed {owed:?}");
        }
    }

    fn published(&self) -> i64 {
        self.unpublished
            .as_ref()
            .map_or(self.store.revision(), |(revision, _, _)| revision - 1)
    }
}

impl Watched {
    fn owed(&self, written: &BTreeMap<i64, Vec<Event>>, from: i64, to: i64) -> Vec<Event> {
        let range = from.max(self.start)..=to;
        let events = if range.is_empty() {
            None
        } else {
            Some(written.range(range))
        };
        let mut owed = Vec::new();
        for event in events.into_iter().flatten().flat_map(|(_, events)| events) {
            let is_delete = event.r#type == EventType::Delete as i32;
            let filtered = if is_delete {
                self.options.no_delete
            } else {
                self.options.no_put
            };
            if filtered || !watches(&self.keys, key_of(event)) {
                continue;
            }
            let mut event = event.clone();
            if is_delete {
                event.kv.as_mut().unwrap().lease = 0;
            }
            event.prev_kv = event.prev_kv.filter(|_| self.options.prev_kv);
            owed.push(event);
        }
        owed
    }
}

fn assert_same(events: &[Event], owed: &[Event], compacted: i64) {
    assert_eq!(events.len(), owed.len(), "{events:?}\nowed: {owed:?}");
    for (event, owed) in events.iter().zip(owed) {
        assert_eq!((event.r#type, &event.kv), (owed.r#type, &owed.kv));
        let compacted_away = event.prev_kv.is_none() && owed.kv.as_ref().unwrap().mod_revision <= compacted;
        assert!(
            event.prev_kv == owed.prev_kv || compacted_away,
            "{event:?}\nowed: {owed:?}"
        );
    }
}

proptest! {
    // A failure is written with its seed to `proptest-regressions/`, and tried first from then on.
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn every_watcher_gets_what_it_is_owed(
        buffer_events in 1_usize..8,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut model = Model::new(buffer_events);
        for step in steps {
            model.run(step);
        }
        model.publish();
        // In the end everyone has everything, or was told why not.
        for n in 0..model.watched.len() {
            while !model.watched[n].over {
                let before = model.watched[n].received;
                model.recv(n);
                if model.watched[n].received == before {
                    break;
                }
            }
            model.check_progress(n);
        }
    }
}
