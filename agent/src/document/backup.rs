//! What a document of kind backup says, in types.

use serde_json::{Map, Value};

use super::retention::Keep;
use super::schedule::Schedule;
use super::{DesiredKey, Document, Kind};

/// What is kept, when, and for how long.
#[derive(Clone, Debug)]
pub struct BackupSpec {
    pub subject: Subject,
    pub snapshots: Option<Rule>,
    pub exports: Option<Exports>,
}

/// An instance, or a custom volume, of the document's tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Instance {
        tenant: String,
        name: String,
    },
    Volume {
        tenant: String,
        pool: String,
        name: String,
    },
}

/// When, and how many stay.
#[derive(Clone, Debug)]
pub struct Rule {
    pub schedule: Schedule,
    pub keep: Keep,
}

/// Whole copies in files.
#[derive(Clone, Debug)]
pub struct Exports {
    pub rule: Rule,
    /// The hosts that have a copy beside the one that makes it.
    pub to: Vec<String>,
}

impl BackupSpec {
    /// `None` for a document of another kind.
    #[must_use]
    pub fn of(document: &Document) -> Option<BackupSpec> {
        if document.kind != Kind::Backup {
            return None;
        }
        let spec = &document.spec;
        let text = |name: &str| spec.get(name).and_then(Value::as_str).map(str::to_owned);
        let tenant = document.tenant.clone();
        let subject = match (text("instance"), text("volume"), text("pool")) {
            (Some(name), None, _) => Subject::Instance { tenant, name },
            (None, Some(name), Some(pool)) => Subject::Volume { tenant, pool, name },
            _ => return None,
        };
        let part = |name: &str| spec.get(name).and_then(Value::as_object);
        let exports = part("exports");
        let to = exports.and_then(|exports| exports.get("to")?.as_array());
        let to = to.into_iter().flatten().filter_map(Value::as_str);
        let to = to.map(str::to_owned).collect();
        Some(BackupSpec {
            subject,
            snapshots: part("snapshots").and_then(rule),
            exports: exports.and_then(rule).map(|rule| Exports { rule, to }),
        })
    }
}

fn rule(part: &Map<String, Value>) -> Option<Rule> {
    let count = |name: &str| {
        let count = part.get("keep").and_then(|keep| keep.get(name)?.as_u64());
        usize::try_from(count.unwrap_or(0)).unwrap_or(usize::MAX)
    };
    Some(Rule {
        schedule: Schedule::parse(part.get("schedule")?.as_str()?).ok()?,
        keep: Keep {
            last: count("last"),
            hourly: count("hourly"),
            daily: count("daily"),
            weekly: count("weekly"),
            monthly: count("monthly"),
            yearly: count("yearly"),
        },
    })
}

impl Subject {
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Subject::Instance { .. } => Kind::Instance,
            Subject::Volume { .. } => Kind::Volume,
        }
    }

    #[must_use]
    pub fn tenant(&self) -> &str {
        match self {
            Subject::Instance { tenant, .. } | Subject::Volume { tenant, .. } => tenant,
        }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Subject::Instance { name, .. } | Subject::Volume { name, .. } => name,
        }
    }

    /// The key of its document.
    #[must_use]
    pub fn desired_key(&self) -> DesiredKey {
        DesiredKey {
            kind: self.kind(),
            tenant: self.tenant().to_owned(),
            name: self.name().to_owned(),
        }
    }
}
