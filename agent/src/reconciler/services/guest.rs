//! The inside of an instance as a machine.

use crate::incus::{Guest, GuestEntry, GuestFile, IncusError};
use crate::service::{FileFound, FileToWrite, Found, Machine, MachineError, Ran};

impl Machine for Guest {
    async fn look(&self, path: &str) -> Result<Found, MachineError> {
        let entry = Guest::look(self, path).await.map_err(failed("read", path))?;
        Ok(match entry {
            GuestEntry::Nothing => Found::Nothing,
            GuestEntry::File {
                content,
                mode,
                uid,
                gid,
            } => Found::File(FileFound::new(&content, mode, uid, gid)),
            GuestEntry::Directory => Found::Folder,
            GuestEntry::Symlink => Found::Other,
        })
    }

    /// Incus writes into the file that is there, and leaves its owner and mode: where these are wrong, and where
    /// there is a link, it is removed first.
    async fn write(&self, file: &FileToWrite<'_>) -> Result<(), MachineError> {
        let path = file.path;
        match Machine::look(self, path).await? {
            Found::Nothing => {}
            _ if file.is_new => {
                return Err(MachineError::Impossible(format!(
                    "write {path}: somebody else was faster"
                )));
            }
            Found::File(found) if (found.mode, found.uid, found.gid) == (file.mode, file.uid, file.gid) => {}
            _ => self.remove_file(path).await?,
        }
        let content = GuestFile {
            path,
            content: file.content,
            mode: file.mode,
            uid: file.uid,
            gid: file.gid,
        };
        Guest::write(self, &content).await.map_err(failed("write", path))
    }

    async fn make_folder(&self, path: &str) -> Result<(), MachineError> {
        if Machine::look(self, path).await? == Found::Folder {
            return Ok(());
        }
        Guest::make_folder(self, path)
            .await
            .map_err(failed("make folder", path))
    }

    async fn remove_file(&self, path: &str) -> Result<(), MachineError> {
        match self.remove(path).await {
            Err(IncusError::NotFound { .. }) => Ok(()),
            removed => removed.map_err(failed("remove", path)),
        }
    }

    /// Incus says that a folder has something in it only in prose, so the folder is asked.
    async fn remove_folder(&self, path: &str) -> Result<(), MachineError> {
        match self.remove(path).await {
            Err(IncusError::Refused { .. }) if Machine::look(self, path).await? == Found::Folder => Ok(()),
            Err(IncusError::NotFound { .. }) => Ok(()),
            removed => removed.map_err(failed("remove", path)),
        }
    }

    async fn run(&self, words: &[&str]) -> Result<Ran, MachineError> {
        let program = words.first().copied().unwrap_or_default();
        let ran = Guest::run(self, words)
            .await
            .map_err(|source| MachineError::Run {
                program: program.to_owned(),
                source: source.into(),
            })?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Ran {
            code: i32::try_from(ran.code).unwrap_or(-1),
            stdout: text(&ran.stdout),
            stderr: text(&ran.stderr),
        })
    }
}

fn failed(what: &'static str, path: &str) -> impl FnOnce(IncusError) -> MachineError {
    let path = path.to_owned();
    move |source| MachineError::File {
        what,
        path,
        source: source.into(),
    }
}
