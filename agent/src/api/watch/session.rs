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
mod tests {
    use proto::mvccpb::{Event, KeyValue};

    use super::*;

    fn session() -> Session {
        Session::new(Limits {
            watches: 5,
            message_bytes: 1000,
        })
    }

    fn on(key: &'static str, range_end: &'static str) -> WatchCreateRequest {
        WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            ..WatchCreateRequest::default()
        }
    }

    fn events(revisions: &[i64]) -> WatchOutput {
        let events = revisions.iter().map(|&mod_revision| {
            let kv = KeyValue {
                key: "k".into(),
                mod_revision,
                ..KeyValue::default()
            };
            Event {
                kv: Some(kv),
                ..Event::default()
            }
        });
        WatchOutput::Events {
            revision: *revisions.last().unwrap(),
            events: events.collect(),
        }
    }

    fn revision(response: &WatchResponse) -> i64 {
        response.header.unwrap().revision
    }

    #[test]
    fn ids_are_chosen_from_zero_around_those_in_use() {
        let mut session = session();
        let mut open = |watch_id| {
            let request = WatchCreateRequest {
                watch_id,
                ..on("k", "")
            };
            session
                .create(&request, None, 9)
                .map(|opened| opened.ticket.id)
                .map_err(|refused| refused.cancel_reason)
        };
        assert_eq!(open(0), Ok(0));
        assert_eq!(open(1), Ok(1));
        assert_eq!(open(0), Ok(2));
        assert_eq!(open(7), Ok(7));
        assert_eq!(
            open(7),
            Err("mvcc: duplicate watch ID provided on the WatchStream".into())
        );
        assert_eq!(open(0), Ok(3));
        assert_eq!(open(0), Err("etcdserver: too many watches on one stream".into()));
        // Chosen ids are not used again, asked-for ones may be.
        assert!(session.cancel(0, 9).is_some());
        assert_eq!(session.create(&on("k", ""), None, 9).unwrap().ticket.id, 4);
        assert!(session.cancel(7, 9).is_some());
        let again = session.create(
            &WatchCreateRequest {
                watch_id: 7,
                ..on("k", "")
            },
            None,
            9,
        );
        assert_eq!(again.unwrap().ticket.id, 7);
    }

    #[test]
    fn ranges() {
        let empty = "mvcc: watcher range is empty";
        let cases = [
            (on("a", ""), Ok(("a", ""))),
            (on("a", "b"), Ok(("a", "b"))),
            (on("a", "\0"), Ok(("a", "\0"))),
            (on("", "\0"), Ok(("\0", "\0"))),
            (on("", ""), Ok(("\0", ""))),
            (on("", "b"), Ok(("\0", "b"))),
            (on("b", "b"), Err(empty)),
            (on("b", "a"), Err(empty)),
        ];
        for (request, expected) in cases {
            match (session().create(&request, None, 9), expected) {
                (Ok(opened), Ok((key, range_end))) => {
                    assert_eq!(
                        (&opened.options.key[..], &opened.options.range_end[..]),
                        (key.as_bytes(), range_end.as_bytes())
                    );
                }
                (Err(refused), Err(reason)) => {
                    assert_eq!(refused.cancel_reason, reason);
                    assert_eq!(
                        (refused.watch_id, refused.created, refused.canceled),
                        (-1, true, true)
                    );
                    assert_eq!(revision(&refused), 9);
                }
                (got, expected) => panic!("{request:?}: {got:?} is not {expected:?}"),
            }
        }
    }

    #[test]
    fn options_pass_through() {
        let request = WatchCreateRequest {
            start_revision: 4,
            prev_kv: true,
            filters: vec![FilterType::Nodelete.into()],
            ..on("a", "")
        };
        let options = session().create(&request, None, 9).unwrap().options;
        assert_eq!((options.start_revision, options.prev_kv), (4, true));
        assert_eq!((options.no_put, options.no_delete), (false, true));
    }

    #[test]
    fn a_cancelled_watch_delivers_nothing_even_if_its_id_is_used_again() {
        let mut session = session();
        let request = WatchCreateRequest {
            watch_id: 3,
            ..on("k", "")
        };
        let first = session.create(&request, None, 9).unwrap().ticket;
        let cancelled = session.cancel(3, 10).unwrap();
        assert_eq!(
            (cancelled.watch_id, cancelled.canceled, revision(&cancelled)),
            (3, true, 10)
        );
        assert!(session.cancel(3, 10).is_none());
        let second = session.create(&request, None, 11).unwrap().ticket;
        assert!(session.deliver(first, events(&[10])).is_empty());
        assert!(session.notice(first, Some(10)).is_none());
        assert_eq!(session.deliver(second, events(&[12])).len(), 1);
        // The end of the first must not be taken for the end of the second.
        assert!(
            session
                .deliver(first, WatchOutput::Compacted { compact_revision: 1 })
                .is_empty()
        );
        assert!(session.has(second));
    }

    #[test]
    fn a_compacted_watch_is_over() {
        let mut session = session();
        let ticket = session.create(&on("k", ""), None, 9).unwrap().ticket;
        let responses = session.deliver(ticket, WatchOutput::Compacted { compact_revision: 6 });
        let [response] = responses.as_slice() else {
            panic!("{responses:?}")
        };
        assert_eq!(
            (response.watch_id, response.canceled, response.created),
            (0, true, false)
        );
        assert_eq!((response.compact_revision, revision(response)), (6, 0));
        assert_eq!(session.len(), 0);
    }

    #[test]
    fn notices_only_when_idle_and_caught_up() {
        let mut session = session();
        let asked = WatchCreateRequest {
            progress_notify: true,
            ..on("k", "")
        };
        let ticket = session.create(&asked, None, 9).unwrap().ticket;
        let silent = session.create(&on("k", ""), None, 9).unwrap().ticket;
        let ahead = session
            .create(
                &WatchCreateRequest {
                    start_revision: 50,
                    ..asked
                },
                None,
                9,
            )
            .unwrap()
            .ticket;
        assert!(session.notice(ticket, Some(9)).is_none(), "before any tick");
        session.tick();
        assert_eq!(session.notice(ticket, Some(9)), Some(answer(0, 9)));
        assert!(session.notice(ticket, None).is_none(), "behind");
        assert!(session.notice(silent, Some(9)).is_none(), "did not ask");
        assert!(session.notice(ahead, Some(9)).is_none(), "begins later");
        session.deliver(ticket, events(&[10]));
        assert!(session.notice(ticket, Some(10)).is_none(), "an event says enough");
        session.tick();
        assert_eq!(session.notice(ticket, Some(10)), Some(answer(0, 10)));
    }

    #[test]
    fn progress_of_all() {
        let mut session = session();
        assert_eq!(session.sweep([], 9), Sweep::Never);
        let one = session.create(&on("a", ""), None, 9).unwrap().ticket;
        let two = session
            .create(
                &WatchCreateRequest {
                    start_revision: 12,
                    ..on("b", "")
                },
                None,
                9,
            )
            .unwrap()
            .ticket;
        let cases = [
            (Some(12), Some(12), 12, Sweep::CaughtUp(12)),
            (Some(12), Some(13), 13, Sweep::CaughtUp(12)),
            (Some(12), None, 12, Sweep::Behind),
            (None, Some(12), 12, Sweep::Behind),
            (Some(11), Some(11), 11, Sweep::Never),
            (Some(11), None, 11, Sweep::Never),
            (None, Some(11), 11, Sweep::Never),
        ];
        for (first, second, store, expected) in cases {
            let progress = [(one, first), (two, second)];
            assert_eq!(session.sweep(progress, store), expected, "{progress:?} {store}");
        }
        assert_eq!(Session::progress(12).watch_id, -1);
    }

    #[test]
    fn deliveries_are_split_as_asked() {
        let mut session = Session::new(Limits {
            watches: 5,
            message_bytes: 20,
        });
        let plain = session.create(&on("k", ""), None, 9).unwrap().ticket;
        let fragment = session
            .create(
                &WatchCreateRequest {
                    fragment: true,
                    ..on("k", "")
                },
                None,
                9,
            )
            .unwrap()
            .ticket;
        assert_eq!(session.deliver(plain, events(&[10, 10])).len(), 1);
        let pieces = session.deliver(fragment, events(&[10, 10]));
        assert_eq!(
            pieces.iter().map(|piece| piece.fragment).collect::<Vec<_>>(),
            [true, false]
        );
    }
}
