//! Files below a root, put there in one step and only where they differ. Each that changes is named on standard output.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::rc;

/// Where a host's disk is.
pub(super) struct Root(PathBuf);

impl Root {
    /// This host's own, without a folder.
    pub(super) fn new(folder: Option<&Path>) -> Root {
        Root(folder.unwrap_or(Path::new("/")).to_owned())
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    pub(super) fn read(&self, path: &str) -> Result<Option<String>> {
        let path = self.at(path);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Whether anything had to be changed.
    pub(super) fn put(&self, path: &str, text: &str, mode: u32) -> Result<bool> {
        let target = self.at(path);
        let same_mode =
            fs::metadata(&target).is_ok_and(|metadata| metadata.permissions().mode() & 0o777 == mode);
        if same_mode && self.read(path)?.as_deref() == Some(text) {
            return Ok(false);
        }
        self.replace(path, mode, |file| file.write_all(text.as_bytes()))
    }

    /// This very program.
    pub(super) fn put_program(&self, path: &str) -> Result<bool> {
        let own = Path::new("/proc/self/exe");
        let context = || format!("cannot read this program to put it at {path}");
        let target = self.at(path);
        if target.exists() && same(own, &target).with_context(context)? {
            return Ok(false);
        }
        let mut own = File::open(own).with_context(context)?;
        self.replace(path, 0o755, |file| io::copy(&mut own, file).map(drop))
    }

    pub(super) fn link(&self, path: &str, to: &str) -> Result<bool> {
        let link = self.at(path);
        if fs::read_link(&link).is_ok_and(|target| target == Path::new(to)) {
            return Ok(false);
        }
        let make = || {
            fs::create_dir_all(link.parent().unwrap_or(&self.0))?;
            match fs::remove_file(&link) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => symlink(to, &link),
            }
        };
        make().with_context(|| link.display().to_string())?;
        println!("linked {path}");
        Ok(true)
    }

    /// Lines of ours in a script of the host's own.
    pub(super) fn put_block(&self, path: &str, block: &str) -> Result<bool> {
        let before = self.read(path)?;
        let mode = match fs::metadata(self.at(path)) {
            // What is not to be executed is not run at all.
            Ok(metadata) => metadata.permissions().mode() & 0o777 | 0o100,
            Err(_) => 0o755,
        };
        self.put(
            path,
            &rc::with_block(before.as_deref().unwrap_or_default(), block),
            mode,
        )
    }

    pub(super) fn remove_block(&self, path: &str) -> Result<bool> {
        let Some(before) = self.read(path)? else {
            return Ok(false);
        };
        let mode = fs::metadata(self.at(path))?.permissions().mode() & 0o777;
        self.put(path, &rc::without_block(&before), mode)
    }

    pub(super) fn remove(&self, path: &str) -> Result<bool> {
        match fs::remove_file(self.at(path)) {
            Ok(()) => {
                println!("removed {path}");
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| path.to_owned()),
        }
    }

    /// In one step: a program that runs is not written to, and nobody sees half a file.
    fn replace(
        &self,
        path: &str,
        mode: u32,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<bool> {
        let target = self.at(path);
        let put = || {
            let folder = target.parent().unwrap_or(&self.0);
            fs::create_dir_all(folder)?;
            let mut beside = target.clone().into_os_string();
            beside.push(".new");
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(mode)
                .open(&beside)?;
            write(&mut file)?;
            // What was there from a former attempt, or a umask, does not count.
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.sync_all()?;
            fs::rename(&beside, &target)?;
            File::open(folder)?.sync_all()
        };
        put().with_context(|| target.display().to_string())?;
        println!("wrote {path}");
        Ok(true)
    }
}

/// Whether two files have the same bytes.
fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (io::BufReader::new(one), io::BufReader::new(other));
    loop {
        use std::io::BufRead;
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let length = left.len().min(right.len());
        if left.get(..length) != right.get(..length) {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
        one.consume(length);
        other.consume(length);
    }
}
