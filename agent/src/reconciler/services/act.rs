//! One thing to do for a service or a file, as data.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::record::Record;
use crate::service::{Definition, Manager, digest};

/// The machine that a document is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Place {
    /// This host itself.
    Host,
    /// The inside of an instance of this host.
    Instance { project: String, name: String },
}

/// An action, and where. Each may be repeated: what is done already does no harm.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Act {
    pub(crate) place: Place,
    /// What keeps the services of that machine, where the action is about one.
    pub(crate) manager: Option<Manager>,
    pub(crate) action: Action,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// What is ours, before it is made and once it is.
    Remember(Box<Record>),
    /// It is nobody's from now on; nothing is touched.
    Release,
    /// Everything of it is gone.
    Forget,
    MakeFolder {
        path: String,
    },
    RemoveFolder {
        path: String,
    },
    Write(Arc<FileWanted>, Replaces),
    /// Only while its contents are one of these.
    Remove {
        path: String,
        digests: Vec<String>,
    },
    Reload,
    Enable {
        name: String,
        on: bool,
    },
    Restart {
        name: String,
        /// Where the manager takes it directly.
        definition: Option<Box<Definition>>,
    },
    Stop {
        name: String,
    },
}

/// What a write may find at its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replaces {
    Nothing,
    Ours,
}

/// What is in a file. Nothing prints it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Plain(Vec<u8>),
    /// A secret, by the digest of its value: that is put in where the file is written.
    Secret {
        name: String,
        digest: String,
    },
    /// A secret of which nothing is known.
    Unknown {
        name: String,
    },
}

impl Content {
    /// Of what the file will hold; empty where that is not known.
    pub(crate) fn digest(&self) -> String {
        match self {
            Content::Plain(bytes) => digest(bytes),
            Content::Secret { digest, .. } => digest.clone(),
            Content::Unknown { .. } => String::new(),
        }
    }
}

#[cfg(test)]
impl Content {
    /// Of one that is plain.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Content::Plain(bytes) => bytes,
            Content::Secret { .. } | Content::Unknown { .. } => panic!("{self} is not plain"),
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Plain(bytes) => write!(f, "{} bytes", bytes.len()),
            Content::Secret { name, .. } | Content::Unknown { name } => write!(f, "secret {name}"),
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A file as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileWanted {
    pub(crate) path: String,
    pub(crate) content: Content,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// A line near its beginning that nobody else writes.
    pub(crate) mark: Option<String>,
    /// Where in the document it comes from.
    pub(crate) at: String,
}

impl Action {
    /// The action in a word, for a status. Empty: nothing that anybody sees.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Action::Remember(_) => "",
            Action::Release => "release",
            Action::Forget => "forget",
            Action::MakeFolder { .. } => "make folder",
            Action::RemoveFolder { .. } => "remove folder",
            Action::Write(..) => "write",
            Action::Remove { .. } => "remove",
            Action::Reload => "reload",
            Action::Enable { on: true, .. } => "enable",
            Action::Enable { on: false, .. } => "disable",
            Action::Restart { .. } => "restart",
            Action::Stop { .. } => "stop",
        }
    }

    /// Whether something that we made goes with it.
    pub(crate) const fn deletes(&self) -> bool {
        matches!(self, Action::Forget | Action::Remove { .. })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Host => f.write_str("host"),
            Place::Instance { project, name } => write!(f, "{project}/{name}"),
        }
    }
}

impl fmt::Display for Act {
    /// For golden files.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.action.word())?;
        match &self.action {
            Action::Remember(record) => write!(f, "remember {record}"),
            Action::Release | Action::Forget | Action::Reload => Ok(()),
            Action::MakeFolder { path } | Action::RemoveFolder { path } | Action::Remove { path, .. } => {
                write!(f, " {path}")
            }
            Action::Write(file, replaces) => {
                let FileWanted {
                    path,
                    mode,
                    uid,
                    gid,
                    content,
                    ..
                } = file.as_ref();
                let new = if *replaces == Replaces::Nothing {
                    ", new"
                } else {
                    ""
                };
                write!(f, " {path} {mode:04o} {uid}:{gid}, {content}{new}")
            }
            Action::Enable { name, .. } | Action::Restart { name, .. } | Action::Stop { name } => {
                write!(f, " {name}")?;
                let by = self.manager.as_ref().map_or("nobody", Manager::word);
                write!(f, " by {by}")
            }
        }
    }
}
