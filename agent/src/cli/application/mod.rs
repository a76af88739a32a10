//! Applications: documents that are rendered, stored and pruned together. `agentctl cluster apply` and
//! `agentctl template`.
//!
//! What comes out of a text only [`crate::document`] says; here are the files, the templates that the cluster holds,
//! and the one transaction.

mod apply;
mod template;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::Session;
use super::documents::{self, Selection};
use super::error::CliError;
use super::people;
use super::trust::InitArgs;
use crate::document::{Kind, Template, Values, parse_setting, parse_values};

pub(super) use template::TemplateCommand;

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Store an application: its documents on its hosts, all at once, and nothing of it that is gone
    Apply(apply::ApplyArgs),
    /// Make a cluster's authority, and the certificates and settings of its hosts
    Init(InitArgs),
    /// Let a user administer, operate or view the cluster as a whole
    Grant(people::cluster::GrantArgs),
    /// Take from a user what `cluster grant` gave
    Revoke(people::cluster::RevokeArgs),
    /// Show who may do what with the cluster as a whole
    #[command(after_help = "Example:\n  agentctl cluster people")]
    People,
}

impl ClusterCommand {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::Apply(args) => args.run(session).await,
            Self::Init(args) => args.run(),
            Self::Grant(args) => args.run(session).await,
            Self::Revoke(args) => args.run(session).await,
            Self::People => people::cluster::show(session).await,
        }
    }
}

/// What the variables stand for, and where.
#[derive(Args, Clone, Debug)]
struct FillArgs {
    /// A file of values, as NAME: value
    #[arg(long, value_name = "FILE|-")]
    variables: Option<PathBuf>,
    /// One value, over those of the file; may be given several times
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// What @HOST@ stands for one by one, @HOSTS@ all at once; and where a document is that names no host
    #[arg(long, value_name = "HOST,...", value_delimiter = ',')]
    hosts: Vec<String>,
}

impl FillArgs {
    fn values(&self) -> Result<Values, CliError> {
        let mut values = match &self.variables {
            None => Values::new(),
            Some(file) => {
                let (name, text) = documents::read_file(file)?;
                parse_values(&text).map_err(|error| CliError::failed(format!("{name}:{error}")))?
            }
        };
        values.extend(self.settings.iter().cloned());
        Ok(values)
    }

    fn hosts(&self) -> Result<&[String], CliError> {
        let mut seen = BTreeSet::new();
        match self
            .hosts
            .iter()
            .find(|host| host.is_empty() || !seen.insert(*host))
        {
            None => Ok(&self.hosts),
            Some(host) if host.is_empty() => {
                Err(CliError::usage("--hosts: a name is missing between the commas"))
            }
            Some(host) => Err(CliError::usage(format!("--hosts: {host} stands there twice"))),
        }
    }
}

/// The template of this name that the cluster holds.
async fn template_of(session: &Session, name: &str) -> Result<Template, CliError> {
    let selection = Selection {
        kind: Some(Kind::Template),
        name: Some(name.to_owned()),
        tenant: None,
    };
    let listing = documents::list(&session.client, &[TEMPLATES_PREFIX]).await?;
    let Some(stored) = documents::stored(&listing.kvs, &selection).pop() else {
        return Err(CliError::failed(format!("there is no template {name}"))
            .hint("`agentctl template list` lists what there is"));
    };
    match stored.document {
        Some(document) => Ok(Template::of(&document)),
        None => Err(CliError::failed(format!("template {name} is wrong"))
            .hint(format!("`agentctl status template {name}` says why"))),
    }
}

const TEMPLATES_PREFIX: &str = "/cluster/desired/templates/";

/// What an application is called that nobody gave a name: its file's, without the ending.
fn stem(file: &Path) -> Option<String> {
    let stem = file.file_stem()?.to_str()?;
    (stem != "-").then(|| stem.to_owned())
}
