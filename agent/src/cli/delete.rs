//! `agentctl delete`: documents out of the cluster.

use clap::Args;

use super::Session;
use super::apply;
use super::atomic::{self, Step, Write};
use super::change::{self, Change};
use super::documents::{FilesArg, Stored, parse_kind};
use super::error::CliError;
use crate::document::{DEFAULT_TENANT, DesiredKey, Kind};

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl delete instance web\n  agentctl delete -f web.yaml\n\n\
                        The hosts delete what the document made, unless it says `lifecycle: {deletion: retain}`.\n\
                        A document with `lifecycle: {protect: true}` is not deleted until that is taken off."
)]
pub(super) struct DeleteArgs {
    /// Its kind
    #[arg(value_parser = parse_kind, requires = "name", required_unless_present = "files")]
    kind: Option<Kind>,
    /// Its name
    name: Option<String>,
    /// Whose it is
    #[arg(long, value_name = "TENANT", default_value = DEFAULT_TENANT)]
    tenant: String,
    #[command(flatten)]
    files: FilesArg,
}

impl DeleteArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let keys = self.keys()?;
        let (before, read_at) = apply::read(&session.client, &keys).await?;
        if let (Some(kind), Some(name), [None]) = (self.kind, &self.name, before.as_slice()) {
            return Err(CliError::failed(format!("there is no {kind} {name}"))
                .hint("nothing was changed; `agentctl get` lists what there is"));
        }
        refuse_protected(&before)?;
        let changes: Vec<Change> = keys
            .iter()
            .zip(&before)
            .map(|(key, before)| change::of_deletion(key.kind, &key.name, before.as_ref()))
            .collect();
        let steps: Vec<Step> = keys
            .iter()
            .map(|key| Step {
                key: key.key(),
                expected: None,
                write: Write::Delete,
            })
            .collect();
        let revision = atomic::commit(&session.client, &steps, read_at).await?;
        apply::show(session, &changes, revision.unwrap_or(0))
    }

    fn keys(&self) -> Result<Vec<DesiredKey>, CliError> {
        let (Some(kind), Some(name)) = (self.kind, &self.name) else {
            let sources = self.files.load()?;
            return Ok(sources
                .iter()
                .map(|source| source.document.desired_key())
                .collect());
        };
        if self.files.is_given() {
            return Err(CliError::usage("either KIND NAME or -f FILE, not both"));
        }
        let tenant = if kind.has_tenant() {
            self.tenant.clone()
        } else {
            String::new()
        };
        Ok(vec![DesiredKey {
            kind,
            tenant,
            name: name.clone(),
        }])
    }
}

pub(super) fn refuse_protected(before: &[Option<Stored>]) -> Result<(), CliError> {
    let protected = before.iter().flatten().find(|stored| {
        stored
            .document
            .as_ref()
            .is_some_and(|document| document.lifecycle.protect)
    });
    match protected {
        None => Ok(()),
        Some(stored) => Err(CliError::failed(format!(
            "{} {} is protected",
            stored.key.kind, stored.key.name
        ))
        .hint("nothing was changed; apply it with `lifecycle: {protect: false}` first")),
    }
}
