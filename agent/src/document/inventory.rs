//! The keys of the inventory: what a host says its Incus has, ours or not.
//!
//! `/hosts/HOST/inventory/KIND/PROJECT/NAME`, one JSON object each. What belongs to no project has [`NO_PROJECT`] in
//! its place. A name may hold slashes (a volume is named with its pool, `default/data`): it is the rest of the key.

use std::fmt;

/// Stands for the project of what belongs to none: a storage pool, a project itself, a warning about the host. Incus
/// has no project of that name: a project's name begins with a letter or a digit.
pub const NO_PROJECT: &str = "-";

/// What an inventory knows of. Wider than the kinds of documents: images and warnings are nobody's wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InventoryKind {
    Image,
    Instance,
    Network,
    Profile,
    Project,
    StoragePool,
    /// Custom volumes; those of instances and images come and go with them.
    Volume,
    Warning,
}

/// A key of an inventory, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InventoryKey {
    pub host: String,
    pub kind: InventoryKind,
    /// Empty for what belongs to no project.
    pub project: String,
    pub name: String,
}

/// The fields that a value may have at its top. Which of them it has depends on its kind.
pub const INVENTORY_FIELDS: [&str; 32] = [
    "addresses",
    "aliases",
    "architecture",
    "cached",
    "cluster",
    "config",
    "content_type",
    "description",
    "devices",
    "document",
    "driver",
    "entity",
    "ephemeral",
    "fingerprint",
    "first_seen",
    "host",
    "host_interface",
    "image",
    "kind",
    "managed",
    "message",
    "name",
    "pool",
    "profiles",
    "project",
    "public",
    "severity",
    "size_bytes",
    "snapshots",
    "status",
    "truncated",
    "type",
];

impl InventoryKind {
    pub const ALL: [Self; 8] = [
        Self::Image,
        Self::Instance,
        Self::Network,
        Self::Profile,
        Self::Project,
        Self::StoragePool,
        Self::Volume,
        Self::Warning,
    ];

    #[must_use]
    pub const fn singular(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Instance => "instance",
            Self::Network => "network",
            Self::Profile => "profile",
            Self::Project => "project",
            Self::StoragePool => "storage-pool",
            Self::Volume => "volume",
            Self::Warning => "warning",
        }
    }

    /// The word in a key.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Image => "images",
            Self::Instance => "instances",
            Self::Network => "networks",
            Self::Profile => "profiles",
            Self::Project => "projects",
            Self::StoragePool => "storage-pools",
            Self::Volume => "volumes",
            Self::Warning => "warnings",
        }
    }

    /// The kind of a word in a key or a command, singular or plural.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.singular() == word || kind.plural() == word)
    }
}

impl InventoryKey {
    #[must_use]
    pub fn key(&self) -> String {
        let project = if self.project.is_empty() {
            NO_PROJECT
        } else {
            &self.project
        };
        let prefix = inventory_prefix(&self.host);
        format!("{prefix}{}/{project}/{}", self.kind.plural(), self.name)
    }
}

impl fmt::Display for InventoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.singular())
    }
}

/// Everything that one host says it has.
#[must_use]
pub fn inventory_prefix(host: &str) -> String {
    format!("/hosts/{host}/inventory/")
}

/// Takes a key of an inventory apart; `None` for any other key.
#[must_use]
pub fn parse_inventory_key(key: &str) -> Option<InventoryKey> {
    let mut segments = key.strip_prefix("/hosts/")?.splitn(5, '/');
    let host = segments.next()?;
    let word = (segments.next()? == "inventory").then(|| segments.next())??;
    let kind = InventoryKind::from_word(word).filter(|kind| kind.plural() == word)?;
    let (project, name) = (segments.next()?, segments.next()?);
    if host.is_empty() || project.is_empty() || name.is_empty() {
        return None;
    }
    let project = if project == NO_PROJECT { "" } else { project };
    Some(InventoryKey {
        host: host.to_owned(),
        kind,
        project: project.to_owned(),
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_apart_again() {
        for (key, kind, project, name) in [
            (
                "/hosts/ovh/inventory/instances/default/web",
                InventoryKind::Instance,
                "default",
                "web",
            ),
            (
                "/hosts/ovh/inventory/storage-pools/-/fast",
                InventoryKind::StoragePool,
                "",
                "fast",
            ),
            (
                "/hosts/ovh/inventory/volumes/t1/fast/data",
                InventoryKind::Volume,
                "t1",
                "fast/data",
            ),
        ] {
            let parsed = InventoryKey {
                host: "ovh".into(),
                kind,
                project: project.into(),
                name: name.into(),
            };
            assert_eq!(parse_inventory_key(key), Some(parsed.clone()));
            assert_eq!(parsed.key(), key);
        }
        for other in [
            "/hosts/ovh/alive",
            "/hosts/ovh/inventory/instances/default",
            "/hosts/ovh/inventory/instances/default/",
            "/hosts/ovh/inventory/instances//web",
            "/hosts//inventory/instances/default/web",
            "/hosts/ovh/inventory/instance/default/web",
            "/hosts/ovh/inventory/pods/default/web",
        ] {
            assert_eq!(parse_inventory_key(other), None, "{other}");
        }
    }
}
