//! Where a document applies: `host`, `hosts` or `placement`, and `instance`.

use super::fields::{Reader, fault, find, map, missing, word, wrong_type};
use super::yaml::{Content, Entry, Node};
use super::{DEFAULT_TENANT, DocumentError, Kind, Placement, name};

impl Reader {
    /// `host`, `hosts` or `placement`: one of them.
    pub(super) fn hosts(
        &mut self,
        root: &Node,
        kind: Kind,
    ) -> Result<(Vec<String>, Option<Placement>), DocumentError> {
        let entry = the_one_place(root)?;
        match entry {
            Some(entry) if entry.name == "placement" => Ok((Vec::new(), Some(self.placement(entry, kind)?))),
            Some(entry) => Ok((named(entry)?, None)),
            None => Ok((Vec::new(), None)),
        }
    }

    /// Where a service or a file is. What is on a host itself can do anything there, so it is the operators' alone.
    pub(super) fn instance(root: &Node, kind: Kind, tenant: &str) -> Result<Option<String>, DocumentError> {
        let entries = map(root, "")?;
        let may = matches!(kind, Kind::Service | Kind::File);
        match (find(entries, "instance"), find(entries, "tenant")) {
            (Some(entry), _) if kind == Kind::Tunnel => {
                let message = "a tunnel is in no instance; the one that it leads to is spec.instance";
                Err(fault(entry, "instance", message))
            }
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

/// The hosts that `host` or `hosts` name; none where there is neither.
pub(super) fn hosts_of(root: &Node) -> Result<Vec<String>, DocumentError> {
    match the_one_place(root)? {
        Some(entry) if entry.name != "placement" => named(entry),
        _ => Ok(Vec::new()),
    }
}

/// The field that says where.
fn the_one_place(root: &Node) -> Result<Option<&Entry>, DocumentError> {
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
    Ok(given.first().copied())
}

fn named(entry: &Entry) -> Result<Vec<String>, DocumentError> {
    if entry.name == "hosts" {
        return host_list(entry, "hosts");
    }
    let host = word(&entry.value, "host")?;
    match name::plain_fault(host) {
        Some(wrong) => Err(fault(entry, "host", wrong)),
        None => Ok(vec![host.to_owned()]),
    }
}

/// An instance is on one host: the one that its document names, or the one that it is bound to.
pub(super) fn one_host(root: &Node, hosts: &[String]) -> Result<(), DocumentError> {
    match hosts {
        [_] => Ok(()),
        [] => Err(missing(
            root,
            "host",
            "the host that the instance runs on; or placement, to choose from several",
        )),
        _ => {
            let entry = find(map(root, "")?, "hosts").ok_or_else(|| missing(root, "host", "one host"))?;
            let message = format!(
                "an instance is on one host; write placement: {{hosts: [{}]}} to choose from these",
                hosts.join(", ")
            );
            Err(fault(entry, "hosts", message))
        }
    }
}

/// A host's document is that host's alone, which it names already.
pub(super) fn the_host_itself(
    root: &Node,
    hosts: &[String],
    name: &str,
) -> Result<Vec<String>, DocumentError> {
    match the_one_place(root)? {
        Some(entry) if hosts != [name] => {
            let message = format!("is host {name} itself: leave it out");
            Err(fault(entry, &entry.name, message))
        }
        _ => Ok(vec![name.to_owned()]),
    }
}

pub(super) fn host_list(entry: &Entry, path: &str) -> Result<Vec<String>, DocumentError> {
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
