//! The kinds of document.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a document is about. Ordered as things depend on each other: a later kind may need an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Project,
    Profile,
    Instance,
}

/// Every kind, in the order in which they depend on each other.
#[must_use]
pub const fn kinds() -> &'static [Kind] {
    &[Kind::Project, Kind::Profile, Kind::Instance]
}

impl Kind {
    /// The word in a document.
    #[must_use]
    pub const fn singular(self) -> &'static str {
        match self {
            Kind::Project => "project",
            Kind::Profile => "profile",
            Kind::Instance => "instance",
        }
    }

    /// The word in a key.
    #[must_use]
    pub const fn plural(self) -> &'static str {
        match self {
            Kind::Project => "projects",
            Kind::Profile => "profiles",
            Kind::Instance => "instances",
        }
    }

    /// Whether a document of this kind belongs to a tenant. One that does not belongs to the cluster.
    #[must_use]
    pub const fn has_tenant(self) -> bool {
        !matches!(self, Kind::Project)
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
