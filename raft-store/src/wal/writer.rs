//! The one thread that writes the log.
//!
//! It takes what is queued, writes it with one call, syncs it once, and then tells everyone whose records
//! became durable. While it syncs, the next batch gathers in the queue: that is the whole of group commit,
//! and the slower the disk, the larger the batches.
//!
//! Any failure is the end: it is reported to all who wait and in [`Shared::failed`], and no operation
//! succeeds afterwards. A failed sync is never tried again.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use crate::raft_types::{Entry, LogId, TypeConfig, Vote};
use crate::stopwatch::{DiskWork, Timed};
use crate::wal::Identity;
use crate::wal::error::WriteError;
use crate::wal::format::{SEGMENT_HEADER_BYTES, SegmentHeader, Sequence, segment_name};
use crate::wal::index::{LogIndex, Place, Ticket};
use crate::wal::record::{MAX_RECORD_BYTES, Outgoing, padded};
use crate::wal::recovery::{LiveSegment, Recovered};
use crate::wal::segment::{self, Segment};

/// A batch takes no more requests once it has this many bytes.
const BATCH_BYTES: usize = 1 << 20;
/// The write buffer gives memory back when one batch made it larger than this.
const BUFFER_KEPT_BYTES: usize = 4 * BATCH_BYTES;

/// The state that readers see. The lock is never held while a file is touched.
#[derive(Debug)]
pub(crate) struct LogState {
    pub(crate) index: LogIndex,
    /// The last durable vote.
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
}

/// What the writer and the handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) state: Mutex<LogState>,
    pub(crate) failed: watch::Sender<Option<String>>,
    pub(crate) size_bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) timed: Timed,
}

/// Something to be written, in the order of the queue.
pub(crate) enum Request {
    Vote {
        vote: Vote,
        done: oneshot::Sender<io::Result<()>>,
    },
    Append {
        entries: Vec<Entry>,
        first_ticket: Ticket,
        callback: IOFlushed<TypeConfig>,
        /// The entries' share of what may be queued: given back when they are durable.
        budget: OwnedSemaphorePermit,
    },
    Truncate(Option<LogId>),
    Purge(LogId),
    Committed(Option<LogId>),
}

/// Who is told when a batch is durable.
enum Waiting {
    Vote {
        vote: Vote,
        done: oneshot::Sender<io::Result<()>>,
    },
    Append {
        callback: IOFlushed<TypeConfig>,
        budget: OwnedSemaphorePermit,
    },
}

struct Written {
    index: u64,
    ticket: Ticket,
    place: Place,
}

/// What must be said again at the start of a segment, so that the older ones can go.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    vote: Option<Vote>,
    purged: Option<LogId>,
    committed: Option<LogId>,
}

/// The writer thread's state.
pub(crate) struct Writer {
    dir: PathBuf,
    identity: Identity,
    segment_bytes: u64,
    queue: mpsc::Receiver<Request>,
    shared: Arc<Shared>,

    closed: VecDeque<LiveSegment>,
    active: LiveSegment,
    /// Where the buffer goes in the active segment.
    tail: u64,
    next: Sequence,
    standing: Standing,
    /// Everything written is durable.
    is_synced: bool,

    /// The batch: its records, whether it is worth a sync, and who waits for it.
    buffer: Vec<u8>,
    needs_sync: bool,
    has_purge: bool,
    waiting: Vec<Waiting>,
    written: Vec<Written>,
}

impl Writer {
    /// A writer that continues a recovered log, and the state its readers see.
    pub(crate) fn new(
        dir: PathBuf,
        identity: Identity,
        segment_bytes: u64,
        recovered: Recovered,
        queue: mpsc::Receiver<Request>,
    ) -> (Writer, Arc<Shared>) {
        let Recovered {
            index,
            vote,
            committed,
            closed,
            active,
            tail,
            next,
        } = recovered;
        let standing = Standing {
            vote,
            purged: index.purged(),
            committed,
        };
        let size = closed.iter().map(|live| live.segment.capacity()).sum::<u64>() + active.segment.capacity();
        let shared = Arc::new(Shared {
            state: Mutex::new(LogState {
                index,
                vote,
                committed,
            }),
            failed: watch::Sender::new(None),
            size_bytes: AtomicU64::new(size),
            syncs: AtomicU64::new(0),
            timed: Timed::default(),
        });
        let writer = Writer {
            dir,
            identity,
            segment_bytes,
            queue,
            shared: Arc::clone(&shared),
            closed,
            active,
            tail,
            next,
            standing,
            is_synced: true,
            buffer: Vec::new(),
            needs_sync: false,
            has_purge: false,
            waiting: Vec::new(),
            written: Vec::new(),
        };
        (writer, shared)
    }

    /// Writes what is queued until the last handle is gone, or until something fails.
    pub(crate) fn run(mut self) {
        while let Some(request) = self.queue.blocking_recv() {
            if let Err(error) = self.batch(request) {
                self.fail(&error);
                // Whoever had a place in the queue before it closed may still use it.
                while let Some(request) = self.queue.blocking_recv() {
                    refuse_request(request, &error);
                }
                return;
            }
        }
        // What is still not synced is a commit, which is only a hint. Nobody waits for it.
        if let Err(error) = self.sync() {
            self.fail(&error);
        }
    }

    /// Writes one request and all that queued up behind it.
    fn batch(&mut self, first: Request) -> Result<(), WriteError> {
        self.take(first)?;
        while self.buffer.len() < BATCH_BYTES {
            match self.queue.try_recv() {
                Ok(request) => self.take(request)?,
                Err(_) => break,
            }
        }
        self.write()?;
        if self.needs_sync {
            self.sync()?;
            self.needs_sync = false;
        }
        self.publish();
        if std::mem::take(&mut self.has_purge) {
            self.delete_purged()?;
        }
        Ok(())
    }

    /// Encodes one request into the batch.
    fn take(&mut self, request: Request) -> Result<(), WriteError> {
        match request {
            Request::Vote { vote, done } => {
                self.needs_sync = true;
                // Before anything can fail: whoever is in here is told.
                self.waiting.push(Waiting::Vote { vote, done });
                self.push(&Outgoing::vote(&vote))?;
                self.standing.vote = Some(vote);
            }
            Request::Append {
                entries,
                first_ticket,
                callback,
                budget,
            } => {
                // An append of nothing still has a callback, which says that everything before it is durable.
                self.needs_sync |= !entries.is_empty() || !self.is_synced || !self.buffer.is_empty();
                self.waiting.push(Waiting::Append { callback, budget });
                self.push_entries(&entries, first_ticket)?;
            }
            Request::Truncate(after) => {
                self.needs_sync = true;
                self.push(&Outgoing::truncate(after.as_ref()))?;
            }
            Request::Purge(upto) => {
                self.needs_sync = true;
                self.has_purge = true;
                self.push(&Outgoing::purge(&upto))?;
                self.standing.purged = Some(upto);
            }
            Request::Committed(committed) => {
                self.push(&Outgoing::committed(committed.as_ref()))?;
                self.standing.committed = committed;
            }
        }
        Ok(())
    }

    fn push_entries(&mut self, entries: &[Entry], first_ticket: Ticket) -> Result<(), WriteError> {
        let mut ticket = first_ticket;
        for entry in entries {
            let index = entry.log_id.index();
            let place = self.push(&Outgoing::entry(entry))?;
            self.active.max_index = self.active.max_index.max(Some(index));
            self.written.push(Written { index, ticket, place });
            ticket = ticket.next();
        }
        Ok(())
    }

    /// Encodes one record at the end of the batch, in a new segment if it does not fit in this one.
    fn push(&mut self, record: &Outgoing) -> Result<Place, WriteError> {
        let length = record.length();
        if length > MAX_RECORD_BYTES {
            return Err(WriteError::other(format!(
                "a record of {length} bytes is over {MAX_RECORD_BYTES}"
            )));
        }
        if self.position() + padded(length) as u64 > self.active.segment.capacity() {
            self.roll(padded(length) as u64)?;
        }
        Ok(self.encode(record))
    }

    fn encode(&mut self, record: &Outgoing) -> Place {
        let offset = self.position();
        let synced_before = self.is_synced && self.buffer.is_empty();
        record.encode(
            &mut self.buffer,
            self.active.segment.seed(),
            self.next,
            synced_before,
        );
        self.next = self.next.next();
        let length = u32::try_from(record.length()).unwrap_or(u32::MAX);
        Place {
            segment: Arc::clone(&self.active.segment),
            offset,
            length,
        }
    }

    /// Where the next record goes.
    fn position(&self) -> u64 {
        self.tail + self.buffer.len() as u64
    }

    /// Closes the active segment and starts one that has room for `record_bytes`.
    fn roll(&mut self, record_bytes: u64) -> Result<(), WriteError> {
        self.write()?;
        // Only the last segment may have a tail in doubt.
        self.sync()?;
        let standing = [
            self.standing.vote.as_ref().map(Outgoing::vote),
            self.standing.purged.as_ref().map(Outgoing::purge),
            self.standing
                .committed
                .as_ref()
                .map(|committed| Outgoing::committed(Some(committed))),
        ];
        let standing_bytes: u64 = standing
            .iter()
            .flatten()
            .map(|record| padded(record.length()) as u64)
            .sum();
        let needed = SEGMENT_HEADER_BYTES as u64 + standing_bytes + record_bytes;
        let header = SegmentHeader {
            identity: self.identity,
            first: self.next,
        };
        let segment = Segment::create(&self.dir, &header, self.segment_bytes.max(needed))
            .map_err(|error| WriteError::new("create a segment as", &self.segment_path(), &error))?;
        self.shared
            .size_bytes
            .fetch_add(segment.capacity(), Ordering::Relaxed);
        let active = LiveSegment {
            segment: Arc::new(segment),
            max_index: None,
        };
        let full = std::mem::replace(&mut self.active, active);
        if full.segment.first() == header.first {
            // It had no record, so the new one has its name and has replaced it.
            self.shared
                .size_bytes
                .fetch_sub(full.segment.capacity(), Ordering::Relaxed);
        } else {
            self.closed.push_back(full);
        }
        self.tail = SEGMENT_HEADER_BYTES as u64;
        for record in standing.iter().flatten() {
            self.encode(record);
        }
        // Older segments may be deleted once what they said is durable here.
        self.needs_sync = true;
        self.has_purge |= self.standing.purged.is_some();
        Ok(())
    }

    fn segment_path(&self) -> PathBuf {
        self.dir.join(segment_name(self.next))
    }

    /// Writes the buffer to the active segment.
    fn write(&mut self) -> Result<(), WriteError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let segment = &self.active.segment;
        self.is_synced = false;
        segment
            .write_at(&self.buffer, self.tail)
            .map_err(|error| WriteError::new("write to", segment.path(), &error))?;
        self.tail += self.buffer.len() as u64;
        self.buffer.clear();
        if self.buffer.capacity() > BUFFER_KEPT_BYTES {
            self.buffer.shrink_to(BATCH_BYTES);
        }
        Ok(())
    }

    /// Makes the active segment durable.
    fn sync(&mut self) -> Result<(), WriteError> {
        if self.is_synced {
            return Ok(());
        }
        let segment = &self.active.segment;
        self.shared
            .timed
            .run(DiskWork::LogSync, || segment.sync())
            .map_err(|error| WriteError::new("sync", segment.path(), &error))?;
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        self.is_synced = true;
        Ok(())
    }

    /// The batch is durable: readers may find it on disk, and those who wait are told.
    fn publish(&mut self) {
        if !self.written.is_empty() {
            let mut state = self.shared.state.lock();
            for Written { index, ticket, place } in self.written.drain(..) {
                state.index.written(index, ticket, place);
            }
            state.index.evict();
        }
        for waiting in self.waiting.drain(..) {
            match waiting {
                Waiting::Vote { vote, done } => {
                    self.shared.state.lock().vote = Some(vote);
                    // A caller that has gone needs no answer.
                    let _ = done.send(Ok(()));
                }
                Waiting::Append { callback, budget } => {
                    drop(budget);
                    callback.io_completed(Ok(()));
                }
            }
        }
    }

    /// Deletes the oldest segments, as far as everything in them is purged. One by one and each made sure of,
    /// so that a crash never leaves a gap.
    fn delete_purged(&mut self) -> Result<(), WriteError> {
        let purged = self.standing.purged.map(|purged| purged.index());
        while let Some(oldest) = self.closed.front()
            && oldest.max_index <= purged
        {
            let path = oldest.segment.path();
            delete(path, &self.dir)?;
            self.shared
                .size_bytes
                .fetch_sub(oldest.segment.capacity(), Ordering::Relaxed);
            self.closed.pop_front();
        }
        Ok(())
    }

    /// Tells everyone, now and from now on.
    fn fail(&mut self, error: &WriteError) {
        tracing::error!("the log stopped: {error}");
        self.shared.failed.send_replace(Some(error.to_string()));
        self.queue.close();
        for waiting in self.waiting.drain(..) {
            refuse(waiting, error);
        }
        while let Ok(request) = self.queue.try_recv() {
            refuse_request(request, error);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fail(&WriteError::other("the log writer panicked"));
        }
    }
}

fn refuse_request(request: Request, error: &WriteError) {
    match request {
        Request::Vote { vote, done } => refuse(Waiting::Vote { vote, done }, error),
        Request::Append { callback, budget, .. } => refuse(Waiting::Append { callback, budget }, error),
        Request::Truncate(_) | Request::Purge(_) | Request::Committed(_) => {}
    }
}

fn refuse(waiting: Waiting, error: &WriteError) {
    match waiting {
        Waiting::Vote { done, .. } => {
            let _ = done.send(Err(error.into()));
        }
        Waiting::Append { callback, .. } => callback.io_completed(Err(error.into())),
    }
}

fn delete(path: &Path, dir: &Path) -> Result<(), WriteError> {
    std::fs::remove_file(path)
        .and_then(|()| segment::sync_dir(dir))
        .map_err(|error| WriteError::new("delete", path, &error))
}
