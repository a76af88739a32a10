//! The fields around a spec: whose the document is, where it applies, how far it may go.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::keys::{DesiredKey, parse_desired_key};
use super::lifecycle::{Deletion, Lifecycle, Managed, Update};
use super::place::{hosts_of, one_host, the_host_itself};
use super::suggest::did_you_mean;
use super::yaml::{self, Entry, Node};
use super::{
    DEFAULT_TENANT, DocumentError, Failover, Kind, Placement, kinds, name, overlay, parts, secret, spec,
    tenant,
};

pub(super) use super::shapes::{boolean, fault, find, join, map, missing, one_of, word, wrong_type};

/// A document that follows every rule that its text alone can break.
#[derive(Clone, Debug)]
pub struct Document {
    pub kind: Kind,
    pub name: String,
    /// Empty for a kind without a tenant.
    pub tenant: String,
    /// Where it applies. Empty: on every host. An instance has exactly one, once it is bound: one with `placement` has
    /// none before.
    pub hosts: Vec<String>,
    /// For an instance: where it may be, if its document does not say where it is.
    pub placement: Option<Placement>,
    /// For a service or a file: the instance that it is in. `None`: the host itself.
    pub instance: Option<String>,
    /// For an instance: whether it should run. True for other kinds.
    pub running: bool,
    pub lifecycle: Lifecycle,
    /// The application that the document came out of, by whose name it is pruned.
    pub origin: Option<String>,
    /// Incus' own fields. Config and device values are strings, verbatim.
    pub spec: Map<String, Value>,
    /// What a document of kind incus brings beside the server's own config: documents of their own kinds.
    pub parts: Vec<Document>,
    /// The `perHost` field as written, and the document as it is on each host that it names.
    pub(super) per_host: Map<String, Value>,
    /// The secrets of its tenant that the spec refers to.
    secrets: BTreeSet<String>,
    overlaid: BTreeMap<String, Document>,
    lines: BTreeMap<String, u64>,
}

impl Document {
    #[must_use]
    pub fn names_host(&self, host: &str) -> bool {
        // Where an instance may be is no place yet: its binding says where it is.
        let everywhere = self.hosts.is_empty() && self.placement.is_none();
        everywhere || self.hosts.iter().any(|named| named == host)
    }

    /// Says where the instance is that may be on several hosts; `None`: nowhere yet. Other documents know that
    /// themselves.
    pub fn bind(&mut self, host: Option<&str>) {
        if self.placement.is_some() {
            self.hosts = host.map(str::to_owned).into_iter().collect();
        }
    }

    /// What may become of it when its host is gone.
    #[must_use]
    pub fn failover(&self) -> Failover {
        self.placement
            .as_ref()
            .map_or(Failover::default(), |placement| placement.failover)
    }

    /// The document as it is on a host: with what `perHost` says of it.
    #[must_use]
    pub fn on_host(&self, host: &str) -> &Document {
        self.overlaid.get(host).unwrap_or(self)
    }

    /// The line of a field, by its path (`spec.profiles[0]`), or of the nearest one around it.
    #[must_use]
    pub fn line_of(&self, path: &str) -> Option<u64> {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return Some(*line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// The secrets of its tenant that the document refers to.
    #[must_use]
    pub fn secrets(&self) -> &BTreeSet<String> {
        &self.secrets
    }

    /// Puts stand-ins in the place of its secrets. `known` gives the revision and a digest of a secret's value.
    pub fn stand_in_for_secrets(&mut self, known: impl Fn(&str) -> Option<(i64, String)>) {
        secret::stand_in(&mut self.spec, known);
    }

    #[must_use]
    pub fn desired_key(&self) -> DesiredKey {
        DesiredKey {
            kind: self.kind,
            tenant: self.tenant.clone(),
            name: self.name.clone(),
        }
    }

    /// A document put together again from what its object remembers: no lines, because there is no text.
    #[must_use]
    pub fn restored(
        key: DesiredKey,
        host: &str,
        running: bool,
        lifecycle: Lifecycle,
        spec: Map<String, Value>,
    ) -> Self {
        Document {
            kind: key.kind,
            name: key.name,
            tenant: key.tenant,
            hosts: vec![host.to_owned()],
            placement: None,
            instance: None,
            running,
            lifecycle,
            origin: None,
            spec,
            parts: Vec::new(),
            per_host: Map::new(),
            secrets: BTreeSet::new(),
            overlaid: BTreeMap::new(),
            lines: BTreeMap::new(),
        }
    }
}

/// Reads one document, in YAML or JSON.
///
/// # Errors
/// The first fault of the text, with its place.
pub fn parse(text: &str) -> Result<Document, DocumentError> {
    let root = yaml::read(text)?;
    let mut reader = Reader::default();
    reader.document(&root)
}

/// Reads the document stored at `key`, which must be the key that it says of itself.
///
/// # Errors
/// As for [`parse`]; and when the key and the text differ about kind, tenant or name.
pub fn parse_at(key: &str, text: &str) -> Result<Document, DocumentError> {
    let document = parse(text)?;
    let Some(at) = parse_desired_key(key) else {
        return Err(DocumentError::new(
            0,
            0,
            "",
            format!("{key} is no key for a document"),
        ));
    };
    let says = document.desired_key();
    let fault = if says.kind != at.kind {
        Some((
            "kind",
            format!("is {}, but the key is for {}", says.kind, at.kind.plural()),
        ))
    } else if says.name != at.name {
        Some(("name", format!("is {}, but the key says {}", says.name, at.name)))
    } else if says.tenant != at.tenant {
        Some((
            "tenant",
            format!("is {}, but the key says {}", says.tenant, at.tenant),
        ))
    } else {
        None
    };
    match fault {
        Some((path, message)) => Err(DocumentError::new(
            document.line_of(path).unwrap_or(1),
            1,
            path,
            message,
        )),
        None => Ok(document),
    }
}

/// The hosts that a text names, however wrong the rest of it is; `None` when that cannot be read from it, as with
/// `placement`.
#[must_use]
pub fn hosts_named(text: &str) -> Option<Vec<String>> {
    let root = yaml::read(text).ok()?;
    let hosts = hosts_of(&root).ok()?;
    (!hosts.is_empty()).then_some(hosts)
}

const FIELDS: [&str; 12] = [
    "kind",
    "name",
    "tenant",
    "host",
    "hosts",
    "placement",
    "instance",
    "running",
    "lifecycle",
    "origin",
    "spec",
    "perHost",
];

/// Walks the tree, remembers every line, and stops at the first fault.
#[derive(Debug, Default)]
pub(super) struct Reader {
    lines: BTreeMap<String, u64>,
}

impl Reader {
    fn document(&mut self, root: &Node) -> Result<Document, DocumentError> {
        let entries = map(root, "")?;
        let kind = Self::kind(root)?;
        self.known(entries, "", &FIELDS, "no such field")?;
        let name = self.name(root, kind)?;
        let tenant = self.tenant(root, kind)?;
        let (mut hosts, placement) = self.hosts(root, kind)?;
        if kind == Kind::Host {
            hosts = the_host_itself(root, &hosts, &name)?;
        }
        if kind == Kind::Instance && placement.is_none() {
            one_host(root, &hosts)?;
        }
        let instance = Self::instance(root, kind, &tenant)?;
        if kind == Kind::Template && !hosts.is_empty() {
            let message = "a template is on no host: hosts are named where it is used";
            return Err(DocumentError::new(root.line, root.column, "hosts", message));
        }
        let running = match find(entries, "running") {
            Some(entry) if kind != Kind::Instance => {
                return Err(fault(entry, "running", format!("a {kind} does not run")));
            }
            Some(entry) => boolean(&entry.value, "running")?,
            None => true,
        };
        let lifecycle = match find(entries, "lifecycle") {
            Some(entry) => self.lifecycle(entry, kind)?,
            None => kind.lifecycle(),
        };
        let origin = origin(entries)?;
        let Some(spec) = find(entries, "spec") else {
            return Err(missing(root, "spec", "what Incus is to be told"));
        };
        let mut document = Document {
            kind,
            name,
            tenant,
            hosts,
            placement,
            instance,
            running,
            lifecycle,
            origin,
            spec: Map::new(),
            parts: Vec::new(),
            per_host: Map::new(),
            secrets: BTreeSet::new(),
            overlaid: BTreeMap::new(),
            lines: std::mem::take(&mut self.lines),
        };
        let overlays = match find(entries, "perHost") {
            Some(entry) => overlays(entry, &document)?,
            None => &[],
        };
        for overlay in overlays {
            let mut overlaid = document.clone();
            overlaid.read_spec(&overlay::merge(&spec.value, &overlay.value))?;
            document
                .per_host
                .insert(overlay.name.clone(), overlay::value(&overlay.value));
            document.overlaid.insert(overlay.name.clone(), overlaid);
        }
        document.read_spec(&spec.value)?;
        Ok(document)
    }

    fn kind(root: &Node) -> Result<Kind, DocumentError> {
        let words = || kinds().iter().map(|kind| kind.singular());
        let Some(entry) = find(map(root, "")?, "kind") else {
            return Err(missing(
                root,
                "kind",
                &format!("one of {}", words().collect::<Vec<_>>().join(", ")),
            ));
        };
        let word = word(&entry.value, "kind")?;
        Kind::from_word(word)
            .filter(|kind| kind.singular() == word)
            .ok_or_else(|| {
                let hint = did_you_mean(word, words());
                let hint = if hint.is_empty() {
                    format!("; there are {}", words().collect::<Vec<_>>().join(", "))
                } else {
                    hint
                };
                fault(entry, "kind", format!("no such kind: {word}{hint}"))
            })
    }

    fn name(&mut self, root: &Node, kind: Kind) -> Result<String, DocumentError> {
        let Some(entry) = find(map(root, "")?, "name") else {
            let whose = match kind {
                Kind::Template | Kind::Tenant | Kind::Tunnel | Kind::Host => {
                    format!("what the {kind} is called")
                }
                _ => format!("the {kind}'s name in Incus"),
            };
            return Err(missing(root, "name", &whose));
        };
        let name = word(&entry.value, "name")?;
        match name::fault(kind, name) {
            Some(wrong) => Err(fault(entry, "name", wrong)),
            None => Ok(name.to_owned()),
        }
    }

    fn tenant(&mut self, root: &Node, kind: Kind) -> Result<String, DocumentError> {
        let entry = find(map(root, "")?, "tenant");
        match entry {
            Some(entry) if !kind.has_tenant() => Err(fault(
                entry,
                "tenant",
                format!("a {kind} belongs to the cluster, not to a tenant"),
            )),
            None if !kind.has_tenant() => Ok(String::new()),
            None => Ok(DEFAULT_TENANT.to_owned()),
            Some(entry) => {
                let tenant = word(&entry.value, "tenant")?;
                match name::project_fault(tenant) {
                    Some(wrong) => Err(fault(entry, "tenant", wrong)),
                    None => Ok(tenant.to_owned()),
                }
            }
        }
    }

    fn lifecycle(&mut self, entry: &Entry, kind: Kind) -> Result<Lifecycle, DocumentError> {
        let entries = map(&entry.value, "lifecycle")?;
        self.known(
            entries,
            "lifecycle",
            &["protect", "deletion", "update", "managed"],
            "no such field",
        )?;
        let mut lifecycle = kind.lifecycle();
        if let Some(protect) = find(entries, "protect") {
            lifecycle.protect = boolean(&protect.value, "lifecycle.protect")?;
        }
        if let Some(deletion) = find(entries, "deletion") {
            lifecycle.deletion = match one_of(&deletion.value, "lifecycle.deletion", &["delete", "retain"])? {
                "retain" => Deletion::Retain,
                _ => Deletion::Delete,
            };
        }
        if let Some(update) = find(entries, "update") {
            let words = ["live", "restart", "rebuild"];
            lifecycle.update = match one_of(&update.value, "lifecycle.update", &words)? {
                "rebuild" => Update::Rebuild,
                "restart" => Update::Restart,
                _ => Update::Live,
            };
        }
        if let Some(managed) = find(entries, "managed") {
            lifecycle.managed = match one_of(&managed.value, "lifecycle.managed", &["full", "existence"])? {
                "existence" => Managed::Existence,
                _ => Managed::Full,
            };
        }
        Ok(lifecycle)
    }

    /// Refuses the first entry whose name is none of `names`, and remembers where the others stand.
    pub(super) fn known(
        &mut self,
        entries: &[Entry],
        path: &str,
        names: &[&str],
        complaint: &str,
    ) -> Result<(), DocumentError> {
        for entry in entries {
            let path = join(path, &entry.name);
            if !names.contains(&entry.name.as_str()) {
                let hint = did_you_mean(&entry.name, names.iter().copied());
                return Err(fault(entry, &path, format!("{complaint}{hint}")));
            }
            self.remember(&path, entry.line);
        }
        Ok(())
    }

    pub(super) fn remember(&mut self, path: &str, line: u64) {
        self.lines.insert(path.to_owned(), line);
    }
}

fn origin(entries: &[Entry]) -> Result<Option<String>, DocumentError> {
    let Some(entry) = find(entries, "origin") else {
        return Ok(None);
    };
    let origin = word(&entry.value, "origin")?;
    match name::plain_fault(origin) {
        Some(wrong) => Err(fault(entry, "origin", wrong)),
        None => Ok(Some(origin.to_owned())),
    }
}

/// Why `name` cannot be the name of an application; `None` when it can.
#[must_use]
pub fn origin_fault(name: &str) -> Option<&'static str> {
    name::plain_fault(name)
}

impl Document {
    /// Reads a spec into the document: the fields, their lines, and what comes with a server.
    fn read_spec(&mut self, node: &Node) -> Result<(), DocumentError> {
        let mut reader = Reader {
            lines: std::mem::take(&mut self.lines),
        };
        self.spec = spec::read(&mut reader, self.kind, node)?;
        self.secrets = secret::named_in(&mut self.spec);
        self.lines = reader.lines;
        match self.kind {
            Kind::Incus => self.parts = parts::read(self, node)?,
            Kind::Tenant => self.parts = vec![self.made(Kind::Project, tenant::project(self))],
            Kind::Instance if self.failover() == Failover::Fenced => self.leave_the_start_to_us()?,
            _ => {}
        }
        Ok(())
    }

    /// After a boot of the host Incus would start the instance by itself, though it may be another host's by then.
    fn leave_the_start_to_us(&mut self) -> Result<(), DocumentError> {
        const KEY: &str = "boot.autostart";
        let config = self.spec.entry("config").or_insert_with(|| Map::new().into());
        let Some(config) = config.as_object_mut() else {
            return Ok(());
        };
        match config.get(KEY).and_then(Value::as_str) {
            None => {
                config.insert(KEY.to_owned(), "false".into());
                Ok(())
            }
            Some("false" | "0" | "no" | "off") => Ok(()),
            Some(_) => {
                let path = format!("spec.config.{KEY}");
                let message =
                    "goes with no failover: fenced, where only the agent may start it: leave it out";
                Err(DocumentError::new(
                    self.line_of(&path).unwrap_or(1),
                    1,
                    &path,
                    message,
                ))
            }
        }
    }

    /// A document that follows from this one: of its name, on the same hosts, and as protected.
    fn made(&self, kind: Kind, spec: Map<String, Value>) -> Self {
        Document {
            kind,
            lifecycle: Lifecycle {
                protect: self.lifecycle.protect,
                ..kind.lifecycle()
            },
            spec,
            parts: Vec::new(),
            overlaid: BTreeMap::new(),
            per_host: Map::new(),
            ..self.clone()
        }
    }

    /// A document that stands within this one: on the same hosts, and as protected.
    pub(super) fn part(
        &self,
        kind: Kind,
        tenant: String,
        name: String,
        spec: &Node,
    ) -> Result<Self, DocumentError> {
        let mut part = Document {
            kind,
            name,
            tenant,
            running: true,
            instance: None,
            lifecycle: Lifecycle {
                protect: self.lifecycle.protect,
                ..kind.lifecycle()
            },
            origin: None,
            spec: Map::new(),
            parts: Vec::new(),
            per_host: Map::new(),
            secrets: BTreeSet::new(),
            overlaid: BTreeMap::new(),
            lines: BTreeMap::new(),
            hosts: self.hosts.clone(),
            placement: None,
        };
        part.read_spec(spec)?;
        Ok(part)
    }
}

/// What `perHost` says, by host: fields of a spec, laid over the document's own.
fn overlays<'a>(entry: &'a Entry, document: &Document) -> Result<&'a [Entry], DocumentError> {
    if document.kind == Kind::Instance {
        return Err(fault(entry, "perHost", "an instance is on one host"));
    }
    let overlays = map(&entry.value, "perHost")?;
    for overlay in overlays {
        let path = join("perHost", &overlay.name);
        if let Some(wrong) = name::plain_fault(&overlay.name) {
            return Err(fault(overlay, &path, wrong));
        }
        if !document.names_host(&overlay.name) {
            return Err(fault(overlay, &path, "is none of the hosts of the document"));
        }
        map(&overlay.value, &path)?;
    }
    Ok(overlays)
}
