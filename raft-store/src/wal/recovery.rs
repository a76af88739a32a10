//! Opens a log: checks every segment, replays every record, and makes the tail durable before anyone hears of
//! it.
//!
//! The rules for a tail that does not read:
//! - in the last segment, with no valid record after it: a write that was interrupted before it was
//!   acknowledged. It is cut, and what was there is zeroed, so that old bytes are never taken for records.
//! - anywhere else: damage. The log is refused and nothing is changed. A log that forgot its end would vote
//!   and answer as if it were complete.
//!
//! What reads well may still be in the page cache only (after a kill), or be marked clean there without
//! having reached the disk (after a failed fsync). So the records since the last sync that is known of are
//! written again, and synced.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::raft_types::{LogId, Vote};
use crate::wal::error::OpenLogError;
use crate::wal::format::{FORMAT_VERSION, HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader, Sequence};
use crate::wal::index::{Hole, LogIndex, Place};
use crate::wal::record::{self, Record, RecordHeader};
use crate::wal::scan::{Rest, Scanner, Step, judge_rest};
use crate::wal::segment::{self, Listing, Segment};
use crate::wal::{Identity, WalOptions};

/// A segment and what decides whether it may be deleted.
#[derive(Debug)]
pub(crate) struct LiveSegment {
    pub(crate) segment: Arc<Segment>,
    /// The highest index of an entry in it, truncated ones included.
    pub(crate) max_index: Option<u64>,
}

/// A log as found on disk.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) index: LogIndex,
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    /// The full segments, oldest first.
    pub(crate) closed: VecDeque<LiveSegment>,
    /// The segment written to.
    pub(crate) active: LiveSegment,
    /// Where the next record goes in it.
    pub(crate) tail: u64,
    /// The next record's sequence.
    pub(crate) next: Sequence,
}

/// Recovers the log in a directory that exists and is locked; makes an empty one where there is none.
pub(crate) fn recover(options: &WalOptions, identity: Identity) -> Result<Recovered, OpenLogError> {
    let dir = &options.dir;
    let Listing {
        segments,
        temporaries,
    } = segment::list(dir).map_err(io_error("list", dir))?;
    if segments.is_empty() {
        remove_all(&temporaries)?;
        return create(options, identity);
    }
    let mut replay = Replay::new(options.cache_bytes);
    let mut live = VecDeque::new();
    let mut end = None;
    for (first, path) in segments {
        if let Some(before) = end.take() {
            live.push_back(closed(before, replay.next, first)?);
        }
        let segment = open_segment(&path, first, identity)?;
        end = Some(replay.segment(Arc::new(segment))?);
    }
    let oldest = live.front().or(end.as_ref().map(|end: &SegmentEnd| &end.segment));
    if let Some(oldest) = oldest {
        replay.check_complete(&oldest.segment)?;
    }
    let Some(SegmentEnd {
        segment: active,
        tail,
        unsynced_from,
        invalid,
    }) = end
    else {
        return create(options, identity);
    };
    // All has been judged before anything is changed.
    let next = replay.next.unwrap_or(Sequence::FIRST);
    let rest = judge_rest(&active.segment, tail, next).map_err(io_error("read", active.segment.path()))?;
    if let Rest::Damaged { offset } = rest {
        let reason = invalid.unwrap_or("zeroes");
        return Err(OpenLogError::Corrupt {
            file: active.segment.path().to_owned(),
            offset: tail,
            reason: format!("{reason}, and a valid record follows at offset {offset}"),
        });
    }
    remove_all(&temporaries)?;
    settle(&active.segment, unsynced_from, tail, rest)
        .map_err(io_error("rewrite the end of", active.segment.path()))?;
    segment::sync_dir(dir).map_err(io_error("sync", dir))?;
    Ok(Recovered {
        index: replay.index,
        vote: replay.vote,
        committed: replay.committed,
        closed: live,
        active,
        tail,
        next,
    })
}

/// Whose log a directory holds, as its last segment says; `None` where there is none.
pub(crate) fn identity(dir: &Path) -> Result<Option<Identity>, OpenLogError> {
    let listing = match segment::list(dir) {
        Ok(listing) => listing,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        // A bootstrap over existing data must never follow from a wrong permission.
        Err(error) => return Err(io_error("list", dir)(error)),
    };
    let Some((_, path)) = listing.segments.last() else {
        return Ok(None);
    };
    let (_, header) = open_header(path)?;
    Ok(Some(header.identity))
}

fn create(options: &WalOptions, identity: Identity) -> Result<Recovered, OpenLogError> {
    let header = SegmentHeader {
        identity,
        first: Sequence::FIRST,
    };
    let segment = Segment::create(
        &options.dir,
        &header,
        options.segment_bytes.max(SEGMENT_HEADER_BYTES as u64),
    )
    .map_err(io_error("create a segment in", &options.dir))?;
    Ok(Recovered {
        index: LogIndex::new(options.cache_bytes),
        vote: None,
        committed: None,
        closed: VecDeque::new(),
        active: LiveSegment {
            segment: Arc::new(segment),
            max_index: None,
        },
        tail: SEGMENT_HEADER_BYTES as u64,
        next: Sequence::FIRST,
    })
}

fn corrupt_header(path: &Path, reason: String) -> OpenLogError {
    OpenLogError::Corrupt {
        file: path.to_owned(),
        offset: 0,
        reason,
    }
}

/// Opens a segment's file and reads its header.
fn open_header(path: &Path) -> Result<(File, SegmentHeader), OpenLogError> {
    let corrupt = |reason| corrupt_header(path, reason);
    let (file, bytes) = segment::open_file(path).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => corrupt("the file is shorter than a segment's header".to_owned()),
        _ => io_error("open", path)(error),
    })?;
    let header = SegmentHeader::decode(&bytes).map_err(|error| match error {
        HeaderError::Damaged(reason) => corrupt(reason.to_owned()),
        HeaderError::Version(found) => OpenLogError::UnknownFormat {
            file: path.to_owned(),
            found,
            supported: FORMAT_VERSION,
        },
    })?;
    Ok((file, header))
}

/// Opens a segment and checks whose it is.
fn open_segment(path: &Path, named: Sequence, identity: Identity) -> Result<Segment, OpenLogError> {
    let (file, header) = open_header(path)?;
    let Identity {
        cluster_id,
        member_id,
    } = header.identity;
    if cluster_id != identity.cluster_id {
        let (found, expected) = (cluster_id, identity.cluster_id);
        return Err(OpenLogError::WrongCluster {
            file: path.to_owned(),
            found,
            expected,
        });
    }
    if member_id != identity.member_id {
        let (found, expected) = (member_id, identity.member_id);
        return Err(OpenLogError::WrongMember {
            file: path.to_owned(),
            found,
            expected,
        });
    }
    if header.first != named {
        return Err(corrupt_header(
            path,
            format!("named for sequence {named}, but it starts at {}", header.first),
        ));
    }
    Segment::of(file, path.to_owned(), &header).map_err(io_error("open", path))
}

/// Where the good records of a segment end.
struct SegmentEnd {
    segment: LiveSegment,
    tail: u64,
    /// Everything before this offset is known to have been durable.
    unsynced_from: u64,
    /// Why the scan ended, if not at zeroes.
    invalid: Option<&'static str>,
}

/// Checks that a segment which is not the last one ends where the one after it starts.
fn closed(end: SegmentEnd, next: Option<Sequence>, following: Sequence) -> Result<LiveSegment, OpenLogError> {
    if next == Some(following) {
        return Ok(end.segment);
    }
    let reason = end.invalid.unwrap_or("the segment ends");
    Err(OpenLogError::Corrupt {
        file: end.segment.segment.path().to_owned(),
        offset: end.tail,
        reason: format!("{reason}, and the next segment starts at sequence {following}"),
    })
}

/// The log as the records so far make it.
struct Replay {
    index: LogIndex,
    vote: Option<Vote>,
    committed: Option<LogId>,
    /// `None` before the first segment.
    next: Option<Sequence>,
}

impl Replay {
    fn new(cache_bytes: usize) -> Replay {
        Replay {
            index: LogIndex::new(cache_bytes),
            vote: None,
            committed: None,
            next: None,
        }
    }

    /// Replays one segment up to where its records end, for whatever reason.
    fn segment(&mut self, segment: Arc<Segment>) -> Result<SegmentEnd, OpenLogError> {
        let path = segment.path();
        let mut scanner = Scanner::new(&segment).map_err(io_error("read", path))?;
        let mut next = segment.first();
        let mut max_index = None;
        let mut unsynced_from = scanner.offset();
        let invalid = loop {
            let offset = scanner.offset();
            let header = match scanner.step().map_err(io_error("read", path))? {
                Step::Record(header) => header,
                Step::End => break None,
                Step::Invalid(reason) => break Some(reason),
            };
            let corrupt = |reason: String| OpenLogError::Corrupt {
                file: path.to_owned(),
                offset,
                reason,
            };
            if header.sequence != next {
                return Err(corrupt(format!(
                    "sequence {} where {next} is expected",
                    header.sequence
                )));
            }
            if header.synced_before {
                unsynced_from = offset;
            }
            let record =
                record::decode(&header, scanner.record()).map_err(|error| corrupt(error.to_string()))?;
            if let Record::Entry(entry) = &record {
                max_index = max_index.max(Some(entry.log_id.index()));
            }
            self.record(record, &segment, offset, &header)
                .map_err(|error| corrupt(error.to_string()))?;
            next = next.next();
        };
        let tail = scanner.offset();
        self.next = Some(next);
        Ok(SegmentEnd {
            segment: LiveSegment { segment, max_index },
            tail,
            unsynced_from,
            invalid,
        })
    }

    fn record(
        &mut self,
        record: Record,
        segment: &Arc<Segment>,
        offset: u64,
        header: &RecordHeader,
    ) -> Result<(), Hole> {
        match record {
            Record::Vote(vote) => self.vote = Some(vote),
            Record::Entry(entry) => {
                let length = u32::try_from(header.length).unwrap_or(u32::MAX);
                self.index.restore(
                    entry,
                    Place {
                        segment: Arc::clone(segment),
                        offset,
                        length,
                    },
                )?;
            }
            Record::Truncate(after) => self.index.truncate_after(after.as_ref()),
            // Said again at the start of every segment, so often nothing new.
            Record::Purge(upto) => {
                self.index.purge(upto);
            }
            Record::Committed(committed) => self.committed = committed,
        }
        Ok(())
    }

    /// Segments are deleted from the oldest on, and only when purged: what is missing otherwise was lost.
    fn check_complete(&self, oldest: &Segment) -> Result<(), OpenLogError> {
        let corrupt = |reason: String| OpenLogError::Corrupt {
            file: oldest.path().to_owned(),
            offset: 0,
            reason,
        };
        let entries = self.index.range();
        match self.index.purged() {
            None if oldest.first() != Sequence::FIRST => Err(corrupt(
                "older segments are missing, and nothing was purged".to_owned(),
            )),
            Some(purged) if !entries.is_empty() && entries.start > purged.index() + 1 => {
                Err(corrupt(format!(
                    "older segments are missing: purged up to {}, but the first entry is {}",
                    purged.index(),
                    entries.start
                )))
            }
            _ => Ok(()),
        }
    }
}

/// Makes the tail what it was read as: durable, with zeroes after it.
fn settle(segment: &Segment, unsynced_from: u64, tail: u64, rest: Rest) -> io::Result<()> {
    let mut unsynced = vec![0; usize::try_from(tail - unsynced_from).map_err(io::Error::other)?];
    segment.read_at(&mut unsynced, unsynced_from)?;
    segment.write_at(&unsynced, unsynced_from)?;
    if let Rest::Torn { end } = rest {
        tracing::warn!(
            file = %segment.path().display(),
            offset = tail,
            bytes = end - tail,
            "cut a write that was interrupted at the end of the log; it was never acknowledged"
        );
        segment.zero(tail, end)?;
    }
    segment.sync_all()
}

fn remove_all(files: &[PathBuf]) -> Result<(), OpenLogError> {
    for file in files {
        fs::remove_file(file).map_err(io_error("remove", file))?;
    }
    Ok(())
}

fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> OpenLogError {
    move |source| OpenLogError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}
