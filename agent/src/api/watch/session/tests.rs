//! One stream's watches, without a stream.

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
