//! The hub itself, and the writer's end of it.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use proto::mvccpb::Event;

use super::group::Group;
use super::inbox::{Inbox, Offer, Published};
use super::watcher::Watcher;
use super::{History, WatchOptions};

/// Cloneable handle of the hub.
#[derive(Clone, Debug)]
pub struct WatchHub {
    hub: Arc<Hub>,
}

/// The writer's end. There is one, and apply owns it; when it is dropped, every watcher ends.
#[derive(Debug)]
pub(crate) struct Publisher {
    hub: Arc<Hub>,
}

/// Shared by the handles, the publisher and the watchers.
pub(super) struct Hub {
    history: Weak<dyn History>,
    buffer_events: usize,
    /// Watchers alive that asked for `prev_kv`.
    prev_kv_watchers: AtomicUsize,
    /// Locked before any inbox. Held while a revision is handed out, so that joining the group and asking for
    /// progress happen between revisions.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Everything up to here has been handed out to the group.
    published: i64,
    group: Group,
    next_id: u64,
    /// The publisher is gone.
    closed: bool,
}

/// Where a watcher that has nothing queued goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Join {
    /// It is synced again.
    Synced,
    /// Not yet: it lacks everything through this revision.
    ReadThrough(i64),
    /// Nothing more will be published, and it has everything.
    Closed,
}

/// Makes a hub that has published everything up to `revision`, the store's current one. `buffer_events` is what a
/// watcher may have queued before it has to catch up from history.
///
/// The store owns the hub, and the hub must not own the store: hence the [`Weak`] (see `Arc::new_cyclic`).
pub(crate) fn watch_hub(
    history: Weak<dyn History>,
    revision: i64,
    buffer_events: usize,
) -> (WatchHub, Publisher) {
    let hub = Arc::new(Hub {
        history,
        buffer_events: buffer_events.max(1),
        prev_kv_watchers: AtomicUsize::new(0),
        state: Mutex::new(State {
            published: revision,
            group: Group::new(),
            next_id: 0,
            closed: false,
        }),
    });
    (
        WatchHub {
            hub: Arc::clone(&hub),
        },
        Publisher { hub },
    )
}

impl WatchHub {
    /// Registers a watcher. Events arrive in order, each once, from its start revision on.
    #[must_use]
    pub fn watch(&self, options: WatchOptions) -> Watcher {
        // Before the lock: the store may publish while it holds a lock of its own.
        let history = self.hub.history();
        let readable = history.as_ref().map_or(0, |history| history.current_revision());
        let compacted = history.map_or(0, |history| history.compacted_revision());
        if options.prev_kv {
            self.hub.prev_kv_watchers.fetch_add(1, Ordering::Relaxed);
        }
        let mut state = self.hub.state.lock();
        // A write may be readable and not yet published. Whoever has read it must not see it as an event.
        let current = state.published.max(readable);
        let start = match options.start_revision {
            0 => current + 1,
            // As in etcd, to which a store that was never compacted is compacted at -1.
            -1 if compacted == 0 => current + 1,
            revision => revision,
        };
        let id = state.next_id;
        state.next_id += 1;
        let inbox = Arc::new(Inbox::new(id, options, start, self.hub.buffer_events));
        if !state.closed && inbox.try_sync(state.published) {
            state.group.insert(&inbox);
        }
        drop(state);
        Watcher::new(Arc::clone(&self.hub), inbox, current)
    }
}

impl Publisher {
    /// Hands out the events of one revision, in sub-revision order. Call it for every revision, ascending, once
    /// [`History`] can answer for it and before the write is acknowledged.
    pub(crate) fn publish(&self, revision: i64, events: Vec<Event>) {
        let mut state = self.hub.state.lock();
        if revision <= state.published {
            tracing::error!(
                revision,
                published = state.published,
                "a revision was published twice"
            );
            return;
        }
        if revision > state.published + 1 {
            // Revisions were skipped: the watchers find them in history.
            state.replace_history(revision);
            return;
        }
        if !state.group.is_empty() {
            state.hand_out(
                events
                    .into_iter()
                    .filter_map(|event| Published::new(revision, event)),
            );
        }
        state.published = revision;
    }

    /// Whether events should carry `prev_kv`. Asking early is safe: a watcher that arrives after the answer and
    /// misses a `prev_kv` in an event reads that revision from history instead.
    pub(crate) fn wants_prev_kv(&self) -> bool {
        self.hub.prev_kv_watchers.load(Ordering::Relaxed) > 0
    }

    /// The store was replaced by a snapshot that ends at `revision`: watchers read what they missed from the
    /// new history. Call it once [`History`] answers from the new store.
    pub(crate) fn reset(&self, revision: i64) {
        self.hub.state.lock().replace_history(revision);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let mut state = self.hub.state.lock();
        state.closed = true;
        for inbox in state.group.take_all() {
            inbox.end();
        }
    }
}

impl State {
    fn hand_out(&mut self, events: impl Iterator<Item = Arc<Published>>) {
        let (mut touched, mut behind) = (Vec::new(), Vec::new());
        for published in events {
            self.group
                .for_each_watching(published.key(), &mut |inbox| match inbox.offer(&published) {
                    Offer::First => touched.push(Arc::clone(inbox)),
                    Offer::FellBehind => behind.push(Arc::clone(inbox)),
                    Offer::Taken | Offer::Ignored => {}
                });
        }
        for inbox in behind {
            self.group.remove(&inbox);
        }
        for inbox in touched {
            inbox.complete_revision();
        }
    }

    fn replace_history(&mut self, revision: i64) {
        let missed_from = self.published + 1;
        for inbox in self.group.take_all() {
            inbox.fall_behind(missed_from);
        }
        self.published = revision;
    }
}

impl Hub {
    /// `None` when the store is gone.
    pub(super) fn history(&self) -> Option<Arc<dyn History>> {
        self.history.upgrade()
    }

    /// Puts a watcher back among the synced ones if it has received everything, in one step with checking that.
    pub(super) fn join(&self, inbox: &Arc<Inbox>) -> Join {
        let mut state = self.state.lock();
        if !inbox.try_sync(state.published) {
            return Join::ReadThrough(state.published);
        }
        if state.closed {
            return Join::Closed;
        }
        state.group.insert(inbox);
        Join::Synced
    }

    pub(super) fn leave(&self, inbox: &Inbox) {
        if inbox.prev_kv() {
            self.prev_kv_watchers.fetch_sub(1, Ordering::Relaxed);
        }
        self.state.lock().group.remove(inbox);
    }

    /// The last revision handed out, if this watcher has received everything up to it. Under the hub's lock: a
    /// revision is either handed out and in the inbox, or neither.
    pub(super) fn received_through(&self, inbox: &Inbox) -> Option<i64> {
        let state = self.state.lock();
        inbox.has_received(state.published).then_some(state.published)
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("buffer_events", &self.buffer_events)
            .finish_non_exhaustive()
    }
}
