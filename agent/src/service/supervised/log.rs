//! A service's log: `log` in its folder, and `log.1` with what came before. The process writes it itself.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

const NAME: &str = "log";
const BEFORE: &str = "log.1";
/// Longer, and it is cut the next time somebody looks.
pub(super) const LOG_BYTES_MAX: u64 = 4 << 20;
const TAIL_BYTES: u64 = 4 << 10;
const LINE_CHARS_MAX: usize = 500;

/// For a process to write to. Appending, so that it goes on at the beginning after a cut.
pub(super) fn open(folder: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join(NAME))
}

/// Moves a log that has grown too long out of the way. The process has it open, so it is copied and emptied: what is
/// written in between is lost.
pub(super) fn cut(folder: &Path, limit: u64) -> io::Result<()> {
    let path = folder.join(NAME);
    if fs::metadata(&path)?.len() <= limit {
        return Ok(());
    }
    let mut log = OpenOptions::new().read(true).write(true).open(&path)?;
    let length = log.metadata()?.len();
    // Between two looks it may have grown far beyond the limit: the end of it is kept.
    log.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    io::copy(
        &mut (&mut log).take(limit),
        &mut File::create(folder.join(BEFORE))?,
    )?;
    log.set_len(0)
}

/// The last thing it said.
pub(super) fn last_line(folder: &Path) -> Option<String> {
    let mut file = File::open(folder.join(NAME)).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))
        .ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(
        line.chars()
            .filter(|c| !c.is_control())
            .take(LINE_CHARS_MAX)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_stays_bounded_while_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path()).unwrap();
        assert_eq!(last_line(dir.path()), None);
        for line in 0..100 {
            writeln!(log, "line {line:03}").unwrap();
        }
        cut(dir.path(), 2_000).unwrap();
        assert_eq!(fs::metadata(dir.path().join(NAME)).unwrap().len(), 900);
        cut(dir.path(), 450).unwrap();
        let before = fs::read_to_string(dir.path().join(BEFORE)).unwrap();
        assert!(
            before.starts_with("line 050\n") && before.ends_with("line 099\n"),
            "{before}"
        );
        writeln!(log, "after\n").unwrap();
        assert_eq!(fs::read(dir.path().join(NAME)).unwrap(), b"after\n\n");
        assert_eq!(last_line(dir.path()).as_deref(), Some("after"));
    }
}
