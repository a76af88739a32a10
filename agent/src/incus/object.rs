//! The objects of Incus that documents speak of, as Incus shows them.

use serde_json::Value;

/// The kinds of Incus objects this client handles.
///
/// What lives in another object goes by both names, with a slash between: a volume by `POOL/NAME`, a forward by
/// `NETWORK/ADDRESS`. An image goes by its fingerprint, and the server by no name at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The server's own config.
    Server,
    StoragePool,
    NetworkAcl,
    Network,
    NetworkForward,
    Project,
    Profile,
    /// Custom volumes.
    Volume,
    Image,
    /// Containers and virtual machines alike.
    Instance,
}

impl Kind {
    pub const ALL: [Self; 10] = [
        Self::Server,
        Self::StoragePool,
        Self::NetworkAcl,
        Self::Network,
        Self::NetworkForward,
        Self::Project,
        Self::Profile,
        Self::Volume,
        Self::Image,
        Self::Instance,
    ];

    /// The kind's word in documents and in events' actions.
    #[must_use]
    pub fn singular(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::StoragePool => "storage-pool",
            Self::NetworkAcl => "network-acl",
            Self::Network => "network",
            Self::NetworkForward => "network-forward",
            Self::Project => "project",
            Self::Profile => "profile",
            Self::Volume => "storage-volume",
            Self::Image => "image",
            Self::Instance => "instance",
        }
    }

    /// The kind's word in Incus' paths.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::StoragePool => "storage-pools",
            Self::NetworkAcl => "network-acls",
            Self::Network => "networks",
            Self::NetworkForward => "forwards",
            Self::Project => "projects",
            Self::Profile => "profiles",
            Self::Volume => "volumes",
            Self::Image => "images",
            Self::Instance => "instances",
        }
    }

    /// The field that holds the words that anybody may put on an object.
    #[must_use]
    pub fn config_field(self) -> &'static str {
        match self {
            Self::Image => "properties",
            _ => "config",
        }
    }

    /// The kind of what an object of this kind lives in.
    #[must_use]
    pub fn container(self) -> Option<Self> {
        match self {
            Self::Volume => Some(Self::StoragePool),
            Self::NetworkForward => Some(Self::Network),
            _ => None,
        }
    }

    /// What an object of this kind lives in, by the field of a new one that says so.
    pub(super) fn container_field(self) -> Option<&'static str> {
        match self {
            Self::Volume => Some("pool"),
            Self::NetworkForward => Some("network"),
            _ => None,
        }
    }

    /// The field that holds an object's own name.
    pub(super) fn name_field(self) -> &'static str {
        match self {
            Self::NetworkForward => "listen_address",
            Self::Image => "fingerprint",
            _ => "name",
        }
    }

    /// The name of an object, or of a new one, within its kind and project.
    #[must_use]
    pub fn name_of(self, object: &Value) -> String {
        let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
        let own = text(self.name_field());
        match self.container_field() {
            Some(container) => format!("{}/{own}", text(container)),
            None => own.to_owned(),
        }
    }
}

/// A custom volume as a disk of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedVolume {
    pub device: String,
    pub pool: String,
    pub volume: String,
}

/// What is at a path of the host is no volume, and an instance's own disk has no source.
#[must_use]
pub fn attached_volumes(instance: &Value) -> Vec<AttachedVolume> {
    let devices = instance
        .get("expanded_devices")
        .or_else(|| instance.get("devices"));
    let devices = devices.and_then(Value::as_object).into_iter().flatten();
    let volumes = devices.filter_map(|(name, device)| {
        let text = |field: &str| {
            device
                .get(field)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
        };
        let is_disk = text("type") == Some("disk") && text("path") != Some("/");
        let source = text("source").filter(|source| is_disk && !source.starts_with('/'))?;
        Some(AttachedVolume {
            device: name.clone(),
            pool: text("pool")?.to_owned(),
            volume: source.to_owned(),
        })
    });
    volumes.collect()
}

/// One object as Incus shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    pub object: Value,
    /// What to send as `If-Match`. Empty from a list, which does not tell: [`super::Incus::get`] before a write.
    pub etag: String,
}

impl Live {
    #[must_use]
    pub fn name(&self) -> &str {
        self.text("name")
    }

    /// The project it is in; empty for a project, which is in none.
    #[must_use]
    pub fn project(&self) -> &str {
        self.text("project")
    }

    /// One config value, where it is set on the object itself rather than by a profile.
    #[must_use]
    pub fn config(&self, key: &str) -> Option<&str> {
        self.object.get("config")?.get(key)?.as_str()
    }

    /// An instance's status in Incus' words (`Running`, `Stopped`, `Frozen`, `Error`, ...); empty for other kinds.
    #[must_use]
    pub fn status(&self) -> &str {
        self.text("status")
    }

    /// The custom volumes that an instance has as disks, by itself or by its profiles.
    #[must_use]
    pub fn volumes(&self) -> Vec<AttachedVolume> {
        attached_volumes(&self.object)
    }

    /// Whether Incus made it: an interface of the host shows as a network, too.
    pub(super) fn is_managed(&self) -> bool {
        self.object
            .get("managed")
            .and_then(Value::as_bool)
            .unwrap_or_default()
    }

    pub(super) fn text(&self, field: &str) -> &str {
        self.object.get(field).and_then(Value::as_str).unwrap_or_default()
    }
}
