//! A host's document: what is known of the machine, and whether anything may be changed there.

use serde_json::{Map, Value};

use super::fields::{Reader, boolean, fault, find, join, map, word, wrong_type};
use super::yaml::{Content, Entry, Node};
use super::{Document, DocumentError, Kind, name};

const ADDRESSES_MAX: usize = 64;

/// What a document of kind host says, as far as the agent acts on it. Addresses and labels are for people and programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSpec {
    /// Whose machine it is. `None`: what its agent was started with.
    pub provider: Option<String>,
    /// Nothing is changed there, and nothing is put there.
    pub maintenance: bool,
}

impl HostSpec {
    /// `None` for a document of another kind.
    #[must_use]
    pub fn of(document: &Document) -> Option<HostSpec> {
        let spec = &document.spec;
        (document.kind == Kind::Host).then(|| HostSpec {
            provider: spec.get("provider").and_then(Value::as_str).map(str::to_owned),
            maintenance: spec.get("maintenance").and_then(Value::as_bool).unwrap_or(false),
        })
    }
}

pub(super) fn read(reader: &mut Reader, node: &Node) -> Result<Map<String, Value>, DocumentError> {
    let entries = map(node, "spec")?;
    let fields = ["description", "provider", "addresses", "labels", "maintenance"];
    reader.known(entries, "spec", &fields, "no such field for kind host")?;
    let mut spec = Map::new();
    for name in fields {
        let Some(entry) = find(entries, name) else {
            continue;
        };
        let at = join("spec", name);
        let value = match name {
            "addresses" => addresses(entry, &at)?.into(),
            "labels" => labels(reader, entry, &at)?.into(),
            "maintenance" => boolean(&entry.value, &at)?.into(),
            "provider" => provider(entry, &at)?.into(),
            _ => word(&entry.value, &at)?.into(),
        };
        spec.insert(name.to_owned(), value);
    }
    Ok(spec)
}

fn provider<'a>(entry: &'a Entry, at: &str) -> Result<&'a str, DocumentError> {
    match word(&entry.value, at)? {
        "" => Err(fault(
            entry,
            at,
            "is empty; leave it out for what the agent was started with",
        )),
        provider => Ok(provider),
    }
}

fn addresses(entry: &Entry, at: &str) -> Result<Vec<Value>, DocumentError> {
    let Content::List(items) = &entry.value.content else {
        return Err(wrong_type(&entry.value, at, "a list of addresses"));
    };
    if items.len() > ADDRESSES_MAX {
        return Err(fault(entry, at, format!("has at most {ADDRESSES_MAX} addresses")));
    }
    let mut addresses = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let at = format!("{at}[{index}]");
        let address = word(item, &at)?;
        if address.is_empty() || address.contains(|other: char| other.is_whitespace() || other.is_control()) {
            return Err(wrong_type(
                item,
                &at,
                "an address, as 51.0.0.10 or ovh.example.net",
            ));
        }
        addresses.push(address.into());
    }
    Ok(addresses)
}

fn labels(reader: &mut Reader, entry: &Entry, at: &str) -> Result<Map<String, Value>, DocumentError> {
    let mut labels = Map::new();
    for label in map(&entry.value, at)? {
        let at = join(at, &label.name);
        if let Some(wrong) = name::plain_fault(&label.name) {
            return Err(fault(label, &at, wrong));
        }
        reader.remember(&at, label.line);
        labels.insert(label.name.clone(), word(&label.value, &at)?.into());
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::document::{HostSpec, canonical_text, key, parse};

    #[test]
    fn a_host_is_on_itself() {
        let text = "kind: host\nname: ovh\nspec:\n  provider: OVH\n  addresses: [51.0.0.10, '2001:db8::1']\n  \
                    labels: {rack: 7}\n  maintenance: true\n";
        let document = parse(text).unwrap();
        assert_eq!(key(&document), "/cluster/desired/hosts/ovh");
        assert_eq!(document.hosts, ["ovh"]);
        let spec = HostSpec::of(&document).unwrap();
        assert_eq!((spec.provider.as_deref(), spec.maintenance), (Some("OVH"), true));
        let canonical = canonical_text(&document);
        assert_eq!(canonical_text(&parse(&canonical).unwrap()), canonical);
    }

    #[test]
    fn a_mistake_is_answered_where_it_was_made() {
        let cases = [
            "host: ionos\nspec: {}",
            "hosts: [ovh, ionos]\nspec: {}",
            "tenant: shop\nspec: {}",
            "spec: {provider: ''}",
            "spec: {maintenance: yes}",
            "spec: {maintainance: true}",
            "spec: {addresses: 51.0.0.10}",
            "spec: {addresses: ['51.0.0.10 51.0.0.11']}",
            "spec: {labels: {'a b': c}}",
        ];
        let answers = cases.map(|rest| {
            let text = format!("kind: host\nname: ovh\n{rest}\n");
            parse(&text).expect_err(&text).to_string()
        });
        expect![[r#"
            3: host: is host ovh itself: leave it out
            3: hosts: is host ovh itself: leave it out
            3: tenant: a host belongs to the cluster, not to a tenant
            3: spec.provider: is empty; leave it out for what the agent was started with
            3: spec.maintenance: expected true or false, found "yes"
            3: spec.maintainance: no such field for kind host; did you mean maintenance?
            3: spec.addresses: expected a list of addresses, found "51.0.0.10"
            3: spec.addresses[0]: expected an address, as 51.0.0.10 or ovh.example.net, found "51.0.0.10 51.0.0.11"
            3: spec.labels.a b: a name has letters, digits, hyphens, dots and underscores only"#]].assert_eq(&answers.join("\n"));
    }
}
