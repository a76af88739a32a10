//! The files of backups on this host, and what is written beside each.
//!
//! A backup is a file and, beside it, what it is of with its checksum. Both are written under another name, synced and
//! renamed, the second one last: only what has it counts, everywhere. Nothing is written over.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::io::AsyncWriteExt;

use crate::document::{Kind, Stamp};

/// The format of what is beside a file. An older one is read by an upgrade function here; there is none yet.
const FORMAT: u32 = 1;
const FILE_EXTENSION: &str = "backup";
const PART_EXTENSION: &str = "part";
/// What is written beside a file, until it is whole.
const NEW_EXTENSION: &str = "new";

/// Why a file was not kept, or not found.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error("{}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{what} has another checksum than it should: it was damaged on its way")]
    Damaged { what: String },
    #[error("{name} cannot be part of a path")]
    BadName { name: String },
}

/// One complete backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    v: u32,
    /// The Incus project.
    pub tenant: String,
    /// What it is of: an instance or a volume.
    pub kind: Kind,
    pub name: String,
    /// For a volume.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pool: String,
    /// When it was begun: RFC 3339, UTC.
    pub made: String,
    /// The host that made it.
    pub host: String,
    /// The document that asked for it. Empty: a person did.
    pub document: String,
    pub bytes: u64,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
}

impl Backup {
    /// A backup that is to be made: nothing is known of its bytes yet.
    #[must_use]
    pub fn new(
        kind: Kind,
        (tenant, pool, name): (&str, &str, &str),
        made: Stamp,
        host: &str,
        document: &str,
    ) -> Backup {
        Backup {
            v: FORMAT,
            tenant: tenant.to_owned(),
            kind,
            name: name.to_owned(),
            pool: pool.to_owned(),
            made: made.rfc3339(),
            host: host.to_owned(),
            document: document.to_owned(),
            bytes: 0,
            sha256: String::new(),
        }
    }

    /// When it was begun.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        self.made.replace(['-', ':'], "").parse().ok()
    }

    /// Its name among those of the same thing, on every host the same.
    #[must_use]
    pub fn id(&self) -> String {
        let stamp = self.made.replace(['-', ':'], "");
        match self.document.as_str() {
            "" => format!("{stamp}-{}", self.host),
            document => format!("{stamp}-{}-{document}", self.host),
        }
    }
}

/// A folder of backups. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    /// Two may be fetching the same at once, each into a file of its own.
    begun: Arc<AtomicU64>,
}

/// A file that is being written. Dropped unfinished, it is nothing.
#[derive(Debug)]
pub struct Incoming {
    store: Store,
    backup: Backup,
    part: PathBuf,
    file: tokio::fs::File,
    bytes: u64,
    digest: Sha256,
}

impl Store {
    /// A store in a folder, which need not be there yet. What was left half-written by an earlier process is removed.
    #[must_use]
    pub fn open(dir: &Path) -> Store {
        let store = Store {
            dir: dir.to_owned(),
            begun: Arc::default(),
        };
        for path in store.files() {
            if path
                .extension()
                .is_some_and(|extension| extension == PART_EXTENSION || extension == NEW_EXTENSION)
            {
                // One that cannot be removed is in nobody's way.
                let _ = fs::remove_file(path);
            }
        }
        store
    }

    /// Every complete backup, the oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Backup> {
        let beside = self.files().into_iter();
        let beside = beside.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        let mut all: Vec<Backup> = beside.filter_map(|path| self.complete(&path)).collect();
        all.sort_by(|one, other| (&one.made, one.id()).cmp(&(&other.made, other.id())));
        all
    }

    /// What is written beside a file, if the file is there, too, and as long as it should be.
    fn complete(&self, beside: &Path) -> Option<Backup> {
        let backup: Backup = serde_json::from_slice(&fs::read(beside).ok()?).ok()?;
        let path = self.path(&backup).ok()?;
        let is_it = backup.v == FORMAT && path.with_extension("json") == beside;
        let length = fs::metadata(&path).ok()?.len();
        (is_it && length == backup.bytes).then_some(backup)
    }

    /// Where a backup's file is.
    ///
    /// # Errors
    /// When one of its names would lead elsewhere.
    pub fn path(&self, backup: &Backup) -> Result<PathBuf, StoreError> {
        let id = backup.id();
        let mut path = self.dir.clone();
        for name in [&backup.tenant, backup.kind.plural(), &backup.name, &id] {
            let is_plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
            if !is_plain {
                return Err(StoreError::BadName {
                    name: name.to_owned(),
                });
            }
            path.push(name);
        }
        path.as_mut_os_string().push(format!(".{FILE_EXTENSION}"));
        Ok(path)
    }

    /// Begins to write a backup's file.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    pub async fn begin(&self, backup: Backup) -> Result<Incoming, StoreError> {
        let path = self.path(&backup)?;
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let part = path.with_extension(format!("{number}.{PART_EXTENSION}"));
        let folder = path.parent().unwrap_or(&self.dir).to_owned();
        tokio::fs::create_dir_all(&folder).await.map_err(at(&folder))?;
        let file = tokio::fs::File::create(&part).await.map_err(at(&part))?;
        Ok(Incoming {
            store: self.clone(),
            backup,
            part,
            file,
            bytes: 0,
            digest: Sha256::new(),
        })
    }

    /// Removes a backup: first what makes it count.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    pub fn remove(&self, backup: &Backup) -> Result<(), StoreError> {
        let path = self.path(backup)?;
        for path in [path.with_extension("json"), path] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        // Tenant, kind, name, file.
        let mut folders = vec![(self.dir.clone(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() && depth < 3 => folders.push((entry.path(), depth + 1)),
                    Ok(kind) if kind.is_file() && depth == 3 => files.push(entry.path()),
                    _ => {}
                }
            }
        }
        files
    }
}

impl Incoming {
    /// # Errors
    /// As [`StoreError`] says.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        let is_known = !self.backup.sha256.is_empty();
        if is_known && self.bytes > self.backup.bytes {
            return Err(self.damaged());
        }
        self.file.write_all(bytes).await.map_err(at(&self.part))
    }

    /// Makes it count. Where it is known already what its checksum must be, it must be that.
    ///
    /// # Errors
    /// As [`StoreError`] says; then nothing is kept.
    pub async fn finish(mut self) -> Result<Backup, StoreError> {
        let sha256 = format!("{:x}", std::mem::take(&mut self.digest).finalize());
        let known = std::mem::replace(&mut self.backup.sha256, sha256);
        if !known.is_empty() && known != self.backup.sha256 {
            return Err(self.damaged());
        }
        self.backup.bytes = self.bytes;
        self.file.flush().await.map_err(at(&self.part))?;
        self.file.sync_all().await.map_err(at(&self.part))?;
        let path = self.store.path(&self.backup)?;
        let beside = path.with_extension("json");
        let new = self.part.with_extension(NEW_EXTENSION);
        let text = serde_json::to_vec(&self.backup).map_err(|error| at(&new)(error.into()))?;
        let (part, backup) = (self.part.clone(), self.backup.clone());
        let write = move || {
            fs::rename(&part, &path).map_err(at(&path))?;
            let mut file = File::create(&new).map_err(at(&new))?;
            file.write_all(&text).map_err(at(&new))?;
            file.sync_all().map_err(at(&new))?;
            fs::rename(&new, &beside).map_err(at(&beside))?;
            let folder = beside.parent().unwrap_or(&beside);
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(at(folder))
        };
        let written = tokio::task::spawn_blocking(write).await;
        written.map_err(|error| at(&self.part)(io::Error::other(error)))??;
        Ok(backup)
    }

    fn damaged(&self) -> StoreError {
        StoreError::Damaged {
            what: self.backup.id(),
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Renamed, it is there no more.
        let _ = fs::remove_file(&self.part);
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(made: &str, document: &str) -> Backup {
        let of = ("default", "", "db");
        Backup::new(Kind::Instance, of, made.parse().unwrap(), "ovh", document)
    }

    async fn written(store: &Store, backup: Backup) -> Backup {
        let mut incoming = store.begin(backup).await.unwrap();
        incoming.write(b"hello ").await.unwrap();
        incoming.write(b"world").await.unwrap();
        incoming.finish().await.unwrap()
    }

    #[tokio::test]
    async fn only_what_is_complete_counts() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path());
        let new = written(&store, backup("20261121T230000Z", "nightly")).await;
        let old = written(&store, backup("20261120T230000Z", "")).await;
        assert_eq!(store.all(), [old.clone(), new.clone()]);
        assert_eq!(
            (new.bytes, new.id().as_str()),
            (11, "20261121T230000Z-ovh-nightly")
        );
        let path = store.path(&new).unwrap();
        assert!(path.ends_with("default/instances/db/20261121T230000Z-ovh-nightly.backup"));
        // The format that hosts in the field have. A change of it needs a new version and an upgrade.
        let beside = fs::read_to_string(path.with_extension("json")).unwrap();
        expect_test::expect![[r#"{"v":1,"tenant":"default","kind":"instance","name":"db","made":"2026-11-21T23:00:00Z","host":"ovh","document":"nightly","bytes":11,"sha256":"b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"}"#]]
            .assert_eq(&beside);
        // Cut short, it does not count.
        fs::write(&path, "hello").unwrap();
        assert_eq!(store.all(), std::slice::from_ref(&old));
        store.remove(&old).unwrap();
        store.remove(&old).unwrap();
        assert_eq!(store.all(), []);
    }

    #[tokio::test]
    async fn what_is_not_finished_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path());
        let mut incoming = store.begin(backup("20261121T230000Z", "")).await.unwrap();
        incoming.write(b"hello").await.unwrap();
        assert_eq!(store.files().len(), 1);
        drop(incoming);
        assert!(store.files().is_empty());
        let left = dir.path().join("default/instances/db/x.part");
        fs::write(&left, "left by a process that was killed").unwrap();
        assert!(Store::open(dir.path()).all().is_empty());
        assert!(!left.exists());
    }

    #[tokio::test]
    async fn a_copy_that_differs_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("a"));
        let made = written(&store, backup("20261121T230000Z", "")).await;
        let other = Store::open(&dir.path().join("b"));
        let mut incoming = other.begin(made.clone()).await.unwrap();
        incoming.write(b"hello WORLD").await.unwrap();
        let damaged = incoming.finish().await;
        assert!(matches!(damaged, Err(StoreError::Damaged { .. })), "{damaged:?}");
        assert!(other.all().is_empty() && other.files().is_empty());
        let mut incoming = other.begin(made.clone()).await.unwrap();
        let too_long = incoming.write(b"hello world, and more").await;
        assert!(
            matches!(too_long, Err(StoreError::Damaged { .. })),
            "{too_long:?}"
        );
        drop(incoming);
        assert_eq!(written(&other, made.clone()).await, made);
    }

    /// A schedule and a person may want the same copy at the same time.
    #[tokio::test]
    async fn two_that_fetch_the_same_do_not_mix() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path());
        let new = backup("20261121T230000Z", "");
        let mut first = store.begin(new.clone()).await.unwrap();
        first.write(b"hello ").await.unwrap();
        let second = written(&store, new).await;
        first.write(b"world").await.unwrap();
        assert_eq!(first.finish().await.unwrap(), second);
        assert_eq!(store.all(), std::slice::from_ref(&second));
        assert_eq!(fs::read(store.path(&second).unwrap()).unwrap(), b"hello world");
        assert_eq!(store.files().len(), 2);
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let store = Store::open(Path::new("/nonexistent"));
        for (tenant, name) in [("..", "db"), ("default", "../db"), ("", "db"), ("default", "")] {
            let of = (tenant, "", name);
            let backup = Backup::new(Kind::Instance, of, "20261121T230000Z".parse().unwrap(), "ovh", "");
            assert!(store.path(&backup).is_err(), "{tenant} {name}");
        }
    }
}
