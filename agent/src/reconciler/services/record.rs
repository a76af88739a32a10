//! What we made for a document, and the ledger of that: small files below the member's data directory.
//!
//! A record is written before anything of it is made, so that a crash in between leaves nothing without an owner, and
//! once more when all of it is. A file that is not in a record, and has no mark of ours, is somebody else's.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::act::Place;
use crate::document::{DesiredKey, parse_desired_key};

/// The format written now. An older one is read by an upgrade function here; there is none yet.
pub(crate) const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) v: u32,
    /// Of the document that was applied last.
    pub(crate) revision: i64,
    /// That document, in its canonical text. Outlives it: deletion asks it what is allowed.
    pub(crate) document: String,
    pub(crate) place: Place,
    /// The files that are ours, with the contents that they may have: one, or two while they are changed.
    pub(crate) files: BTreeMap<String, Vec<String>>,
    /// The folders that we made for them, the outermost first.
    pub(crate) folders: Vec<String>,
    pub(crate) unit: Option<UnitRecord>,
    /// What the service was started with last: a digest of everything it was made of.
    pub(crate) started_with: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnitRecord {
    pub(crate) name: String,
    /// One that was there before: how it was, which is how it will be left. `None`: we made it.
    pub(crate) found: Option<FoundUnit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FoundUnit {
    pub(crate) enabled: bool,
    pub(crate) active: bool,
}

impl fmt::Display for Record {
    /// For golden files.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<&str> = self.files.keys().map(String::as_str).collect();
        write!(f, "@{} files [{}]", self.revision, files.join(", "))?;
        if !self.folders.is_empty() {
            write!(f, " folders [{}]", self.folders.join(", "))?;
        }
        if self.started_with.is_some() {
            f.write_str(" started")?;
        }
        Ok(())
    }
}

/// Every record, in memory and on disk. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    dir: PathBuf,
    records: Arc<Mutex<BTreeMap<DesiredKey, Record>>>,
}

impl Ledger {
    /// Reads what is in `dir`, which need not be there yet. A record that cannot be read is left where it is, and what
    /// it was about is nobody's.
    pub(crate) fn open(dir: &Path) -> Ledger {
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok((key, record)) => {
                    records.insert(key, record);
                }
                Err(error) => warn!(path = %path.display(), %error, "a record cannot be read"),
            }
        }
        Ledger {
            dir: dir.to_owned(),
            records: Arc::new(Mutex::new(records)),
        }
    }

    pub(crate) fn all(&self) -> BTreeMap<DesiredKey, Record> {
        self.records.lock().clone()
    }

    pub(crate) fn put(&self, key: &DesiredKey, record: &Record) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let path = self.path(key);
        let temporary = path.with_extension("new");
        let entry = Entry {
            key: key.key(),
            record: record.clone(),
        };
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&entry)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(&self.dir)?.sync_all()?;
        self.records.lock().insert(key.clone(), record.clone());
        Ok(())
    }

    pub(crate) fn remove(&self, key: &DesiredKey) -> io::Result<()> {
        match fs::remove_file(self.path(key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.records.lock().remove(key);
        Ok(())
    }

    /// No name has a comma in it.
    fn path(&self, key: &DesiredKey) -> PathBuf {
        self.dir
            .join(format!("{},{},{}.json", key.kind, key.tenant, key.name))
    }
}

/// What a record's file holds: it says itself whose it is.
#[derive(Serialize, Deserialize)]
struct Entry {
    key: String,
    record: Record,
}

fn read(path: &Path) -> io::Result<(DesiredKey, Record)> {
    let entry: Entry = serde_json::from_slice(&fs::read(path)?)?;
    let key = parse_desired_key(&entry.key).ok_or_else(|| io::Error::other("no key of a document"))?;
    if entry.record.v == FORMAT {
        Ok((key, entry.record))
    } else {
        Err(io::Error::other(format!(
            "format {} is not known",
            entry.record.v
        )))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    /// The format that hosts in the field have. A change of it needs a new version and an upgrade.
    #[test]
    fn the_written_format_is_this_one() {
        let dir = tempfile::tempdir().unwrap();
        let key = parse_desired_key("/tenants/t1/desired/services/web").unwrap();
        let record = Record {
            v: FORMAT,
            revision: 14,
            document: "{}".into(),
            place: Place::Instance {
                project: "t1".into(),
                name: "db".into(),
            },
            files: [("/etc/web".to_owned(), vec!["d1".to_owned(), "d0".to_owned()])].into(),
            folders: vec!["/etc/web.d".into()],
            unit: Some(UnitRecord {
                name: "web".into(),
                found: None,
            }),
            started_with: Some("d2".into()),
        };
        let ledger = Ledger::open(&dir.path().join("ledger"));
        ledger.put(&key, &record).unwrap();
        let path = dir.path().join("ledger/service,t1,web.json");
        expect![[r#"{"key":"/tenants/t1/desired/services/web","record":{"v":1,"revision":14,"document":"{}","place":{"instance":{"project":"t1","name":"db"}},"files":{"/etc/web":["d1","d0"]},"folders":["/etc/web.d"],"unit":{"name":"web","found":null},"started_with":"d2"}}"#]]
            .assert_eq(&fs::read_to_string(&path).unwrap());
        let again = Ledger::open(&dir.path().join("ledger"));
        assert_eq!(again.all(), [(key.clone(), record)].into());
        again.remove(&key).unwrap();
        again.remove(&key).unwrap();
        assert!(!path.exists() && again.all().is_empty());
        fs::write(&path, "{}").unwrap();
        assert!(Ledger::open(&dir.path().join("ledger")).all().is_empty());
    }
}
