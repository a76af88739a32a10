//! What one watcher is owed: the writer puts events in, the watcher's task takes them out.
//!
//! The queue is bounded. What does not fit is not lost: the watcher falls behind, and reads it from history.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use proto::mvccpb::event::EventType;
use proto::mvccpb::{Event, KeyValue};
use tokio::sync::Notify;

use super::WatchOptions;
use super::key_range::Keys;

/// The most that one watcher's queue may pin in memory. Events are shared, so this is rarely its own.
const MAX_QUEUED_BYTES: usize = 8 << 20;
/// Where a batch ends, unless its first revision alone is larger: so that a batch makes a message of sane size.
pub(super) const MAX_BATCH_EVENTS: usize = 1_000;
pub(super) const MAX_BATCH_BYTES: usize = 1 << 20;

/// One event, shared by all watchers that it concerns.
#[derive(Clone, Debug)]
pub(super) struct Published {
    revision: i64,
    bytes: usize,
    event: Event,
}

/// Shared by the hub and one [`super::Watcher`].
#[derive(Debug)]
pub(super) struct Inbox {
    id: u64,
    keys: Keys,
    prev_kv: bool,
    no_put: bool,
    no_delete: bool,
    max_events: usize,
    state: Mutex<State>,
    /// One permit is enough: there is one receiver, and it looks at the state before it waits.
    wake: Notify,
}

#[derive(Debug)]
struct State {
    /// In order; the first `complete` of them belong to whole revisions, the rest to the one being published.
    queue: VecDeque<Arc<Published>>,
    complete: usize,
    queued_bytes: usize,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A member of the hub's group. Events before `from` are not for it.
    Synced { from: i64 },
    /// Not a member: after what is queued, it reads from `next` on.
    Behind { next: i64 },
    /// Nothing comes after what is queued.
    Over,
}

/// What became of an event that was put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// Queued, as the first of its revision: [`Inbox::complete_revision`] must follow.
    First,
    /// Queued.
    Taken,
    /// Not for this watcher.
    Ignored,
    /// The watcher has just fallen behind, at this revision.
    FellBehind,
}

/// What the receiver finds.
#[derive(Debug)]
pub(super) enum Next {
    /// Whole revisions, never empty.
    Batch(Vec<Arc<Published>>),
    /// Nothing now; [`Inbox::woken`] tells when to look again.
    Wait,
    /// Nothing is queued, and history is to be read from here on.
    CatchUp(i64),
    Over,
}

impl Published {
    /// `None` for an event without a key.
    pub(super) fn new(revision: i64, event: Event) -> Option<Arc<Published>> {
        let bytes = size_of_kv(event.kv.as_ref()?) + event.prev_kv.as_ref().map_or(0, size_of_kv);
        Some(Arc::new(Published {
            revision,
            bytes,
            event,
        }))
    }

    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    pub(super) fn key(&self) -> &[u8] {
        self.event.kv.as_ref().map_or(b"", |kv| &kv.key)
    }

    /// Whether it should carry the value before it, and does not. Never so where there was none.
    fn lacks_prev_kv(&self) -> bool {
        let had_one = is_delete(&self.event) || self.event.kv.as_ref().is_some_and(|kv| kv.version > 1);
        had_one && self.event.prev_kv.is_none()
    }
}

impl Inbox {
    /// A watcher that is owed everything from `start` on, and is not yet a member of the group.
    pub(super) fn new(id: u64, options: WatchOptions, start: i64, max_events: usize) -> Inbox {
        Inbox {
            id,
            keys: Keys::from_request(options.key, options.range_end),
            prev_kv: options.prev_kv,
            no_put: options.no_put,
            no_delete: options.no_delete,
            max_events,
            state: Mutex::new(State {
                queue: VecDeque::new(),
                complete: 0,
                queued_bytes: 0,
                phase: Phase::Behind { next: start },
            }),
            wake: Notify::new(),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(super) fn prev_kv(&self) -> bool {
        self.prev_kv
    }

    /// Puts in one event of the revision being published. The receiver does not see it before
    /// [`Inbox::complete_revision`].
    pub(super) fn offer(&self, published: &Arc<Published>) -> Offer {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Synced { from } if published.revision >= from && self.wants(&published.event) => {}
            _ => return Offer::Ignored,
        }
        let fits = state.queue.len() < self.max_events
            && (state.queue.is_empty() || state.queued_bytes + published.bytes <= MAX_QUEUED_BYTES);
        if !fits || (self.prev_kv && published.lacks_prev_kv()) {
            state.fall_behind(published.revision);
            self.wake.notify_one();
            return Offer::FellBehind;
        }
        let first = state.queue.len() == state.complete;
        state.queued_bytes += published.bytes;
        state.queue.push_back(Arc::clone(published));
        if first { Offer::First } else { Offer::Taken }
    }

    /// The revision has been published: its events may be received.
    pub(super) fn complete_revision(&self) {
        let mut state = self.state.lock();
        let was_empty = state.complete == 0;
        state.complete = state.queue.len();
        if was_empty && state.complete > 0 {
            self.wake.notify_one();
        }
    }

    /// The watcher must read from `revision` on, unless it waits for a later one.
    pub(super) fn fall_behind(&self, revision: i64) {
        self.state.lock().fall_behind(revision);
        self.wake.notify_one();
    }

    /// Nothing more will be published.
    pub(super) fn end(&self) {
        self.state.lock().phase = Phase::Over;
        self.wake.notify_one();
    }

    pub(super) fn next(&self) -> Next {
        let mut state = self.state.lock();
        if state.complete > 0 {
            return Next::Batch(state.take_batch());
        }
        match state.phase {
            Phase::Synced { .. } => Next::Wait,
            Phase::Behind { next } => Next::CatchUp(next),
            Phase::Over => Next::Over,
        }
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Everything before `next` has been received.
    pub(super) fn advance(&self, next: i64) {
        let mut state = self.state.lock();
        if let Phase::Behind { .. } = state.phase {
            state.phase = Phase::Behind { next };
        }
    }

    /// Becomes synced if everything through `published` has been received or is queued; if so, the caller puts it
    /// in the group before anything else is published.
    pub(super) fn try_sync(&self, published: i64) -> bool {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Behind { next } if next > published => {
                state.phase = Phase::Synced { from: next };
                true
            }
            _ => false,
        }
    }

    /// Whether everything through `published`, the last revision handed out, has been received.
    pub(super) fn has_received(&self, published: i64) -> bool {
        let state = self.state.lock();
        state.queue.is_empty()
            && match state.phase {
                Phase::Synced { from } => from <= published + 1,
                Phase::Behind { next } => next == published + 1,
                Phase::Over => false,
            }
    }

    /// The events as this watcher sees them, without those it filters out.
    pub(super) fn seen(&self, events: impl Iterator<Item = Event>) -> Vec<Event> {
        events
            .filter(|event| self.wants(event))
            .map(|event| as_seen(event, self.prev_kv))
            .collect()
    }

    /// As [`Inbox::seen`]. Cloned here, at the last moment, and not at all for the last watcher of an event.
    pub(super) fn open(&self, batch: Vec<Arc<Published>>) -> Vec<Event> {
        self.seen(
            batch
                .into_iter()
                .map(|published| Arc::unwrap_or_clone(published).event),
        )
    }

    fn wants(&self, event: &Event) -> bool {
        if is_delete(event) {
            !self.no_delete
        } else {
            !self.no_put
        }
    }
}

impl State {
    fn fall_behind(&mut self, revision: i64) {
        // A part of a revision must not be delivered: what is queued of it is read again.
        for part in self.queue.drain(self.complete..) {
            self.queued_bytes -= part.bytes;
        }
        if let Phase::Synced { from } = self.phase {
            self.phase = Phase::Behind {
                next: revision.max(from),
            };
        }
    }

    fn take_batch(&mut self) -> Vec<Arc<Published>> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let mut last_revision = None;
        while self.complete > 0 {
            let full = batch.len() >= MAX_BATCH_EVENTS || bytes >= MAX_BATCH_BYTES;
            let starts_another = self.queue.front().map(|next| next.revision) != last_revision;
            if full && starts_another {
                break;
            }
            let Some(published) = self.queue.pop_front() else {
                break;
            };
            self.complete -= 1;
            self.queued_bytes -= published.bytes;
            bytes += published.bytes;
            last_revision = Some(published.revision);
            batch.push(published);
        }
        batch
    }
}

fn is_delete(event: &Event) -> bool {
    event.r#type == EventType::Delete as i32
}

fn size_of_kv(kv: &KeyValue) -> usize {
    kv.key.len() + kv.value.len()
}

/// An event as etcd sends it: of what was deleted only key and revision, of what was before only if asked.
fn as_seen(mut event: Event, prev_kv: bool) -> Event {
    if is_delete(&event) {
        event.kv = event.kv.map(|kv| KeyValue {
            key: kv.key,
            mod_revision: kv.mod_revision,
            ..KeyValue::default()
        });
    }
    if !prev_kv {
        event.prev_kv = None;
    }
    event
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn put(revision: i64) -> Arc<Published> {
        let kv = KeyValue {
            key: Bytes::from_static(b"a"),
            mod_revision: revision,
            ..KeyValue::default()
        };
        Published::new(
            revision,
            Event {
                kv: Some(kv),
                ..Event::default()
            },
        )
        .unwrap()
    }

    fn synced(max_events: usize) -> Inbox {
        let inbox = Inbox::new(0, WatchOptions::default(), 2, max_events);
        assert!(inbox.try_sync(1));
        inbox
    }

    fn revisions(next: Next) -> Vec<i64> {
        match next {
            Next::Batch(batch) => batch.iter().map(|published| published.revision()).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// The receiver may look in the middle of a publication.
    #[test]
    fn a_revision_is_not_seen_before_it_is_complete() {
        let inbox = synced(8);
        assert_eq!(inbox.offer(&put(2)), Offer::First);
        assert!(matches!(inbox.next(), Next::Wait));
        assert_eq!(inbox.offer(&put(2)), Offer::Taken);
        assert!(!inbox.has_received(1));
        inbox.complete_revision();
        assert_eq!(inbox.offer(&put(3)), Offer::First);
        assert_eq!(revisions(inbox.next()), [2, 2]);
        assert!(matches!(inbox.next(), Next::Wait));
        inbox.complete_revision();
        assert_eq!(revisions(inbox.next()), [3]);
        assert!(inbox.has_received(3));
    }

    #[test]
    fn an_overflow_takes_the_started_revision_back() {
        let inbox = synced(3);
        inbox.offer(&put(2));
        inbox.complete_revision();
        assert_eq!(inbox.offer(&put(3)), Offer::First);
        assert_eq!(inbox.offer(&put(3)), Offer::Taken);
        assert_eq!(inbox.offer(&put(3)), Offer::FellBehind);
        assert_eq!(inbox.offer(&put(3)), Offer::Ignored);
        inbox.complete_revision();
        assert_eq!(revisions(inbox.next()), [2]);
        assert!(matches!(inbox.next(), Next::CatchUp(3)));
        assert_eq!(inbox.state.lock().queued_bytes, 0);
    }
}
