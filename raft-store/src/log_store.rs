//! openraft's view of the write-ahead log.
//!
//! Every change is made in memory and queued for the writer in one step, so both have the same order. Reads
//! see memory at once; callbacks and [`RaftLogStorage::save_vote`] wait for the disk.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use futures::Stream;
use futures::stream;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::raft_types::{Entry, LogId, TypeConfig, Vote};
use crate::stopwatch::Stopwatch;
pub use crate::wal::OpenLogError;
use crate::wal::{self, Found, Identity, Request, Shared, WalOptions, Writer};

const LOCK_FILE: &str = "LOCK";
/// Requests that wait for the writer, at most.
const QUEUE_REQUESTS: usize = 1024;
/// Bytes of entries that wait for the writer, at most; one larger append waits alone.
const QUEUE_BYTES: u32 = 64 << 20;
/// What one message to a follower may hold, about: one entry at least, whatever its size.
const REPLICATION_BYTES: usize = 1 << 20;
/// Entries read ahead for apply.
const APPLY_BYTES: usize = 1 << 20;

/// The log, shared: clones read and write the same one. The last one to go waits for what is queued to be
/// written, and then gives the directory free.
#[derive(Clone, Debug)]
pub struct LogStore {
    handle: Arc<Handle>,
}

/// Dropped in this order: without a queue the writer ends, and only then the directory is free.
#[derive(Debug)]
struct Handle {
    queue: mpsc::Sender<Request>,
    queue_bytes: Arc<Semaphore>,
    shared: Arc<Shared>,
    writer: WriterThread,
    _lock: File,
}

#[derive(Debug)]
struct WriterThread(Option<JoinHandle<()>>);

impl Drop for WriterThread {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // A panic has been reported by the writer itself.
            let _ = thread.join();
        }
    }
}

impl LogStore {
    /// Whose log a directory holds; `None` where there is none. Opens and locks nothing.
    ///
    /// # Errors
    /// See [`OpenLogError`].
    pub fn identity(dir: &Path) -> Result<Option<Identity>, OpenLogError> {
        wal::identity(dir)
    }

    /// Opens or creates the log, and recovers it: what it reports afterwards is durable. The directory is
    /// locked until the last clone is dropped.
    ///
    /// # Errors
    /// See [`OpenLogError`].
    pub fn open(options: WalOptions, identity: Identity) -> Result<LogStore, OpenLogError> {
        let (mut handle, writer) = open_idle(&options, identity)?;
        let thread = thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || writer.run());
        handle.writer.0 = Some(thread.map_err(|source| OpenLogError::Io {
            action: "start the writer of",
            path: options.dir,
            source,
        })?);
        Ok(LogStore {
            handle: Arc::new(handle),
        })
    }

    /// Receives the cause when the log stops for good: the member must stop then. It says what failed and on
    /// which file, and what a person can do.
    #[must_use]
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.handle.shared.failed.subscribe()
    }

    /// Bytes of the live segments, at their preallocated size. For metrics.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.handle.shared.size_bytes.load(Ordering::Relaxed)
    }

    /// How often the log was synced since it was opened. For metrics.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.handle.shared.syncs.load(Ordering::Relaxed)
    }

    /// Measures every sync from now on.
    pub fn time_with(&self, stopwatch: Arc<dyn Stopwatch>) {
        self.handle.shared.timed.with(stopwatch);
    }

    /// Waits for a place in the queue.
    async fn place(&self) -> io::Result<mpsc::Permit<'_, Request>> {
        self.handle.queue.reserve().await.map_err(|_| self.error())
    }

    /// Why nothing can be written any more.
    fn error(&self) -> io::Error {
        let cause = self.handle.shared.failed.borrow().clone();
        io::Error::other(cause.unwrap_or_else(|| "the log writer has stopped".to_owned()))
    }

    /// The entries of a range, as many as fit in `limit_bytes` but at least one.
    async fn entries(&self, range: Range<u64>, limit_bytes: usize) -> io::Result<Vec<Entry>> {
        let Found { on_disk, in_memory } = self.handle.shared.state.lock().index.find(range, limit_bytes);
        if on_disk.is_empty() {
            return Ok(in_memory);
        }
        let read = tokio::task::spawn_blocking(move || wal::read_entries(&on_disk));
        let mut entries = read.await.map_err(io::Error::other)??;
        entries.extend(in_memory);
        Ok(entries)
    }
}

/// A log whose writer does not run yet: what is queued stays queued.
fn open_idle(options: &WalOptions, identity: Identity) -> Result<(Handle, Writer), OpenLogError> {
    let lock = lock(&options.dir)?;
    let recovered = wal::recover(options, identity)?;
    tracing::info!(
        dir = %options.dir.display(),
        entries = ?recovered.index.range(),
        segments = recovered.closed.len() + 1,
        "opened the log"
    );
    let (queue, requests) = mpsc::channel(QUEUE_REQUESTS);
    let (writer, shared) = Writer::new(
        options.dir.clone(),
        identity,
        options.segment_bytes,
        recovered,
        requests,
    );
    let queue_bytes = Arc::new(Semaphore::new(QUEUE_BYTES as usize));
    Ok((
        Handle {
            queue,
            queue_bytes,
            shared,
            writer: WriterThread(None),
            _lock: lock,
        },
        writer,
    ))
}

/// Makes the directory if need be, and locks it for as long as the file is open.
fn lock(dir: &Path) -> Result<File, OpenLogError> {
    let io_error = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| OpenLogError::Io { action, path, source }
    };
    fs::create_dir_all(dir).map_err(io_error("create", dir))?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        wal::sync_dir(parent).map_err(io_error("sync", parent))?;
    }
    let path = dir.join(LOCK_FILE);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenLogError::Locked { dir: dir.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.entries(to_range(&range), usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.entries(start..end, REPLICATION_BYTES).await
    }

    /// Reads ahead a bounded part at a time: a member that has far to catch up must not hold all of it in
    /// memory.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let wanted = to_range(&range);
        // What is appended from here on is no part of this read.
        let present = self.handle.shared.state.lock().index.range();
        let range = wanted.start.max(present.start)..wanted.end.min(present.end);
        let ahead = ReadAhead {
            log: self.clone(),
            range,
            entries: Vec::new().into_iter(),
        };
        Box::pin(stream::try_unfold(ahead, ReadAhead::next))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.handle.shared.state.lock().vote)
    }
}

/// A range being read, a part at a time.
struct ReadAhead {
    log: LogStore,
    /// What is not yet in `entries`.
    range: Range<u64>,
    entries: std::vec::IntoIter<Entry>,
}

impl ReadAhead {
    async fn next(mut self) -> io::Result<Option<(Entry, ReadAhead)>> {
        if self.entries.len() == 0 && !self.range.is_empty() {
            let entries = self.log.entries(self.range.clone(), APPLY_BYTES).await?;
            if entries.first().map(|entry| entry.log_id.index()) != Some(self.range.start) {
                let index = self.range.start;
                return Err(io::Error::other(format!(
                    "entry {index} was removed while it was being read"
                )));
            }
            self.range.start += entries.len() as u64;
            self.entries = entries.into_iter();
        }
        Ok(self.entries.next().map(|entry| (entry, self)))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.handle.shared.state.lock();
        Ok(LogState {
            last_purged_log_id: state.index.purged(),
            last_log_id: state.index.last(),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, is_durable) = oneshot::channel();
        self.place().await?.send(Request::Vote { vote: *vote, done });
        is_durable.await.unwrap_or_else(|_| Err(self.error()))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let place = self.place().await?;
        let mut state = self.handle.shared.state.lock();
        state.committed = committed;
        place.send(Request::Committed(committed));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.handle.shared.state.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let bytes: usize = entries.iter().map(wal::entry_bytes).sum();
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(QUEUE_BYTES);
        let queue_bytes = Arc::clone(&self.handle.queue_bytes);
        let budget = queue_bytes
            .acquire_many_owned(bytes)
            .await
            .map_err(io::Error::other)?;
        let place = self.place().await?;
        let mut state = self.handle.shared.state.lock();
        let first_ticket = state.index.append(&entries).map_err(io::Error::other)?;
        place.send(Request::Append {
            entries,
            first_ticket,
            callback,
            budget,
        });
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let place = self.place().await?;
        let mut state = self.handle.shared.state.lock();
        state.index.truncate_after(last_log_id.as_ref());
        place.send(Request::Truncate(last_log_id));
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let place = self.place().await?;
        let mut state = self.handle.shared.state.lock();
        if state.index.purge(log_id) {
            place.send(Request::Purge(log_id));
        }
        Ok(())
    }
}

fn to_range(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use openraft::type_config::TypeConfigExt;
    use openraft::vote::leader_id_adv::LeaderId;

    use super::*;

    const IDENTITY: Identity = Identity {
        cluster_id: 1,
        member_id: 2,
    };

    fn idle(dir: &Path) -> (LogStore, Writer) {
        let options = WalOptions {
            dir: dir.join("wal"),
            segment_bytes: 1 << 16,
            cache_bytes: 0,
        };
        let (handle, writer) = open_idle(&options, IDENTITY).unwrap();
        (
            LogStore {
                handle: Arc::new(handle),
            },
            writer,
        )
    }

    fn blank(index: u64) -> Entry {
        let log_id = LogId::new(LeaderId { term: 1, node_id: 2 }, index);
        Entry {
            log_id,
            payload: openraft::EntryPayload::Blank,
        }
    }

    #[tokio::test]
    async fn what_is_queued_while_the_writer_is_busy_takes_one_sync() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, writer) = idle(dir.path());
        let mut durable = Vec::new();
        for index in 0..100 {
            let (done, is_durable) = TypeConfig::oneshot();
            log.append([blank(index)], IOFlushed::signal(done)).await.unwrap();
            durable.push(is_durable);
        }
        log.save_committed(Some(blank(50).log_id)).await.unwrap();
        // Readable although nothing is on disk, and with no memory to spare.
        assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 100);
        assert_eq!(log.syncs(), 0);

        let mut vote = Box::pin({
            let mut log = log.clone();
            async move { log.save_vote(&Vote::new(1, 2)).await }
        });
        assert!(
            futures::poll!(&mut vote).is_pending(),
            "a vote is answered when it is durable"
        );
        assert_eq!(log.read_vote().await.unwrap(), None);

        let thread = thread::spawn(move || writer.run());
        for is_durable in durable {
            is_durable.await.unwrap().unwrap();
        }
        vote.await.unwrap();
        assert_eq!(log.syncs(), 1);
        assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(1, 2)));
        assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 100);
        drop(log);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, writer) = idle(dir.path());
        let mut queued = 0;
        loop {
            // Without tokio's own budget, which also makes a task wait that never did.
            let append = tokio::task::unconstrained(log.append([blank(queued)], IOFlushed::noop()));
            let Poll::Ready(appended) = futures::poll!(Box::pin(append)) else {
                break;
            };
            appended.unwrap();
            queued += 1;
        }
        assert_eq!(queued, QUEUE_REQUESTS as u64);
        let thread = thread::spawn(move || writer.run());
        log.append([blank(queued)], IOFlushed::noop()).await.unwrap();
        drop(log);
        thread.join().unwrap();
        assert_eq!(
            idle(dir.path()).0.get_log_state().await.unwrap().last_log_id,
            Some(blank(queued).log_id)
        );
    }

    /// A truncation and a new entry at the same index, both before the first one is written: what is read
    /// from disk later is the new one.
    #[tokio::test]
    async fn an_index_appended_twice_is_found_at_its_second_place() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, writer) = idle(dir.path());
        let value = |value: &'static [u8]| Entry {
            payload: openraft::EntryPayload::Normal(crate::Command(bytes::Bytes::from_static(value))),
            ..blank(0)
        };
        log.append([value(b"first")], IOFlushed::noop()).await.unwrap();
        log.truncate_after(None).await.unwrap();
        log.append([value(b"second")], IOFlushed::noop()).await.unwrap();
        let thread = thread::spawn(move || writer.run());
        log.save_vote(&Vote::new(1, 2)).await.unwrap();
        assert_eq!(log.try_get_log_entries(..).await.unwrap(), [value(b"second")]);
        drop(log);
        thread.join().unwrap();
    }
}
