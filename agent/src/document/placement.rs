//! `placement`: the hosts that an instance may be on, where its author leaves it to the cluster which one it is.

use serde_json::{Value, json};

use super::fields::{Reader, fault, find, map, one_of, word};
use super::place::host_list;
use super::yaml::{Content, Entry};
use super::{DocumentError, Kind, name};

/// What may be chosen, and how. Which host it became is in the instance's binding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The hosts to choose from. Empty: all there are.
    pub hosts: Vec<String>,
    /// Instances of one group are kept apart. `None`: the host with the fewest takes it.
    pub spread: Option<Spread>,
    /// Whom to keep apart from. `None`: all of the tenant that name no group either.
    pub group: Option<String>,
    pub failover: Failover,
}

/// What instances of a group are spread over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    Provider,
}

/// What may become of an instance whose host is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failover {
    /// It waits for its host.
    #[default]
    Never,
    /// A person may have it made anew elsewhere.
    Manual,
    /// It is made anew elsewhere, once its host cannot run it any more: see [`crate::fence`].
    Fenced,
}

impl Failover {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Manual => "manual",
            Self::Fenced => "fenced",
        }
    }
}

impl Placement {
    /// Whether the document lets the instance be there.
    #[must_use]
    pub fn allows(&self, host: &str) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|named| named == host)
    }

    /// As in a document.
    pub(super) fn canonical(&self) -> Value {
        let mut fields = json!({"failover": self.failover.word()});
        if !self.hosts.is_empty() {
            fields["hosts"] = json!(self.hosts);
        }
        if self.spread.is_some() {
            fields["spread"] = json!("provider");
        }
        if let Some(group) = &self.group {
            fields["group"] = json!(group);
        }
        fields
    }
}

impl Reader {
    pub(super) fn placement(&mut self, entry: &Entry, kind: Kind) -> Result<Placement, DocumentError> {
        if kind != Kind::Instance {
            let message =
                format!("only an instance is on one of several hosts; name those of a {kind} in hosts");
            return Err(fault(entry, "placement", message));
        }
        let entries = map(&entry.value, "placement")?;
        let names = ["hosts", "spread", "group", "failover"];
        self.known(entries, "placement", &names, "no such field")?;
        let hosts = match find(entries, "hosts") {
            Some(hosts) if matches!(&hosts.value.content, Content::List(items) if items.is_empty()) => {
                Vec::new()
            }
            Some(hosts) => host_list(hosts, "placement.hosts")?,
            None => Vec::new(),
        };
        let spread = match find(entries, "spread") {
            Some(spread) => {
                one_of(&spread.value, "placement.spread", &["provider"])?;
                Some(Spread::Provider)
            }
            None => None,
        };
        Ok(Placement {
            hosts,
            spread,
            group: group(entries, spread)?,
            failover: failover(entries)?,
        })
    }
}

fn group(entries: &[Entry], spread: Option<Spread>) -> Result<Option<String>, DocumentError> {
    let Some(entry) = find(entries, "group") else {
        return Ok(None);
    };
    let group = word(&entry.value, "placement.group")?;
    if let Some(wrong) = name::plain_fault(group) {
        return Err(fault(entry, "placement.group", wrong));
    }
    if spread.is_none() {
        let message = "says whom to keep apart from: add spread: provider";
        return Err(fault(entry, "placement.group", message));
    }
    Ok(Some(group.to_owned()))
}

fn failover(entries: &[Entry]) -> Result<Failover, DocumentError> {
    let Some(entry) = find(entries, "failover") else {
        return Ok(Failover::default());
    };
    let words = ["never", "manual", "fenced"];
    match one_of(&entry.value, "placement.failover", &words)? {
        "manual" => Ok(Failover::Manual),
        "fenced" => Ok(Failover::Fenced),
        _ => Ok(Failover::Never),
    }
}
