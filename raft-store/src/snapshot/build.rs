//! Building snapshots from the applied state, and keeping the last ones.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::RaftSnapshotBuilder;
use parking_lot::Mutex;

use super::{SnapshotFile, SnapshotWriter, remove_leftovers};
use crate::mvcc::Pin;
use crate::raft_types::{SnapshotMeta, TypeConfig};
use crate::schema;
use crate::state::State;

/// How many snapshots are kept: the last, and the one before in case the last turns out unreadable.
const KEPT: usize = 2;
const SUFFIX: &str = ".snapshot";

/// openraft's, at this project's types.
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotFile>;

/// The folder of finished snapshots.
#[derive(Debug)]
pub(crate) struct Snapshots {
    dir: PathBuf,
    current: Mutex<Option<SnapshotFile>>,
}

impl Snapshots {
    /// Opens or creates the folder, and verifies the newest snapshot that is whole.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Snapshots> {
        std::fs::create_dir_all(&dir)?;
        remove_leftovers(&dir)?;
        let mut current = None;
        for path in newest_first(&dir)? {
            match SnapshotFile::open(&path) {
                Ok(file) => {
                    current = Some(file);
                    break;
                }
                // The one before, or the log, may still do; openraft says so where they do not.
                Err(error) => tracing::warn!(error = %io::Error::from(error), "a snapshot is unreadable"),
            }
        }
        Ok(Snapshots {
            dir,
            current: Mutex::new(current),
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn current(&self) -> Option<SnapshotFile> {
        self.current.lock().clone()
    }

    /// Keeps a finished snapshot that was built here. Returns the current one, which is not this where a later one was
    /// installed meanwhile.
    pub(crate) fn keep_built(&self, file: &SnapshotFile) -> io::Result<SnapshotFile> {
        let mut current = self.current.lock();
        if let Some(later) = current
            .as_ref()
            .filter(|c| c.meta().last_log_id >= file.meta().last_log_id)
        {
            return Ok(later.clone());
        }
        let kept = self.keep(file, KEPT)?;
        *current = Some(kept.clone());
        Ok(kept)
    }

    /// Keeps a snapshot that is to be installed, and deletes all others: they belong to another past.
    pub(crate) fn keep_installed(&self, file: &SnapshotFile) -> io::Result<SnapshotFile> {
        let mut current = self.current.lock();
        let kept = self.keep(file, 1)?;
        *current = Some(kept.clone());
        Ok(kept)
    }

    fn keep(&self, file: &SnapshotFile, kept: usize) -> io::Result<SnapshotFile> {
        let index = file.meta().last_log_id.map_or(0, |id| id.index());
        let path = self.dir.join(format!("{index:020}{SUFFIX}"));
        // Restoring at start hands us the file that we keep already.
        let file = if file.path() == path {
            file.clone()
        } else {
            file.keep(&path)?
        };
        let others = newest_first(&self.dir)?
            .into_iter()
            .filter(|other| *other != path);
        for other in others.skip(kept - 1) {
            std::fs::remove_file(other)?;
        }
        Ok(file)
    }
}

fn newest_first(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name
            .strip_suffix(SUFFIX)
            .is_some_and(|index| index.parse::<u64>().is_ok())
        {
            found.push(path);
        }
    }
    found.sort();
    found.reverse();
    Ok(found)
}

/// The applied state at one moment: small things copied, history pinned.
#[derive(Debug)]
pub(crate) struct Capture {
    pin: Pin,
    meta: SnapshotMeta,
    revision: i64,
    entries: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Capture {
    pub(crate) fn take(state: Arc<State>) -> Capture {
        // Pinned first: what is published afterwards needs nothing that the pin does not hold.
        let pin = Pin::new(state);
        let published = pin.state().published.read();
        let meta = published.snapshot_meta();
        let revision = published.revision;
        let entries = published.entries();
        drop(published);
        Capture {
            pin,
            meta,
            revision,
            entries,
        }
    }

    /// Writes a temporary snapshot file into `dir`. Slow, and blocks.
    pub(crate) fn write(self, dir: &Path) -> io::Result<SnapshotFile> {
        let mut writer = SnapshotWriter::create(dir, &self.meta)?;
        for (key, value) in &self.entries {
            writer.append(key, value)?;
        }
        for entry in self.pin.state().backend.scan(schema::records(0, self.revision)) {
            let (key, value) = entry?;
            writer.append(&key, &value)?;
        }
        Ok(writer.finish()?)
    }
}

/// openraft's handle on one build.
#[derive(Debug)]
pub struct SnapshotBuilder {
    snapshots: Arc<Snapshots>,
    /// Taken by the first build.
    capture: Option<Capture>,
}

impl SnapshotBuilder {
    pub(crate) fn new(snapshots: Arc<Snapshots>, state: Arc<State>) -> SnapshotBuilder {
        SnapshotBuilder {
            snapshots,
            capture: Some(Capture::take(state)),
        }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let capture = self.capture.take();
        let snapshots = Arc::clone(&self.snapshots);
        let build = move || {
            let current = snapshots.current();
            let file = match (capture, current) {
                (Some(capture), Some(current)) if *current.meta() == capture.meta => current,
                (Some(capture), _) => snapshots.keep_built(&capture.write(snapshots.dir())?)?,
                (None, Some(current)) => current,
                (None, None) => return Err(io::Error::other("a snapshot builder was used twice")),
            };
            tracing::info!(path = %file.path().display(), bytes = file.size_bytes(), "snapshot built");
            Ok(Snapshot {
                meta: file.meta().clone(),
                snapshot: file,
            })
        };
        tokio::task::spawn_blocking(build)
            .await
            .map_err(io::Error::other)?
    }
}
