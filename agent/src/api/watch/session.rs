//! What one client's watch stream has asked for, and what it is to be answered.
//!
//! Pure: it neither waits nor sends, and never sees a watcher; `stream` does, and reports what came of it. Headers
//! carry the revision only; the stream fills in who answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proto::etcdserverpb::watch_create_request::FilterType;
use proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchResponse};
use raft_store::watch::{WatchOptions, WatchOutput};
use tokio::sync::Notify;

use super::split::split;
use crate::api::interceptor::Identity;
use crate::api::status::ApiError;

/// The id in answers that are about no watch, or about all of them.
const NO_WATCH: i64 = -1;

/// Names one watch for good: a client may use an id again after it cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    pub(super) id: i64,
    serial: u64,
}

/// What a stream may ask for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) watches: usize,
    pub(super) message_bytes: usize,
}

/// The watches of one stream.
#[derive(Debug)]
pub(super) struct Session {
    watches: BTreeMap<i64, Watch>,
    next_id: i64,
    next_serial: u64,
    limits: Limits,
}

#[derive(Debug)]
struct Watch {
    serial: u64,
    start_revision: i64,
    fragment: bool,
    notices: Notices,
    nudge: Arc<Notify>,
    /// As the hub was asked for.
    key: Bytes,
    range_end: Bytes,
    /// Who opened it; `None`: auth was off.
    opened_by: Option<Arc<Identity>>,
}

/// Whether a watch is told how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notices {
    NotAsked,
    /// Nothing to tell before the next tick.
    Waiting,
    /// A tick has passed, and no event since.
    Due,
}

/// A watch to be opened at the hub.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) ticket: Ticket,
    pub(super) options: WatchOptions,
    /// Wakes whoever waits for the watch's events, so that the session is asked about it.
    pub(super) nudge: Arc<Notify>,
}

/// What the progress of all watches says about a request for progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sweep {
    /// All are caught up: everything through this revision was delivered.
    CaughtUp(i64),
    /// Not yet: ask again.
    Behind,
    /// There is nothing to wait for: no watch, or one that begins in the future.
    Never,
}

impl Session {
    pub(super) fn new(limits: Limits) -> Session {
        Session {
            watches: BTreeMap::new(),
            next_id: 0,
            next_serial: 0,
            limits,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.watches.len()
    }

    /// The answer to a watch that the client may not open.
    pub(super) fn denied(error: ApiError, revision: i64) -> WatchResponse {
        WatchResponse {
            created: true,
            canceled: true,
            cancel_reason: error.as_go_prints(),
            ..answer(NO_WATCH, revision)
        }
    }

    /// The keys that a request is about.
    pub(super) fn asked_keys(request: &WatchCreateRequest) -> (Bytes, Bytes) {
        // The smallest key there is stands for the empty one, which is none.
        let key = if request.key.is_empty() {
            Bytes::from_static(b"\0")
        } else {
            request.key.clone()
        };
        (key, request.range_end.clone())
    }

    /// Ends the watches that are no longer allowed.
    pub(super) fn revoke(
        &mut self,
        allowed: impl Fn(Option<&Arc<Identity>>, &[u8], &[u8]) -> Result<(), ApiError>,
        revision: i64,
    ) -> Vec<WatchResponse> {
        let mut ended = Vec::new();
        self.watches.retain(|id, watch| {
            let Err(error) = allowed(watch.opened_by.as_ref(), &watch.key, &watch.range_end) else {
                return true;
            };
            watch.nudge.notify_one();
            ended.push(WatchResponse {
                canceled: true,
                cancel_reason: error.as_go_prints(),
                ..answer(*id, revision)
            });
            false
        });
        ended
    }

    /// Takes up a watch, or says why not. `revision` is the store's.
    pub(super) fn create(
        &mut self,
        request: &WatchCreateRequest,
        opened_by: Option<Arc<Identity>>,
        revision: i64,
    ) -> Result<Opened, Box<WatchResponse>> {
        let refused = |reason: &str| {
            Box::new(WatchResponse {
                created: true,
                canceled: true,
                cancel_reason: reason.to_owned(),
                ..answer(NO_WATCH, revision)
            })
        };
        let (key, range_end) = Session::asked_keys(request);
        let to_the_last_key = range_end.as_ref() == b"\0";
        if !range_end.is_empty() && !to_the_last_key && key >= range_end {
            return Err(refused("mvcc: watcher range is empty"));
        }
        if self.watches.len() >= self.limits.watches {
            return Err(refused("etcdserver: too many watches on one stream"));
        }
        let Some(id) = self.choose_id(request.watch_id) else {
            return Err(refused("mvcc: duplicate watch ID provided on the WatchStream"));
        };
        let ticket = Ticket {
            id,
            serial: self.next_serial,
        };
        self.next_serial += 1;
        let nudge = Arc::new(Notify::new());
        let filtered = |filter: FilterType| request.filters.contains(&filter.into());
        let options = WatchOptions {
            key,
            range_end,
            start_revision: request.start_revision,
            prev_kv: request.prev_kv,
            no_put: filtered(FilterType::Noput),
            no_delete: filtered(FilterType::Nodelete),
        };
        let watch = Watch {
            serial: ticket.serial,
            start_revision: request.start_revision,
            fragment: request.fragment,
            notices: if request.progress_notify {
                Notices::Waiting
            } else {
                Notices::NotAsked
            },
            nudge: nudge.clone(),
            key: options.key.clone(),
            range_end: options.range_end.clone(),
            opened_by,
        };
        self.watches.insert(id, watch);
        Ok(Opened {
            ticket,
            options,
            nudge,
        })
    }

    fn choose_id(&mut self, asked: i64) -> Option<i64> {
        if asked != 0 {
            return (!self.watches.contains_key(&asked)).then_some(asked);
        }
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        let id = self.next_id;
        self.next_id += 1;
        Some(id)
    }

    /// The answer to a watch that was opened, before any of its events.
    pub(super) fn created(ticket: Ticket, revision: i64) -> WatchResponse {
        WatchResponse {
            created: true,
            ..answer(ticket.id, revision)
        }
    }

    /// Ends a watch. `None`: there is none of this id, and etcd does not answer then.
    pub(super) fn cancel(&mut self, id: i64, revision: i64) -> Option<WatchResponse> {
        let watch = self.watches.remove(&id)?;
        watch.nudge.notify_one();
        Some(WatchResponse {
            canceled: true,
            ..answer(id, revision)
        })
    }

    /// Whether the watch still is, and is still the same.
    pub(super) fn has(&self, ticket: Ticket) -> bool {
        self.watches
            .get(&ticket.id)
            .is_some_and(|watch| watch.serial == ticket.serial)
    }

    /// What the client is sent for a delivery. A watch that was compacted away is over afterwards.
    pub(super) fn deliver(&mut self, ticket: Ticket, output: WatchOutput) -> Vec<WatchResponse> {
        if !self.has(ticket) {
            return Vec::new();
        }
        match output {
            WatchOutput::Events { revision, events } => {
                let Some(watch) = self.watches.get_mut(&ticket.id) else {
                    return Vec::new();
                };
                if watch.notices == Notices::Due {
                    watch.notices = Notices::Waiting;
                }
                let whole = WatchResponse {
                    events,
                    ..answer(ticket.id, revision)
                };
                split(whole, self.limits.message_bytes, watch.fragment)
            }
            WatchOutput::Compacted { compact_revision } => {
                self.watches.remove(&ticket.id);
                vec![WatchResponse {
                    canceled: true,
                    // To etcd a store that was never compacted is compacted at -1.
                    compact_revision: if compact_revision == 0 {
                        -1
                    } else {
                        compact_revision
                    },
                    // etcd gives neither a reason nor a revision here: the revision above says it all.
                    ..answer(ticket.id, 0)
                }]
            }
        }
    }

    /// The time for progress notices has come: nudges the watches that have been idle since the last time.
    pub(super) fn tick(&mut self) {
        for watch in self.watches.values_mut() {
            match watch.notices {
                Notices::NotAsked => {}
                Notices::Waiting => watch.notices = Notices::Due,
                Notices::Due => watch.nudge.notify_one(),
            }
        }
    }

    /// After a nudge: the notice that is due, if the watch is caught up, which is what `progress` says.
    pub(super) fn notice(&mut self, ticket: Ticket, progress: Option<i64>) -> Option<WatchResponse> {
        let watch = self
            .watches
            .get_mut(&ticket.id)
            .filter(|watch| watch.serial == ticket.serial)?;
        let revision = progress?;
        if watch.notices != Notices::Due || revision < watch.start_revision {
            return None;
        }
        Some(answer(ticket.id, revision))
    }

    pub(super) fn nudge_all(&self) {
        for watch in self.watches.values() {
            watch.nudge.notify_one();
        }
    }

    /// Decides from the progress of every watch, taken while none of them delivers, and the store's revision.
    pub(super) fn sweep(
        &self,
        progress: impl IntoIterator<Item = (Ticket, Option<i64>)>,
        store_revision: i64,
    ) -> Sweep {
        let mut through = None;
        let mut behind = false;
        for (ticket, progress) in progress {
            let Some(watch) = self.watches.get(&ticket.id) else {
                continue;
            };
            if watch.start_revision > progress.unwrap_or(store_revision) {
                return Sweep::Never;
            }
            match progress {
                // The least of them: a write may come in between two answers.
                Some(revision) => through = Some(through.map_or(revision, |least: i64| least.min(revision))),
                None => behind = true,
            }
        }
        match through {
            _ if behind => Sweep::Behind,
            Some(revision) => Sweep::CaughtUp(revision),
            None => Sweep::Never,
        }
    }

    /// The answer to a request for progress: about all watches at once.
    pub(super) fn progress(revision: i64) -> WatchResponse {
        answer(NO_WATCH, revision)
    }
}

fn answer(watch_id: i64, revision: i64) -> WatchResponse {
    let header = ResponseHeader {
        revision,
        ..ResponseHeader::default()
    };
    WatchResponse {
        header: Some(header),
        watch_id,
        ..WatchResponse::default()
    }
}

#[cfg(test)]
mod tests;
