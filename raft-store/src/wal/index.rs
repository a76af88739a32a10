//! Where every unpurged entry is: in memory, on disk, or both.
//!
//! Positions are kept for all entries, contents for the newest ones only:
//!
//! ```text
//! purged      slots: log id, size, place
//!   ..4 │  5    6    7    8    9    10
//!       │  a/40 a/92 b/40 b/77  q    q     place: segment/offset, or still in the writer's queue
//!       │            └─ cache ──────────┘  contents, always the newest slots
//! ```
//! An entry leaves the cache only when its place is known, oldest first, so the cache stays the newest part.
//! Pure: no file is touched here.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use openraft::EntryPayload;
use thiserror::Error;

use crate::raft_types::{Entry, LogId};
use crate::wal::segment::Segment;

/// What an entry takes beside its payload, about: itself, its slot, its record's header.
const ENTRY_OVERHEAD_BYTES: usize = 160;

/// Why entries were not appended.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("entry {found} appended where entry {expected} belongs")]
pub(crate) struct Hole {
    expected: u64,
    found: u64,
}

/// Where an entry's record is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) segment: Arc<Segment>,
    pub(crate) offset: u64,
    /// Padding not included.
    pub(crate) length: u32,
}

/// Names one appending of one entry: an index can be appended again after a truncation while the first record
/// is still on its way to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

impl Ticket {
    /// The ticket of the entry appended right after.
    pub(crate) fn next(self) -> Ticket {
        Ticket(self.0 + 1)
    }
}

#[derive(Debug)]
enum State {
    Queued(Ticket),
    Written(Place),
}

#[derive(Debug)]
struct Slot {
    log_id: LogId,
    bytes: usize,
    state: State,
}

/// An entry to be read from disk: its place, and the log id it must turn out to have.
#[derive(Debug)]
pub(crate) struct DiskRead {
    pub(crate) log_id: LogId,
    pub(crate) place: Place,
}

/// The entries of a range: first those to be read from disk, then those in memory.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) on_disk: Vec<DiskRead>,
    pub(crate) in_memory: Vec<Entry>,
}

/// The unpurged entries, contiguous.
#[derive(Debug)]
pub(crate) struct LogIndex {
    purged: Option<LogId>,
    slots: VecDeque<Slot>,
    cache: VecDeque<Entry>,
    cache_bytes: usize,
    cache_limit_bytes: usize,
    next_ticket: Ticket,
}

impl LogIndex {
    pub(crate) fn new(cache_limit_bytes: usize) -> LogIndex {
        LogIndex {
            purged: None,
            slots: VecDeque::new(),
            cache: VecDeque::new(),
            cache_bytes: 0,
            cache_limit_bytes,
            next_ticket: Ticket(0),
        }
    }

    /// The last log id purged.
    pub(crate) fn purged(&self) -> Option<LogId> {
        self.purged
    }

    /// The last entry's log id, or the purged one when there is no entry.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.slots.back().map(|slot| slot.log_id).or(self.purged)
    }

    /// The indexes that have an entry.
    pub(crate) fn range(&self) -> Range<u64> {
        match self.slots.front() {
            Some(first) => first.log_id.index()..first.log_id.index() + self.slots.len() as u64,
            None => 0..0,
        }
    }

    /// Adds entries whose records are yet to be written; they are readable at once. All or none.
    ///
    /// # Errors
    /// [`Hole`] where they do not follow one another and the last entry.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> Result<Ticket, Hole> {
        let first_ticket = self.next_ticket;
        let Some(first) = entries.first() else {
            return Ok(first_ticket);
        };
        let start = self.last().map_or(first.log_id.index(), |last| last.index() + 1);
        for (expected, entry) in (start..).zip(entries) {
            let found = entry.log_id.index();
            if found != expected {
                return Err(Hole { expected, found });
            }
        }
        for entry in entries {
            let ticket = self.next_ticket;
            self.next_ticket = ticket.next();
            self.push(entry.clone(), State::Queued(ticket));
        }
        Ok(first_ticket)
    }

    /// Adds an entry found on disk. In a log whose older segments are gone the first one may have any index that was
    /// not purged before it.
    ///
    /// # Errors
    /// [`Hole`] where it does not follow the last entry.
    pub(crate) fn restore(&mut self, entry: Entry, place: Place) -> Result<(), Hole> {
        let found = entry.log_id.index();
        let follows = match (self.slots.back(), self.purged) {
            (Some(last), _) => found == last.log_id.index() + 1,
            (None, Some(purged)) => found > purged.index(),
            (None, None) => true,
        };
        if !follows {
            let expected = self.last().map_or(0, |last| last.index() + 1);
            return Err(Hole { expected, found });
        }
        self.push(entry, State::Written(place));
        self.evict();
        Ok(())
    }

    /// Remembers where an entry's record was written, unless the entry has gone in the meantime.
    pub(crate) fn written(&mut self, index: u64, ticket: Ticket, place: Place) {
        let position = index
            .checked_sub(self.range().start)
            .and_then(|at| usize::try_from(at).ok());
        let Some(slot) = position.and_then(|at| self.slots.get_mut(at)) else {
            return;
        };
        if matches!(slot.state, State::Queued(queued) if queued == ticket) {
            slot.state = State::Written(place);
        }
    }

    /// Drops the oldest contents over the cache's limit, as far as they can be read from disk.
    pub(crate) fn evict(&mut self) {
        while self.cache_bytes > self.cache_limit_bytes && !self.cache.is_empty() {
            let oldest = self.slots.len() - self.cache.len();
            let Some(Slot {
                state: State::Written(_),
                bytes,
                ..
            }) = self.slots.get(oldest)
            else {
                return;
            };
            self.cache_bytes -= bytes;
            self.cache.pop_front();
        }
    }

    /// Drops the entries after `after`; `None`: all.
    pub(crate) fn truncate_after(&mut self, after: Option<&LogId>) {
        while let Some(last) = self.slots.back() {
            if after.is_some_and(|after| last.log_id.index() <= after.index()) {
                return;
            }
            if self.cache.pop_back().is_some() {
                self.cache_bytes -= last.bytes;
            }
            self.slots.pop_back();
        }
    }

    /// Drops the entries up to `upto`, which may lie past the last one. False, and nothing is done, where
    /// that much was purged before.
    pub(crate) fn purge(&mut self, upto: LogId) -> bool {
        if self.purged.is_some_and(|purged| purged.index() >= upto.index()) {
            return false;
        }
        self.purged = Some(upto);
        while let Some(first) = self.slots.front() {
            if first.log_id.index() > upto.index() {
                break;
            }
            if self.cache.len() == self.slots.len() {
                self.cache.pop_front();
                self.cache_bytes -= first.bytes;
            }
            self.slots.pop_front();
        }
        true
    }

    /// The entries of `range` that exist, oldest first: as many as fit in `limit_bytes`, and at least one.
    pub(crate) fn find(&self, range: Range<u64>, limit_bytes: usize) -> Found {
        let present = self.range();
        let start = range.start.max(present.start);
        let end = range.end.min(present.end);
        let mut found = Found::default();
        let mut bytes = 0_usize;
        let cache_start = self.slots.len() - self.cache.len();
        let positions = (start..end).filter_map(|index| usize::try_from(index - present.start).ok());
        for at in positions {
            let Some(slot) = self.slots.get(at) else { break };
            bytes = bytes.saturating_add(slot.bytes);
            let is_first = found.on_disk.is_empty() && found.in_memory.is_empty();
            if bytes > limit_bytes && !is_first {
                break;
            }
            let cached = at.checked_sub(cache_start).and_then(|at| self.cache.get(at));
            match (cached, &slot.state) {
                (Some(entry), _) => found.in_memory.push(entry.clone()),
                (None, State::Written(place)) => {
                    found.on_disk.push(DiskRead {
                        log_id: slot.log_id,
                        place: place.clone(),
                    });
                }
                (None, State::Queued(_)) => break,
            }
        }
        found
    }

    fn push(&mut self, entry: Entry, state: State) {
        let bytes = entry_bytes(&entry);
        self.slots.push_back(Slot {
            log_id: entry.log_id,
            bytes,
            state,
        });
        self.cache.push_back(entry);
        self.cache_bytes += bytes;
    }
}

/// What an entry takes in memory and on disk, about.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    let payload = match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(command) => command.0.len(),
        EntryPayload::Membership(membership) => membership
            .nodes()
            .map(|(_, node)| {
                ENTRY_OVERHEAD_BYTES + node.name.len() + node.peer_urls.iter().map(String::len).sum::<usize>()
            })
            .sum(),
    };
    ENTRY_OVERHEAD_BYTES + payload
}
