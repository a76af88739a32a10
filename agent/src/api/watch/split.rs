//! Cuts the events for a watch into messages of a bearable size.
//!
//! Between two revisions a cut is always allowed: each piece is a response of its own. Inside of a revision it is
//! allowed only when the client asked for fragments, and then all pieces but the last say that more follows.

use prost::Message;
use prost::encoding::encoded_len_varint;
use proto::etcdserverpb::WatchResponse;
use proto::mvccpb::Event;

/// The pieces of `whole`, in order. Their headers say the revision of their last event, the last one's that of
/// `whole`.
pub(super) fn split(whole: WatchResponse, max_bytes: usize, fragments: bool) -> Vec<WatchResponse> {
    if whole.events.len() < 2 || whole.encoded_len() < max_bytes {
        return vec![whole];
    }
    let empty = WatchResponse {
        events: Vec::new(),
        ..whole
    };
    let room = max_bytes.saturating_sub(empty.encoded_len());
    let mut pieces = Pieces {
        empty,
        closed: Vec::new(),
        open: Vec::new(),
        open_bytes: 0,
    };
    let mut events = whole.events.into_iter().peekable();
    while let Some(first) = events.next() {
        let revision = revision_of(&first);
        let mut group = vec![first];
        while let Some(event) = events.next_if(|event| revision_of(event) == revision) {
            group.push(event);
        }
        let bytes: usize = group.iter().map(bytes_in_message).sum();
        if pieces.open_bytes + bytes >= room {
            pieces.close(false);
        }
        if fragments && bytes >= room {
            for event in group {
                if pieces.open_bytes + bytes_in_message(&event) >= room {
                    pieces.close(true);
                }
                pieces.push(event);
            }
        } else {
            group.into_iter().for_each(|event| pieces.push(event));
        }
    }
    let through = pieces.empty.header.as_ref().map(|header| header.revision);
    pieces.close(false);
    if let Some(header) = pieces.closed.last_mut().and_then(|piece| piece.header.as_mut()) {
        header.revision = through.unwrap_or(header.revision);
    }
    pieces.closed
}

/// Messages being filled, one after the other.
#[derive(Debug)]
struct Pieces {
    /// What all of them have in common.
    empty: WatchResponse,
    closed: Vec<WatchResponse>,
    open: Vec<Event>,
    open_bytes: usize,
}

impl Pieces {
    fn push(&mut self, event: Event) {
        self.open_bytes += bytes_in_message(&event);
        self.open.push(event);
    }

    /// Ends the open message, if there is anything in it.
    fn close(&mut self, fragment: bool) {
        let Some(last) = self.open.last() else { return };
        let mut piece = self.empty.clone();
        if let Some(header) = &mut piece.header {
            header.revision = revision_of(last);
        }
        piece.fragment = fragment;
        piece.events = std::mem::take(&mut self.open);
        self.open_bytes = 0;
        self.closed.push(piece);
    }
}

fn revision_of(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// What an event adds to a message: its bytes, their length and the field's number.
fn bytes_in_message(event: &Event) -> usize {
    let bytes = event.encoded_len();
    1 + encoded_len_varint(bytes as u64) + bytes
}

#[cfg(test)]
mod tests {
    use proto::etcdserverpb::ResponseHeader;
    use proto::mvccpb::KeyValue;

    use super::*;

    fn response(revisions: &[i64], value_bytes: usize) -> WatchResponse {
        let events = revisions.iter().map(|&mod_revision| {
            let value = vec![b'v'; value_bytes].into();
            let kv = KeyValue {
                key: "k".into(),
                value,
                mod_revision,
                ..KeyValue::default()
            };
            Event {
                kv: Some(kv),
                ..Event::default()
            }
        });
        let header = ResponseHeader {
            revision: 99,
            ..ResponseHeader::default()
        };
        WatchResponse {
            header: Some(header),
            watch_id: 4,
            events: events.collect(),
            ..WatchResponse::default()
        }
    }

    /// Each piece: its events' revisions, its header's revision, whether more of it follows.
    type Shape<'a> = &'a [(&'a [i64], i64, bool)];

    #[track_caller]
    fn check(revisions: &[i64], max_bytes: usize, fragments: bool, expected: Shape<'_>) {
        let whole = response(revisions, 100);
        let pieces = split(whole.clone(), max_bytes, fragments);
        let shapes: Vec<(Vec<i64>, i64, bool)> = pieces
            .iter()
            .map(|piece| {
                let revisions = piece.events.iter().map(revision_of).collect();
                (revisions, piece.header.unwrap().revision, piece.fragment)
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|&(events, at, more)| (events.to_vec(), at, more))
            .collect();
        assert_eq!(shapes, expected);
        assert!(pieces.iter().all(|piece| piece.watch_id == 4));
        assert!(
            pieces
                .iter()
                .all(|piece| piece.events.len() == 1 || !fragments || piece.encoded_len() < max_bytes)
        );
        let events: Vec<_> = pieces.into_iter().flat_map(|piece| piece.events).collect();
        assert_eq!(events, whole.events);
    }

    #[test]
    fn what_fits_is_left_alone() {
        check(&[5, 6], 1000, false, &[(&[5, 6], 99, false)]);
        check(&[5, 6], 1000, true, &[(&[5, 6], 99, false)]);
        // One event is never cut.
        check(&[5], 10, true, &[(&[5], 99, false)]);
    }

    #[test]
    fn revisions_are_cut_apart() {
        check(
            &[5, 6, 7],
            150,
            false,
            &[(&[5], 5, false), (&[6], 6, false), (&[7], 99, false)],
        );
        check(&[5, 6, 7], 300, false, &[(&[5, 6], 6, false), (&[7], 99, false)]);
        // The first is sent alone rather than the second cut.
        check(
            &[5, 6, 6, 7],
            300,
            false,
            &[(&[5], 5, false), (&[6, 6], 6, false), (&[7], 99, false)],
        );
    }

    #[test]
    fn a_revision_is_cut_only_into_fragments() {
        check(
            &[5, 5, 5, 6],
            150,
            false,
            &[(&[5, 5, 5], 5, false), (&[6], 99, false)],
        );
        check(
            &[5, 5, 5, 6],
            150,
            true,
            &[
                (&[5], 5, true),
                (&[5], 5, true),
                (&[5], 5, false),
                (&[6], 99, false),
            ],
        );
        check(
            &[4, 5, 5, 5],
            300,
            true,
            &[(&[4], 4, false), (&[5, 5], 5, true), (&[5], 99, false)],
        );
        check(
            &[5, 5, 5],
            10,
            true,
            &[(&[5], 5, true), (&[5], 5, true), (&[5], 99, false)],
        );
    }
}
