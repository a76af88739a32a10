//! What is known of a service over restarts of the agent: `record.json` in its folder.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::proc::Identity;
use crate::service::Definition;

const NAME: &str = "record.json";
/// The format written now. An older one is read by an upgrade function here; there is none yet.
const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    v: u32,
    pub(super) definition: Definition,
    /// The process that was started last, however it is now.
    pub(super) process: Option<Identity>,
    /// It ended, with success or without, and is not to be started again.
    pub(super) ended: Option<bool>,
}

impl Record {
    pub(super) fn new(definition: Definition) -> Record {
        Record {
            v: FORMAT,
            definition,
            process: None,
            ended: None,
        }
    }

    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let temporary = folder.join("record.json.new");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&temporary, folder.join(NAME))?;
        File::open(folder)?.sync_all()
    }

    fn read(folder: &Path) -> io::Result<Record> {
        let record: Record = serde_json::from_slice(&fs::read(folder.join(NAME))?)?;
        if record.v == FORMAT {
            Ok(record)
        } else {
            Err(io::Error::other(format!("format {} is not known", record.v)))
        }
    }
}

/// Every record, with its folder. One that cannot be read is left where it is: its service is started anew by whoever
/// wants it.
pub(super) fn read_all(dir: &Path) -> Vec<(PathBuf, Record)> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let folder = entry.ok()?.path();
            match Record::read(&folder) {
                Ok(record) => Some((folder, record)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => {
                    warn!(folder = %folder.display(), %error, "a service's record cannot be read");
                    None
                }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The format that hosts in the field have. A change of it needs a new version and an upgrade.
    #[test]
    fn the_written_format_is_this_one() {
        let dir = tempfile::tempdir().unwrap();
        let definition = Definition {
            name: "web".into(),
            exec: "/bin/web".into(),
            ..Definition::default()
        };
        let mut record = Record::new(definition);
        record.process = Some(Identity {
            pid: 42,
            born: 7,
            boot: "b".into(),
        });
        record.write(&dir.path().join("web")).unwrap();
        expect_test::expect![[r#"{"v":1,"definition":{"name":"web","exec":"/bin/web","args":[],"environment":{},"user":null,"working_directory":null,"restart":"always","after":[]},"process":{"pid":42,"born":7,"boot":"b"},"ended":null}"#]]
            .assert_eq(&fs::read_to_string(dir.path().join("web/record.json")).unwrap());
        assert_eq!(read_all(dir.path()), [(dir.path().join("web"), record)]);
        fs::write(dir.path().join("web/record.json"), "{}").unwrap();
        assert_eq!(read_all(dir.path()), []);
    }
}
