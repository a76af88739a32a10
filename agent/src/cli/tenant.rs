//! `agentctl tenant`: tenants, each a document of its kind, and the people who may do something with what is its.
//!
//! What a tenant's documents may say is `document/tenant`'s, what its people may read and write `people`'s. Here both
//! are made together, and unmade together.

use clap::{Args, Subcommand};
use serde_json::json;

use super::Session;
use super::apply;
use super::atomic::{self, Step, Write};
use super::change;
use super::cluster::hosts_alive;
use super::delete::refuse_protected;
use super::documents::{self, FilesArg, Selection, Source, Stored};
use super::error::CliError;
use super::format::columns::columns;
use super::format::{self, Format};
use super::people::cluster::{as_json, grant, revoke, say, table};
use super::people::{self, Level, People, Reach};
use crate::document::{DEFAULT_TENANT, DesiredKey, Kind, SecretKey, parse_secret_key, secret_prefix};

#[derive(Debug, Subcommand)]
pub(super) enum TenantCommand {
    /// Make a tenant, and let people do something with it; what is there already stays
    Create(CreateArgs),
    /// All tenants, and their people
    #[command(after_help = "Example:\n  agentctl tenant list")]
    List,
    /// Show a tenant: its document, and its people
    #[command(after_help = "Example:\n  agentctl tenant show shop")]
    Show(NameArgs),
    /// Let a user administer, operate or view what is a tenant's
    #[command(
        after_help = "A viewer reads the tenant's documents and what hosts say of them. An operator also writes its\n\
                      instances, services, files, tunnels and backups, and works in its instances. An admin writes\n\
                      every document of the tenant. Only root changes who may do what.\n\nExample:\n  agentctl tenant grant shop eva operator"
    )]
    Grant(GrantArgs),
    /// Take a user's part in a tenant away
    #[command(after_help = "Example:\n  agentctl tenant revoke shop eva")]
    Revoke(RevokeArgs),
    /// Delete a tenant, and its roles; its users stay
    #[command(
        after_help = "A tenant that has documents or secrets is kept, unless --confirm says that they go with it, and what they made.\n\n\
                      Example:\n  agentctl tenant delete shop"
    )]
    Delete(DeleteArgs),
}

#[derive(Args, Debug)]
#[command(
    after_help = "Without options for its document, that of a tenant which is there stays as it is. Run it again\n\
                  after a host was added, so that the tenant's people see its inventory.\n\n\
                  Examples:\n  agentctl tenant create shop --limit instances=5 --limit memory=16GiB --admin eva --viewer max\n  \
                  agentctl tenant create shop -f shop.yaml --operator eva"
)]
pub(super) struct CreateArgs {
    /// The tenant
    #[arg(value_name = "NAME")]
    tenant: String,
    #[command(flatten)]
    files: FilesArg,
    /// A host that it is on, instead of every host; may be given several times
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// How much it may have, as cpu=8; may be given several times
    #[arg(long = "limit", value_name = "NAME=VALUE")]
    limits: Vec<String>,
    /// What its documents may say beyond its project; may be given several times
    #[arg(long = "allow", value_name = "WHAT")]
    allow: Vec<String>,
    /// A network that it may use, instead of any that Incus manages; may be given several times
    #[arg(long = "network", value_name = "NETWORK")]
    networks: Vec<String>,
    /// A user who decides over its documents; may be given several times
    #[arg(long = "admin", value_name = "USER")]
    admins: Vec<String>,
    /// A user who runs what is there; may be given several times
    #[arg(long = "operator", value_name = "USER")]
    operators: Vec<String>,
    /// A user who looks; may be given several times
    #[arg(long = "viewer", value_name = "USER")]
    viewers: Vec<String>,
    /// Users that are made have no password: they log in by the name in a client certificate
    #[arg(long)]
    no_password: bool,
}

#[derive(Args, Debug)]
pub(super) struct NameArgs {
    /// The tenant
    #[arg(value_name = "NAME")]
    tenant: String,
}

#[derive(Args, Debug)]
pub(super) struct GrantArgs {
    /// The tenant
    #[arg(value_name = "NAME")]
    tenant: String,
    /// The user; made, if there is none of the name
    #[arg(id = "name", value_name = "USER")]
    user: String,
    /// What the user may do
    #[arg(value_enum)]
    level: Level,
    /// A user that is made has no password: it logs in by the name in a client certificate
    #[arg(long)]
    no_password: bool,
}

#[derive(Args, Debug)]
pub(super) struct RevokeArgs {
    /// The tenant
    #[arg(value_name = "NAME")]
    tenant: String,
    /// The user, who stays a user
    #[arg(id = "name", value_name = "USER")]
    user: String,
}

#[derive(Args, Debug)]
pub(super) struct DeleteArgs {
    /// The tenant
    #[arg(value_name = "NAME")]
    tenant: String,
    /// Delete its documents too, and with them what they made
    #[arg(long)]
    confirm: bool,
}

impl TenantCommand {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::Create(args) => args.run(session).await,
            Self::List => list(session).await,
            Self::Show(args) => show(session, &args.tenant).await,
            Self::Grant(args) => args.run(session).await,
            Self::Revoke(args) => revoke(session, &reach(&args.tenant)?, &args.user).await,
            Self::Delete(args) => args.run(session).await,
        }
    }
}

/// The tenant whose people are meant.
fn reach(tenant: &str) -> Result<Reach, CliError> {
    if tenant == DEFAULT_TENANT {
        return Err(CliError::usage(
            "tenant default is the operators' own: its documents reach the hosts themselves",
        )
        .hint("agentctl cluster grant USER operator|viewer"));
    }
    Ok(Reach::Tenant(tenant.to_owned()))
}

impl CreateArgs {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let reach = reach(&self.tenant)?;
        let source = self.source()?;
        let stored = read(session, &self.tenant).await?;
        let stays = stored.is_some() && !self.files.is_given() && !self.says_something();
        let hosts = match &stored {
            Some(stored) if stays => {
                hosts_of(session, stored.document.as_ref().map(|document| &document.hosts)).await
            }
            _ => hosts_of(session, Some(&source.document.hosts)).await,
        };
        // Passwords are asked for before anything is changed.
        let users = people::users(&session.client).await?;
        let wanted = self.people();
        let names: Vec<&String> = wanted.iter().map(|(name, _)| *name).collect();
        let made = people::new_users(&names, &users, self.no_password)?;
        let (changes, revision) = if stays {
            (Vec::new(), stored.map_or(0, |stored| stored.revision))
        } else {
            apply::store(&session.client, std::slice::from_ref(&source)).await?
        };
        people::settle(&session.client, &reach, &wanted, &users, &made, &hosts).await?;
        people::warn_without_auth(&session.client).await;
        let users = people::users(&session.client).await?;
        let people = people::people(&users, &reach);
        if session.format == Some(Format::Json) {
            return format::write_json(
                &json!({"tenant": self.tenant, "revision": revision, "people": as_json(&people)}),
            );
        }
        let mut text = change::text(&changes);
        if stays {
            text.push_str(&format!(
                "tenant {} is there, its document unchanged\n",
                self.tenant
            ));
        }
        for user in &made {
            text.push_str(&format!("user {} is made\n", user.name));
        }
        if !people.is_empty() {
            text.push_str(&table(&people));
        }
        format::write(text.as_bytes())
    }

    fn says_something(&self) -> bool {
        [&self.hosts, &self.limits, &self.allow, &self.networks]
            .iter()
            .any(|given| !given.is_empty())
    }

    /// The document: the file's, or made of the options.
    fn source(&self) -> Result<Source, CliError> {
        if self.files.is_given() {
            if self.says_something() {
                return Err(CliError::usage(
                    "either -f FILE, or --host, --limit, --allow and --network",
                ));
            }
            let mut sources = self.files.load()?;
            let is_it =
                |source: &Source| source.document.kind == Kind::Tenant && source.document.name == self.tenant;
            return match sources.pop().filter(|source| sources.is_empty() && is_it(source)) {
                Some(source) => Ok(source),
                None => Err(CliError::failed(format!(
                    "the file must hold the document of tenant {}, and nothing else",
                    self.tenant
                ))
                .hint("nothing was changed; `agentctl apply -f` stores other documents")),
            };
        }
        documents::source("the options", self.text()?)
    }

    fn text(&self) -> Result<String, CliError> {
        let mut spec = serde_json::Map::new();
        let mut limits = serde_json::Map::new();
        for limit in &self.limits {
            let (name, value) = limit.split_once('=').ok_or_else(|| {
                CliError::usage(format!("--limit {limit}: write NAME=VALUE, for example cpu=8"))
            })?;
            limits.insert(name.to_owned(), json!(value));
        }
        if !limits.is_empty() {
            spec.insert("limits".to_owned(), limits.into());
        }
        for (field, given) in [("allow", &self.allow), ("networks", &self.networks)] {
            if !given.is_empty() {
                spec.insert(field.to_owned(), json!(given));
            }
        }
        // Field by field, in the order that people write them in. JSON is YAML.
        let mut text = format!("kind: tenant\nname: {}\n", json!(self.tenant));
        if !self.hosts.is_empty() {
            text.push_str(&format!("hosts: {}\n", json!(self.hosts)));
        }
        text.push_str(&format!("spec: {}\n", serde_json::Value::Object(spec)));
        Ok(text)
    }

    /// Who is named twice has the most that was said.
    fn people(&self) -> Vec<(&String, Level)> {
        let levels = [
            (&self.viewers, Level::Viewer),
            (&self.operators, Level::Operator),
            (&self.admins, Level::Admin),
        ];
        let all = levels
            .iter()
            .flat_map(|(names, level)| names.iter().map(move |name| (name, *level)));
        all.collect::<std::collections::BTreeMap<_, _>>()
            .into_iter()
            .collect()
    }
}

impl GrantArgs {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let reach = reach(&self.tenant)?;
        let stored = existing(session, &self.tenant).await?;
        let hosts = hosts_of(session, stored.document.as_ref().map(|document| &document.hosts)).await;
        let people = [(&self.user, self.level)];
        let made = grant(session, &reach, &people, &hosts, self.no_password).await?;
        people::warn_without_auth(&session.client).await;
        say(session, &reach, &self.user, self.level, &made)
    }
}

impl DeleteArgs {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let reach = reach(&self.tenant)?;
        // Who may not see the roles may not delete them: told before anything is gone.
        let roles = people::roles(&session.client).await?;
        let stored = read(session, &self.tenant).await?;
        let desired = format!("/tenants/{}/desired/", self.tenant);
        let prefixes = [desired.as_str(), &secret_prefix(&self.tenant)];
        let listing = documents::list(&session.client, &prefixes).await?;
        let mut all: Vec<Option<Stored>> = documents::stored(&listing.kvs, &Selection::default())
            .into_iter()
            .map(Some)
            .collect();
        // Whoever has the name next would have them.
        let secrets: Vec<SecretKey> = listing
            .kvs
            .iter()
            .filter_map(|kv| parse_secret_key(std::str::from_utf8(&kv.key).ok()?))
            .collect();
        let has_roles = Level::ALL.iter().any(|level| roles.contains(&reach.role(*level)));
        let has_any = !all.is_empty() || !secrets.is_empty();
        if stored.is_none() && !has_any && !has_roles {
            return Err(unknown(&self.tenant));
        }
        if has_any && !self.confirm {
            let has = counted(&all, secrets.len());
            return Err(CliError::failed(format!("tenant {} has {has}", self.tenant))
                .hint("nothing was changed; --confirm deletes them too, and what they made"));
        }
        all.push(stored);
        refuse_protected(&all)?;
        let steps: Vec<Step> = all
            .iter()
            .flatten()
            .map(|stored| Step {
                key: stored.key.key(),
                expected: Some(stored.revision),
                write: Write::Delete,
            })
            .chain(secrets.iter().map(|secret| Step {
                key: secret.key(),
                expected: None,
                write: Write::Delete,
            }))
            .collect();
        let revision = match steps.as_slice() {
            [] => listing.revision,
            steps => atomic::commit(&session.client, steps, listing.revision)
                .await?
                .ok_or_else(|| {
                    CliError::failed(format!(
                        "a document of tenant {} was changed just now",
                        self.tenant
                    ))
                    .hint("nothing was changed; try again")
                })?,
        };
        people::delete_roles(&session.client, &reach).await?;
        let changes: Vec<_> = all
            .iter()
            .flatten()
            .map(|stored| change::of_deletion(stored.key.kind, &stored.key.name, Some(stored)))
            .collect();
        apply::show(session, &changes, revision)
    }
}

/// "2 instances, 1 profile".
fn counted(all: &[Option<Stored>], secrets: usize) -> String {
    let mut kinds: Vec<Kind> = all.iter().flatten().map(|stored| stored.key.kind).collect();
    kinds.sort_unstable();
    let words = kinds
        .chunk_by(|one, other| one == other)
        .map(|kinds| match kinds {
            [kind] => format!("1 {kind}"),
            [kind, ..] => format!("{} {}", kinds.len(), kind.plural()),
            [] => String::new(),
        });
    let secrets = match secrets {
        0 => None,
        1 => Some("1 secret".to_owned()),
        count => Some(format!("{count} secrets")),
    };
    let words = words.chain(secrets);
    words.collect::<Vec<_>>().join(", ")
}

fn key(tenant: &str) -> DesiredKey {
    DesiredKey {
        kind: Kind::Tenant,
        tenant: String::new(),
        name: tenant.to_owned(),
    }
}

async fn read(session: &Session, tenant: &str) -> Result<Option<Stored>, CliError> {
    let (mut found, _) = apply::read(&session.client, &[key(tenant)]).await?;
    Ok(found.pop().flatten())
}

async fn existing(session: &Session, tenant: &str) -> Result<Stored, CliError> {
    read(session, tenant).await?.ok_or_else(|| unknown(tenant))
}

fn unknown(tenant: &str) -> CliError {
    CliError::failed(format!("there is no tenant {tenant}")).hint(format!(
        "`agentctl tenant list` shows them; agentctl tenant create {tenant} makes it"
    ))
}

/// The hosts that a tenant may be on, as far as they are known: those that it names, or those that are there.
async fn hosts_of(session: &Session, named: Option<&Vec<String>>) -> Vec<String> {
    match named {
        Some(named) if !named.is_empty() => named.clone(),
        _ => hosts_alive(session).await,
    }
}

async fn list(session: &Session) -> Result<(), CliError> {
    let listing = documents::list(&session.client, &["/cluster/desired/tenants/", "/tenants/"]).await?;
    let stored = documents::stored(&listing.kvs, &Selection::default());
    let users = people::users(&session.client).await?;
    let mut rows = Vec::new();
    let mut all = Vec::new();
    for tenant in stored.iter().filter(|stored| stored.key.kind == Kind::Tenant) {
        let name = &tenant.key.name;
        let documents = stored.iter().filter(|stored| stored.key.tenant == *name).count();
        let people = people::people(&users, &Reach::Tenant(name.clone()));
        all.push(json!({"tenant": name, "documents": documents, "people": as_json(&people)}));
        rows.push([
            name.clone(),
            change::hosts(tenant.document.as_ref()),
            documents.to_string(),
            named(&people, Level::Admin),
            named(&people, Level::Operator),
            named(&people, Level::Viewer),
        ]);
    }
    if session.format == Some(Format::Json) {
        return format::write_json(&json!({"tenants": all}));
    }
    if rows.is_empty() {
        return format::write(b"no tenants: `agentctl tenant create NAME` makes one\n");
    }
    let headings = ["TENANT", "HOSTS", "DOCUMENTS", "ADMINS", "OPERATORS", "VIEWERS"];
    format::write(columns(headings, &rows).as_bytes())
}

fn named(people: &People, level: Level) -> String {
    let names = people.iter().filter(|(_, has)| **has == level);
    names
        .map(|(name, _)| name.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

async fn show(session: &Session, tenant: &str) -> Result<(), CliError> {
    let stored = existing(session, tenant).await?;
    let users = people::users(&session.client).await?;
    let people = people::people(&users, &Reach::Tenant(tenant.to_owned()));
    if session.format == Some(Format::Json) {
        return format::write_json(
            &json!({"tenant": tenant, "revision": stored.revision, "document": stored.text, "people": as_json(&people)}),
        );
    }
    format::write(
        format!(
            "{}\n{}",
            stored.text.trim_end(),
            format_args!("\n{}", table(&people))
        )
        .as_bytes(),
    )
}
