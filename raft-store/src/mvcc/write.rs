//! Writes: one [`Writer`] for the store, one [`WriteTxn`] for each replicated request that changes keys.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use proto::mvccpb::{Event, KeyValue, event::EventType};

use super::read::Overlay;
use super::{ReadFailure, Revision, Version, View, record};
use crate::backend::Batch;
use crate::schema;
use crate::state::State;

/// The events of one revision, in the order of their sub-revisions.
pub(crate) type Published = (i64, Vec<Event>);

/// What is applied and not yet written: the changes of one chunk of log entries.
pub(crate) struct Writer {
    state: Arc<State>,
    revision: i64,
    compacted: i64,
    live_bytes: u64,
    overlay: Overlay,
    events: Vec<Published>,
    previous_wanted: bool,
}

impl Writer {
    /// Goes on from what `state` has published.
    pub(crate) fn new(state: Arc<State>) -> Writer {
        let (revision, compacted, live_bytes) = {
            let published = state.published.read();
            (published.revision, published.compacted, published.live_bytes)
        };
        Writer {
            state,
            revision,
            compacted,
            live_bytes,
            overlay: Overlay::new(),
            events: Vec::new(),
            previous_wanted: false,
        }
    }

    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    pub(crate) fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Bytes of everything that is not compacted: what the quota is about.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Whether events carry the value before, from now on.
    pub(crate) fn want_previous(&mut self, wanted: bool) {
        self.previous_wanted = wanted;
    }

    /// The state with everything applied so far.
    pub(crate) fn view(&self) -> View<'_> {
        self.view_at(self.revision)
    }

    fn view_at(&self, revision: i64) -> View<'_> {
        View {
            backend: &self.state.backend,
            index: &self.state.index,
            overlay: Some(&self.overlay),
            revision,
            compacted: self.compacted,
        }
    }

    /// Begins the changes of one request. They are in the batch and the index at once.
    pub(crate) fn begin<'a>(&'a mut self, batch: &'a mut Batch) -> WriteTxn<'a> {
        WriteTxn {
            next: Revision {
                main: self.revision + 1,
                sub: 0,
            },
            events: Vec::new(),
            writer: self,
            batch,
        }
    }

    /// Gives up the history below `revision`.
    pub(crate) fn compact(&mut self, revision: i64, batch: &mut Batch) -> Result<(), ReadFailure> {
        if revision == 0 && self.compacted == 0 {
            // As etcd: there is nothing to remove, and nothing wrong with that.
            return Ok(());
        }
        if revision <= self.compacted {
            return Err(ReadFailure::Compacted);
        }
        if revision > self.revision {
            return Err(ReadFailure::Future);
        }
        self.live_bytes = self.live_bytes.saturating_sub(self.state.index.compact(revision));
        self.compacted = revision;
        batch.put(schema::META_COMPACTED, revision.to_be_bytes());
        Ok(())
    }

    /// The chunk is written: what it tells watchers.
    pub(crate) fn take_events(&mut self) -> Vec<Published> {
        self.overlay.clear();
        mem::take(&mut self.events)
    }
}

/// The changes of one request: one main revision, taken only when something changes.
pub(crate) struct WriteTxn<'a> {
    writer: &'a mut Writer,
    batch: &'a mut Batch,
    next: Revision,
    events: Vec<Event>,
}

impl WriteTxn<'_> {
    /// The state with the changes of this request so far.
    pub(crate) fn view(&self) -> View<'_> {
        self.writer.view_at(if self.changed() {
            self.next.main
        } else {
            self.writer.revision
        })
    }

    pub(crate) fn changed(&self) -> bool {
        self.next.sub > 0
    }

    /// Puts `key`, with 0 for no lease.
    pub(crate) fn put(&mut self, key: &Bytes, value: Bytes, lease: i64) -> Result<(), ReadFailure> {
        let before = self.view().visible(key);
        let prev_kv = match before {
            Some(_) => self.previous(key)?,
            None => None,
        };
        let revision = self.take_revision();
        let kv = KeyValue {
            key: key.clone(),
            value,
            lease,
            create_revision: before.map_or(revision.main, |before| before.created),
            mod_revision: revision.main,
            version: before.map_or(0, |before| before.version) + 1,
        };
        let bytes = record::quota_bytes(&kv.key, &kv.value);
        record::write_put(self.batch, revision, &kv);
        self.writer.overlay.insert(revision, kv.clone());
        self.writer.state.index.put(key, Version { revision, bytes });
        self.writer.live_bytes += u64::from(bytes);
        self.events.push(Event {
            r#type: EventType::Put.into(),
            kv: Some(kv),
            prev_kv,
        });
        Ok(())
    }

    /// Deletes `key`, which exists.
    pub(crate) fn delete(&mut self, key: &Bytes) -> Result<(), ReadFailure> {
        let prev_kv = self.previous(key)?;
        let revision = self.take_revision();
        let bytes = record::quota_bytes(key, &[]);
        record::write_tombstone(self.batch, revision, key);
        self.writer
            .state
            .index
            .tombstone(key, Version { revision, bytes });
        self.writer.live_bytes += u64::from(bytes);
        let kv = KeyValue {
            key: key.clone(),
            mod_revision: revision.main,
            ..KeyValue::default()
        };
        self.events.push(Event {
            r#type: EventType::Delete.into(),
            kv: Some(kv),
            prev_kv,
        });
        Ok(())
    }

    /// What an event tells of the value before, if anybody wants it: the one before the whole request, as in etcd.
    fn previous(&self, key: &Bytes) -> Result<Option<KeyValue>, ReadFailure> {
        if self.writer.previous_wanted {
            self.writer.view().current(key)
        } else {
            Ok(None)
        }
    }

    /// Ends the request. Without it, too, what was put stays put: a request is checked before it writes.
    pub(crate) fn finish(self) {
        if self.changed() {
            self.writer.revision = self.next.main;
            self.batch
                .put(schema::META_REVISION, self.next.main.to_be_bytes());
            self.writer.events.push((self.next.main, self.events));
        }
    }

    fn take_revision(&mut self) -> Revision {
        let taken = self.next;
        self.next.sub += 1;
        taken
    }
}
