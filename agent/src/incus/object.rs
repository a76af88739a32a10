//! The objects of Incus that documents speak of, as Incus shows them.

use serde_json::Value;

/// The kinds of Incus objects this client handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Project,
    Profile,
    /// Containers and virtual machines alike.
    Instance,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Project, Self::Profile, Self::Instance];

    /// The kind's word in documents and in events' actions.
    #[must_use]
    pub fn singular(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::Profile => "profile",
            Self::Instance => "instance",
        }
    }

    /// The kind's word in Incus' paths and in keys.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Project => "projects",
            Self::Profile => "profiles",
            Self::Instance => "instances",
        }
    }
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

    fn text(&self, field: &str) -> &str {
        self.object.get(field).and_then(Value::as_str).unwrap_or_default()
    }
}
