//! The key-value backend: the only file that names sled.
//!
//! Owns one sled database (one tree) and how it is opened, written and left. It knows nothing of what keys mean.
//! What it must not do: sync on the hot path. Durability is the log's and the snapshot's matter; a batch is atomic,
//! so after a crash the database holds some prefix of the batches written, which Raft completes.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

/// Why the backend failed. The member stops: what is in memory may already be ahead of what is stored.
#[derive(Debug, Error)]
pub(crate) enum BackendError {
    /// The bytes on disk make no sense: rebuild from snapshot and log.
    #[error("the store in {path} is damaged: {reason}")]
    Damaged { path: PathBuf, reason: String },
    /// The disk or the system failed.
    #[error("the store in {path} failed")]
    Io { path: PathBuf, source: io::Error },
}

impl From<BackendError> for io::Error {
    fn from(error: BackendError) -> io::Error {
        // The source's own text too: openraft prints only the outermost message.
        match error {
            BackendError::Io { path, source } => io::Error::new(
                source.kind(),
                format!("the store in {} failed: {source}", path.display()),
            ),
            damaged @ BackendError::Damaged { .. } => io::Error::new(io::ErrorKind::InvalidData, damaged),
        }
    }
}

/// Writes that become visible, and survive a crash, together.
#[derive(Default)]
pub(crate) struct Batch {
    writes: sled::Batch,
    bytes: usize,
}

impl Batch {
    pub(crate) fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.bytes += key.as_ref().len() + value.as_ref().len();
        self.writes.insert(key.as_ref(), value.as_ref());
    }

    pub(crate) fn delete(&mut self, key: impl AsRef<[u8]>) {
        self.bytes += key.as_ref().len();
        self.writes.remove(key.as_ref());
    }

    /// Roughly what it will write.
    pub(crate) fn size_bytes(&self) -> usize {
        self.bytes
    }
}

/// An open database. Dropping the last handle closes it, and deletes its folder if it was retired.
pub(crate) struct Backend {
    // Before `folder`: the database must be closed by the time its folder is deleted.
    db: sled::Db,
    folder: Folder,
}

struct Folder {
    path: PathBuf,
    retired: AtomicBool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.retired.load(Ordering::Relaxed)
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            // Left over: the next start deletes it.
            tracing::warn!(path = %self.path.display(), %error, "a replaced store was not deleted");
        }
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend")
            .field("path", &self.folder.path)
            .finish_non_exhaustive()
    }
}

/// Runs `read`, which opens or reads the whole database in `path`. sled panics over some damage: that, too, is
/// damage here, so it runs on a thread of its own.
pub(crate) fn catch_damage<T: Send, E: From<BackendError> + Send>(
    path: &Path,
    read: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    thread::scope(|scope| {
        let reader = thread::Builder::new()
            .name("store-open".to_owned())
            .spawn_scoped(scope, read);
        let reader = reader.map_err(|source| BackendError::Io {
            path: path.to_owned(),
            source,
        })?;
        reader.join().unwrap_or_else(|_panic| {
            let reason = "reading it panicked".to_owned();
            Err(BackendError::Damaged {
                path: path.to_owned(),
                reason,
            }
            .into())
        })
    })
}

impl Backend {
    /// Opens or creates the database in `path`.
    ///
    /// # Errors
    /// [`BackendError::Damaged`] where it does not recover.
    pub(crate) fn open(path: &Path, cache_bytes: u64) -> Result<Backend, BackendError> {
        wait_for_former_handle(path)?;
        let config = sled::Config::new().path(path).cache_capacity(cache_bytes);
        let db = config.open().map_err(|error| translate(path, error))?;
        let folder = Folder {
            path: path.to_owned(),
            retired: AtomicBool::new(false),
        };
        Ok(Backend { db, folder })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.folder.path
    }

    pub(crate) fn damaged(&self, reason: impl Into<String>) -> BackendError {
        BackendError::Damaged {
            path: self.folder.path.clone(),
            reason: reason.into(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.db.is_empty()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        let value = self.db.get(key).map_err(|error| self.translate(error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// The entries whose keys are in `range`, ascending. Entries written meanwhile may or may not be seen.
    pub(crate) fn scan(
        &self,
        range: Range<Vec<u8>>,
    ) -> impl Iterator<Item = Result<(Bytes, Bytes), BackendError>> {
        self.db.range(range).map(|entry| match entry {
            Ok((key, value)) => Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value))),
            Err(error) => Err(self.translate(error)),
        })
    }

    /// Writes a batch, all or nothing. Not synced.
    pub(crate) fn write(&self, batch: Batch) -> Result<(), BackendError> {
        self.db
            .apply_batch(batch.writes)
            .map_err(|error| self.translate(error))
    }

    /// Makes everything written durable. Slow: for a database that is not in service yet.
    pub(crate) fn sync(&self) -> Result<(), BackendError> {
        self.db.flush().map_err(|error| self.translate(error))?;
        // sled flushes with `sync_file_range`, which leaves the disk's own cache and the file's size out.
        sync_tree(&self.folder.path).map_err(|source| BackendError::Io {
            path: self.folder.path.clone(),
            source,
        })
    }

    /// Deletes the folder once the last handle is gone.
    pub(crate) fn retire(&self) {
        self.folder.retired.store(true, Ordering::Relaxed);
    }

    pub(crate) fn size_on_disk(&self) -> Result<u64, BackendError> {
        self.db.size_on_disk().map_err(|error| self.translate(error))
    }

    fn translate(&self, error: sled::Error) -> BackendError {
        translate(&self.folder.path, error)
    }
}

/// sled's helper threads hold a closed database's file for a moment longer. Whoever opens it again in the same process
/// waits for them, not for ever: past that, sled itself says that it is locked.
fn wait_for_former_handle(folder: &Path) -> Result<(), BackendError> {
    const ATTEMPTS: u32 = 100;
    const PAUSE: Duration = Duration::from_millis(5);
    let failed = |source| BackendError::Io {
        path: folder.to_owned(),
        source,
    };
    let file = match File::open(folder.join("db")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for _ in 0..ATTEMPTS {
        match file.try_lock() {
            Ok(()) => return file.unlock().map_err(failed),
            Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
    Ok(())
}

fn translate(path: &Path, error: sled::Error) -> BackendError {
    let path = path.to_owned();
    match error {
        // A file that is shorter than its own index says is damage too; all else (no space, no permission, a
        // lock held) is the system's, and deleting data would not help.
        sled::Error::Io(source)
            if !matches!(
                source.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
            ) =>
        {
            BackendError::Io { path, source }
        }
        error => BackendError::Damaged {
            path,
            reason: error.to_string(),
        },
    }
}

fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()
}
