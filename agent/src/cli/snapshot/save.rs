//! `agentctl snapshot save`: streamed, checked, made durable, and only then under its name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use proto::etcdserverpb as pb;
use sha2::{Digest, Sha256};

use crate::cli::Session;
use crate::cli::error::CliError;
use crate::cli::format;
use crate::cli::format::columns::size;

/// The last bytes of a snapshot are the SHA-256 of all before.
const DIGEST_BYTES: usize = 32;

/// A line of progress after so many bytes.
const PROGRESS_EVERY_BYTES: u64 = 4 << 20;

#[derive(Args, Debug)]
pub(in crate::cli) struct SaveArgs {
    /// The file; it appears only when it is complete
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl SaveArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let Self { file } = self;
        let part = part_path(&file);
        let result = save(session, &part, &file).await;
        if result.is_err() {
            // Half a snapshot is worth nothing; when it cannot be removed its name says what it is.
            let _ = fs::remove_file(&part);
        }
        let bytes = result?;
        let text = format!("Snapshot saved at {} ({})\n", file.display(), size(bytes));
        format::write(text.as_bytes())
    }
}

fn part_path(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// Streams into `part`, checks it, makes it durable, gives it its name.
async fn save(session: &Session, part: &Path, file: &Path) -> Result<i64, CliError> {
    let failed = |error: io::Error| CliError::io(part.display(), &error);
    let mut stream = session.client.snapshot().await?;
    let out = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(part)
        .map_err(failed)?;
    let mut writer = Checked::new(out);
    // The command's time holds for each piece: the whole takes as long as it is large.
    let mut progress = Progress::default();
    while let Some(piece) = next(session, &mut stream).await? {
        writer.write(&piece.blob).map_err(failed)?;
        progress.show(writer.written, piece.remaining_bytes);
    }
    progress.clear();
    let bytes = writer.finish().map_err(failed)?;
    let bytes = bytes.ok_or_else(|| {
        CliError::failed("the snapshot arrived damaged: its checksum does not fit")
            .hint("try again, or another member")
    })?;
    fs::rename(part, file).map_err(|error| CliError::io(file.display(), &error))?;
    let directory = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| CliError::io(directory.display(), &error))?;
    Ok(bytes)
}

async fn next(
    session: &Session,
    stream: &mut tonic::Streaming<pb::SnapshotResponse>,
) -> Result<Option<pb::SnapshotResponse>, CliError> {
    let limit = session.client.command_timeout();
    match tokio::time::timeout(limit, stream.message()).await {
        Ok(piece) => Ok(piece?),
        Err(_elapsed) => {
            Err(CliError::failed("the member stopped sending").hint("try again, or another member"))
        }
    }
}

/// One line that is written over again and again, where somebody looks.
#[derive(Default)]
struct Progress {
    shown_at_bytes: u64,
}

impl Progress {
    fn show(&mut self, written: i64, remaining: u64) {
        let written = u64::try_from(written).unwrap_or(0);
        let mut out = io::stderr();
        if written < self.shown_at_bytes + PROGRESS_EVERY_BYTES || !out.is_terminal() {
            return;
        }
        self.shown_at_bytes = written;
        let total = written.saturating_add(remaining);
        let signed = |bytes: u64| size(i64::try_from(bytes).unwrap_or(i64::MAX));
        // Nobody misses a line of progress.
        let _ = write!(out, "\r{} of {}   ", signed(written), signed(total));
        let _ = out.flush();
    }

    fn clear(&self) {
        if self.shown_at_bytes > 0 {
            let _ = write!(io::stderr(), "\r{:40}\r", "");
        }
    }
}

/// Writes through, and hashes all but the last bytes, which are the hash itself.
struct Checked {
    out: File,
    hash: Sha256,
    tail: Vec<u8>,
    written: i64,
}

impl Checked {
    fn new(out: File) -> Self {
        Self {
            out,
            hash: Sha256::new(),
            tail: Vec::new(),
            written: 0,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += i64::try_from(bytes.len()).map_err(io::Error::other)?;
        self.tail.extend_from_slice(bytes);
        let settled = self.tail.len().saturating_sub(DIGEST_BYTES);
        self.hash.update(self.tail.drain(..settled).as_slice());
        Ok(())
    }

    /// The size, or nothing when the digest does not fit.
    fn finish(self) -> io::Result<Option<i64>> {
        self.out.sync_all()?;
        let fits = self.hash.finalize().as_slice() == self.tail.as_slice();
        Ok(fits.then_some(self.written))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&[u8]]) -> Option<i64> {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Checked::new(File::create(dir.path().join("s")).unwrap());
        for piece in pieces {
            writer.write(piece).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn only_a_whole_snapshot_is_kept() {
        let body = [7_u8; 100];
        let digest = Sha256::digest(body);
        assert_eq!(check(&[&body, &digest]), Some(132));
        assert_eq!(check(&[&body[..99], &[7], &digest[..3], &digest[3..]]), Some(132));
        assert_eq!(check(&[&body[..99], &digest]), None);
        assert_eq!(check(&[&body, &digest[..31]]), None);
        assert_eq!(check(&[]), None);
    }
}
