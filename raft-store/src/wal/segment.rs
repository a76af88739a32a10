//! One segment file: made, written at an offset, synced, read at an offset.
//!
//! The only place of the log that touches files. Decides nothing: not what a record means, not when to sync.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};

use crate::wal::format::{SEGMENT_HEADER_BYTES, SegmentHeader, Sequence, parse_segment_name, segment_name};

const TEMPORARY_SUFFIX: &str = ".tmp";
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    path: PathBuf,
    file: File,
    first: Sequence,
    seed: u32,
    /// The file's size: records end here at the latest.
    capacity: u64,
}

impl Segment {
    /// Makes a segment of `capacity` bytes. When this returns, it and its name are durable; when it fails,
    /// nothing is left under its name.
    pub(crate) fn create(dir: &Path, header: &SegmentHeader, capacity: u64) -> io::Result<Segment> {
        let name = segment_name(header.first);
        let path = dir.join(&name);
        let temporary = dir.join(format!("{name}{TEMPORARY_SUFFIX}"));
        let made = Self::prepare(&temporary, header, capacity)
            .and_then(|file| fs::rename(&temporary, &path).map(|()| file));
        let file = made.inspect_err(|_| {
            // Gives the space back. What fails here too is deleted at the next start.
            let _ = fs::remove_file(&temporary);
        })?;
        sync_dir(dir)?;
        Ok(Segment {
            path,
            file,
            first: header.first,
            seed: header.seed(),
            capacity,
        })
    }

    fn prepare(path: &Path, header: &SegmentHeader, capacity: u64) -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        preallocate(&file, capacity)?;
        file.write_all_at(&header.encode(), 0)?;
        file.sync_all()?;
        Ok(file)
    }

    /// A segment of an open file whose header has been checked.
    pub(crate) fn of(file: File, path: PathBuf, header: &SegmentHeader) -> io::Result<Segment> {
        let capacity = file.metadata()?.len();
        Ok(Segment {
            path,
            file,
            first: header.first,
            seed: header.seed(),
            capacity,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn first(&self) -> Sequence {
        self.first
    }

    /// What records' checksums start from.
    pub(crate) fn seed(&self) -> u32 {
        self.seed
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    pub(crate) fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    /// Overwrites a range with zeroes.
    pub(crate) fn zero(&self, from: u64, to: u64) -> io::Result<()> {
        write_zeroes(&self.file, from, to)
    }

    /// Makes what was written durable. The size never changes after creation, so data is enough.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// As [`Segment::sync`], and the file's metadata: once, when a file of an earlier run is taken over.
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

/// Opens an existing file and reads its header, which is the caller's to check.
pub(crate) fn open_file(path: &Path) -> io::Result<(File, [u8; SEGMENT_HEADER_BYTES])> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    file.read_exact_at(&mut bytes, 0)?;
    Ok((file, bytes))
}

/// Makes a directory's entries durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// What a directory holds of a log.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// In the order of their sequences.
    pub(crate) segments: Vec<(Sequence, PathBuf)>,
    /// What a crash left half made.
    pub(crate) temporaries: Vec<PathBuf>,
}

/// Lists a directory.
pub(crate) fn list(dir: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(OsStr::to_str) else {
            continue;
        };
        if let Some(first) = parse_segment_name(name) {
            listing.segments.push((first, path));
        } else if name
            .strip_suffix(TEMPORARY_SUFFIX)
            .is_some_and(|name| parse_segment_name(name).is_some())
        {
            listing.temporaries.push(path);
        }
    }
    listing.segments.sort_unstable();
    Ok(listing)
}

fn preallocate(file: &File, capacity: u64) -> io::Result<()> {
    let length = i64::try_from(capacity).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        Ok(()) => Ok(()),
        // A file system without it: the space is still to be ours before the first record is acknowledged.
        Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOSYS) => write_zeroes(file, 0, capacity),
        Err(error) => Err(error.into()),
    }
}

fn write_zeroes(file: &File, from: u64, to: u64) -> io::Result<()> {
    let mut offset = from;
    while offset < to {
        let length = usize::try_from(to - offset)
            .unwrap_or(usize::MAX)
            .min(ZEROES.len());
        file.write_all_at(ZEROES.get(..length).unwrap_or(&ZEROES), offset)?;
        offset += length as u64;
    }
    Ok(())
}
