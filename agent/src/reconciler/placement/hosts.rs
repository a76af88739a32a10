//! What choosing needs to know of the hosts, out of the local applied state.

use std::collections::BTreeMap;

use raft_store::ReadError;
use serde_json::Value;

use super::choose::{Hosts, State, unbound};
use crate::document::{DesiredKey, InventoryKey, InventoryKind};
use crate::node::Node;
use crate::reconciler::alive::{self, HostAlive};
use crate::reconciler::desired::Desired;
use crate::reconciler::plan::maintenance;
use crate::reconciler::stored;

/// Reads what the hosts say of themselves. A member of which nothing is heard is awaited, if `may_arrive`.
pub(crate) fn read(node: &Node, desired: &Desired, may_arrive: bool) -> Result<Hosts, ReadError> {
    let store = node.store();
    let mut known = BTreeMap::new();
    for member in node.members() {
        if member.name.is_empty() {
            continue;
        }
        let said = stored::read_one(store, alive::key(&member.name))?;
        let said = said.and_then(|pair| serde_json::from_slice::<HostAlive>(&pair.value).ok());
        let of_document = maintenance::host_spec(desired, &member.name);
        let state = match said {
            Some(said) if said.incus_version.is_empty() => State::WithoutIncus,
            Some(said) => {
                let provider = of_document.provider.unwrap_or(said.provider);
                match of_document.maintenance {
                    true => State::InMaintenance { provider },
                    false => State::Alive { provider },
                }
            }
            None if may_arrive => State::Awaited,
            None => State::Silent,
        };
        known.insert(member.name, state);
    }
    let mut holders: BTreeMap<DesiredKey, Vec<String>> = BTreeMap::new();
    for (key, ..) in unbound(desired) {
        for host in known.keys() {
            let at = InventoryKey {
                host: host.clone(),
                kind: InventoryKind::Instance,
                project: key.tenant.clone(),
                name: key.name.clone(),
            };
            let entry = stored::read_one(store, at.key().into())?;
            if entry.is_some_and(|entry| is_of(&entry.value, key)) {
                holders.entry(key.clone()).or_default().push(host.clone());
            }
        }
    }
    Ok(Hosts { known, holders })
}

/// Whether an entry of an inventory is the instance of this document.
fn is_of(entry: &[u8], key: &DesiredKey) -> bool {
    let entry: Value = serde_json::from_slice(entry).unwrap_or_default();
    entry.get("document").and_then(Value::as_str) == Some(key.key().as_str())
}
