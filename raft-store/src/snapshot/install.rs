//! Making a new store from a snapshot.

use std::io;

use super::{Record, SnapshotFile};
use crate::backend::Backend;
use crate::state::{self, State};
use crate::state_dir::StateDir;

/// Builds a store from `snapshot` in a folder of its own, makes it durable, and puts it in force. Until the very last
/// step the old one stays: a crash leaves one or the other. Slow, and blocks.
pub(crate) fn build_state(
    state_dir: &StateDir,
    snapshot: &SnapshotFile,
    cache_bytes: u64,
) -> io::Result<State> {
    let folder = state_dir.next()?;
    let backend = Backend::open(&folder, cache_bytes)?;
    let records = snapshot.reader()?.map(|record| match record {
        Ok(Record { key, value }) => Ok((key, value)),
        Err(error) => Err(io::Error::from(error)),
    });
    state::write_entries(&backend, records)?;
    backend.sync()?;
    let state = State::load(backend)?;
    let meta = state.published.read().snapshot_meta();
    if meta != *snapshot.meta() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "snapshot {} says it is at {}, and holds {meta}",
                snapshot.path().display(),
                snapshot.meta()
            ),
        ));
    }
    state_dir.switch(&folder)?;
    Ok(state)
}

/// Begins an empty store in a folder of its own and puts it in force.
pub(crate) fn empty_state(state_dir: &StateDir, cache_bytes: u64) -> io::Result<State> {
    let folder = state_dir.next()?;
    let state = State::load(Backend::open(&folder, cache_bytes)?)?;
    state.backend.sync()?;
    state_dir.switch(&folder)?;
    Ok(state)
}
