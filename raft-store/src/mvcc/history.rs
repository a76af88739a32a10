//! Past changes, for watchers that catch up.

use proto::mvccpb::{Event, KeyValue, event::EventType};

use super::{Index, KeyRange, Revision, record};
use crate::backend::{Backend, BackendError};
use crate::watch::{HistoryEvents, HistoryQuery};

/// The most records one call looks at, whoever's they are: a watcher of a quiet key must not hold its thread.
const MAX_SCANNED: usize = 10_000;

/// The changes that `query` asks for, whole revisions only. The caller checks afterwards that `query.from` is not
/// below the compacted revision, which is `compacted` when this is called.
pub(crate) fn events(
    backend: &Backend,
    index: &Index,
    compacted: i64,
    query: &HistoryQuery<'_>,
) -> Result<HistoryEvents, BackendError> {
    let range = KeyRange::new(query.key, query.range_end);
    let mut found = HistoryEvents {
        events: Vec::new(),
        through: query.to,
    };
    let mut bytes = 0;
    let mut current = query.from;
    for (scanned, entry) in record::scan(backend, query.from, query.to).enumerate() {
        let (at, record) = entry?;
        if at.main != current {
            let full = found.events.len() >= query.max_events || bytes >= query.max_bytes;
            if full || scanned >= MAX_SCANNED {
                found.through = at.main - 1;
                return Ok(found);
            }
            current = at.main;
        }
        if !range.contains(&record.kv.key) {
            continue;
        }
        // A key that its own Txn deletes first begins anew: as in etcd there is nothing before it.
        let created = !record.tombstone && record.kv.create_revision == at.main;
        // What the compacted revision itself replaced is given up, swept or not.
        let prev_kv = if query.prev_kv && !created && at.main > compacted {
            previous(backend, index, &record.kv.key, at)?
        } else {
            None
        };
        bytes += size(&record.kv) + prev_kv.as_ref().map_or(0, size);
        found.events.push(event(at, record, prev_kv));
    }
    Ok(found)
}

fn event(at: Revision, record: record::Record, prev_kv: Option<KeyValue>) -> Event {
    let record::Record { mut kv, tombstone } = record;
    kv.mod_revision = at.main;
    let kind = if tombstone {
        EventType::Delete
    } else {
        EventType::Put
    };
    Event {
        r#type: kind.into(),
        kv: Some(kv),
        prev_kv,
    }
}

/// The value that a change replaced: `None` where there was none, or it is compacted.
fn previous(
    backend: &Backend,
    index: &Index,
    key: &[u8],
    at: Revision,
) -> Result<Option<KeyValue>, BackendError> {
    match index.get(key, at.main - 1) {
        Some(before) => Ok(record::read(backend, before.modified)?.map(|record| record.kv)),
        None => Ok(None),
    }
}

fn size(kv: &KeyValue) -> usize {
    kv.key.len() + kv.value.len()
}
