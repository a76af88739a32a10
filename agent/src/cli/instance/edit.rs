//! Changes of a document's text that commands make on a person's behalf. Pure.
//!
//! One line is changed where that is enough, so that comments and order stay. Every new text is read again: it must
//! say exactly what was wanted.

use serde_json::{Map, Value};

use crate::document::{self, Document, Kind, canonical_text, parse_at};

/// The text, saying that the instance runs, or does not.
pub(super) fn with_running(text: &str, document: &Document, running: bool) -> String {
    let mut wanted = document.clone();
    wanted.running = running;
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let line = format!("running: {running}");
    let edited = match lines.iter().position(|line| line.starts_with("running:")) {
        Some(at) => {
            let comment = lines
                .get(at)
                .and_then(|line| line.find(" #").map(|from| &line[from..]));
            let end = comment.unwrap_or("\n");
            with_line(&lines, at, 1, &format!("{line}{end}"))
        }
        None => {
            let at = lines.iter().position(|line| line.starts_with("spec:"));
            at.map_or_else(String::new, |at| with_line(&lines, at, 0, &format!("{line}\n")))
        }
    };
    if says(&edited, &wanted) {
        edited
    } else {
        written(&wanted)
    }
}

/// The text, naming another host.
pub(in crate::cli) fn with_host(text: &str, document: &Document, host: &str) -> String {
    let mut wanted = document.clone();
    wanted.hosts = vec![host.to_owned()];
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let at = lines.iter().position(|line| line.starts_with("host:"));
    let edited = at.map_or_else(String::new, |at| {
        with_line(&lines, at, 1, &format!("host: {host}\n"))
    });
    if says(&edited, &wanted) {
        edited
    } else {
        written(&wanted)
    }
}

fn with_line(lines: &[&str], at: usize, replaced: usize, line: &str) -> String {
    let (before, after) = lines.split_at(at.min(lines.len()));
    let after = after.get(replaced..).unwrap_or_default();
    before.concat() + line + &after.concat()
}

fn says(text: &str, wanted: &Document) -> bool {
    let key = wanted.desired_key().key();
    parse_at(&key, text).is_ok_and(|document| canonical_text(&document) == canonical_text(wanted))
}

/// A document as YAML, in the order in which people write them.
pub(in crate::cli) fn written(document: &Document) -> String {
    let canonical: Value = serde_json::from_str(&canonical_text(document)).unwrap_or_default();
    let mut fields = Map::new();
    for name in [
        "kind",
        "name",
        "tenant",
        "host",
        "hosts",
        "running",
        "lifecycle",
        "spec",
    ] {
        let Some(value) = canonical.get(name) else {
            continue;
        };
        let is_default = match name {
            "tenant" => value == document::DEFAULT_TENANT,
            "lifecycle" => document.lifecycle == document::Lifecycle::default(),
            _ => false,
        };
        if !is_default {
            fields.insert(name.to_owned(), value.clone());
        }
    }
    let yaml = serde_saphyr::to_string(&Value::Object(fields)).unwrap_or_default();
    if says(&yaml, document) {
        yaml
    } else {
        // JSON is YAML.
        format!("{canonical:#}\n")
    }
}

/// The document with what a restored snapshot says of the things that the document owns, or owned at the time of the
/// snapshot; `None` where it says the same already.
pub(super) fn with_restored(document: &Document, snapshot: &Value) -> Option<Document> {
    let mut restored = document.clone();
    let applied = snapshot
        .pointer("/config/user.agent.applied")
        .and_then(Value::as_str);
    let applied: Value = applied
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    for part in ["config", "devices"] {
        let entries = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
        let now = entries(document.spec.get(part));
        let owned_then = entries(applied.get("spec").and_then(|spec| spec.get(part)));
        let then = entries(snapshot.get(part));
        let mut after = Map::new();
        for name in now.keys().chain(owned_then.keys()) {
            if let Some(value) = then.get(name) {
                after.insert(name.clone(), value.clone());
            }
        }
        if after != now {
            restored.spec.insert(part.to_owned(), Value::Object(after));
        }
    }
    for field in ["profiles", "description"] {
        if document.spec.contains_key(field)
            && let Some(value) = snapshot.get(field)
        {
            restored.spec.insert(field.to_owned(), value.clone());
        }
    }
    (document.kind == Kind::Instance && canonical_text(&restored) != canonical_text(document))
        .then_some(restored)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    const WEB: &str = "# The shop window.\nkind: instance\nname: web\nhost: ovh\nspec:\n  config: {limits.memory: 256MiB}\n  \
                       source: {type: image, alias: debian/12}\n";

    fn document(text: &str) -> Document {
        document::parse(text).unwrap()
    }

    #[test]
    fn a_line_says_whether_it_runs_and_the_rest_stays() {
        let check = |text: &str, running: bool, expected: &Expect| {
            expected.assert_eq(&with_running(text, &document(text), running));
        };
        check(
            WEB,
            false,
            &expect![[r#"
                # The shop window.
                kind: instance
                name: web
                host: ovh
                running: false
                spec:
                  config: {limits.memory: 256MiB}
                  source: {type: image, alias: debian/12}
            "#]],
        );
        check(
            &WEB.replace("host: ovh", "running: false # for now\nhost: ovh"),
            true,
            &expect![[r#"
                # The shop window.
                kind: instance
                name: web
                running: true # for now
                host: ovh
                spec:
                  config: {limits.memory: 256MiB}
                  source: {type: image, alias: debian/12}
            "#]],
        );
        let json =
            r#"{"kind": "instance", "name": "web", "host": "ovh", "spec": {"source": {"type": "none"}}}"#;
        check(
            json,
            false,
            &expect![[r#"
                kind: instance
                name: web
                host: ovh
                running: false
                spec:
                  source:
                    type: none
            "#]],
        );
    }

    #[test]
    fn what_is_written_says_the_same() {
        let text = "kind: instance\nname: web\ntenant: shop\nhost: ovh\nlifecycle: {protect: true}\nspec:\n  config:\n    \
                    user.note: \"yes\"\n    cloud-init.user-data: |\n      #cloud-config\n      a: b\n    limits.cpu: \"2\"\n  \
                    source: {type: none}\n";
        let document = document(text);
        let written = written(&document);
        assert!(says(&written, &document), "{written}");
        assert!(
            written.starts_with("kind: instance\nname: web\ntenant: shop\n"),
            "{written}"
        );
    }

    #[test]
    fn a_restored_snapshot_takes_its_part_of_the_document_along() {
        let document = document(&WEB.replace(
            "config: {limits.memory: 256MiB}",
            "config: {limits.memory: 512MiB, limits.cpu: '2'}",
        ));
        let applied = r#"{"spec":{"config":{"limits.memory":"256MiB","user.note":"old"}}}"#;
        let snapshot = json!({"config": {"limits.memory": "256MiB", "user.note": "old", "volatile.uuid": "u",
            "user.agent.applied": applied, "image.os": "debian"}, "devices": {}, "profiles": ["default"]});
        let restored = with_restored(&document, &snapshot).unwrap();
        assert_eq!(
            restored.spec["config"],
            json!({"limits.memory": "256MiB", "user.note": "old"}),
            "set then, changed since; owned then; and limits.cpu was not there"
        );
        assert!(with_restored(&restored, &snapshot).is_none());
    }
}
