//! The kinds of document.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::lifecycle::{Deletion, Lifecycle, Update};

/// What a document is about. Ordered as things depend on each other: a later kind may need an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A host itself: whose it is, and whether anything may be changed there.
    Host,
    /// The server itself, and what comes with it: Incus' preseed.
    Incus,
    StoragePool,
    NetworkAcl,
    Network,
    NetworkForward,
    Project,
    Profile,
    /// A custom storage volume.
    Volume,
    Image,
    Instance,
    /// One of IncusOS' services, on a host that need not be IncusOS.
    OsService,
    /// A file on a host, or in an instance.
    File,
    /// What runs on a host, or in an instance.
    Service,
    /// An address of a host that leads to a port of an instance, wherever that is.
    Tunnel,
    /// When an instance or a volume is kept as it is: snapshots and exports, and how many of them stay.
    Backup,
    /// Whose documents may say how much: a restricted project.
    Tenant,
    /// Documents to be filled in. Nothing is made of one by itself.
    Template,
}

/// Every kind, in the order in which they depend on each other.
#[must_use]
pub const fn kinds() -> &'static [Kind] {
    &[
        Kind::Host,
        Kind::Incus,
        Kind::StoragePool,
        Kind::NetworkAcl,
        Kind::Network,
        Kind::NetworkForward,
        Kind::Project,
        Kind::Profile,
        Kind::Volume,
        Kind::Image,
        Kind::Instance,
        Kind::OsService,
        Kind::File,
        Kind::Service,
        Kind::Tunnel,
        Kind::Backup,
        Kind::Tenant,
        Kind::Template,
    ]
}

impl Kind {
    /// The word in a document.
    #[must_use]
    pub const fn singular(self) -> &'static str {
        match self {
            Kind::Host => "host",
            Kind::Incus => "incus",
            Kind::StoragePool => "storage-pool",
            Kind::NetworkAcl => "network-acl",
            Kind::Network => "network",
            Kind::NetworkForward => "network-forward",
            Kind::Project => "project",
            Kind::Profile => "profile",
            Kind::Volume => "volume",
            Kind::Image => "image",
            Kind::Instance => "instance",
            Kind::OsService => "os-service",
            Kind::File => "file",
            Kind::Service => "service",
            Kind::Tunnel => "tunnel",
            Kind::Backup => "backup",
            Kind::Tenant => "tenant",
            Kind::Template => "template",
        }
    }

    /// The word in a key. There is one Incus on a host.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Kind::Host => "hosts",
            Kind::Incus => "incus",
            Kind::StoragePool => "storage-pools",
            Kind::NetworkAcl => "network-acls",
            Kind::Network => "networks",
            Kind::NetworkForward => "network-forwards",
            Kind::Project => "projects",
            Kind::Profile => "profiles",
            Kind::Volume => "volumes",
            Kind::Image => "images",
            Kind::Instance => "instances",
            Kind::OsService => "os-services",
            Kind::File => "files",
            Kind::Service => "services",
            Kind::Tunnel => "tunnels",
            Kind::Backup => "backups",
            Kind::Tenant => "tenants",
            Kind::Template => "templates",
        }
    }

    /// Whether a document of this kind belongs to a tenant. One that does not belongs to the cluster.
    #[must_use]
    pub const fn has_tenant(self) -> bool {
        matches!(
            self,
            Kind::Profile
                | Kind::Volume
                | Kind::Image
                | Kind::Instance
                | Kind::File
                | Kind::Service
                | Kind::Tunnel
                | Kind::Backup
        )
    }

    /// What holds for a document that says nothing of it. What keeps data is kept; an image can be had again, and
    /// what was made from it does not need it.
    #[must_use]
    pub fn lifecycle(self) -> Lifecycle {
        match self {
            Kind::StoragePool | Kind::Volume => Lifecycle {
                deletion: Deletion::Retain,
                ..Lifecycle::default()
            },
            Kind::Image => Lifecycle {
                update: Update::Rebuild,
                ..Lifecycle::default()
            },
            _ => Lifecycle::default(),
        }
    }

    /// The kind of a word in a document or, plural, in a key or a command.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Kind> {
        kinds()
            .iter()
            .copied()
            .find(|kind| kind.singular() == word || kind.plural() == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.singular())
    }
}
