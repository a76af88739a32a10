//! What applying documents changes, as data and as text. Pure.

use serde_json::Value;

use super::documents::{Source, Stored};
use crate::document::{self, Document, Kind};

/// Differences shown of one document; the rest is counted.
const DIFFERENCES_SHOWN: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Create,
    Change,
    Unchanged,
    Delete,
    /// Deleted already, or never there.
    Absent,
}

impl Action {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Change => "change",
            Self::Unchanged => "unchanged",
            Self::Delete => "delete",
            Self::Absent => "absent",
        }
    }

    fn sign(self) -> char {
        match self {
            Self::Create => '+',
            Self::Change => '~',
            Self::Unchanged | Self::Absent => '=',
            Self::Delete => '-',
        }
    }
}

/// One line of the answer.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) action: Action,
    pub(super) kind: Kind,
    pub(super) name: String,
    hosts: String,
    detail: String,
}

/// What storing `source` over `before` does.
pub(super) fn of(source: &Source, before: Option<&Stored>) -> Change {
    let document = &source.document;
    let (action, detail) = match before {
        None => (Action::Create, create_words(document)),
        Some(before) if before.text == source.text => (Action::Unchanged, "unchanged".to_owned()),
        Some(before) => (Action::Change, difference_words(before, document)),
    };
    Change {
        action,
        kind: document.kind,
        name: document.name.clone(),
        hosts: hosts_of(document, before),
        detail,
    }
}

/// Where it is, if its author leaves that to the cluster; or where it may go.
fn hosts_of(document: &Document, before: Option<&Stored>) -> String {
    let is = before.and_then(|before| before.document.as_ref());
    match is.filter(|is| is.placement.is_some() && document.placement.is_some()) {
        Some(is) => hosts(Some(is)),
        None => hosts(Some(document)),
    }
}

/// What deleting does.
pub(super) fn of_deletion(kind: Kind, name: &str, before: Option<&Stored>) -> Change {
    let (action, detail) = match before {
        Some(before) => match &before.document {
            Some(document) if document.lifecycle.deletion == document::Deletion::Retain => (
                Action::Delete,
                format!("delete the document; the {kind} stays (lifecycle.deletion: retain)"),
            ),
            _ => (Action::Delete, "delete".to_owned()),
        },
        None => (Action::Absent, "not there".to_owned()),
    };
    let hosts = hosts(before.and_then(|before| before.document.as_ref()));
    Change {
        action,
        kind,
        name: name.to_owned(),
        hosts,
        detail,
    }
}

fn create_words(document: &Document) -> String {
    let starts = document.kind == Kind::Instance && document.running;
    if starts {
        "create, start".to_owned()
    } else {
        "create".to_owned()
    }
}

pub(super) fn hosts(document: Option<&Document>) -> String {
    if let Some(instance) = document.and_then(|document| document.instance.as_ref()) {
        return format!("in {instance}");
    }
    // A template is on no host: nothing is made of it by itself.
    let document = document.filter(|document| document.kind != Kind::Template);
    match document.map(|document| document.hosts.as_slice()) {
        None => "-".to_owned(),
        Some([]) => of_placement(document),
        Some(hosts) => hosts.join(", "),
    }
}

/// Where a document applies that names no host.
fn of_placement(document: Option<&Document>) -> String {
    let placement = document.and_then(|document| document.placement.as_ref());
    match placement.map(|placement| placement.hosts.as_slice()) {
        None => "every host".to_owned(),
        Some([]) => "any host".to_owned(),
        Some(hosts) => format!("one of {}", hosts.join(", ")),
    }
}

fn difference_words(before: &Stored, after: &Document) -> String {
    let Some(old) = &before.document else {
        return "replaces a text that is no document".to_owned();
    };
    let value = |document| serde_json::from_str(&document::canonical_text(document)).unwrap_or(Value::Null);
    let mut differences = Vec::new();
    compare("", &value(old), &value(after), &mut differences);
    if differences.is_empty() {
        return "the same in other words".to_owned();
    }
    let more = differences.len().saturating_sub(DIFFERENCES_SHOWN);
    differences.truncate(DIFFERENCES_SHOWN);
    let more = if more > 0 {
        format!(", and {more} more")
    } else {
        String::new()
    };
    format!("{}{more}", differences.join(", "))
}

/// Every place where two documents differ, as `config.limits.memory: 256MiB -> 512MiB`.
fn compare(path: &str, old: &Value, new: &Value, differences: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let names = old
                .keys()
                .chain(new.keys().filter(|name| !old.contains_key(*name)));
            for name in names {
                // `spec` stands for the document itself: its fields are what people speak of.
                let inner = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                let inner = inner.strip_prefix("spec.").unwrap_or(&inner);
                let absent = Value::Null;
                compare(
                    inner,
                    old.get(name).unwrap_or(&absent),
                    new.get(name).unwrap_or(&absent),
                    differences,
                );
            }
        }
        (old, new) if old == new => {}
        (old, new) => differences.push(format!("{path}: {} -> {}", short(old), short(new))),
    }
}

/// A value in few letters.
fn short(value: &Value) -> String {
    const WIDTH: usize = 40;
    let text = match value {
        Value::Null => return "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let line = text.lines().next().unwrap_or_default();
    let mut shortened: String = line.chars().take(WIDTH).collect();
    if shortened.len() < text.len() {
        shortened.push('…');
    }
    shortened
}

/// One line for each, in columns as wide as needed and never narrower than the eye is used to.
pub(super) fn text(changes: &[Change]) -> String {
    let width =
        |least: usize, cell: &dyn Fn(&Change) -> usize| changes.iter().map(cell).fold(least, usize::max);
    let kinds = width(8, &|change| change.kind.singular().len());
    let names = width(14, &|change| change.name.len());
    let hosts = width(10, &|change| change.hosts.len());
    let line = |change: &Change| {
        let Change {
            action,
            kind,
            name,
            hosts: at,
            detail,
        } = change;
        format!(
            "{} {:kinds$} {name:names$}  {at:hosts$}  {detail}\n",
            action.sign(),
            kind.singular()
        )
    };
    changes.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn source(text: &str) -> Source {
        Source {
            place: "web.yaml:1".into(),
            text: text.into(),
            document: document::parse(text).unwrap(),
        }
    }

    fn stored(text: &str) -> Stored {
        let document = document::parse(text).ok();
        let key = document::parse_desired_key("/tenants/default/desired/instances/web").unwrap();
        Stored {
            key,
            revision: 3,
            text: text.into(),
            document,
            binding: None,
        }
    }

    const WEB: &str = "kind: instance\nname: web\nhost: ovh\nspec:\n  type: container\n  config: {limits.memory: 256MiB}\n  source: {type: image, alias: busybox}\n";

    fn check(cases: &[(&str, Option<&str>)], expected: &Expect) {
        let changes: Vec<Change> = cases
            .iter()
            .map(|(new, old)| of(&source(new), old.map(stored).as_ref()))
            .collect();
        expected.assert_eq(&text(&changes));
    }

    #[test]
    fn creations_say_where_and_what() {
        let profile = "kind: profile\nname: web\nhosts: [ovh, ionos]\nspec: {}\n";
        let everywhere = "kind: profile\nname: base\nspec: {}\n";
        let stopped = WEB.replace("host: ovh", "host: ovh\nrunning: false");
        check(
            &[(WEB, None), (&stopped, None), (profile, None), (everywhere, None)],
            &expect![[r#"
                + instance web             ovh         create, start
                + instance web             ovh         create
                + profile  web             ovh, ionos  create
                + profile  base            every host  create
            "#]],
        );
    }

    #[test]
    fn changes_say_from_what_to_what() {
        let memory = WEB.replace("256MiB", "512MiB");
        let many = WEB
            .replace("limits.memory: 256MiB", "limits.cpu: 2, user.a: a, user.b: b")
            .replace("busybox", "debian/12");
        let words = format!("# a remark\n{WEB}");
        check(
            &[
                (&memory, Some(WEB)),
                (&many, Some(WEB)),
                (&words, Some(WEB)),
                (WEB, Some(WEB)),
                (WEB, Some("x: [")),
            ],
            &expect![[r#"
                ~ instance web             ovh         config.limits.memory: 256MiB -> 512MiB
                ~ instance web             ovh         config.limits.memory: 256MiB -> none, config.limits.cpu: none -> 2, config.user.a: none -> a, and 2 more
                ~ instance web             ovh         the same in other words
                = instance web             ovh         unchanged
                ~ instance web             ovh         replaces a text that is no document
            "#]],
        );
    }

    #[test]
    fn deletions_say_what_stays() {
        let retained = format!("{WEB}lifecycle: {{deletion: retain}}\n");
        let changes = [
            of_deletion(Kind::Instance, "web", Some(&stored(WEB))),
            of_deletion(Kind::Instance, "web", Some(&stored(&retained))),
            of_deletion(Kind::Profile, "gone", None),
        ];
        expect![[r#"
            - instance web             ovh         delete
            - instance web             ovh         delete the document; the instance stays (lifecycle.deletion: retain)
            = profile  gone            -           not there
        "#]].assert_eq(&text(&changes));
    }
}
