//! A machine as far as services need one: files that are read and written, programs that are run.

use std::error::Error as StdError;
use std::future::Future;

use sha2::{Digest, Sha256};
use thiserror::Error;

/// A file is read no further than this. Documents are smaller, so a longer one is certainly another.
pub(crate) const FILE_BYTES_MAX: usize = 2 << 20;
/// Of a program's output, as much is kept; the rest is thrown away as it comes.
pub(crate) const OUTPUT_BYTES_MAX: usize = 64 << 10;
/// A mark stands within this.
const HEAD_BYTES_MAX: usize = 512;

/// This host, or the inside of an instance. Paths are absolute and free of `..`; a link at the end of a path is never
/// followed.
pub trait Machine: Send + Sync {
    /// What stands at the path.
    fn look(&self, path: &str) -> impl Future<Output = Result<Found, MachineError>> + Send;

    /// Writes a file whole, so that readers see the old one or the new one where the machine can do that. Its folder
    /// must be there.
    fn write(&self, file: &FileToWrite<'_>) -> impl Future<Output = Result<(), MachineError>> + Send;

    /// Makes one folder, mode 0755. One that is there is fine.
    fn make_folder(&self, path: &str) -> impl Future<Output = Result<(), MachineError>> + Send;

    /// Removes a file. One that is not there is fine.
    fn remove_file(&self, path: &str) -> impl Future<Output = Result<(), MachineError>> + Send;

    /// Removes a folder if nothing is in it; otherwise leaves it, which is fine.
    fn remove_folder(&self, path: &str) -> impl Future<Output = Result<(), MachineError>> + Send;

    /// Runs a program to its end, within limits. The first word is its name, looked for in the machine's usual places.
    fn run(&self, words: &[&str]) -> impl Future<Output = Result<Ran, MachineError>> + Send;
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    File(FileFound),
    Folder,
    /// A link, a device, a socket.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFound {
    /// SHA-256 of its contents, in hex.
    pub digest: String,
    /// The permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// The first two lines, where they are text: the place of a mark.
    pub head: String,
}

#[derive(Clone, Copy, Debug)]
pub struct FileToWrite<'a> {
    pub path: &'a str,
    pub content: &'a [u8],
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Nothing may stand there yet: what comes between looking and writing is left alone, and the write fails.
    pub is_new: bool,
}

/// How a program ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// The last line it said, of its errors if there are any.
    #[must_use]
    pub fn last_line(&self) -> &str {
        let last = |text: &'_ str| -> Option<(usize, usize)> {
            let trimmed = text.trim_end();
            let start = trimmed.rfind('\n').map_or(0, |at| at + 1);
            (!trimmed.is_empty()).then_some((start, trimmed.len()))
        };
        let (text, place) = match last(&self.stderr) {
            Some(place) => (&self.stderr, Some(place)),
            None => (&self.stdout, last(&self.stdout)),
        };
        place
            .and_then(|(from, to)| text.get(from..to))
            .unwrap_or_default()
    }
}

/// Why a machine did not do as asked. The write may have happened.
#[derive(Debug, Error)]
pub enum MachineError {
    #[error("{what} {path}")]
    File {
        what: &'static str,
        path: String,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error("run {program}")]
    Run {
        program: String,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error("{program} did not end within {limit_seconds} s")]
    Timeout { program: String, limit_seconds: u64 },
    /// Not one of the things that can be done there.
    #[error("{0}")]
    Impossible(String),
}

impl FileFound {
    /// A file as found: its contents as far as they were read.
    #[must_use]
    pub fn new(content: &[u8], mode: u32, uid: u32, gid: u32) -> Self {
        let start = content
            .get(..content.len().min(HEAD_BYTES_MAX))
            .unwrap_or_default();
        let lines: Vec<&str> = std::str::from_utf8(start)
            .unwrap_or_default()
            .lines()
            .take(2)
            .collect();
        FileFound {
            digest: digest(content),
            mode: mode & 0o7777,
            uid,
            gid,
            head: lines.join("\n"),
        }
    }
}

/// SHA-256 in hex.
#[must_use]
pub fn digest(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Program output as text: bounded, and never a reason to fail.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_errors_first() {
        let ran = |stdout: &str, stderr: &str| Ran {
            code: 1,
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        assert_eq!(ran("a\nb\n", "").last_line(), "b");
        assert_eq!(ran("a", "x\ny\n\n").last_line(), "y");
        assert_eq!(ran("a", " \n").last_line(), "a");
        assert_eq!(ran("", "").last_line(), "");
    }
}
