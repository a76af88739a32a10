//! etcdctl's plain lines: a key, then its value; `OK`; a count.

use proto::etcdserverpb as pb;
use proto::etcdserverpb::response_op::Response;
use proto::mvccpb::event::EventType;
use proto::mvccpb::{Event, KeyValue};

/// How keys and values are shown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Style {
    /// `\x61\x62` instead of `ab`.
    pub(crate) hex: bool,
    pub(crate) value_only: bool,
}

pub(crate) fn range(out: &mut Vec<u8>, response: &pb::RangeResponse, style: Style) {
    for kv in &response.kvs {
        key_value(out, kv, style);
    }
}

pub(crate) fn put(out: &mut Vec<u8>, response: &pb::PutResponse, style: Style) {
    line(out, b"OK");
    if let Some(kv) = &response.prev_kv {
        key_value(out, kv, style);
    }
}

pub(crate) fn delete_range(out: &mut Vec<u8>, response: &pb::DeleteRangeResponse, style: Style) {
    line(out, response.deleted.to_string().as_bytes());
    for kv in &response.prev_kvs {
        key_value(out, kv, style);
    }
}

pub(crate) fn txn(out: &mut Vec<u8>, response: &pb::TxnResponse, style: Style) {
    line(
        out,
        if response.succeeded {
            b"SUCCESS"
        } else {
            b"FAILURE"
        },
    );
    for operation in &response.responses {
        line(out, b"");
        match &operation.response {
            Some(Response::ResponseRange(response)) => range(out, response, style),
            Some(Response::ResponsePut(response)) => put(out, response, style),
            Some(Response::ResponseDeleteRange(response)) => delete_range(out, response, style),
            Some(Response::ResponseTxn(response)) => txn(out, response, style),
            None => {}
        }
    }
}

pub(crate) fn event(out: &mut Vec<u8>, event: &Event, style: Style) {
    let kind = if event.r#type() == EventType::Delete {
        "DELETE"
    } else {
        "PUT"
    };
    line(out, kind.as_bytes());
    if let Some(kv) = &event.prev_kv {
        key_value(out, kv, style);
    }
    if let Some(kv) = &event.kv {
        key_value(out, kv, style);
    }
}

fn key_value(out: &mut Vec<u8>, kv: &KeyValue, style: Style) {
    if !style.value_only {
        text(out, &kv.key, style);
    }
    text(out, &kv.value, style);
}

fn text(out: &mut Vec<u8>, bytes: &[u8], style: Style) {
    if style.hex {
        let hex: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        line(out, hex.as_bytes());
    } else {
        line(out, bytes);
    }
}

fn line(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.push(b'\n');
}
