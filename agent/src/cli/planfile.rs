//! A plan that is kept: what is to be stored, and what must not have changed until then.

use std::fs;
use std::path::Path;

use proto::agent::v1::PlannedObject;
use serde::{Deserialize, Serialize};

use super::error::CliError;

/// The format written now. An older plan is made again: it says less of what must not have changed.
const FORMAT: u32 = 2;
const FILE_LIMIT_BYTES: u64 = 64 << 20;

/// What `plan -o` writes, in JSON.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanFile {
    format: u32,
    /// The store's revision that the plan was made at.
    pub(super) revision: i64,
    pub(super) documents: Vec<Planned>,
    /// What hosts had then of all that the plan changes.
    pub(super) live: Vec<Live>,
    /// What was shown, for who reads the file.
    plan: Vec<String>,
}

/// One document of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Planned {
    pub(super) key: String,
    /// The revision at which it was when the plan was made; 0: it was not there.
    pub(super) revision: i64,
    /// None: it is to be deleted.
    pub(super) text: Option<String>,
}

/// One object that a plan changes, on one host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Live {
    pub(super) host: String,
    pub(super) kind: String,
    pub(super) tenant: String,
    pub(super) name: String,
    /// Of what was there; empty: nothing was.
    pub(super) fingerprint: String,
}

impl Live {
    pub(super) fn of(planned: &PlannedObject) -> Live {
        Live {
            host: planned.host.clone(),
            kind: planned.kind.clone(),
            tenant: planned.tenant.clone(),
            name: planned.name.clone(),
            fingerprint: planned.fingerprint.clone(),
        }
    }

    fn is_of(&self, other: &Live) -> bool {
        (&self.host, &self.kind, &self.tenant, &self.name)
            == (&other.host, &other.kind, &other.tenant, &other.name)
    }

    fn in_words(&self, what: &str) -> String {
        format!("{} {} on {} {what}", self.kind, self.name, self.host)
    }
}

/// What is otherwise than it was when a plan was made, in words; `None`: nothing is.
pub(super) fn moved(then: &[Live], now: &[Live]) -> Option<String> {
    let of_then = then.iter().find_map(|was| {
        let same = now.iter().find(|is| is.is_of(was));
        match same {
            Some(is) if is.fingerprint == was.fingerprint => None,
            Some(_) => Some(was.in_words("has been changed since the plan was made")),
            None => Some(was.in_words("is as the plan would make it, or its host does not answer")),
        }
    });
    let is_known = |is: &Live| then.iter().any(|was| was.is_of(is));
    of_then.or_else(|| {
        let new = now.iter().find(|is| !is_known(is))?;
        Some(new.in_words("would change as well, and is not in the plan"))
    })
}

impl PlanFile {
    pub(super) fn new(
        revision: i64,
        documents: Vec<Planned>,
        live: Vec<Live>,
        plan: Vec<String>,
    ) -> PlanFile {
        PlanFile {
            format: FORMAT,
            revision,
            documents,
            live,
            plan,
        }
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), CliError> {
        let failed = |error: std::io::Error| CliError::io(path.display(), &error);
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(error.into()))?;
        fs::write(path, text + "\n").map_err(failed)
    }

    pub(super) fn read(path: &Path) -> Result<PlanFile, CliError> {
        let failed = |error: std::io::Error| CliError::io(path.display(), &error);
        if fs::metadata(path).map_err(failed)?.len() > FILE_LIMIT_BYTES {
            return Err(CliError::failed(format!(
                "{}: is too large for a plan",
                path.display()
            )));
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        let plan: PlanFile = serde_json::from_str(&text).map_err(|_| {
            CliError::failed(format!("{}: is no plan", path.display()))
                .hint("documents are applied with -f; a plan is what `agentctl plan -o FILE` wrote")
        })?;
        if plan.format != FORMAT {
            return Err(CliError::failed(format!(
                "{}: a plan of format {}, and this agentctl knows {FORMAT}",
                path.display(),
                plan.format
            ))
            .hint("make the plan again"));
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(name: &str, fingerprint: &str) -> Live {
        Live {
            host: "ovh".into(),
            kind: "instance".into(),
            tenant: "default".into(),
            name: name.into(),
            fingerprint: fingerprint.into(),
        }
    }

    #[test]
    fn what_moved_is_named() {
        let then = [live("web", "d1"), live("new", "")];
        let check = |now: &[Live], expected: Option<&str>| {
            assert_eq!(moved(&then, now).as_deref(), expected);
        };
        check(&then, None);
        check(
            &[live("web", "d2"), live("new", "")],
            Some("instance web on ovh has been changed since the plan was made"),
        );
        check(
            &[live("web", "d1"), live("new", "d3")],
            Some("instance new on ovh has been changed since the plan was made"),
        );
        check(
            &[live("new", "")],
            Some("instance web on ovh is as the plan would make it, or its host does not answer"),
        );
        check(
            &[live("web", "d1"), live("new", ""), live("db", "d4")],
            Some("instance db on ovh would change as well, and is not in the plan"),
        );
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.plan");
        let planned = |text: Option<&str>| Planned {
            key: "/cluster/desired/projects/shop".into(),
            revision: 4,
            text: text.map(str::to_owned),
        };
        let plan = PlanFile::new(
            9,
            vec![planned(Some("kind: project\n")), planned(None)],
            vec![live("web", "d1")],
            vec!["+ x".into()],
        );
        plan.write(&file).unwrap();
        assert_eq!(PlanFile::read(&file).unwrap(), plan);
        fs::write(&file, "kind: project\n").unwrap();
        assert!(PlanFile::read(&file).unwrap_err().text().contains("is no plan"));
        fs::write(
            &file,
            r#"{"format": 3, "revision": 1, "documents": [], "live": [], "plan": []}"#,
        )
        .unwrap();
        assert!(PlanFile::read(&file).unwrap_err().text().contains("format 3"));
    }
}
