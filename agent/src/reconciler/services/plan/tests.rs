//! Golden plans, in `testdata`. Rewritten by `UPDATE_EXPECT=1`.

use std::collections::BTreeSet;
use std::path::Path;

use expect_test::expect_file;

use super::*;
use crate::document::{key, parse};
use crate::reconciler::desired::{Parser, StoredText};
use crate::reconciler::plan::{NOTHING_DUE, Plan};
use crate::reconciler::services::{footprint, meaning};
use crate::service::{Activity, FileFound, Loaded, Supervised, Supervisor};

static IDLE: BTreeSet<DesiredKey> = BTreeSet::new();
const CONTEXT: Context<'_> = Context {
    host: "ovh",
    cluster: "c1",
    may_delete: true,
    busy: &IDLE,
    held: None,
    due: &NOTHING_DUE,
};

/// One host and what is on it; what is planned may be made so.
struct Host {
    texts: Vec<(String, i64, String)>,
    revision: i64,
    seen: Seen,
    files: BTreeMap<(Place, String), Found>,
    missing_folders: Vec<String>,
    units: BTreeMap<String, UnitSeen>,
    manager: Option<Manager>,
    there: Option<There>,
    shown: String,
}

impl Host {
    fn new(manager: Option<Manager>) -> Host {
        Host {
            texts: Vec::new(),
            revision: 100,
            seen: Seen::default(),
            files: BTreeMap::new(),
            missing_folders: Vec::new(),
            units: BTreeMap::new(),
            manager,
            there: None,
            shown: String::new(),
        }
    }

    fn put(&mut self, revision: i64, text: &str) -> &mut Host {
        let key = key(&parse(text).unwrap());
        self.put_at(&key, revision, text)
    }

    fn put_at(&mut self, key: &str, revision: i64, text: &str) -> &mut Host {
        self.texts.retain(|(at, ..)| at != key);
        self.texts.push((key.to_owned(), revision, text.to_owned()));
        self
    }

    fn gone(&mut self) -> &mut Host {
        self.texts.clear();
        self
    }

    fn file(&mut self, path: &str, content: &str) -> &mut Host {
        let found = Found::File(FileFound::new(content.as_bytes(), 0o644, 0, 0));
        self.files.insert((Place::Host, path.to_owned()), found);
        self
    }

    fn unit(&mut self, name: &str, loaded: Loaded, enabled: Option<bool>, activity: Activity) -> &mut Host {
        let seen = UnitSeen {
            loaded,
            enabled,
            activity,
            detail: "its last words".into(),
        };
        self.units.insert(name.to_owned(), seen);
        self
    }

    fn activity(&mut self, name: &str, activity: Activity) -> &mut Host {
        self.units.get_mut(name).unwrap().activity = activity;
        self
    }

    fn desired(&self) -> Desired {
        let texts = self.texts.iter().map(|(key, revision, text)| StoredText {
            key: key.as_bytes(),
            value: text.as_bytes(),
            created_revision: *revision,
            revision: *revision,
        });
        Parser::new(CONTEXT.host).read(self.revision, texts)
    }

    /// As `observe` does it, out of what this host has.
    fn look(&mut self, desired: &Desired) {
        let keys: Vec<DesiredKey> = desired
            .documents
            .keys()
            .chain(self.seen.of.keys())
            .cloned()
            .collect();
        for key in keys {
            let record = self.seen.of.get(&key).and_then(|one| one.record.clone());
            let document = desired.documents.get(&key).and_then(|wanted| match &wanted.text {
                Text::Good(document) => Some(document.as_ref().clone()),
                Text::Invalid { .. } => None,
            });
            let document = document.or_else(|| record.as_ref().and_then(Record::document));
            let place = record.as_ref().map(|record| record.place.clone());
            let place = place
                .or_else(|| document.as_ref().map(footprint::place))
                .unwrap_or(Place::Host);
            let footprint = document
                .as_ref()
                .and_then(|document| footprint::Footprint::of(document, self.manager.as_ref(), CONTEXT).ok());
            let found = |path: &str| {
                let at = (place.clone(), path.to_owned());
                self.files.get(&at).cloned().unwrap_or(Found::Nothing)
            };
            let files = paths(footprint.as_ref(), record.as_ref(), &place)
                .into_iter()
                .map(|path| (path.to_owned(), found(path)))
                .collect();
            let unit = footprint
                .as_ref()
                .and_then(|footprint| footprint.unit.as_ref())
                .map(|unit| {
                    self.units
                        .get(&unit.name)
                        .cloned()
                        .unwrap_or_else(UnitSeen::missing)
                });
            let here = There::Here(Here {
                place,
                manager: self.manager.clone(),
                files,
                missing_folders: self.missing_folders.clone(),
                unit,
            });
            let there = self.there.clone().unwrap_or(here);
            self.seen.of.insert(key, SeenOne { record, there });
        }
    }

    fn plan(&mut self) -> Plan {
        let desired = self.desired();
        self.look(&desired);
        Plan {
            objects: plan(&desired, &self.seen, CONTEXT),
            ..Plan::default()
        }
    }

    /// Adds what is planned to what is held against the golden file.
    fn show(&mut self) -> &mut Host {
        let plan = self.plan().to_string();
        self.shown += if plan.is_empty() {
            "nothing
"
        } else {
            &plan
        };
        self.shown += "
";
        self
    }

    /// Adds what a person is told of the plan.
    fn tell(&mut self, what: &str) -> &mut Host {
        let plan = self.plan();
        let told = plan.objects.iter().filter_map(|(key, planned)| {
            let (effect, details, cost) = meaning(planned, self.seen.of.get(key)?)?;
            let line = format!("    {effect:?} {key}: {} {cost}", details.join(", "));
            Some(line.trim_end().to_owned() + "\n")
        });
        let told: String = told.collect();
        let told = if told.is_empty() { "    nothing\n" } else { &told };
        self.shown += &format!("{what}\n{told}");
        self
    }

    /// Does as planned.
    fn apply(&mut self) -> &mut Host {
        let plan = self.plan();
        for (key, object) in plan.objects {
            for step in object.steps {
                let Step::Service(act) = step else { continue };
                self.act(&key, act);
            }
        }
        self
    }

    fn act(&mut self, key: &DesiredKey, act: Act) {
        let unit_path = |name: &str| {
            let file = self.manager.as_ref().and_then(|manager| manager.unit_file(name));
            file.map(|(path, _)| path).unwrap_or_default()
        };
        match act.action {
            Action::Remember(record) => self.seen.of.get_mut(key).unwrap().record = Some(*record),
            Action::Release | Action::Forget => {
                self.seen.of.remove(key);
            }
            Action::Write(file, _) => {
                let found = Found::File(FileFound::new(
                    file.content.bytes(),
                    file.mode,
                    file.uid,
                    file.gid,
                ));
                self.files.insert((act.place, file.path.clone()), found);
            }
            Action::Remove { path, .. } => {
                self.files.remove(&(act.place, path));
            }
            Action::Restart { name, .. } => {
                let path = unit_path(&name);
                self.unit(&name, Loaded::From(path), Some(true), Activity::Active);
            }
            Action::Stop { name } => {
                self.activity(&name, Activity::Inactive);
            }
            _ => {}
        }
    }
}

fn systemd() -> Host {
    Host::new(Some(Manager::Systemd))
}

fn supervised() -> Manager {
    let (_, supervised): (Supervisor, Supervised) = Supervisor::new(Path::new("/nonexistent"));
    Manager::Supervised(supervised)
}

const WEB: &str = "kind: service
name: web
host: ovh
spec:
  exec: /usr/bin/web
  files:
    - {path: /etc/web/web.conf, mode: 0600, owner: 33:33, content: 'port 80'}
";

const MOTD: &str = "kind: file\nname: motd\nhost: ovh\nspec: {path: /etc/motd, content: hello}\n";

#[test]
fn a_service_from_its_first_pass_to_its_last() {
    let mut host = systemd();
    host.missing_folders.push("/etc/web".into());
    host.put(14, WEB).show().apply();
    host.missing_folders.clear();
    host.show();
    // Only what changed, and one restart.
    host.put(15, &WEB.replace("port 80", "port 8080"))
        .show()
        .apply()
        .show();
    // The same in other words: nothing but a note.
    host.put(16, &format!("# a remark\n{WEB}").replace("port 80", "port 8080"))
        .show()
        .apply();
    host.gone().show();
    expect_file!["testdata/a_service_from_its_first_pass_to_its_last.txt"].assert_eq(&host.shown);
}

#[test]
fn what_was_changed_by_hand_is_changed_back() {
    let mut host = systemd();
    host.put(14, WEB)
        .apply()
        .file("/etc/web/web.conf", "port 81")
        .show()
        .apply();
    host.activity("web", Activity::Inactive).show();
    host.activity("web", Activity::Failed).show();
    host.activity("web", Activity::Restarting).show();
    host.activity("web", Activity::Starting).show();
    expect_file!["testdata/what_was_changed_by_hand_is_changed_back.txt"].assert_eq(&host.shown);
}

#[test]
fn a_service_that_is_not_to_run() {
    let mut host = systemd();
    host.put(14, WEB).apply();
    host.put(15, &WEB.replace("spec:", "spec:\n  enabled: false"))
        .show()
        .apply();
    host.unit(
        "web",
        Loaded::From("/etc/systemd/system/web.service".into()),
        Some(false),
        Activity::Inactive,
    );
    host.show();
    expect_file!["testdata/a_service_that_is_not_to_run.txt"].assert_eq(&host.shown);
}

#[test]
fn what_runs_once_runs_once() {
    let mut host = systemd();
    host.put(14, &WEB.replace("spec:", "spec:\n  restart: no"))
        .apply();
    host.activity("web", Activity::Inactive).show();
    host.activity("web", Activity::Failed).show();
    host.put(15, &WEB.replace("spec:", "spec:\n  restart: no\n  args: [again]"))
        .show();
    expect_file!["testdata/what_runs_once_runs_once.txt"].assert_eq(&host.shown);
}

#[test]
fn what_is_not_ours_is_not_touched() {
    let mut shown = String::new();
    let mut host = systemd();
    host.put(14, MOTD).file("/etc/motd", "theirs").show();
    host.file("/etc/motd", "hello").show().apply();
    host.gone().show();
    shown += &host.shown;
    let mut host = systemd();
    let lib = || Loaded::From("/lib/systemd/system/web.service".into());
    host.put(14, WEB)
        .unit("web", lib(), Some(true), Activity::Active)
        .show();
    shown += &host.shown;
    let mut host = systemd();
    host.put(14, WEB)
        .file("/etc/systemd/system/web.service", "[Service]\n")
        .show();
    shown += &host.shown;
    expect_file!["testdata/what_is_not_ours_is_not_touched.txt"].assert_eq(&shown);
}

#[test]
fn a_marked_file_is_ours_without_a_record() {
    let mut host = systemd();
    host.put(14, WEB).apply();
    host.seen = Seen::default();
    host.file("/etc/web/web.conf", "port 80");
    // The unit is known by its mark, the other file only by what the document says.
    host.put(
        15,
        &WEB.replace("/usr/bin/web", "/usr/bin/web2")
            .replace(", mode: 0600, owner: 33:33", ""),
    );
    host.show();
    expect_file!["testdata/a_marked_file_is_ours_without_a_record.txt"].assert_eq(&host.shown);
}

#[test]
fn two_documents_do_not_share_a_path() {
    let mut host = systemd();
    host.put(14, MOTD)
        .put(15, &MOTD.replace("name: motd", "name: other"))
        .show()
        .apply();
    host.show();
    expect_file!["testdata/two_documents_do_not_share_a_path.txt"].assert_eq(&host.shown);
}

#[test]
fn deletion_asks_what_was_applied() {
    let protected = MOTD.replace("spec:", "lifecycle: {protect: true}\nspec:");
    let mut shown = String::new();
    let mut host = systemd();
    host.put(14, &protected).apply().gone().show();
    let retained = MOTD.replace("spec:", "lifecycle: {deletion: retain}\nspec:");
    shown += &host.shown;
    let mut host = systemd();
    host.put(14, &retained).apply().gone().show();
    shown += &host.shown;
    let mut host = systemd();
    host.put(14, MOTD).apply().gone().revision = 13;
    host.show();
    shown += &host.shown;
    // Changed by hand since: it is left where it is.
    let mut host = systemd();
    host.put(14, MOTD)
        .apply()
        .gone()
        .file("/etc/motd", "theirs")
        .show();
    shown += &host.shown;
    expect_file!["testdata/deletion_asks_what_was_applied.txt"].assert_eq(&shown);
}

#[test]
fn another_path_and_another_host() {
    let mut host = systemd();
    host.put(14, MOTD)
        .apply()
        .put(15, &MOTD.replace("/etc/motd", "/etc/issue"))
        .show()
        .apply();
    host.put(16, &MOTD.replace("host: ovh", "host: ionos"))
        .show()
        .apply()
        .show();
    expect_file!["testdata/another_path_and_another_host.txt"].assert_eq(&host.shown);
}

#[test]
fn a_document_moves_into_an_instance() {
    let mut host = systemd();
    host.put(14, MOTD).apply();
    host.put(15, &MOTD.replace("host: ovh", "instance: db"))
        .show()
        .apply()
        .show();
    expect_file!["testdata/a_document_moves_into_an_instance.txt"].assert_eq(&host.shown);
}

#[test]
fn a_wrong_document_leaves_what_was_good() {
    let mut host = systemd();
    let key = key(&parse(MOTD).unwrap());
    host.put_at(&key, 14, "kind: file\nname: motd\nspec: {}\n").show();
    host.put(15, MOTD).apply();
    host.put_at(&key, 16, "kind: file\nname: motd\nhost: ovh\nspec: {path: etc}\n");
    host.file("/etc/motd", "changed by hand").show();
    expect_file!["testdata/a_wrong_document_leaves_what_was_good.txt"].assert_eq(&host.shown);
}

#[test]
fn a_host_without_systemd() {
    let mut shown = String::new();
    let mut host = Host::new(Some(supervised()));
    host.put(14, WEB).show().apply();
    host.show();
    host.put(
        15,
        &WEB.replace("exec: /usr/bin/web", "exec: /usr/bin/web\n  args: [-v]"),
    )
    .show();
    host.gone().show();
    let unit = "kind: service\nname: web\nhost: ovh\nspec: {unit: \"[Service]\\nExecStart=/bin/true\\n\"}\n";
    shown += &host.shown;
    let mut host = Host::new(Some(supervised()));
    host.put(14, unit).show();
    shown += &host.shown;
    expect_file!["testdata/a_host_without_systemd.txt"].assert_eq(&shown);
}

#[test]
fn a_guest_without_systemd() {
    let inside = WEB.replace("host: ovh", "instance: db");
    let mut shown = String::new();
    let mut host = Host::new(Some(Manager::Script));
    host.put(14, &inside).show().apply().show();
    shown += &host.shown;
    let user = inside.replace("spec:", "spec:\n  user: web");
    let mut host = Host::new(Some(Manager::Script));
    host.put(14, &user).show();
    shown += &host.shown;
    let mut host = Host::new(None);
    host.put(14, &inside).show();
    shown += &host.shown;
    expect_file!["testdata/a_guest_without_systemd.txt"].assert_eq(&shown);
}

#[test]
fn a_machine_that_is_not_there() {
    let inside = WEB.replace("host: ovh", "instance: db");
    let mut host = Host::new(Some(Manager::Script));
    host.there = Some(There::Not(Phase::Pending, "waits for instance db to run".into()));
    host.put(14, &inside).show();
    host.there = Some(There::Gone("no instance db on ovh".into()));
    host.show();
    host.there = None;
    host.apply();
    host.there = Some(There::Gone("no instance db on ovh".into()));
    host.gone().show();
    expect_file!["testdata/a_machine_that_is_not_there.txt"].assert_eq(&host.shown);
}

#[test]
fn a_unit_of_the_hosts_own() {
    const LVM: &str = "kind: os-service\nname: lvm\nhost: ovh\nspec: {config: {enabled: true}}\n";
    let lib = || Loaded::From("/lib/systemd/system/lvm2-monitor.service".into());
    let mut shown = String::new();
    let mut host = systemd();
    host.put(14, LVM).show();
    shown += &host.shown;
    let mut host = systemd();
    host.put(14, LVM)
        .unit("lvm2-monitor", lib(), Some(false), Activity::Inactive)
        .show()
        .apply();
    host.show().gone().show();
    shown += &host.shown;
    // It ran before us: it is neither started anew nor stopped.
    let mut host = systemd();
    host.put(14, LVM)
        .unit("lvm2-monitor", lib(), Some(true), Activity::Active)
        .show()
        .apply();
    host.gone().show();
    shown += &host.shown;
    let mut host = systemd();
    host.put(14, &LVM.replace("name: lvm", "name: ovn")).show();
    shown += &host.shown;
    expect_file!["testdata/a_unit_of_the_hosts_own.txt"].assert_eq(&shown);
}

#[test]
fn what_a_person_is_told() {
    let mut shown = String::new();
    let mut host = systemd();
    host.put(14, WEB).put(14, MOTD).tell("new").apply();
    host.tell("as it should be");
    host.put(15, &WEB.replace("port 80", "port 8080"))
        .put(15, &MOTD.replace("hello", "good morning"))
        .tell("edited")
        .apply();
    host.put(16, &format!("# a remark\n{WEB}").replace("port 80", "port 8080"))
        .tell("the same in other words")
        .apply();
    host.file("/etc/web/web.conf", "port 81")
        .activity("web", Activity::Inactive)
        .tell("changed by hand, and stopped")
        .apply();
    host.files.remove(&(Place::Host, "/etc/motd".to_owned())).unwrap();
    host.activity("web", Activity::Failed)
        .tell("one is removed, the other has crashed")
        .apply();
    host.put(17, &WEB.replace("spec:", "spec:\n  enabled: false"))
        .put(17, &MOTD.replace("/etc/motd", "/etc/issue"))
        .tell("not to run any more, and at another path");
    host.gone().tell("their documents deleted");
    shown += &host.shown;
    let mut host = systemd();
    host.put(14, MOTD).file("/etc/motd", "theirs").tell("in the way");
    shown += &host.shown;
    // Inside of an instance.
    let inside = WEB.replace("host: ovh", "instance: db");
    let waits = || There::Not(Phase::Pending, "waits for instance db to run".into());
    let mut host = Host::new(Some(Manager::Script));
    host.there = Some(waits());
    host.put(14, &inside).tell("inside of what does not run yet");
    host.there = None;
    host.tell("inside").apply();
    host.there = Some(waits());
    host.tell("the instance is stopped");
    host.put(15, &inside.replace("port 80", "port 8080"))
        .tell("the instance is stopped, the document edited");
    host.there = Some(There::Gone(String::new()));
    host.gone().tell("both are gone");
    shown += &host.shown;
    // What the host has already.
    const LVM: &str = "kind: os-service\nname: lvm\nhost: ovh\nspec: {config: {enabled: true}}\n";
    let mut host = systemd();
    host.put(14, LVM).tell("no such unit");
    let lib = Loaded::From("/lib/systemd/system/lvm2-monitor.service".into());
    host.unit("lvm2-monitor", lib, Some(false), Activity::Inactive)
        .tell("a unit of the host's own");
    shown += &host.shown;
    expect_file!["testdata/what_a_person_is_told.txt"].assert_eq(&shown);
}
