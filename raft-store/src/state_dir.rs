//! Which of the state folders is in force.
//!
//! A folder `state-N` holds one backend. The file `CURRENT` names the one in force and is replaced atomically, so a
//! store is replaced as a whole or not at all; every other folder is a leftover.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const POINTER: &str = "CURRENT";
const PREFIX: &str = "state-";

#[derive(Debug)]
pub(crate) struct StateDir {
    dir: PathBuf,
}

impl StateDir {
    /// Opens or creates the folder of the store, and deletes leftovers.
    pub(crate) fn open(dir: &Path) -> io::Result<StateDir> {
        fs::create_dir_all(dir)?;
        let state_dir = StateDir { dir: dir.to_owned() };
        let current = state_dir.current()?;
        for folder in state_dir.folders()? {
            let path = state_dir.path(folder);
            if current.as_ref() != Some(&path) {
                tracing::info!(path = %path.display(), "deleting a store that is not in force");
                fs::remove_dir_all(path)?;
            }
        }
        Ok(state_dir)
    }

    /// The folder in force; `None` before the first.
    pub(crate) fn current(&self) -> io::Result<Option<PathBuf>> {
        let pointer = self.dir.join(POINTER);
        let name = match fs::read_to_string(&pointer) {
            Ok(name) => name,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match number(name.trim_end()) {
            Some(folder) => Ok(Some(self.path(folder))),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} names no state folder: {name:?}", pointer.display()),
            )),
        }
    }

    /// A path that was not used before, for a store that is being made. The folder is not created.
    pub(crate) fn next(&self) -> io::Result<PathBuf> {
        let current = self
            .current()?
            .and_then(|path| number(path.file_name()?.to_str()?));
        let last = self.folders()?.into_iter().chain(current).max().unwrap_or(0);
        Ok(self.path(last + 1))
    }

    /// Puts a folder made at [`StateDir::next`] in force, durably.
    pub(crate) fn switch(&self, folder: &Path) -> io::Result<()> {
        let name = folder
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let temporary = self.dir.join(format!("{POINTER}.tmp"));
        let mut file = File::create(&temporary)?;
        writeln!(file, "{name}")?;
        file.sync_all()?;
        // The folder's own name must be durable before the pointer names it.
        File::open(&self.dir)?.sync_all()?;
        fs::rename(&temporary, self.dir.join(POINTER))?;
        File::open(&self.dir)?.sync_all()
    }

    fn path(&self, folder: u64) -> PathBuf {
        self.dir.join(format!("{PREFIX}{folder}"))
    }

    fn folders(&self) -> io::Result<Vec<u64>> {
        let mut folders = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            folders.extend(entry?.file_name().to_str().and_then(number));
        }
        Ok(folders)
    }
}

fn number(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_folder_in_force_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = StateDir::open(dir.path()).unwrap();
        assert_eq!(state_dir.current().unwrap(), None);
        let first = state_dir.next().unwrap();
        fs::create_dir(&first).unwrap();
        state_dir.switch(&first).unwrap();
        let second = state_dir.next().unwrap();
        assert_ne!(first, second);
        fs::create_dir(&second).unwrap();

        let state_dir = StateDir::open(dir.path()).unwrap();
        assert_eq!(state_dir.current().unwrap(), Some(first.clone()));
        assert!(first.exists() && !second.exists());
    }

    #[test]
    fn a_pointer_to_nowhere_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(POINTER), "../elsewhere\n").unwrap();
        let error = StateDir::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("names no state folder"), "{error}");
    }
}
