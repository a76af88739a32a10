//! Files under a temporary name: synced while they grow, deleted unless they are wanted.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::SnapshotError;

const EXTENSION: &str = "tmp";

/// So often is a growing file synced: the log's own syncs must not wait behind a gigabyte of dirty pages.
const SYNC_EVERY_BYTES: u64 = 32 << 20;

/// An open temporary file. Dropped, it is deleted.
#[derive(Debug)]
pub(super) struct TempFile {
    file: File,
    path: TempPath,
    unsynced_bytes: u64,
}

/// The name of a temporary file, which is deleted with it.
#[derive(Debug)]
pub(super) struct TempPath(PathBuf);

impl TempFile {
    /// # Errors
    /// When the disk fails.
    pub(super) fn create(dir: &Path) -> Result<TempFile, SnapshotError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(format!("snapshot-{number}.{EXTENSION}"));
            // For the agent alone: it holds everybody's values.
            match OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
            {
                Ok(file) => {
                    return Ok(TempFile {
                        file,
                        path: TempPath(path),
                        unsynced_bytes: 0,
                    });
                }
                // Left by an earlier process, and not yet removed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(SnapshotError::io(&path, "create it")(error)),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.path.as_path()
    }

    /// Makes what was written durable, and closes the file.
    pub(super) fn into_durable(self) -> Result<TempPath, SnapshotError> {
        self.file
            .sync_all()
            .map_err(SnapshotError::io(self.path.as_path(), "sync it"))?;
        Ok(self.path)
    }
}

impl Write for TempFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced_bytes += written as u64;
        if self.unsynced_bytes >= SYNC_EVERY_BYTES {
            self.file.sync_data()?;
            self.unsynced_bytes = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl TempPath {
    pub(super) fn as_path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempPath {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            // It is removed at the next start.
            tracing::warn!(path = %self.0.display(), %error, "a temporary snapshot was not deleted");
        }
    }
}

/// Gives a durable file a second name, durably, replacing what had it: the file is there whole under `path`, or
/// what was there before is.
pub(super) fn link(from: &Path, path: &Path) -> Result<(), SnapshotError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".");
    beside.push(EXTENSION);
    let beside = PathBuf::from(beside);
    remove_if_there(&beside)?;
    fs::hard_link(from, &beside).map_err(SnapshotError::io(&beside, "link it"))?;
    fs::rename(&beside, path).map_err(SnapshotError::io(path, "put it in place"))?;
    // Renaming to another name of the same file does nothing at all.
    remove_if_there(&beside)?;
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(SnapshotError::io(path, "sync its folder"))
}

/// Deletes the temporary files that a killed process left in `dir`. Call it at start, before any is made.
///
/// # Errors
/// When the disk fails.
pub(crate) fn remove_leftovers(dir: &Path) -> Result<(), SnapshotError> {
    let entries = fs::read_dir(dir).map_err(SnapshotError::io(dir, "list the folder"))?;
    for entry in entries {
        let path = entry.map_err(SnapshotError::io(dir, "list the folder"))?.path();
        if path.extension() == Some(OsStr::new(EXTENSION)) {
            remove_if_there(&path)?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<(), SnapshotError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(SnapshotError::io(path, "delete it")(error))
        }
        _ => Ok(()),
    }
}
