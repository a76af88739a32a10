//! A small disk, to fill. Needs root.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const CHUNK_BYTES: usize = 64 * 1024;
const BALLAST: &str = "ballast";

/// A mounted tmpfs, unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts a disk of this size at a folder, which is made.
    ///
    /// # Panics
    /// When it cannot be mounted.
    #[must_use]
    pub fn mount(path: &Path, size_mib: u32) -> SmallDisk {
        fs::create_dir_all(path).expect("make the mount point");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size_mib}m"), "small"])
            .arg(path));
        SmallDisk {
            path: path.to_owned(),
        }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills it, but for `left_kib`.
    ///
    /// # Panics
    /// When the file cannot be made, or shortened again.
    pub fn fill(&self, left_kib: u64) {
        let mut ballast = File::create(self.path.join(BALLAST)).expect("make the ballast");
        let chunk = vec![0_u8; CHUNK_BYTES];
        while ballast.write_all(&chunk).is_ok() {}
        let length = ballast.metadata().expect("its length").len();
        ballast
            .set_len(length.saturating_sub(left_kib * 1024))
            .expect("shorten it");
    }

    /// Makes it larger by this much, and leaves what is there.
    ///
    /// # Panics
    /// When it cannot be remounted.
    pub fn grow(&self, size_mib: u32) {
        run(Command::new("mount")
            .args(["-o", &format!("remount,size={size_mib}m")])
            .arg(&self.path));
    }

    /// Whether nothing more fits.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let probe = self.path.join("probe");
        let written = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(&probe)
            .and_then(|mut file| file.write_all(&[1; 4096]));
        let _ = fs::remove_file(probe);
        written.is_err()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is just dying may still hold it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}

fn run(command: &mut Command) {
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(status.success(), "{command:?} ended with {status}");
}
