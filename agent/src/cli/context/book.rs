//! A person's contexts, and the one file that holds them: `config.yaml` in the folder of their settings.
//!
//! A context says where a cluster is and as whom; never a password. The file is written in one step and is its
//! owner's only. Nothing here asks a cluster.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::client::{Endpoint, Tls};
use crate::cli::error::CliError;
use crate::tls::files::write_private;

const FILE: &str = "config.yaml";
/// More is no file of ours.
const MAX_BYTES: u64 = 1024 * 1024;

/// A cluster, and who its user is there.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Context {
    pub(in crate::cli) endpoints: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) cacert: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) cert: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) key: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) user: Option<String>,
}

/// All contexts of a person.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Contexts {
    /// What commands use that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) current: Option<String>,
    #[serde(default)]
    pub(super) contexts: BTreeMap<String, Context>,
}

impl Context {
    /// What is wrong with it, and in which field.
    pub(super) fn check(&self) -> Result<(), CliError> {
        if self.endpoints.is_empty() {
            return Err(CliError::usage("it names no endpoint").hint("--endpoints HOST:PORT,..."));
        }
        for endpoint in &self.endpoints {
            Endpoint::parse(endpoint, &Tls::default())?;
        }
        match (&self.cert, &self.key) {
            (Some(_), None) => return Err(CliError::usage("its cert needs the key: --key FILE")),
            (None, Some(_)) => return Err(CliError::usage("its key needs the cert: --cert FILE")),
            _ => {}
        }
        if self.user.as_deref().is_some_and(|user| user.contains(':')) {
            return Err(CliError::usage("user is a name alone: passwords are never kept")
                .hint("give the password when you are asked for it, or in AGENTCTL_PASSWORD"));
        }
        Ok(())
    }

    pub(super) fn yaml(&self) -> Result<String, CliError> {
        serde_saphyr::to_string(self).map_err(|error| CliError::failed(error.to_string()))
    }
}

impl Contexts {
    /// Those of a folder; none where there is no file.
    pub(in crate::cli) fn read(folder: &Path) -> Result<Self, CliError> {
        let path = folder.join(FILE);
        let failed = |error: &io::Error| CliError::io(path.display(), error);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(&error)),
            Ok(metadata) if metadata.len() > MAX_BYTES => {
                return Err(CliError::failed(format!(
                    "{}: larger than {MAX_BYTES} bytes, which contexts never are",
                    path.display()
                )));
            }
            Ok(_) => {}
        }
        let text = fs::read_to_string(&path).map_err(|error| failed(&error))?;
        let wrong = |why: String| {
            CliError::failed(format!("{}: {why}", path.display()))
                .hint("mend it, or move it away: `agentctl context set` makes it anew")
        };
        // Of what is wrong the first line alone: the rest shows the text.
        let found: Self = serde_saphyr::from_str(&text)
            .map_err(|error| wrong(error.to_string().lines().next().unwrap_or_default().to_owned()))?;
        for (name, context) in &found.contexts {
            context
                .check()
                .map_err(|error| wrong(format!("context `{name}`: {error}")))?;
        }
        Ok(found)
    }

    /// Keeps them there, and makes the folder.
    pub(super) fn write(&self, folder: &Path) -> Result<(), CliError> {
        let path = folder.join(FILE);
        let text = serde_saphyr::to_string(self).map_err(|error| CliError::failed(error.to_string()))?;
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(folder);
        made.and_then(|()| write_private(&path, &text))
            .map_err(|error| CliError::io(path.display(), &error))
    }

    /// The one of this name, or whose names there are.
    pub(in crate::cli) fn find(&self, name: &str) -> Result<&Context, CliError> {
        self.contexts.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let hint = match names.as_slice() {
                [] => format!("there is none yet: agentctl context set {name} --endpoints HOST:PORT,..."),
                names => format!("there are: {}", names.join(", ")),
            };
            CliError::failed(format!("there is no context `{name}`")).hint(hint)
        })
    }

    pub(in crate::cli) fn current(&self) -> Option<&str> {
        self.current.as_deref()
    }

    /// Adds one, or puts it in the place of another; the first there is becomes the current one.
    pub(super) fn put(&mut self, name: &str, context: Context) {
        self.contexts.insert(name.to_owned(), context);
        if self.current.is_none() {
            self.current = Some(name.to_owned());
        }
    }
}

/// Refuses what would be no name of a context.
pub(super) fn check_name(name: &str) -> Result<(), CliError> {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    if (1..=63).contains(&name.len()) && name.bytes().all(is_fit) {
        return Ok(());
    }
    Err(CliError::usage(format!("`{name}` is no name of a context"))
        .hint("it is 1 to 63 letters, digits, or of -_.@"))
}
