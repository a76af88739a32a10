//! A store in memory, for the tests of the hub: remembers every write, compacts, publishes.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use proto::mvccpb::event::EventType;
use proto::mvccpb::{Event, KeyValue};

use super::key_range::Keys;
use super::*;

/// One change of a revision: a put of a value, or a delete.
pub(super) type Change<'a> = (&'a str, Option<&'a str>);

#[derive(Debug, Default)]
pub(super) struct FakeHistory {
    /// By revision, all of them, as published with `prev_kv`.
    events: Mutex<Vec<(i64, Vec<Event>)>>,
    current: AtomicI64,
    compacted: AtomicI64,
    /// Revisions that one call looks at, at most.
    pub(super) scan_limit: AtomicUsize,
    pub(super) reads: AtomicUsize,
    pub(super) fails: AtomicBool,
    /// Unless 0: compaction comes right after the next read, before the reader goes on.
    pub(super) compact_in_next_read: AtomicI64,
}

#[derive(Debug)]
pub(super) struct FakeStore {
    pub(super) history: Arc<FakeHistory>,
    pub(super) hub: WatchHub,
    publisher: Option<Publisher>,
    live: BTreeMap<Bytes, KeyValue>,
}

impl History for FakeHistory {
    fn current_revision(&self) -> i64 {
        self.current.load(Ordering::SeqCst)
    }

    fn compacted_revision(&self) -> i64 {
        self.compacted.load(Ordering::SeqCst)
    }

    fn events(&self, query: &HistoryQuery<'_>) -> Result<HistoryEvents, HistoryError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.fails.load(Ordering::SeqCst) {
            return Err(HistoryError::Failed);
        }
        let compact_revision = self.compacted_revision();
        if query.from < compact_revision {
            return Err(HistoryError::Compacted { compact_revision });
        }
        assert!(
            query.from <= query.to && query.to <= self.current_revision(),
            "{query:?}"
        );
        let limit = self.scan_limit.load(Ordering::SeqCst).max(1);
        let keys = Keys::from_request(
            Bytes::copy_from_slice(query.key),
            Bytes::copy_from_slice(query.range_end),
        );
        let mut answer = HistoryEvents {
            events: Vec::new(),
            through: query.to,
        };
        for (scanned, (revision, events)) in self
            .events
            .lock()
            .iter()
            .filter(|(revision, _)| *revision >= query.from)
            .enumerate()
        {
            if *revision > query.to {
                break;
            }
            let bytes: usize = answer
                .events
                .iter()
                .filter_map(|event| event.kv.as_ref())
                .map(size_of)
                .sum();
            if scanned == limit || answer.events.len() >= query.max_events || bytes >= query.max_bytes {
                answer.through = revision - 1;
                break;
            }
            let wanted = events.iter().filter(|event| watches(&keys, key_of(event)));
            answer.events.extend(wanted.cloned().map(|event| {
                Event {
                    // At the compacted revision the value before is gone.
                    prev_kv: event
                        .prev_kv
                        .filter(|_| query.prev_kv && *revision > compact_revision),
                    ..event
                }
            }));
        }
        let compact_revision = self.compact_in_next_read.swap(0, Ordering::SeqCst);
        self.compacted.fetch_max(compact_revision, Ordering::SeqCst);
        Ok(answer)
    }
}

fn size_of(kv: &KeyValue) -> usize {
    kv.key.len() + kv.value.len()
}

impl FakeStore {
    /// At revision 1.
    pub(super) fn new(buffer_events: usize) -> FakeStore {
        let history = Arc::new(FakeHistory::default());
        history.current.store(1, Ordering::SeqCst);
        history.scan_limit.store(usize::MAX, Ordering::SeqCst);
        let weak: Weak<FakeHistory> = Arc::downgrade(&history);
        let (hub, publisher) = watch_hub(weak, 1, buffer_events);
        FakeStore {
            history,
            hub,
            publisher: Some(publisher),
            live: BTreeMap::new(),
        }
    }

    pub(super) fn publisher(&self) -> &Publisher {
        self.publisher.as_ref().unwrap()
    }

    pub(super) fn revision(&self) -> i64 {
        self.history.current_revision()
    }

    /// Applies the changes as one revision, and publishes it.
    pub(super) fn write(&mut self, changes: &[Change<'_>]) -> i64 {
        let wants_prev_kv = self.publisher().wants_prev_kv();
        let (revision, events) = self.write_unpublished(changes);
        self.publish(revision, events, wants_prev_kv);
        revision
    }

    pub(super) fn put(&mut self, key: &str, value: &str) -> i64 {
        self.write(&[(key, Some(value))])
    }

    /// The first half of a write: readable, not published.
    pub(super) fn write_unpublished(&mut self, changes: &[Change<'_>]) -> (i64, Vec<Event>) {
        let revision = self.revision() + 1;
        let mut events = Vec::new();
        for (key, value) in changes {
            let key = Bytes::copy_from_slice(key.as_bytes());
            let prev_kv = self.live.remove(&key);
            let kind = if value.is_some() {
                EventType::Put
            } else {
                EventType::Delete
            };
            let kv = match value {
                Some(value) => KeyValue {
                    key: key.clone(),
                    create_revision: prev_kv.as_ref().map_or(revision, |prev| prev.create_revision),
                    mod_revision: revision,
                    version: prev_kv.as_ref().map_or(1, |prev| prev.version + 1),
                    value: Bytes::copy_from_slice(value.as_bytes()),
                    lease: 7,
                },
                // With more than etcd shows of a delete: the hub must take it away.
                None => KeyValue {
                    key: key.clone(),
                    mod_revision: revision,
                    lease: 7,
                    ..KeyValue::default()
                },
            };
            if value.is_some() {
                self.live.insert(key, kv.clone());
            } else if prev_kv.is_none() {
                continue;
            }
            events.push(Event {
                r#type: kind as i32,
                kv: Some(kv),
                prev_kv,
            });
        }
        assert!(!events.is_empty(), "a write that writes nothing has no revision");
        self.history.events.lock().push((revision, events.clone()));
        self.history.current.store(revision, Ordering::SeqCst);
        (revision, events)
    }

    /// The second half.
    pub(super) fn publish(&self, revision: i64, mut events: Vec<Event>, with_prev_kv: bool) {
        if !with_prev_kv {
            for event in &mut events {
                event.prev_kv = None;
            }
        }
        self.publisher().publish(revision, events);
    }

    pub(super) fn compact(&self, revision: i64) {
        assert!(revision <= self.revision());
        self.history.compacted.store(revision, Ordering::SeqCst);
        self.history.events.lock().retain(|(at, _)| *at >= revision);
    }

    pub(super) fn has_key(&self, key: &str) -> bool {
        self.live.contains_key(key.as_bytes())
    }

    pub(super) fn stop(&mut self) {
        self.publisher = None;
    }
}

pub(super) fn key_of(event: &Event) -> &[u8] {
    &event.kv.as_ref().unwrap().key
}

pub(super) fn watches(keys: &Keys, key: &[u8]) -> bool {
    match keys {
        Keys::One(one) => one == key,
        Keys::Range(range) => range.start.as_ref() <= key && range.end.is_after(key),
    }
}

pub(super) fn options(key: &str, range_end: &str) -> WatchOptions {
    WatchOptions {
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::copy_from_slice(range_end.as_bytes()),
        ..WatchOptions::default()
    }
}

#[derive(Debug, Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Polls `recv` until it delivers, or waits with nothing that would wake it: `Poll::Pending`. The future is made
/// anew for each poll, so that every use also shows that dropping it is safe.
pub(super) fn recv_now(watcher: &mut Watcher) -> Poll<Option<WatchOutput>> {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    loop {
        if let Poll::Ready(output) = pin!(watcher.recv()).poll(&mut Context::from_waker(&waker)) {
            return Poll::Ready(output);
        }
        if !woken.0.swap(false, Ordering::SeqCst) {
            return Poll::Pending;
        }
    }
}
