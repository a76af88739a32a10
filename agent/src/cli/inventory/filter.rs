//! Which entries are meant: a tenant's, and those whose fields are as was asked. Pure.

use serde_json::Value;

use super::Entry;
use crate::document::{INVENTORY_FIELDS, did_you_mean};

#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) tenant: Option<String>,
    pub(super) wheres: Vec<Where>,
}

/// `status=Running`, `config.limits.memory!=256MiB`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Where {
    path: String,
    is_equal: bool,
    value: String,
}

/// Reads one condition.
pub(super) fn parse(text: &str) -> Result<Where, String> {
    let wrong = || "write FIELD=VALUE or FIELD!=VALUE, as status=Running".to_owned();
    let (left, value) = text.split_once('=').ok_or_else(wrong)?;
    let (path, is_equal) = match left.strip_suffix('!') {
        Some(path) => (path, false),
        None => (left, true),
    };
    let top = path.split('.').next().unwrap_or_default();
    if top.is_empty() {
        return Err(wrong());
    }
    if !INVENTORY_FIELDS.contains(&top) {
        let near = did_you_mean(top, INVENTORY_FIELDS);
        let near = if near.is_empty() {
            format!("; there are {}", INVENTORY_FIELDS.join(", "))
        } else {
            near
        };
        return Err(format!("no such field: {top}{near}"));
    }
    Ok(Where {
        path: path.to_owned(),
        is_equal,
        value: value.to_owned(),
    })
}

impl Filter {
    pub(super) fn matches(&self, entry: &Entry) -> bool {
        let tenant_matches = self
            .tenant
            .as_ref()
            .is_none_or(|tenant| *tenant == entry.key.project);
        tenant_matches && self.wheres.iter().all(|condition| condition.holds(&entry.value))
    }
}

impl Where {
    fn holds(&self, value: &Value) -> bool {
        has(value, &self.path, &self.value) == self.is_equal
    }
}

/// Whether a value at the path, or an item of a list there, is `wanted`. A config key has dots of its own, so that
/// every beginning of the path may be a field's name.
fn has(value: &Value, path: &str, wanted: &str) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| has(item, path, wanted)),
        Value::Object(fields) if !path.is_empty() => {
            let whole = fields.get(path).is_some_and(|field| has(field, "", wanted));
            whole
                || path.match_indices('.').any(|(dot, _)| {
                    fields
                        .get(&path[..dot])
                        .is_some_and(|field| has(field, &path[dot + 1..], wanted))
                })
        }
        _ if !path.is_empty() => false,
        Value::String(text) => text == wanted,
        other => {
            let text = other.to_string();
            text == wanted
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::document::parse_inventory_key;

    fn web() -> Entry {
        Entry {
            key: parse_inventory_key("/hosts/ovh/inventory/instances/shop/web").unwrap(),
            value: json!({"status": "Running", "managed": false, "snapshots": 2, "profiles": ["default", "web"],
                "config": {"limits.memory": "256MiB"}, "devices": {"root.a": {"pool": "fast"}}}),
        }
    }

    #[test]
    fn fields_are_found_by_their_way() {
        for (condition, expected) in [
            ("status=Running", true),
            ("status!=Running", false),
            ("status=running", false),
            ("managed=false", true),
            ("snapshots=2", true),
            ("profiles=web", true),
            ("profiles!=web", false),
            ("profiles=we", false),
            ("config.limits.memory=256MiB", true),
            ("config.limits=256MiB", false),
            ("config.limits.cpu!=2", true),
            ("devices.root.a.pool=fast", true),
            ("devices.root.a.pool.x=fast", false),
            ("image.description=", false),
        ] {
            let filter = Filter {
                tenant: None,
                wheres: vec![parse(condition).unwrap()],
            };
            assert_eq!(filter.matches(&web()), expected, "{condition}");
        }
    }

    #[test]
    fn all_conditions_and_the_tenant_must_fit() {
        let filter = |tenant: &str, wheres: &[&str]| Filter {
            tenant: Some(tenant.into()),
            wheres: wheres.iter().map(|text| parse(text).unwrap()).collect(),
        };
        assert!(filter("shop", &["status=Running", "managed=false"]).matches(&web()));
        assert!(!filter("shop", &["status=Running", "managed=true"]).matches(&web()));
        assert!(!filter("default", &[]).matches(&web()));
    }

    #[test]
    fn what_is_no_condition_is_told() {
        let answers: Vec<String> = ["status", "=x", "!=x", "staus=Running", "colour=red"]
            .map(|text| parse(text).unwrap_err())
            .into();
        expect![[r#"
            write FIELD=VALUE or FIELD!=VALUE, as status=Running
            write FIELD=VALUE or FIELD!=VALUE, as status=Running
            write FIELD=VALUE or FIELD!=VALUE, as status=Running
            no such field: staus; did you mean status?
            no such field: colour; there are addresses, aliases, architecture, cached, cluster, config, content_type, description, devices, document, driver, entity, ephemeral, fingerprint, first_seen, host, host_interface, image, kind, managed, message, name, pool, profiles, project, public, severity, size_bytes, snapshots, status, truncated, type"#]].assert_eq(&answers.join("\n"));
    }
}
