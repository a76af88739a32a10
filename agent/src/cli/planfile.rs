//! A plan that is kept: what is to be stored, and what must not have changed until then.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::CliError;

/// The format written now. There is no older one.
const FORMAT: u32 = 1;
const FILE_LIMIT_BYTES: u64 = 64 << 20;

/// What `plan -o` writes, in JSON.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanFile {
    format: u32,
    /// The store's revision that the plan was made at.
    pub(super) revision: i64,
    pub(super) documents: Vec<Planned>,
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

impl PlanFile {
    pub(super) fn new(revision: i64, documents: Vec<Planned>, plan: Vec<String>) -> PlanFile {
        PlanFile {
            format: FORMAT,
            revision,
            documents,
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
            vec!["+ x".into()],
        );
        plan.write(&file).unwrap();
        assert_eq!(PlanFile::read(&file).unwrap(), plan);
        fs::write(&file, "kind: project\n").unwrap();
        assert!(PlanFile::read(&file).unwrap_err().text().contains("is no plan"));
        fs::write(
            &file,
            r#"{"format": 2, "revision": 1, "documents": [], "plan": []}"#,
        )
        .unwrap();
        assert!(PlanFile::read(&file).unwrap_err().text().contains("format 2"));
    }
}
