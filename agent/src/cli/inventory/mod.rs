//! `agentctl inventory`: what the hosts say that they have, ours or not. Reading is here; which entries are meant
//! ([`filter`]) and how they look ([`table`]) is pure.

mod filter;
mod table;

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use self::filter::{Filter, Where};
use super::Session;
use super::cluster;
use super::documents;
use super::error::CliError;
use super::format::{self, Format};
use crate::document::{InventoryKey, InventoryKind, did_you_mean, inventory_prefix, parse_inventory_key};

const HOSTS_PREFIX: &str = "/hosts/";

#[derive(Debug, Subcommand)]
pub(super) enum InventoryCommand {
    /// Find what the hosts have
    Query(QueryArgs),
    /// What the Incus of the hosts warns of
    Warnings(WarningsArgs),
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl inventory query\n  agentctl inventory query instances --host ovh\n  \
                        agentctl inventory query instances --where managed=false\n  \
                        agentctl inventory query --where status!=Running --where config.limits.memory=256MiB -w json\n\n\
                        FIELD is the way to a value as `-w json` shows it: status, image.description,\n\
                        devices.root.pool; of a list any item will do. Several --where must all be true.\n\
                        Each host writes its inventory at /hosts/HOST/inventory/KIND/PROJECT/NAME, when it changes."
)]
pub(super) struct QueryArgs {
    /// Only this kind: images, instances, networks, profiles, projects, storage-pools, volumes, warnings
    #[arg(value_parser = parse_kind)]
    kind: Option<InventoryKind>,
    #[command(flatten)]
    which: WhichArgs,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl inventory warnings\n  agentctl inventory warnings --host ovh --where severity!=low\n\n\
                        They are Incus' own: on the host, `incus warning list` shows them, and\n\
                        `incus warning acknowledge UUID` puts one aside."
)]
pub(super) struct WarningsArgs {
    #[command(flatten)]
    which: WhichArgs,
}

#[derive(Args, Clone, Debug)]
struct WhichArgs {
    /// Only this host's; may be given several times
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Only what is in this tenant's project
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Only where a field is, or is not, this
    #[arg(long = "where", value_name = "FIELD=VALUE|FIELD!=VALUE", value_parser = filter::parse)]
    wheres: Vec<Where>,
}

/// One key and its value.
#[derive(Clone, Debug)]
struct Entry {
    key: InventoryKey,
    value: Value,
}

impl WhichArgs {
    /// What is to be read. With hosts, no more than what is meant: who may read only one tenant's is not refused.
    fn prefixes(&self, kind: Option<InventoryKind>) -> Vec<String> {
        if self.hosts.is_empty() {
            return vec![HOSTS_PREFIX.to_owned()];
        }
        let kinds = kind.map_or(InventoryKind::ALL.to_vec(), |kind| vec![kind]);
        let of_host = |host: &String| -> Vec<String> {
            let prefix = inventory_prefix(host);
            match &self.tenant {
                Some(tenant) => kinds
                    .iter()
                    .map(|kind| format!("{prefix}{}/{tenant}/", kind.plural()))
                    .collect(),
                None => vec![prefix],
            }
        };
        self.hosts.iter().flat_map(of_host).collect()
    }
}

fn parse_kind(word: &str) -> Result<InventoryKind, String> {
    InventoryKind::from_word(word).ok_or_else(|| {
        let known = InventoryKind::ALL.map(InventoryKind::plural);
        let near = did_you_mean(word, known.iter().copied());
        format!("no such kind; there are {}{near}", known.join(", "))
    })
}

impl InventoryCommand {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let (kind, which, is_warnings) = match self {
            Self::Query(args) => (args.kind, args.which, false),
            Self::Warnings(args) => (Some(InventoryKind::Warning), args.which, true),
        };
        let alive: BTreeSet<String> = cluster::hosts_alive(session).await.into_iter().collect();
        let (all, revision) = read(session, kind, &which).await?;
        known_hosts(&which.hosts, &all, &alive)?;
        let filter = Filter {
            tenant: which.tenant,
            wheres: which.wheres,
        };
        let entries: Vec<Entry> = all.into_iter().filter(|entry| filter.matches(entry)).collect();
        show(session, kind, &entries, is_warnings, revision)?;
        say_who_is_lost(&entries, &alive);
        Ok(())
    }
}

async fn read(
    session: &Session,
    kind: Option<InventoryKind>,
    which: &WhichArgs,
) -> Result<(Vec<Entry>, i64), CliError> {
    let prefixes = which.prefixes(kind);
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    let listing = documents::look(&session.client, &prefixes).await?;
    let entry = |kv: &proto::mvccpb::KeyValue| {
        let key = parse_inventory_key(std::str::from_utf8(&kv.key).ok()?)?;
        let is_wanted = kind.is_none_or(|kind| kind == key.kind);
        let value = serde_json::from_slice(&kv.value).ok()?;
        is_wanted.then_some(Entry { key, value })
    };
    let mut entries: Vec<Entry> = listing.kvs.iter().filter_map(entry).collect();
    entries.sort_by(|left, right| left.key.cmp(&right.key));
    entries.dedup_by(|left, right| left.key == right.key);
    Ok((entries, listing.revision))
}

/// A host that was asked for must be one.
fn known_hosts(asked: &[String], entries: &[Entry], alive: &BTreeSet<String>) -> Result<(), CliError> {
    if alive.is_empty() && entries.is_empty() {
        return Ok(());
    }
    let has_any = |host: &String| entries.iter().any(|entry| entry.key.host == *host);
    match asked.iter().find(|host| !alive.contains(*host) && !has_any(host)) {
        None => Ok(()),
        Some(host) => {
            let near = did_you_mean(host, alive.iter().map(String::as_str));
            let there = alive.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let there = if there.is_empty() {
                "none".to_owned()
            } else {
                there
            };
            Err(CliError::failed(format!("host {host} has no inventory{near}"))
                .hint(format!("hosts that are alive: {there}")))
        }
    }
}

/// What is shown of a lost host is what it had.
fn say_who_is_lost(entries: &[Entry], alive: &BTreeSet<String>) {
    let hosts: BTreeSet<&String> = entries.iter().map(|entry| &entry.key.host).collect();
    // Who may not read it does not know who is alive.
    if alive.is_empty() {
        return;
    }
    for host in hosts.into_iter().filter(|host| !alive.contains(*host)) {
        eprintln!("{host} is not alive: this is what it had when it was last heard");
    }
}

fn show(
    session: &Session,
    kind: Option<InventoryKind>,
    entries: &[Entry],
    is_warnings: bool,
    revision: i64,
) -> Result<(), CliError> {
    match session.format {
        Some(Format::Json) => {
            let entries: Vec<&Value> = entries.iter().map(|entry| &entry.value).collect();
            format::write_json(&json!({"revision": revision, "entries": entries}))
        }
        _ if entries.is_empty() => {
            eprintln!("no {}", kind.map_or("entries", InventoryKind::plural));
            Ok(())
        }
        Some(Format::Simple) => {
            let lines: String = entries
                .iter()
                .map(|entry| format!("{}\n", entry.key.key()))
                .collect();
            format::write(lines.as_bytes())
        }
        _ if is_warnings => format::write(table::warnings(entries).as_bytes()),
        _ => format::write(table::entries(entries, kind.is_none()).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_than_is_meant() {
        let which = |hosts: &[&str], tenant: Option<&str>| WhichArgs {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            tenant: tenant.map(str::to_owned),
            wheres: Vec::new(),
        };
        let instances = Some(InventoryKind::Instance);
        assert_eq!(which(&[], Some("shop")).prefixes(instances), ["/hosts/"]);
        assert_eq!(
            which(&["a", "b"], None).prefixes(instances),
            ["/hosts/a/inventory/", "/hosts/b/inventory/"]
        );
        assert_eq!(
            which(&["a"], Some("shop")).prefixes(instances),
            ["/hosts/a/inventory/instances/shop/"]
        );
        assert_eq!(
            which(&["a"], Some("shop")).prefixes(None).len(),
            InventoryKind::ALL.len()
        );
    }
}
