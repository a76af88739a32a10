//! What a host does about its instances after it was booted anew, where `--on-restart rebuild` says that they are made
//! anew: which ones that is about, remembered in the data directory until each is done with.
//!
//! The instances of a boot are those that are there at the first look after it, each by its birth: one that is made,
//! moved here or brought back later is never among them, and none is made anew twice, however often the agent ends in
//! between. Whether one of them really is made anew is the planner's to say (`plan/renewal.rs`). A member that starts for
//! the first time, and an agent that starts again in the same boot, have nothing to do here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::{info, warn};

use super::observe::Observed;
use super::ownership::{self, Owner};
use super::plan::Renewal;
use crate::document::{DesiredKey, Kind, parse_desired_key};
use crate::tls::files::write_private;

const FILE: &str = "boot.json";
/// The format written now. An older one is read by an upgrade function here; there is none yet.
const FORMAT: u32 = 1;

/// What `--on-restart` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnRestart {
    /// Instances stay as they are
    #[default]
    Adopt,
    /// Instances are deleted and made anew from their documents, once after each boot
    Rebuild,
}

/// The file cannot be written or read.
#[derive(Debug, Error)]
#[error("{path}")]
pub struct BootError {
    path: PathBuf,
    source: io::Error,
}

/// What is still to be done about this boot.
#[derive(Debug)]
pub struct Boot {
    /// `None`: there is nothing to remember, now or later.
    file: Option<PathBuf>,
    record: Record,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    v: u32,
    /// The kernel's id of the boot that was seen last.
    boot: String,
    due: Due,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Due {
    /// Whatever is there at the first look.
    All,
    /// These, by the keys of their documents, as they were born.
    Only(BTreeMap<String, String>),
}

impl Boot {
    /// Of a host that never makes anything anew.
    #[must_use]
    pub fn unnoticed() -> Boot {
        Boot {
            file: None,
            record: Record::nothing(String::new()),
        }
    }

    /// Compares the boot with the one that was seen last, and remembers it. `boot`: `None` where the kernel does not say.
    ///
    /// # Errors
    /// When the data directory cannot be written.
    pub fn notice(data_dir: &Path, boot: Option<String>, choice: OnRestart) -> Result<Boot, BootError> {
        let Some(boot) = boot else {
            if choice == OnRestart::Rebuild {
                warn!("the kernel does not say which boot this is: no instance is made anew");
            }
            return Ok(Boot::unnoticed());
        };
        let path = data_dir.join(FILE);
        let before = Record::read(&path).map_err(|source| BootError {
            path: path.clone(),
            source,
        })?;
        let due = match (&before, choice) {
            (Some(before), OnRestart::Rebuild) if before.boot != boot => {
                info!("the host was restarted: its instances are made anew");
                Due::All
            }
            (Some(before), OnRestart::Rebuild) => before.due.clone(),
            _ => Due::nothing(),
        };
        let noticed = Boot {
            record: Record { v: FORMAT, boot, due },
            file: Some(path.clone()),
        };
        if before.as_ref() != Some(&noticed.record) {
            noticed.write().map_err(|source| BootError { path, source })?;
        }
        Ok(noticed)
    }

    /// The first look after the boot decides which instances this is about.
    pub(crate) fn look(&mut self, observed: &Observed, cluster: &str, host: &str) {
        if self.record.due != Due::All {
            return;
        }
        let here = observed.of_kind(Kind::Instance).filter(|(key, object)| {
            matches!(ownership::owner(&object.config, cluster, key),
                Owner::Ours(claim) if !claim.is_of_another_host(host))
        });
        let due = here.map(|(key, object)| (key.key(), object.birth())).collect();
        self.remember(Due::Only(due));
    }

    /// The instances that are due, as they were born.
    pub(crate) fn due(&self) -> BTreeMap<DesiredKey, String> {
        let Due::Only(due) = &self.record.due else {
            return BTreeMap::new();
        };
        let named = due.iter();
        named
            .filter_map(|(key, birth)| Some((parse_desired_key(key)?, birth.clone())))
            .collect()
    }

    /// Lets go of what the plan has nothing more to do with, but for what somebody is at work on.
    pub(crate) fn planned(&mut self, renewals: &BTreeMap<DesiredKey, Renewal>, busy: &BTreeSet<DesiredKey>) {
        let Due::Only(due) = &self.record.due else {
            return;
        };
        let before = due.len();
        let mut due = due.clone();
        for (key, renewal) in renewals {
            if busy.contains(key) {
                continue;
            }
            match renewal {
                Renewal::Now | Renewal::Later(_) => continue,
                Renewal::Never(why) => {
                    info!(object = %key, "not made anew after the restart of the host: {why}");
                }
                Renewal::Done => {}
            }
            due.remove(&key.key());
        }
        if due.len() != before {
            self.remember(Due::Only(due));
        }
    }

    /// What is not written is not acted on: a crash would make it forgotten, or done twice.
    fn remember(&mut self, due: Due) {
        let before = std::mem::replace(&mut self.record.due, due);
        if let Err(error) = self.write() {
            warn!(%error, "cannot remember which instances are to be made anew; tried again");
            self.record.due = before;
        }
    }

    fn write(&self) -> io::Result<()> {
        match &self.file {
            Some(path) => write_private(path, &serde_json::to_string(&self.record)?),
            None => Ok(()),
        }
    }
}

impl Record {
    fn nothing(boot: String) -> Record {
        Record {
            v: FORMAT,
            boot,
            due: Due::nothing(),
        }
    }

    /// `None` where there is none. One that cannot be understood tells nothing, as at a first start.
    fn read(path: &Path) -> io::Result<Option<Record>> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let record = serde_json::from_slice(&text).ok();
        let record = record.filter(|record: &Record| record.v == FORMAT);
        if record.is_none() {
            warn!(path = %path.display(), "cannot be understood: no instance is made anew for this boot");
        }
        Ok(record)
    }
}

impl Due {
    fn nothing() -> Due {
        Due::Only(BTreeMap::new())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::incus::Live;

    fn instance(name: &str, born: &str) -> Live {
        Live {
            object: json!({"name": name, "project": "default", "created_at": born, "config": {
                "user.agent.cluster": "c1", "user.agent.uid": format!("instance/default/{name}@2"),
                "volatile.uuid": "u"}}),
            etag: String::new(),
        }
    }

    fn observed(instances: &[(&str, &str)]) -> Observed {
        let lives = instances
            .iter()
            .map(|(name, born)| instance(name, born))
            .collect();
        Observed::from_lists([(Kind::Instance, lives)])
    }

    fn start(dir: &Path, boot: &str, choice: OnRestart) -> Boot {
        Boot::notice(dir, Some(boot.to_owned()), choice).unwrap()
    }

    fn names(boot: &Boot) -> Vec<String> {
        boot.due().into_keys().map(|key| key.name).collect()
    }

    /// The format that data directories in the field have. A change of it needs a new version and an upgrade.
    #[test]
    fn the_written_format_is_this_one() {
        let dir = tempfile::tempdir().unwrap();
        let text = || fs::read_to_string(dir.path().join(FILE)).unwrap();
        start(dir.path(), "b1", OnRestart::Rebuild);
        expect![[r#"{"v":1,"boot":"b1","due":{"only":{}}}"#]].assert_eq(&text());
        let mut boot = start(dir.path(), "b2", OnRestart::Rebuild);
        expect![[r#"{"v":1,"boot":"b2","due":"all"}"#]].assert_eq(&text());
        boot.look(&observed(&[("web", "noon")]), "c1", "ovh");
        expect![[
            r#"{"v":1,"boot":"b2","due":{"only":{"/tenants/default/desired/instances/web":"noon u"}}}"#
        ]]
        .assert_eq(&text());
    }

    #[test]
    fn only_another_boot_makes_anything_due() {
        let dir = tempfile::tempdir().unwrap();
        let here = observed(&[("web", "noon"), ("api", "noon")]);
        let look = |boot: &str, choice| {
            let mut noticed = start(dir.path(), boot, choice);
            noticed.look(&here, "c1", "ovh");
            names(&noticed)
        };
        let nothing: [&str; 0] = [];
        assert_eq!(look("b1", OnRestart::Rebuild), nothing, "the first start");
        assert_eq!(look("b1", OnRestart::Rebuild), nothing, "the agent alone");
        assert_eq!(look("b2", OnRestart::Adopt), nothing);
        assert_eq!(
            look("b2", OnRestart::Rebuild),
            nothing,
            "it was said too late for this boot"
        );
        assert_eq!(look("b3", OnRestart::Rebuild), ["api", "web"]);
        assert_eq!(
            look("b3", OnRestart::Rebuild),
            ["api", "web"],
            "a crash in between"
        );
        assert_eq!(look("b3", OnRestart::Adopt), nothing, "and it is taken back");
        assert_eq!(look("b3", OnRestart::Rebuild), nothing);
        let unknown = Boot::notice(dir.path(), None, OnRestart::Rebuild).unwrap();
        assert_eq!(names(&unknown), nothing);
    }

    #[test]
    fn what_comes_after_the_first_look_is_not_due() {
        let dir = tempfile::tempdir().unwrap();
        start(dir.path(), "b1", OnRestart::Rebuild);
        let mut boot = start(dir.path(), "b2", OnRestart::Rebuild);
        boot.look(&observed(&[("web", "noon")]), "c1", "ovh");
        boot.look(&observed(&[("web", "noon"), ("moved-here", "one")]), "c1", "ovh");
        assert_eq!(names(&boot), ["web"]);
        let mut of_others = start(dir.path(), "b3", OnRestart::Rebuild);
        of_others.look(&observed(&[("web", "noon")]), "another", "ovh");
        assert_eq!(of_others.due(), BTreeMap::new());
    }

    #[test]
    fn each_is_let_go_of_once() {
        let dir = tempfile::tempdir().unwrap();
        start(dir.path(), "b1", OnRestart::Rebuild);
        let mut boot = start(dir.path(), "b2", OnRestart::Rebuild);
        let all = ["busy", "done", "later", "never", "now"];
        boot.look(&observed(&all.map(|name| (name, "noon"))), "c1", "ovh");
        let key = |name: &str| boot.due().into_keys().find(|key| key.name == name).unwrap();
        let renewals = BTreeMap::from([
            (key("busy"), Renewal::Done),
            (key("done"), Renewal::Done),
            (key("later"), Renewal::Later("waits for profile web".into())),
            (key("never"), Renewal::Never("it is protected".into())),
            (key("now"), Renewal::Now),
        ]);
        let busy = BTreeSet::from([key("busy")]);
        boot.planned(&renewals, &busy);
        assert_eq!(names(&boot), ["busy", "later", "now"]);
        let again = start(dir.path(), "b2", OnRestart::Rebuild);
        assert_eq!(
            names(&again),
            ["busy", "later", "now"],
            "over the end of the agent"
        );
    }

    #[test]
    fn a_file_that_says_nothing_makes_nothing_due() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "{}", r#"{"v":2,"boot":"b0","due":"all"}"#] {
            fs::write(dir.path().join(FILE), text).unwrap();
            let mut boot = start(dir.path(), "b1", OnRestart::Rebuild);
            boot.look(&observed(&[("web", "noon")]), "c1", "ovh");
            assert_eq!(boot.due(), BTreeMap::new(), "{text}");
        }
    }
}
