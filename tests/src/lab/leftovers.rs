//! What a daemon may leave behind: mounts and processes below its directory.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Unmounts everything mounted in `dir`, the innermost first. Lazily: a dying process may still be in there.
pub(super) fn unmount(dir: &Path) {
    for mount in mounts(dir).iter().rev() {
        // Best effort: `mounts` afterwards tells what is left.
        let _ = Command::new("umount").arg("--lazy").arg(mount).output();
    }
}

/// The mount points in `dir`, in the order they were mounted.
pub(super) fn mounts(dir: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|escaped| PathBuf::from(OsString::from_vec(unescape(escaped))))
        .filter(|mount| mount.starts_with(dir))
        .collect()
}

/// Kills the processes whose command line has `dir` in it (monitors of containers, helpers of devices), by id.
pub(crate) fn kill_processes(dir: &Path) {
    for pid in processes(dir) {
        let _ = kill(pid, Signal::SIGKILL);
    }
}

/// The processes, this one aside, whose command line has `dir` in it.
pub(super) fn processes(dir: &Path) -> Vec<Pid> {
    let Some(dir) = dir.to_str() else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .filter(|pid| *pid != nix::unistd::getpid() && command_line(*pid).contains(dir))
        .collect()
}

fn command_line(pid: Pid) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The kernel writes spaces and the like as three octal digits.
fn unescape(escaped: &str) -> Vec<u8> {
    let bytes = escaped.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .filter(|_| byte == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape(r"/tmp/a\040b\134"), br"/tmp/a b\");
        assert_eq!(unescape(r"/tmp/\0"), br"/tmp/\0");
    }
}
