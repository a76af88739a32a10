//! This host as a machine: its file system, perhaps below another root, and its programs.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::machine::{
    FILE_BYTES_MAX, FileFound, FileToWrite, Found, Machine, MachineError, OUTPUT_BYTES_MAX, Ran, text,
};

/// Longer than systemd gives a service to stop before it kills it.
const RUN_LIMIT: Duration = Duration::from_secs(100);
/// Where a host's own programs are.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// It is a UUID.
const BOOT_ID_BYTES_MAX: usize = 64;

/// This host.
#[derive(Clone, Debug)]
pub struct HostMachine {
    root: PathBuf,
    search_path: String,
}

impl HostMachine {
    /// The host whose `/` is `root`. Programs are looked for in `programs` first, where it is given.
    #[must_use]
    pub fn new(root: &Path, programs: Option<&Path>) -> Self {
        let search_path = match programs {
            Some(programs) => format!("{}:{SEARCH_PATH}", programs.display()),
            None => SEARCH_PATH.to_owned(),
        };
        HostMachine {
            root: root.to_owned(),
            search_path,
        }
    }

    /// Which boot of the host this is, in the kernel's words. One whose root has no /proc runs on the kernel that this
    /// process runs on.
    #[must_use]
    pub fn boot(&self) -> Option<String> {
        let read = |path: PathBuf| fs::read_to_string(path).ok();
        let id = read(self.locate(BOOT_ID)).or_else(|| read(PathBuf::from(BOOT_ID)))?;
        let id = id.trim();
        (!id.is_empty() && id.len() <= BOOT_ID_BYTES_MAX).then(|| id.to_owned())
    }

    /// Where a path of the machine is for this process.
    #[must_use]
    pub fn locate(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// File work blocks, and may block long on a bad disk.
    async fn blocking<T: Send + 'static>(
        &self,
        what: &'static str,
        path: &str,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, MachineError> {
        let place = self.locate(path);
        let done = tokio::task::spawn_blocking(move || work(&place)).await;
        done.unwrap_or_else(|stopped| Err(io::Error::other(stopped)))
            .map_err(|source| MachineError::File {
                what,
                path: path.to_owned(),
                source: source.into(),
            })
    }
}

impl Machine for HostMachine {
    async fn look(&self, path: &str) -> Result<Found, MachineError> {
        self.blocking("read", path, look).await
    }

    async fn write(&self, file: &FileToWrite<'_>) -> Result<(), MachineError> {
        let (content, mode, uid, gid, is_new) =
            (file.content.to_vec(), file.mode, file.uid, file.gid, file.is_new);
        self.blocking("write", file.path, move |path| {
            let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
            let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
            let temporary = folder.join(format!(".{}.agent-new", name.to_string_lossy()));
            let written = write_temporary(&temporary, &content, mode, (uid, gid)).and_then(|()| {
                if is_new {
                    // Unlike a rename, this never replaces what somebody else put there meanwhile.
                    fs::hard_link(&temporary, path)
                } else {
                    fs::rename(&temporary, path)
                }
            });
            if is_new || written.is_err() {
                let _ = fs::remove_file(&temporary);
            }
            written?;
            File::open(folder)?.sync_all()
        })
        .await
    }

    async fn make_folder(&self, path: &str) -> Result<(), MachineError> {
        self.blocking("make folder", path, |path| {
            match DirBuilder::new().mode(0o755).create(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
                made => made,
            }
        })
        .await
    }

    async fn remove_file(&self, path: &str) -> Result<(), MachineError> {
        self.blocking("remove", path, |path| match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        })
        .await
    }

    async fn remove_folder(&self, path: &str) -> Result<(), MachineError> {
        self.blocking("remove", path, |path| match fs::remove_dir(path) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                Ok(())
            }
            removed => removed,
        })
        .await
    }

    async fn run(&self, words: &[&str]) -> Result<Ran, MachineError> {
        let Some((program, arguments)) = words.split_first() else {
            return Err(MachineError::Impossible("nothing to run".to_owned()));
        };
        let failed = |source: io::Error| MachineError::Run {
            program: (*program).to_owned(),
            source: source.into(),
        };
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", &self.search_path)
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let ended = async { tokio::join!(bounded(stdout), bounded(stderr), child.wait()) };
        match tokio::time::timeout(RUN_LIMIT, ended).await {
            Ok((stdout, stderr, status)) => Ok(Ran {
                code: status.map_err(failed)?.code().unwrap_or(-1),
                stdout: text(&stdout),
                stderr: text(&stderr),
            }),
            Err(_) => Err(MachineError::Timeout {
                program: (*program).to_owned(),
                limit_seconds: RUN_LIMIT.as_secs(),
            }),
        }
    }
}

fn look(path: &Path) -> io::Result<Found> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        // A file stands where one of the folders should be.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    if metadata.is_dir() {
        return Ok(Found::Folder);
    }
    if !metadata.is_file() {
        return Ok(Found::Other);
    }
    let mut content = Vec::new();
    let limit = FILE_BYTES_MAX as u64 + 1;
    // Not followed if it became a link since.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits() | nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)?;
    file.take(limit).read_to_end(&mut content)?;
    Ok(Found::File(FileFound::new(
        &content,
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
    )))
}

fn write_temporary(path: &Path, content: &[u8], mode: u32, owner: (u32, u32)) -> io::Result<()> {
    // Left behind by a crash, and named so that it is nobody else's.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    let metadata = file.metadata()?;
    if (metadata.uid(), metadata.gid()) != owner {
        std::os::unix::fs::fchown(&file, Some(owner.0), Some(owner.1))?;
    }
    // After the owner: a change of it takes set-id bits off.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Reads to the end, and keeps the first part.
async fn bounded(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else {
        return kept;
    };
    let mut buffer = [0_u8; 4 << 10];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len()).min(read);
        kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file<'a>(path: &'a str, content: &'a [u8], is_new: bool) -> FileToWrite<'a> {
        FileToWrite {
            path,
            content,
            mode: 0o640,
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            is_new,
        }
    }

    #[tokio::test]
    async fn a_new_file_replaces_nothing_and_a_known_one_is_replaced_whole() {
        let root = tempfile::tempdir().unwrap();
        let host = HostMachine::new(root.path(), None);
        host.make_folder("/etc").await.unwrap();
        host.make_folder("/etc").await.unwrap();
        assert_eq!(host.look("/etc/motd").await.unwrap(), Found::Nothing);
        host.write(&file("/etc/motd", b"hello\n", true)).await.unwrap();
        let Found::File(found) = host.look("/etc/motd").await.unwrap() else {
            panic!("no file")
        };
        assert_eq!((found.mode, found.head.as_str()), (0o640, "hello"));
        assert!(host.write(&file("/etc/motd", b"other", true)).await.is_err());
        assert_eq!(fs::read(host.locate("/etc/motd")).unwrap(), b"hello\n");
        host.write(&file("/etc/motd", b"other", false)).await.unwrap();
        assert_eq!(fs::read(host.locate("/etc/motd")).unwrap(), b"other");
        assert_eq!(
            fs::read_dir(host.locate("/etc")).unwrap().count(),
            1,
            "nothing is left"
        );
        host.remove_folder("/etc").await.unwrap();
        host.remove_file("/etc/motd").await.unwrap();
        host.remove_file("/etc/motd").await.unwrap();
        host.remove_folder("/etc").await.unwrap();
        assert_eq!(host.look("/etc").await.unwrap(), Found::Nothing);
    }

    #[tokio::test]
    async fn a_link_is_neither_read_nor_written_through() {
        let root = tempfile::tempdir().unwrap();
        let host = HostMachine::new(root.path(), None);
        fs::write(host.locate("/secret"), "theirs").unwrap();
        std::os::unix::fs::symlink("secret", host.locate("/link")).unwrap();
        assert_eq!(host.look("/link").await.unwrap(), Found::Other);
        host.write(&file("/link", b"ours", false)).await.unwrap();
        assert_eq!(fs::read_to_string(host.locate("/secret")).unwrap(), "theirs");
    }

    #[tokio::test]
    async fn programs_end_with_a_code_and_bounded_words() {
        let root = tempfile::tempdir().unwrap();
        let host = HostMachine::new(root.path(), None);
        let ran = host
            .run(&["sh", "-c", "echo out; echo err >&2; exit 3"])
            .await
            .unwrap();
        assert_eq!((ran.code, ran.last_line()), (3, "err"));
        let much = host.run(&["head", "-c", "1000000", "/dev/zero"]).await.unwrap();
        assert_eq!((much.code, much.stdout.len()), (0, OUTPUT_BYTES_MAX));
        assert!(host.run(&["no-such-program"]).await.is_err());
    }
}
