//! What a document comes to on a machine: files, and perhaps a unit. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::act::{Content, FileWanted, Place};
use super::os_services;
use crate::document::{DEFAULT_TENANT, DesiredKey, Document, Kind, Phase, stands_for};
use crate::reconciler::plan::{Context, Report};
use crate::service::{Definition, Manager, Restart, digest};

/// Everything that a document wants of a machine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Footprint {
    pub(crate) files: Vec<Arc<FileWanted>>,
    pub(crate) unit: Option<UnitWanted>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UnitWanted {
    pub(crate) name: String,
    /// The file that makes it known, where there is one. `None` too for a unit that the host has already.
    pub(crate) path: Option<String>,
    /// What the manager is given directly.
    pub(crate) definition: Option<Definition>,
    /// Whether the unit is the document's own, or one that the host has already.
    pub(crate) is_made: bool,
    pub(crate) enabled: bool,
    pub(crate) restart: Restart,
}

/// A service's spec. The document's rules have been kept.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceSpec {
    #[serde(default)]
    exec: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    user: Option<String>,
    working_directory: Option<String>,
    #[serde(default)]
    restart: Restart,
    #[serde(default)]
    after: Vec<String>,
    unit: Option<String>,
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default)]
    files: Vec<FileSpec>,
}

#[derive(Debug, Deserialize)]
struct FileSpec {
    path: String,
    mode: Option<String>,
    owner: Option<String>,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
    /// A text, a stand-in for a secret, or a reference to one that nothing stands for.
    content: Value,
}

const fn yes() -> bool {
    true
}

const FILE_MODE: u32 = 0o644;

/// The machine that a document is about.
pub(crate) fn place(document: &Document) -> Place {
    match &document.instance {
        Some(name) => Place::Instance {
            project: document.tenant.clone(),
            name: name.clone(),
        },
        None => Place::Host,
    }
}

/// The line by which a file of ours is known again, should the ledger be lost.
pub(crate) fn mark(key: &DesiredKey, context: Context<'_>) -> String {
    let tenant = if key.tenant.is_empty() {
        DEFAULT_TENANT
    } else {
        &key.tenant
    };
    format!(
        "# Kept by agent: {} {tenant}/{} of cluster {} on {}. What is changed here is changed back.",
        key.kind, key.name, context.cluster, context.host
    )
}

impl Footprint {
    /// What the document wants of a machine whose services are kept by `manager`.
    ///
    /// # Errors
    /// What to say where that machine cannot do it.
    pub(crate) fn of(
        document: &Document,
        manager: Option<&Manager>,
        context: Context<'_>,
    ) -> Result<Footprint, Report> {
        let spec = Value::Object(document.spec.clone());
        match document.kind {
            Kind::File => {
                let spec = typed::<FileSpec>(spec)?;
                Ok(Footprint {
                    files: vec![Arc::new(spec.wanted("spec".to_owned(), None))],
                    unit: None,
                })
            }
            Kind::OsService => os_services::footprint(&document.name, &spec, manager),
            _ => service(document, typed(spec)?, manager, context),
        }
    }

    /// A digest of everything: another one, and the service is to be started anew.
    pub(crate) fn digest(&self) -> String {
        let mut text = String::new();
        for file in &self.files {
            let FileWanted {
                path,
                content,
                mode,
                uid,
                gid,
                ..
            } = file.as_ref();
            let _ = writeln!(text, "{path} {mode:o} {uid} {gid} {}", content.digest());
        }
        if let Some(definition) = self.unit.as_ref().and_then(|unit| unit.definition.as_ref()) {
            text.push_str(&serde_json::to_string(definition).unwrap_or_default());
        }
        digest(text.as_bytes())
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.files.iter().any(|file| file.path == path)
    }
}

fn typed<T: for<'de> Deserialize<'de>>(spec: Value) -> Result<T, Report> {
    serde_json::from_value(spec).map_err(|error| Report::new(Phase::Invalid, format!("spec: {error}")))
}

impl FileSpec {
    fn wanted(&self, at: String, mark: Option<String>) -> FileWanted {
        let mode = self
            .mode
            .as_deref()
            .and_then(|mode| u32::from_str_radix(mode, 8).ok());
        let (uid, gid) = match &self.owner {
            None => (self.uid, self.gid),
            Some(owner) => {
                let mut ids = owner.split(':').map(|id| id.parse().unwrap_or(0));
                let uid = ids.next().unwrap_or(0);
                (uid, ids.next().unwrap_or(uid))
            }
        };
        FileWanted {
            path: self.path.clone(),
            content: content(&self.content),
            mode: mode.unwrap_or(FILE_MODE),
            uid,
            gid,
            mark,
            at,
        }
    }
}

fn content(value: &Value) -> Content {
    match value.as_str() {
        Some(text) => match stands_for(text) {
            Some(one) => Content::Secret {
                name: one.name.to_owned(),
                digest: one.digest.unwrap_or_default().to_owned(),
            },
            None => Content::Plain(text.as_bytes().to_vec()),
        },
        None => Content::Unknown {
            name: value["secret"].as_str().unwrap_or_default().to_owned(),
        },
    }
}

fn service(
    document: &Document,
    spec: ServiceSpec,
    manager: Option<&Manager>,
    context: Context<'_>,
) -> Result<Footprint, Report> {
    let unsupported = |message: String| Report::new(Phase::Unsupported, message);
    let Some(manager) = manager else {
        let message = "nothing there can keep a service running: neither systemd nor a shell";
        return Err(unsupported(message.to_owned()));
    };
    let needs_systemd = |field: &str| {
        let by = manager.word();
        unsupported(format!(
            "spec.{field}: needs systemd, and services there are kept by {by}"
        ))
    };
    if spec.unit.is_some() && *manager != Manager::Systemd {
        return Err(needs_systemd("unit"));
    }
    if spec.user.is_some() && *manager == Manager::Script {
        return Err(needs_systemd("user"));
    }
    let name = document.name.clone();
    let mark = mark(&document.desired_key(), context);
    let definition = Definition {
        name: name.clone(),
        exec: spec.exec,
        args: spec.args,
        environment: spec.environment,
        user: spec.user,
        working_directory: spec.working_directory,
        restart: spec.restart,
        after: spec.after,
    };
    let unit_file = manager.unit_file(&name);
    let text = match &spec.unit {
        Some(unit) => format!("{mark}\n{unit}"),
        None => manager.unit_text(&definition, &mark),
    };
    let mut files: Vec<Arc<FileWanted>> = Vec::new();
    for (index, file) in spec.files.iter().enumerate() {
        files.push(Arc::new(file.wanted(format!("spec.files[{index}].path"), None)));
    }
    let path = unit_file.map(|(path, mode)| {
        files.push(Arc::new(FileWanted {
            path: path.clone(),
            content: Content::Plain(text.into_bytes()),
            mode,
            uid: 0,
            gid: 0,
            mark: Some(mark),
            at: "name".to_owned(),
        }));
        path
    });
    Ok(Footprint {
        files,
        unit: Some(UnitWanted {
            name,
            definition: path.is_none().then_some(definition),
            path,
            is_made: true,
            enabled: spec.enabled,
            restart: spec.restart,
        }),
    })
}
