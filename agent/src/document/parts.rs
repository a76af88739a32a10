//! What a document of kind incus brings beside the server's own config, as Incus' preseed does: pools, networks,
//! projects, profiles and volumes. Each entry is read as a document of its own kind would be.

use super::fields::{Document, fault, find, join, map, missing, word, wrong_type};
use super::yaml::{Content, Entry, Node};
use super::{DEFAULT_TENANT, DocumentError, Kind, name};

/// The lists of a preseed, in Incus' words, and what each holds.
pub(super) const LISTS: [(&str, Kind); 5] = [
    ("storage_pools", Kind::StoragePool),
    ("networks", Kind::Network),
    ("projects", Kind::Project),
    ("profiles", Kind::Profile),
    ("storage_volumes", Kind::Volume),
];

/// Every entry of every list. What is wrong in one is said with its place in the whole text.
pub(super) fn read(whole: &Document, spec: &Node) -> Result<Vec<Document>, DocumentError> {
    let mut parts: Vec<Document> = Vec::new();
    for (list, kind) in LISTS {
        let Some(entry) = find(map(spec, "spec")?, list) else {
            continue;
        };
        let path = join("spec", list);
        let Content::List(items) = &entry.value.content else {
            return Err(wrong_type(&entry.value, &path, "a list"));
        };
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let part = one(whole, kind, item, &path)?;
            if parts
                .iter()
                .any(|other| other.desired_key() == part.desired_key())
            {
                let message = format!("{} stands here twice", part.desired_key());
                return Err(DocumentError::new(item.line, item.column, &path, message));
            }
            parts.push(part);
        }
    }
    Ok(parts)
}

fn one(whole: &Document, kind: Kind, item: &Node, path: &str) -> Result<Document, DocumentError> {
    let entries = map(item, path)?;
    let Some(entry) = find(entries, "name") else {
        return Err(missing(
            item,
            &join(path, "name"),
            &format!("the {kind}'s name in Incus"),
        ));
    };
    let name = word(&entry.value, &join(path, "name"))?;
    if let Some(wrong) = name::fault(kind, name) {
        return Err(fault(entry, &join(path, "name"), wrong));
    }
    let tenant = match find(entries, "project") {
        Some(entry) if kind == Kind::Project => {
            return Err(fault(entry, &join(path, "project"), "a project is in no project"));
        }
        Some(entry) => project(kind, entry, &join(path, "project"))?,
        None if kind.has_tenant() => DEFAULT_TENANT.to_owned(),
        None => String::new(),
    };
    let rest: Vec<Entry> = entries
        .iter()
        .filter(|entry| !matches!(entry.name.as_str(), "name" | "project"))
        // Custom volumes are the only ones that are made by hand.
        .filter(|entry| !(kind == Kind::Volume && entry.name == "type"))
        .cloned()
        .collect();
    let spec = Node {
        content: Content::Map(rest),
        ..*item
    };
    whole
        .part(kind, tenant, name.to_owned(), &spec)
        .map_err(|error| error.within(path))
}

/// Networks and pools are everybody's: they are in the project `default`, or in none.
fn project(kind: Kind, entry: &Entry, path: &str) -> Result<String, DocumentError> {
    let project = word(&entry.value, path)?;
    if let Some(wrong) = name::project_fault(project) {
        return Err(fault(entry, path, wrong));
    }
    match kind.has_tenant() {
        true => Ok(project.to_owned()),
        false if project == DEFAULT_TENANT => Ok(String::new()),
        false => Err(fault(
            entry,
            path,
            format!("a {kind} belongs to the cluster: leave it out"),
        )),
    }
}
