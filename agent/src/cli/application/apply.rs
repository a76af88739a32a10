//! `agentctl cluster apply`: an application's documents into the cluster, in one revision, and out of it what the
//! application no longer has.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;

use super::{FillArgs, stem, template_of};
use crate::cli::Session;
use crate::cli::apply as documents_apply;
use crate::cli::atomic::{self, Step, Write};
use crate::cli::change::{self, Change};
use crate::cli::cluster;
use crate::cli::delete::refuse_protected;
use crate::cli::documents::{self, DOCUMENTS_LIMIT, Selection, Source, Stored};
use crate::cli::error::CliError;
use crate::cli::tenancy;
use crate::document::{self, DesiredKey, Text, Values, origin_fault, render, variables_used};

/// Somebody else may change a document between our reading and our writing; twice in a row is a quarrel.
const ATTEMPTS: usize = 3;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl cluster apply --services profiles.yaml --application shop.yaml --hosts ovh,ionos\n  \
                        agentctl cluster apply --template web --variables shop.yaml --hosts ovh,ionos --name shop\n  \
                        agentctl cluster apply --template web --set APP=shop --hosts ovh --dry-run\n\n\
                        The documents may hold @NAME@, which --variables and --set give values to. One with @HOST@\n\
                        comes out once for each of --hosts; in `hosts: [@HOSTS@]` it is all of them.\n\
                        All are checked first and stored together, with the application's name as their origin. What\n\
                        is of this origin and did not come out again is deleted: it asks, or --prune says so."
)]
pub(in crate::cli) struct ApplyArgs {
    /// Documents that others rely on, as profiles; a file, a directory or -; may be given several times
    #[arg(long, value_name = "FILE|DIR|-", conflicts_with = "template")]
    services: Vec<PathBuf>,
    /// The application's own documents; a file, a directory or -; may be given several times
    #[arg(long, value_name = "FILE|DIR|-", conflicts_with = "template")]
    application: Vec<PathBuf>,
    /// A template that the cluster holds
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    #[command(flatten)]
    fill: FillArgs,
    /// What the application is called [default: the template's name, or that of its first file]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Delete what the application no longer has, without asking
    #[arg(long, conflicts_with = "no_prune")]
    prune: bool,
    /// Leave what the application no longer has
    #[arg(long)]
    no_prune: bool,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
}

/// What is to be done, as of what was read.
#[derive(Debug)]
struct Planned {
    changes: Vec<Change>,
    gone: Vec<Stored>,
    steps: Vec<Step>,
    read_at: i64,
}

impl ApplyArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let origin = self.origin()?;
        let sources = self.sources(session, &origin).await?;
        tenancy::check(&session.client, &sources).await?;
        self.say_who_is_lost(session).await;
        for _ in 0..ATTEMPTS {
            let planned = self.plan(session, &origin, &sources).await?;
            if self.dry_run {
                return show_plan(&planned);
            }
            let Planned {
                mut changes,
                gone,
                mut steps,
                read_at,
            } = planned;
            if !gone.is_empty() {
                if self.may_prune(&origin, &changes, &gone)? {
                    refuse_protected(&gone.iter().cloned().map(Some).collect::<Vec<_>>())?;
                    for stored in &gone {
                        changes.push(deletion(stored));
                        steps.push(prune(stored));
                    }
                } else {
                    eprintln!("not deleted, and of {origin} still: {}", count(gone.len()));
                }
            }
            if steps.len() > DOCUMENTS_LIMIT {
                let text = format!(
                    "{} changes are too many: {DOCUMENTS_LIMIT} go in at once",
                    steps.len()
                );
                return Err(
                    CliError::failed(text).hint("nothing was changed; make several applications of it")
                );
            }
            if steps.is_empty() {
                return documents_apply::show(session, &changes, read_at);
            }
            if let Some(revision) = atomic::commit(&session.client, &steps, read_at).await? {
                return documents_apply::show(session, &changes, revision);
            }
        }
        Err(
            CliError::failed("somebody else keeps changing the same documents")
                .hint("nothing was changed; try again when they are done"),
        )
    }

    fn origin(&self) -> Result<String, CliError> {
        if self.template.is_none() && self.application.is_empty() && self.services.is_empty() {
            return Err(CliError::usage(
                "say what to apply: --template NAME, or --application FILE and --services FILE",
            ));
        }
        let first = self.application.first().or_else(|| self.services.first());
        let name = self
            .name
            .clone()
            .or_else(|| self.template.clone())
            .or_else(|| stem(first?));
        let name = name.ok_or_else(|| CliError::usage("say what the application is called: --name NAME"))?;
        match origin_fault(&name) {
            None => Ok(name),
            Some(why) => Err(CliError::usage(format!("the application's name {name:?}: {why}"))
                .hint("say another one with --name")),
        }
    }

    /// Every document, rendered, with its origin.
    async fn sources(&self, session: &Session, origin: &str) -> Result<Vec<Source>, CliError> {
        let values = self.fill.values()?;
        let hosts = self.fill.hosts()?;
        let mut sources: Vec<Source> = Vec::new();
        for (place, text, values) in self.texts(session, &values).await? {
            let wrong = |error| wrong(&place, &error).hint("nothing was changed");
            for rendered in render(&text, &values, hosts).map_err(wrong)? {
                let line = rendered.line;
                let rendered = rendered.of_origin(origin).map_err(wrong)?;
                let key = rendered.document.desired_key();
                if let Some(first) = sources.iter().find(|other| other.document.desired_key() == key) {
                    let text = format!("{place}:{line}: {key} is in {} already", first.place);
                    return Err(CliError::failed(text).hint("nothing was changed"));
                }
                sources.push(Source {
                    place: format!("{place}:{line}"),
                    text: rendered.text,
                    document: rendered.document,
                });
            }
        }
        if sources.is_empty() {
            return Err(
                CliError::failed("there is no document in what was given").hint("nothing was changed")
            );
        }
        Ok(sources)
    }

    /// The texts to render, with what they are called and their values.
    async fn texts(
        &self,
        session: &Session,
        values: &Values,
    ) -> Result<Vec<(String, Text, Values)>, CliError> {
        if let Some(name) = &self.template {
            let template = template_of(session, name).await?;
            let place = format!("template {name}");
            let values = template.cover(values).map_err(|error| {
                wrong(&place, &error).hint("nothing was changed; `agentctl template show` says what it needs")
            })?;
            return Ok(vec![(place, template.documents, values)]);
        }
        let files: Vec<PathBuf> = self.services.iter().chain(&self.application).cloned().collect();
        let texts = documents::read_files(&files)?;
        let unused = values.keys().find(|name| {
            !texts
                .iter()
                .any(|(_, text)| variables_used(text).contains(name.as_str()))
        });
        if let Some(name) = unused {
            return Err(CliError::failed(format!(
                "{name} is not used: there is no @{name}@ in the documents"
            ))
            .hint("nothing was changed"));
        }
        Ok(texts
            .into_iter()
            .map(|(place, text)| (place, Text::of_file(text), values.clone()))
            .collect())
    }

    async fn say_who_is_lost(&self, session: &Session) {
        let alive = cluster::hosts_alive(session).await;
        for host in self.fill.hosts.iter().filter(|host| !alive.contains(host)) {
            eprintln!("{host} is not alive: what is for it waits");
        }
    }

    async fn plan(&self, session: &Session, origin: &str, sources: &[Source]) -> Result<Planned, CliError> {
        let listing = documents::list(&session.client, &document::desired_prefixes()).await?;
        let stored: BTreeMap<DesiredKey, Stored> = documents::stored(&listing.kvs, &Selection::default())
            .into_iter()
            .map(|stored| (stored.key.clone(), stored))
            .collect();
        let before: Vec<Option<Stored>> = sources
            .iter()
            .map(|source| stored.get(&source.document.desired_key()).cloned())
            .collect();
        refuse_others(origin, &before)?;
        let changes: Vec<Change> = sources
            .iter()
            .zip(&before)
            .map(|(source, before)| change::of(source, before.as_ref()))
            .collect();
        let steps = documents_apply::steps(sources, &before, &changes);
        let comes_out = |key: &DesiredKey| sources.iter().any(|source| source.document.desired_key() == *key);
        let gone = stored
            .into_values()
            .filter(|stored| origin_of(stored) == Some(origin) && !comes_out(&stored.key));
        Ok(Planned {
            changes,
            gone: gone.collect(),
            steps,
            read_at: listing.revision,
        })
    }

    fn may_prune(&self, origin: &str, changes: &[Change], gone: &[Stored]) -> Result<bool, CliError> {
        if self.prune || self.no_prune {
            return Ok(self.prune);
        }
        let deletions: Vec<Change> = gone.iter().map(deletion).collect();
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            let text = format!("{origin} no longer has:\n{}", change::text(&deletions).trim_end());
            return Err(CliError::failed(text)
                .hint("nothing was changed; --prune deletes them, --no-prune leaves them"));
        }
        eprint!(
            "{}{}{origin} no longer has {}: delete? [y/N] ",
            change::text(changes),
            change::text(&deletions),
            count(gone.len())
        );
        let mut answer = String::new();
        match io::stdin().read_line(&mut answer) {
            Ok(0) | Err(_) => Ok(false),
            Ok(_) => Ok(answer.trim().to_lowercase().starts_with('y')),
        }
    }
}

pub(super) fn wrong(place: &str, error: &document::DocumentError) -> CliError {
    let colon = if error.line > 0 { ":" } else { ": " };
    CliError::failed(format!("{place}{colon}{error}"))
}

fn count(documents: usize) -> String {
    match documents {
        1 => "1 document".to_owned(),
        many => format!("{many} documents"),
    }
}

fn origin_of(stored: &Stored) -> Option<&str> {
    stored.document.as_ref()?.origin.as_deref()
}

/// What is another application's is not taken from it.
fn refuse_others(origin: &str, before: &[Option<Stored>]) -> Result<(), CliError> {
    let other = before
        .iter()
        .flatten()
        .find_map(|stored| Some((stored, origin_of(stored).filter(|other| *other != origin)?)));
    match other {
        None => Ok(()),
        Some((stored, other)) => Err(
            CliError::failed(format!("{} is of application {other}", stored.key))
                .hint("nothing was changed; give it another name, or delete the other one's first"),
        ),
    }
}

fn deletion(stored: &Stored) -> Change {
    change::of_deletion(stored.key.kind, &stored.key.name, Some(stored))
}

/// Deletes what is gone, if nobody has touched it since it was read.
fn prune(stored: &Stored) -> Step {
    Step {
        key: stored.key.key(),
        expected: Some(stored.revision),
        write: Write::Delete,
    }
}

fn show_plan(planned: &Planned) -> Result<(), CliError> {
    let deletions: Vec<Change> = planned.gone.iter().map(deletion).collect();
    let text = format!(
        "{}{}nothing was changed: --dry-run\n",
        change::text(&planned.changes),
        change::text(&deletions)
    );
    crate::cli::format::write(text.as_bytes())
}
