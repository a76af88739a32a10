//! Reading what Incus has, as entries of the inventory.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tracing::debug;

use super::entry::{self, Host};
use crate::document::{InventoryKey, InventoryKind};
use crate::incus::{Collection, Incus, IncusError};
use crate::reconciler::execute::in_full;

/// Entries kept of each kind, the first by their keys.
pub(super) const ENTRIES_MAX: usize = 2_000;
/// Storage pools whose volumes are listed.
const POOLS_MAX: usize = 64;

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The kinds that were looked at: nothing is known of the others.
    pub(super) kinds: BTreeSet<InventoryKind>,
    pub(super) entries: BTreeMap<InventoryKey, Value>,
    /// Kinds of which there is more than is kept.
    pub(super) too_many: BTreeSet<InventoryKind>,
}

/// Looks at some collections. One that Incus refuses to list is left out; the others are not worse for it.
pub(super) async fn look(
    incus: &Incus,
    collections: &BTreeSet<Collection>,
    host: &str,
    cluster: &str,
) -> Result<Seen, IncusError> {
    let host = Host { name: host, cluster };
    let mut seen = Seen::default();
    for &collection in collections {
        let kind = kind_of(collection);
        let Some(objects) = told(incus.list_collection(collection).await, kind)? else {
            continue;
        };
        if collection == Collection::StoragePools {
            let pools = objects.iter().filter_map(|pool| pool.get("name")?.as_str());
            if let Some(volumes) = volumes(incus, pools).await? {
                seen.add(InventoryKind::Volume, &volumes, host);
            }
        }
        seen.add(kind, &objects, host);
    }
    Ok(seen)
}

/// The custom volumes of all pools, or nothing where that of one of them is not known.
async fn volumes(incus: &Incus, pools: impl Iterator<Item = &str>) -> Result<Option<Vec<Value>>, IncusError> {
    let mut all = Vec::new();
    for pool in pools.take(POOLS_MAX) {
        let Some(volumes) = told(incus.list_custom_volumes(pool).await, InventoryKind::Volume)? else {
            return Ok(None);
        };
        all.extend(entry::volumes_with_snapshots(pool, volumes));
    }
    Ok(Some(all))
}

/// `None` for a refusal; an error where Incus does not answer at all.
fn told(
    answer: Result<Vec<Value>, IncusError>,
    kind: InventoryKind,
) -> Result<Option<Vec<Value>>, IncusError> {
    match answer {
        Ok(objects) => Ok(Some(objects)),
        Err(error) if error.is_transient() => Err(error),
        Err(error) => {
            debug!(kind = kind.plural(), error = in_full(&error), "not listed");
            Ok(None)
        }
    }
}

const fn kind_of(collection: Collection) -> InventoryKind {
    match collection {
        Collection::Images => InventoryKind::Image,
        Collection::Instances => InventoryKind::Instance,
        Collection::Networks => InventoryKind::Network,
        Collection::Profiles => InventoryKind::Profile,
        Collection::Projects => InventoryKind::Project,
        Collection::StoragePools => InventoryKind::StoragePool,
        Collection::Warnings => InventoryKind::Warning,
    }
}

impl Seen {
    pub(super) fn add(&mut self, kind: InventoryKind, objects: &[Value], host: Host<'_>) {
        let mut entries: BTreeMap<InventoryKey, Value> = objects
            .iter()
            .filter_map(|object| entry::entry(kind, object, host))
            .collect();
        if entries.len() > ENTRIES_MAX {
            let beyond = entries.keys().nth(ENTRIES_MAX).cloned();
            if let Some(beyond) = beyond {
                entries.split_off(&beyond);
            }
            self.too_many.insert(kind);
        }
        self.kinds.insert(kind);
        self.entries.append(&mut entries);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn more_than_is_kept_is_said() {
        let host = Host {
            name: "ovh",
            cluster: "c1",
        };
        let objects: Vec<Value> = (0..=ENTRIES_MAX)
            .map(|number| json!({"name": format!("p{number:05}"), "project": "default"}))
            .collect();
        let mut seen = Seen::default();
        seen.add(InventoryKind::Profile, &objects[1..], host);
        assert_eq!((seen.entries.len(), seen.too_many.len()), (ENTRIES_MAX, 0));
        let mut seen = Seen::default();
        seen.add(InventoryKind::Profile, &objects, host);
        assert_eq!((seen.entries.len(), seen.too_many.len()), (ENTRIES_MAX, 1));
        assert_eq!(seen.entries.keys().next().unwrap().name, "p00000");
    }
}
