//! Answers as one line of text each, for transcripts. Fields with zero values are left out; the revision of the
//! header stays, ids get names, and what no two runs share (terms, sizes) is left out.

use std::fmt::Write as _;

use proto::etcdserverpb::{
    RangeResponse, ResponseHeader, ResponseOp, TxnResponse, WatchResponse, response_op::Response,
};
use proto::mvccpb::{Event, KeyValue, event::EventType};
use tonic::Status;

/// `revision=3` of a header.
#[must_use]
pub fn header(header: Option<&ResponseHeader>) -> String {
    header.map_or_else(
        || "no header".to_owned(),
        |header| format!("revision={}", header.revision),
    )
}

/// A refused request, in the words of its code.
#[must_use]
pub fn status(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// Bytes as text where they are.
#[must_use]
pub fn bytes(bytes: &[u8]) -> String {
    if bytes.len() > 64 {
        return format!("{} bytes", bytes.len());
    }
    format!("\"{}\"", bytes.escape_ascii())
}

/// `"k"="v" create=2 mod=3 version=2`
#[must_use]
pub fn kv(kv: &KeyValue) -> String {
    let mut text = format!("{}={}", bytes(&kv.key), bytes(&kv.value));
    number(&mut text, "create", kv.create_revision);
    number(&mut text, "mod", kv.mod_revision);
    number(&mut text, "version", kv.version);
    number(&mut text, "lease", kv.lease);
    text
}

/// A range's answer, one line for each key.
#[must_use]
pub fn range(range: &RangeResponse) -> String {
    let mut text = format!("{} count={}", header(range.header.as_ref()), range.count);
    if range.more {
        text.push_str(" more");
    }
    lines(&mut text, range.kvs.iter().map(kv));
    text
}

/// A transaction's answer, one line for each operation.
#[must_use]
pub fn txn(txn: &TxnResponse) -> String {
    let branch = if txn.succeeded { "succeeded" } else { "failed" };
    let mut text = format!("{} {branch}", header(txn.header.as_ref()));
    lines(&mut text, txn.responses.iter().map(op));
    text
}

fn op(op: &ResponseOp) -> String {
    match &op.response {
        None => "nothing".to_owned(),
        Some(Response::ResponseRange(answer)) => format!("range {}", indent(&range(answer))),
        Some(Response::ResponsePut(answer)) => {
            format!(
                "put {}{}",
                header(answer.header.as_ref()),
                previous(answer.prev_kv.as_slice())
            )
        }
        Some(Response::ResponseDeleteRange(answer)) => {
            let header = header(answer.header.as_ref());
            format!(
                "delete {header} deleted={}{}",
                answer.deleted,
                previous(&answer.prev_kvs)
            )
        }
        Some(Response::ResponseTxn(answer)) => format!("txn {}", indent(&txn(answer))),
    }
}

/// What was there before.
#[must_use]
pub fn previous(kvs: &[KeyValue]) -> String {
    kvs.iter().fold(String::new(), |mut text, before| {
        let _ = write!(text, " before: {}", kv(before));
        text
    })
}

/// A watch response, one line for each event.
#[must_use]
pub fn watch(response: &WatchResponse) -> String {
    let mut text = format!("{} watch={}", header(response.header.as_ref()), response.watch_id);
    for (name, set) in [
        ("created", response.created),
        ("canceled", response.canceled),
        ("fragment", response.fragment),
    ] {
        if set {
            let _ = write!(text, " {name}");
        }
    }
    number(&mut text, "compacted", response.compact_revision);
    // Of a compaction etcd says no more than its revision; whoever says more does no harm.
    if !response.cancel_reason.is_empty() && response.compact_revision == 0 {
        let _ = write!(text, " reason: {}", response.cancel_reason);
    }
    lines(&mut text, response.events.iter().map(event));
    text
}

/// `PUT "k"="v" ...`
#[must_use]
pub fn event(event: &Event) -> String {
    let kind = if event.r#type == i32::from(EventType::Delete) {
        "DELETE"
    } else {
        "PUT"
    };
    let kv_text = event.kv.as_ref().map_or_else(|| "no kv".to_owned(), kv);
    format!("{kind} {kv_text}{}", previous(event.prev_kv.as_slice()))
}

fn number(text: &mut String, name: &str, value: i64) {
    if value != 0 {
        let _ = write!(text, " {name}={value}");
    }
}

/// One below the other; a line that comes again and again is shown once.
fn lines(text: &mut String, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    while let Some(line) = lines.next() {
        let mut times = 1;
        while lines.next_if_eq(&line).is_some() {
            times += 1;
        }
        let _ = write!(text, "\n  {line}");
        if times > 1 {
            let _ = write!(text, " ({times} times)");
        }
    }
}

fn indent(text: &str) -> String {
    text.replace('\n', "\n  ")
}
