//! `agentctl secret`: values that documents refer to by name, and that nobody reads again.

use std::ffi::OsString;
use std::io::{self, Read};

use bytes::Bytes;
use clap::{Args, Subcommand};
use proto::etcdserverpb as pb;
use proto::mvccpb::KeyValue;
use serde_json::{Value, json};

use super::Session;
use super::atomic::{self, Step, Write};
use super::documents::{self, Selection};
use super::error::CliError;
use super::format::columns::columns;
use super::format::{self, Format};
use super::kv::read_value;
use super::password;
use crate::document::{DEFAULT_TENANT, SecretKey, parse_secret_key, secret_name_fault};
use crate::secrets::{SECRET_BYTES_MAX, Sealed, generate};

#[derive(Debug, Subcommand)]
pub(super) enum SecretCommand {
    /// Store a secret, or another value of it
    Set(SetArgs),
    /// Show which secrets there are, and what uses them; never a value
    #[command(after_help = "Examples:\n  agentctl secret list\n  agentctl secret list --tenant shop -w json")]
    List(OfTenant),
    /// Delete a secret
    Delete(DeleteArgs),
    /// Seal every secret with the first key of the members' files
    #[command(
        after_help = "The way to another key, without a restart: put it into every member's --secrets-key-file as the second \
                      line; then, on every member, make it the first; `agentctl secret reseal` for every tenant; then take the \
                      former one out.\n\n\
                      Example:\n  agentctl secret reseal"
    )]
    Reseal(OfTenant),
    /// Make a key for the members' --secrets-key-file
    #[command(
        after_help = "`agentctl cluster init` has made one. Whoever has the key and a copy of the store can read the secrets; \
                      without it they are lost, and nothing else is.\n\n\
                      Example:\n  agentctl secret keygen > secrets.key"
    )]
    Keygen,
}

#[derive(Args, Debug)]
pub(super) struct OfTenant {
    /// Whose they are
    #[arg(long, value_name = "TENANT", default_value = DEFAULT_TENANT)]
    tenant: String,
}

#[derive(Args, Debug)]
struct Named {
    /// Its name
    #[arg(value_name = "NAME", value_parser = parse_name)]
    name: String,
    #[command(flatten)]
    of: OfTenant,
}

#[derive(Args, Debug)]
#[command(
    after_help = "The value is asked for, or comes from a file (@FILE) or from standard input (-), where one newline at the end \
                  is not part of it. It is sealed before it is stored, and shown to nobody again.\n\n\
                  Documents refer to it by name, in the place of a value: environment.*, cloud-init.* and user.* of instances \
                  and profiles, and contents of files, also of a service's.\n  \
                  spec: {config: {environment.PASSWORD: {secret: db-password}}}\n  \
                  spec: {path: /etc/web.key, mode: 0600, content: {secret: web-key}}\n\n\
                  Examples:\n  agentctl secret set db-password\n  agentctl secret set web-key @web.key --tenant shop\n  \
                  pwgen 32 1 | agentctl secret set db-password -"
)]
pub(super) struct SetArgs {
    #[command(flatten)]
    named: Named,
    /// Where the value is [default: it is asked for]
    #[arg(value_name = "@FILE|-")]
    value: Option<OsString>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "One that documents refer to stays, unless --force says otherwise: what runs goes on with it, and what is made \
                  anew waits for it.\n\n\
                  Example:\n  agentctl secret delete db-password"
)]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    named: Named,
    /// Also where documents refer to it
    #[arg(long)]
    force: bool,
}

fn parse_name(name: &str) -> Result<String, String> {
    match secret_name_fault(name) {
        Some(wrong) => Err(wrong.to_owned()),
        None => Ok(name.to_owned()),
    }
}

impl Named {
    fn key(&self) -> SecretKey {
        SecretKey {
            tenant: self.of.tenant.clone(),
            name: self.name.clone(),
        }
    }
}

impl SecretCommand {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::Set(args) => args.run(session).await,
            Self::List(of) => list(session, &of.tenant).await,
            Self::Delete(args) => args.run(session).await,
            Self::Reseal(of) => reseal(session, &of.tenant).await,
            Self::Keygen => keygen(),
        }
    }
}

/// Needs no cluster.
pub(super) fn keygen() -> Result<(), CliError> {
    let key = generate().map_err(|error| CliError::io("random numbers", &error))?;
    format::write(key.as_bytes())
}

impl SetArgs {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let key = self.named.key();
        let value = value(&key, self.value)?;
        let put = pb::PutRequest {
            key: key.key().into(),
            value,
            ..Default::default()
        };
        let answer = session.client.put(put).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        // Who may write secrets need not be able to read documents.
        let users = Secrets::read(session, &key.tenant)
            .await
            .map(|all| all.users(&key.name));
        if session.format == Some(Format::Json) {
            return format::write_json(
                &json!({"secret": key.name, "tenant": key.tenant, "revision": revision}),
            );
        }
        let used = match users {
            Ok(users) if !users.is_empty() => format!("; used by {}", users.join(", ")),
            _ => String::new(),
        };
        format::write(format!("secret {key} is set at revision {revision}{used}\n").as_bytes())
    }
}

/// Never from the command line: others on the machine see that, and the shell remembers it.
fn value(key: &SecretKey, argument: Option<OsString>) -> Result<Bytes, CliError> {
    let value: Bytes = match argument {
        None => {
            let first = password::ask(&format!("Value of secret {key}: "))?;
            let again = password::ask("The same again: ")?;
            if first != again {
                return Err(CliError::failed("the two values differ").hint("nothing was changed: try again"));
            }
            Bytes::copy_from_slice(first.expose().as_bytes())
        }
        Some(word) if word == "-" => {
            let mut bytes = Vec::new();
            let limit = SECRET_BYTES_MAX as u64 + 2;
            let read = io::stdin().lock().take(limit).read_to_end(&mut bytes);
            read.map_err(|error| CliError::io("standard input", &error))?;
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
            }
            bytes.into()
        }
        Some(word) if word.to_string_lossy().starts_with('@') => read_value(Some(word))?,
        Some(_) => {
            return Err(CliError::usage("a secret is not given on the command line").hint(
                "others on this machine would see it: @FILE, - for standard input, or nothing, to be asked for it",
            ));
        }
    };
    if value.is_empty() {
        return Err(CliError::failed("the value is empty").hint("nothing was changed"));
    }
    if value.len() > SECRET_BYTES_MAX {
        let limit = SECRET_BYTES_MAX >> 10;
        return Err(CliError::failed(format!("a secret has at most {limit} KiB")).hint("nothing was changed"));
    }
    Ok(value)
}

/// What is stored of a tenant's secrets, and who refers to them.
struct Secrets {
    revision: i64,
    kvs: Vec<KeyValue>,
    /// The words of each document, and the names that it refers to.
    users: Vec<(String, Vec<String>)>,
}

/// One that is stored.
struct Secret {
    key: SecretKey,
    revision: i64,
    sealed: Option<Sealed>,
    /// As it is stored.
    text: String,
}

impl Secrets {
    async fn read(session: &Session, tenant: &str) -> Result<Secrets, CliError> {
        let of_tenant = format!("/tenants/{tenant}/");
        let listing = documents::look(&session.client, &[of_tenant.as_str()]).await?;
        let stored = documents::stored(&listing.kvs, &Selection::default());
        let users = stored.iter().filter_map(|stored| {
            let document = stored.document.as_ref()?;
            let names = document.secrets().iter().cloned().collect();
            Some((format!("{} {}", stored.key.kind, stored.key.name), names))
        });
        Ok(Secrets {
            revision: listing.revision,
            users: users.collect(),
            kvs: listing.kvs,
        })
    }

    fn all(&self) -> Vec<Secret> {
        let secret = |kv: &KeyValue| {
            Some(Secret {
                key: parse_secret_key(std::str::from_utf8(&kv.key).ok()?)?,
                revision: kv.mod_revision,
                sealed: Sealed::read(&kv.value).ok(),
                text: String::from_utf8_lossy(&kv.value).into_owned(),
            })
        };
        self.kvs.iter().filter_map(secret).collect()
    }

    fn users(&self, name: &str) -> Vec<String> {
        let refer = self
            .users
            .iter()
            .filter(|(_, names)| names.iter().any(|one| one == name));
        refer.map(|(words, _)| words.clone()).collect()
    }
}

async fn list(session: &Session, tenant: &str) -> Result<(), CliError> {
    let stored = Secrets::read(session, tenant).await?;
    let all = stored.all();
    match session.format {
        Some(Format::Json) => {
            let one = |secret: &Secret| -> Value {
                json!({"secret": secret.key.name, "tenant": secret.key.tenant, "revision": secret.revision,
                    "bytes": secret.sealed.as_ref().map(Sealed::value_bytes),
                    "key": secret.sealed.as_ref().map(|sealed| &sealed.key),
                    "used_by": stored.users(&secret.key.name)})
            };
            format::write_json(&Value::Array(all.iter().map(one).collect()))
        }
        Some(Format::Simple) => {
            let names: String = all
                .iter()
                .map(|secret| format!("{}\n", secret.key.name))
                .collect();
            format::write(names.as_bytes())
        }
        _ if all.is_empty() => {
            eprintln!("no secrets of tenant {tenant}");
            Ok(())
        }
        _ => format::write(table(&all, &stored).as_bytes()),
    }
}

fn table(all: &[Secret], stored: &Secrets) -> String {
    let rows: Vec<[String; 5]> = all
        .iter()
        .map(|secret| {
            let (bytes, key) = match &secret.sealed {
                Some(sealed) => (sealed.value_bytes().to_string(), sealed.key.clone()),
                None => ("-".to_owned(), "not sealed: set it again".to_owned()),
            };
            [
                secret.key.name.clone(),
                bytes,
                key,
                secret.revision.to_string(),
                stored.users(&secret.key.name).join(", "),
            ]
        })
        .collect();
    columns(["SECRET", "BYTES", "KEY", "REVISION", "USED BY"], &rows)
}

impl DeleteArgs {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let key = self.named.key();
        let stored = Secrets::read(session, &key.tenant).await?;
        let there = stored.all().into_iter().find(|secret| secret.key == key);
        let Some(secret) = there else {
            return Err(CliError::failed(format!("there is no secret {key}"))
                .hint("nothing was changed; `agentctl secret list` shows what there is"));
        };
        let users = stored.users(&key.name);
        if !self.force && !users.is_empty() {
            return Err(
                CliError::failed(format!("secret {key} is used by {}", users.join(", ")))
                    .hint("nothing was changed; change these documents first, or say --force"),
            );
        }
        let step = Step {
            key: key.key(),
            expected: Some(secret.revision),
            write: Write::Delete,
        };
        let revision = atomic::commit(&session.client, &[step], stored.revision).await?;
        let revision = revision.ok_or_else(|| changed_meanwhile(&key))?;
        format::write(format!("secret {key} is deleted at revision {revision}\n").as_bytes())
    }
}

/// What is sealed is put back as it is: the member that takes it seals it anew where another key is the first by now.
async fn reseal(session: &Session, tenant: &str) -> Result<(), CliError> {
    let stored = Secrets::read(session, tenant).await?;
    let all = stored.all();
    for secret in &all {
        if secret.sealed.is_none() {
            let text = format!("secret {} is not sealed", secret.key);
            return Err(CliError::failed(text).hint("set it again: agentctl secret set"));
        }
        let step = Step {
            key: secret.key.key(),
            expected: Some(secret.revision),
            write: Write::Put(secret.text.clone()),
        };
        let done = atomic::commit(&session.client, &[step], stored.revision).await?;
        done.ok_or_else(|| changed_meanwhile(&secret.key))?;
    }
    let count = all.len();
    format::write(
        format!("{count} secrets of tenant {tenant} are sealed with the members' first key\n").as_bytes(),
    )
}

fn changed_meanwhile(key: &SecretKey) -> CliError {
    CliError::failed(format!("somebody changed secret {key} meanwhile")).hint("try again")
}
