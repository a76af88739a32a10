//! How far the reconciler may go with an object.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The `lifecycle` of a document. Also stands on the object itself, where it outlives the document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lifecycle {
    /// Every deletion fails until this is taken off by a change of its own.
    pub protect: bool,
    pub deletion: Deletion,
    pub update: Update,
    pub managed: Managed,
}

/// What becomes of the object when its document is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deletion {
    #[default]
    Delete,
    /// The object stays, and is nobody's.
    Retain,
}

/// The most that a change may cost the object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Update {
    #[default]
    Live,
    Restart,
    /// It may be deleted and made anew: what is on its root disk is lost.
    Rebuild,
}

/// How much of the object is kept as the document says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Managed {
    #[default]
    Full,
    /// Made when it is missing, deleted when the document is; never changed in between.
    Existence,
}

impl fmt::Display for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Update::Live => "live",
            Update::Restart => "restart",
            Update::Rebuild => "rebuild",
        })
    }
}
