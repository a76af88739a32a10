//! Real Incus daemons for tests, each in a directory of its own, as many as a test has hosts.
//!
//! Owns starting, preparing (a `busybox` image, a storage pool, a root disk) and removing them: whatever a test
//! does, nothing of them is left when a [`Lab`] is dropped. It must not touch an Incus of the machine itself.
//!
//! The containers are unprivileged: the range of subordinate ids that `incus-base` gives root in `/etc/subuid` is enough.

mod daemon;
mod image;
pub(crate) mod leftovers;
mod proxy;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;

use anyhow::{Context, anyhow};
use tempfile::TempDir;

use crate::notes;

pub use daemon::IncusDaemon;
pub use image::build as build_image;
pub use proxy::{Fault, IncusProxy};

const INCUSD: &str = "/usr/libexec/incus/incusd";
/// More at once than a cluster has members is a mistake.
const DAEMONS_LIMIT: usize = 8;

/// Several daemons at once, like the hosts of a cluster. Dropping it stops them and removes their files.
#[derive(Debug)]
pub struct Lab {
    // Before the directory: fields are dropped in this order.
    daemons: Vec<IncusDaemon>,
    _dir: TempDir,
}

impl Lab {
    /// Whether real daemons can run here.
    ///
    /// # Errors
    /// Says what is missing, for a test that counts itself as skipped.
    pub fn available() -> Result<(), String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("a real Incus needs root".to_owned());
        }
        for (path, package) in [(INCUSD, "incus-base"), ("/usr/bin/incus", "incus-client")] {
            if !Path::new(path).exists() {
                return Err(format!("no {path}: tests/install-incus installs {package}"));
            }
        }
        image::available()
    }

    /// [`Lab::start`] for asynchronous tests; `None`, said aloud, where Incus cannot run.
    ///
    /// # Panics
    /// When it can, and does not.
    pub async fn running(count: usize) -> Option<Self> {
        Self::running_as(count, IncusDaemon::start).await
    }

    /// The same of [`Lab::start_apart`].
    ///
    /// # Panics
    /// When it can, and does not.
    pub async fn running_apart(count: usize) -> Option<Self> {
        Self::running_as(count, IncusDaemon::start_apart).await
    }

    async fn running_as(count: usize, start: fn(&Path) -> anyhow::Result<IncusDaemon>) -> Option<Self> {
        if let Err(missing) = Self::available() {
            notes::skipped(&missing);
            return None;
        }
        let started = tokio::task::spawn_blocking(move || Self::start_each(count, start)).await;
        Some(started.expect("a task").expect("Incus starts"))
    }

    /// Starts this many daemons side by side and waits until all of them are ready.
    pub fn start(count: usize) -> anyhow::Result<Self> {
        Self::start_each(count, IncusDaemon::start)
    }

    /// The same, each in a network of its own, as on hosts far from each other.
    pub fn start_apart(count: usize) -> anyhow::Result<Self> {
        Self::start_each(count, IncusDaemon::start_apart)
    }

    fn start_each(count: usize, start: fn(&Path) -> anyhow::Result<IncusDaemon>) -> anyhow::Result<Self> {
        anyhow::ensure!(count <= DAEMONS_LIMIT, "{count} daemons at once");
        // A container's root is nobody in particular out here: it must be able to pass through.
        let dir = tempfile::Builder::new()
            .prefix("incus-lab-")
            .permissions(fs::Permissions::from_mode(0o711))
            .tempdir()
            .context("cannot make a directory for the lab")?;
        let starting: Vec<_> = (0..count)
            .map(|number| {
                let dir = dir.path().join(number.to_string());
                thread::spawn(move || start(&dir))
            })
            .collect();
        // All are joined before the first error is returned, so that those that did start are stopped.
        let started: Vec<_> = starting
            .into_iter()
            .map(|daemon| {
                daemon
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("starting a daemon panicked")))
            })
            .collect();
        let daemons = started.into_iter().collect::<anyhow::Result<_>>()?;
        Ok(Self { daemons, _dir: dir })
    }

    #[must_use]
    pub fn daemons(&self) -> &[IncusDaemon] {
        &self.daemons
    }

    /// Takes the daemons out of the lab, so that one can be stopped before the others.
    pub fn daemons_mut(&mut self) -> &mut Vec<IncusDaemon> {
        &mut self.daemons
    }
}
