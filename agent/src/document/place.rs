//! Where a document applies: `host`, `hosts` or `placement`, and `instance`.

use super::fields::{Reader, fault, find, map, missing, one_of, word, wrong_type};
use super::yaml::{Content, Entry, Node};
use super::{DEFAULT_TENANT, DocumentError, Kind, name};

impl Reader {
    /// `host`, `hosts` or `placement.hosts`: one of them.
    pub(super) fn hosts(&mut self, root: &Node) -> Result<Vec<String>, DocumentError> {
        let entries = map(root, "")?;
        let given: Vec<&Entry> = ["host", "hosts", "placement"]
            .iter()
            .filter_map(|name| find(entries, name))
            .collect();
        if let [first, second, ..] = given.as_slice() {
            let message = format!(
                "stands beside {}: one of host, hosts and placement says where",
                first.name
            );
            return Err(fault(second, &second.name, message));
        }
        match given.first() {
            None => Ok(Vec::new()),
            Some(entry) if entry.name == "host" => {
                let host = word(&entry.value, "host")?;
                match name::plain_fault(host) {
                    Some(wrong) => Err(fault(entry, "host", wrong)),
                    None => Ok(vec![host.to_owned()]),
                }
            }
            Some(entry) if entry.name == "hosts" => host_list(entry, "hosts"),
            Some(entry) => self.placement(entry),
        }
    }

    fn placement(&mut self, entry: &Entry) -> Result<Vec<String>, DocumentError> {
        let entries = map(&entry.value, "placement")?;
        self.known(
            entries,
            "placement",
            &["hosts", "spread", "failover"],
            "no such field",
        )?;
        if let Some(spread) = find(entries, "spread") {
            one_of(&spread.value, "placement.spread", &["provider"])?;
        }
        if let Some(failover) = find(entries, "failover") {
            let failover_word = one_of(
                &failover.value,
                "placement.failover",
                &["never", "manual", "fenced"],
            )?;
            if failover_word == "fenced" {
                return Err(fault(
                    failover,
                    "placement.failover",
                    "fenced arrives later; use manual or never",
                ));
            }
        }
        match find(entries, "hosts") {
            Some(hosts) => host_list(hosts, "placement.hosts"),
            None => Err(missing(
                &entry.value,
                "placement.hosts",
                "the hosts to choose from",
            )),
        }
    }

    /// Where a service or a file is. What is on a host itself can do anything there, so it is the operators' alone.
    pub(super) fn instance(root: &Node, kind: Kind, tenant: &str) -> Result<Option<String>, DocumentError> {
        let entries = map(root, "")?;
        let may = matches!(kind, Kind::Service | Kind::File);
        match (find(entries, "instance"), find(entries, "tenant")) {
            (Some(entry), _) if !may => Err(fault(entry, "instance", format!("a {kind} is in no instance"))),
            (Some(entry), _) => {
                let instance = word(&entry.value, "instance")?;
                match name::fault(Kind::Instance, instance) {
                    Some(wrong) => Err(fault(entry, "instance", wrong)),
                    None => Ok(Some(instance.to_owned())),
                }
            }
            (None, Some(entry)) if may && tenant != DEFAULT_TENANT => {
                let message =
                    format!("a {kind} of a host itself is tenant default's; name the instance that it is in");
                Err(fault(entry, "tenant", message))
            }
            (None, _) => Ok(None),
        }
    }
}

pub(super) fn one_host(root: &Node, hosts: &[String]) -> Result<(), DocumentError> {
    match hosts {
        [_] => Ok(()),
        [] => Err(missing(root, "host", "the host that the instance runs on")),
        _ => {
            let entries = map(root, "")?;
            let (entry, path) = match find(entries, "placement") {
                Some(placement) => (placement, "placement.hosts"),
                None => (
                    find(entries, "hosts").ok_or_else(|| missing(root, "host", "one host"))?,
                    "hosts",
                ),
            };
            Err(fault(
                entry,
                path,
                "placement.spread/failover arrive later; name one host",
            ))
        }
    }
}

fn host_list(entry: &Entry, path: &str) -> Result<Vec<String>, DocumentError> {
    let Content::List(items) = &entry.value.content else {
        return Err(wrong_type(&entry.value, path, "a list of hosts"));
    };
    let mut hosts: Vec<String> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let host = word(item, &path)?;
        if let Some(wrong) = name::plain_fault(host) {
            return Err(DocumentError::new(item.line, item.column, &path, wrong));
        }
        if hosts.iter().any(|other| other == host) {
            return Err(DocumentError::new(
                item.line,
                item.column,
                &path,
                format!("{host} stands here twice"),
            ));
        }
        hosts.push(host.to_owned());
    }
    if hosts.is_empty() {
        return Err(wrong_type(
            &entry.value,
            path,
            "at least one host; leave it out for every host",
        ));
    }
    Ok(hosts)
}
