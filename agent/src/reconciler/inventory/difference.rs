//! What is to be written so that the store says what was seen.

use std::collections::BTreeMap;

use serde_json::Value;

use super::look::Seen;
use crate::document::{InventoryKey, parse_inventory_key};
use crate::reconciler::status::StatusWrite;

/// The writes that turn what is stored into what was seen, for the kinds that were looked at. A value that says the
/// same in other words is left alone. Keys under our prefix that are none of the inventory's are nobody's business.
pub(super) fn writes<'a>(
    stored: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    seen: &Seen,
) -> Vec<StatusWrite> {
    let stored: BTreeMap<InventoryKey, &[u8]> = stored
        .filter_map(|(key, value)| Some((parse_inventory_key(std::str::from_utf8(key).ok()?)?, value)))
        .filter(|(key, _)| seen.kinds.contains(&key.kind))
        .collect();
    let is_new = |key: &InventoryKey, value: &Value| {
        let before = stored.get(key).map(|text| serde_json::from_slice::<Value>(text));
        !matches!(before, Some(Ok(before)) if before == *value)
    };
    let changed = seen
        .entries
        .iter()
        .filter(|(key, value)| is_new(key, value))
        .map(|(key, value)| StatusWrite {
            key: key.key(),
            value: Some(value.to_string().into_bytes()),
        });
    let gone = stored
        .keys()
        .filter(|key| !seen.entries.contains_key(*key))
        .map(|key| StatusWrite {
            key: key.key(),
            value: None,
        });
    changed.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::document::InventoryKind;
    use crate::reconciler::inventory::entry::Host;

    /// What a host has: names and descriptions.
    fn seen(kind: InventoryKind, objects: &[(&str, &str)]) -> Seen {
        let objects: Vec<Value> = objects
            .iter()
            .map(
                |(name, description)| json!({"name": name, "project": "default", "description": description}),
            )
            .collect();
        let mut seen = Seen::default();
        let host = Host {
            name: "ovh",
            cluster: "c1",
        };
        seen.add(kind, &objects, host);
        seen
    }

    fn apply(stored: &mut BTreeMap<String, Vec<u8>>, seen: &Seen) -> Vec<String> {
        let pairs: Vec<_> = stored.clone().into_iter().collect();
        let pairs = pairs
            .iter()
            .map(|(key, value)| (key.as_bytes(), value.as_slice()));
        let writes = writes(pairs, seen);
        for write in &writes {
            match &write.value {
                Some(value) => stored.insert(write.key.clone(), value.clone()),
                None => stored.remove(&write.key),
            };
        }
        let sign = |write: &StatusWrite| if write.value.is_some() { "put" } else { "delete" };
        writes
            .iter()
            .map(|write| format!("{} {}", sign(write), write.key))
            .collect()
    }

    #[test]
    fn only_what_changed_is_written_and_what_is_gone_is_deleted() {
        let mut stored = BTreeMap::new();
        let first = seen(InventoryKind::Profile, &[("a", ""), ("b", "")]);
        let mut log = vec![apply(&mut stored, &first)];
        log.push(apply(&mut stored, &first));
        log.push(apply(
            &mut stored,
            &seen(InventoryKind::Profile, &[("a", "new"), ("c", "")]),
        ));
        expect![[r#"
            [
                [
                    "put /hosts/ovh/inventory/profiles/default/a",
                    "put /hosts/ovh/inventory/profiles/default/b",
                ],
                [],
                [
                    "put /hosts/ovh/inventory/profiles/default/a",
                    "put /hosts/ovh/inventory/profiles/default/c",
                    "delete /hosts/ovh/inventory/profiles/default/b",
                ],
            ]
        "#]]
        .assert_debug_eq(&log);
    }

    #[test]
    fn what_was_not_looked_at_and_what_is_not_ours_stays() {
        let mut stored = BTreeMap::from([
            (
                "/hosts/ovh/inventory/instances/default/web".to_owned(),
                b"{}".to_vec(),
            ),
            ("/hosts/ovh/inventory/notes".to_owned(), b"mine".to_vec()),
        ]);
        let nothing = apply(&mut stored, &seen(InventoryKind::Profile, &[]));
        assert_eq!(nothing, [""; 0]);
        let gone = apply(&mut stored, &seen(InventoryKind::Instance, &[]));
        assert_eq!(gone, ["delete /hosts/ovh/inventory/instances/default/web"]);
    }

    #[test]
    fn what_cannot_be_read_is_written_again_and_other_words_are_not() {
        let key = "/hosts/ovh/inventory/profiles/default/a".to_owned();
        let now = seen(InventoryKind::Profile, &[("a", "")]);
        let mut stored = BTreeMap::from([(key.clone(), b"{".to_vec())]);
        assert_eq!(apply(&mut stored, &now).len(), 1);
        let mut value: Value = serde_json::from_slice(&stored[&key]).unwrap();
        value.sort_all_objects();
        stored.insert(key, serde_json::to_vec_pretty(&value).unwrap());
        assert_eq!(apply(&mut stored, &now).len(), 0);
    }
}
