//! A template's spec: what can be wrong with it before it is used.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::placeholder::placeholders;
use super::render::render;
use super::values::{check_name, value};
use super::{HOST, HOSTS, Text, VARIABLES_MAX, Values, one_value};
use crate::document::fields::{Reader, fault, find, join, map, missing, word, wrong_type};
use crate::document::suggest::did_you_mean;
use crate::document::yaml::{Content, Entry, Node};
use crate::document::{DocumentError, Kind, kinds, split};

/// Where the first line of the documents is remembered.
pub(super) const CONTENT: &str = "spec.documents.text";
/// A host for a trial. Nobody sees it.
const SOME_HOST: &str = "host";

/// Reads a template's spec, and tries what can be tried without values.
pub(in crate::document) fn read(
    reader: &mut Reader,
    node: &Node,
) -> Result<Map<String, Value>, DocumentError> {
    let entries = map(node, "spec")?;
    let fields = ["description", "variables", "documents"];
    reader.known(entries, "spec", &fields, "no such field for kind template")?;
    let mut spec = Map::new();
    if let Some(entry) = find(entries, "description") {
        spec.insert(
            "description".into(),
            word(&entry.value, "spec.description")?.into(),
        );
    }
    let declared = match find(entries, "variables") {
        Some(entry) if matches!(entry.value.content, Content::Null) => &[],
        Some(entry) => map(&entry.value, "spec.variables")?,
        None => &[],
    };
    if declared.len() > VARIABLES_MAX {
        let message = format!("more than {VARIABLES_MAX} variables");
        return Err(DocumentError::new(
            node.line,
            node.column,
            "spec.variables",
            message,
        ));
    }
    let mut variables = Map::new();
    for entry in declared {
        variables.insert(entry.name.clone(), variable(reader, entry)?);
    }
    let Some(entry) = find(entries, "documents") else {
        let what = "the documents, as a text: documents: |";
        return Err(missing(node, "spec.documents", what));
    };
    let documents = documents(entry)?;
    reader.remember(CONTENT, documents.first_line);
    check_use(declared, &documents)?;
    check_documents(&variables, &documents)?;
    spec.insert("variables".into(), variables.into());
    spec.insert("documents".into(), documents.text.into());
    Ok(spec)
}

fn variable(reader: &mut Reader, entry: &Entry) -> Result<Value, DocumentError> {
    let path = join("spec.variables", &entry.name);
    check_name(entry, &path)?;
    reader.remember(&path, entry.line);
    if matches!(entry.value.content, Content::Null) {
        return Ok(json!({}));
    }
    let fields = map(&entry.value, &path)?;
    reader.known(
        fields,
        &path,
        &["description", "default"],
        "no such field for a variable",
    )?;
    let mut variable = Map::new();
    if let Some(entry) = find(fields, "description") {
        let path = join(&path, "description");
        variable.insert("description".into(), word(&entry.value, &path)?.into());
    }
    if let Some(entry) = find(fields, "default") {
        let path = join(&path, "default");
        variable.insert("default".into(), value(&entry.value, &path)?.into());
    }
    Ok(variable.into())
}

fn documents(entry: &Entry) -> Result<Text, DocumentError> {
    let path = "spec.documents";
    let Content::Scalar { text, .. } = &entry.value.content else {
        let expected = "documents as a text (documents: |, and each line indented under it)";
        return Err(wrong_type(&entry.value, path, expected));
    };
    if split(text).is_empty() {
        return Err(fault(entry, path, "there is no document in it"));
    }
    Ok(Text {
        text: text.clone(),
        first_line: if entry.value.is_literal {
            entry.value.line
        } else {
            entry.line
        },
        keeps_lines: entry.value.is_literal,
    })
}

/// What is used is declared, and what is declared is used.
fn check_use(declared: &[Entry], documents: &Text) -> Result<(), DocumentError> {
    let names = || declared.iter().map(|entry| entry.name.as_str());
    let used = placeholders(&documents.text);
    let unknown = used
        .iter()
        .filter(|found| !matches!(found.name, HOST | HOSTS))
        .find(|found| !names().any(|name| name == found.name));
    if let Some(found) = unknown {
        let near = did_you_mean(found.name, names());
        let message = format!(
            "@{}@ is no variable of this template: declare it under spec.variables{near}",
            found.name
        );
        let line = documents.line(found.line);
        return Err(DocumentError::new(line, 1, "spec.documents", message));
    }
    match declared
        .iter()
        .find(|entry| used.iter().all(|found| found.name != entry.name))
    {
        None => Ok(()),
        Some(entry) => {
            let message = format!("is not used: there is no @{}@ in the documents", entry.name);
            Err(fault(entry, &join("spec.variables", &entry.name), message))
        }
    }
}

/// Each document is a map of a known kind; one whose variables all have defaults is read as it would be with those.
fn check_documents(variables: &Map<String, Value>, documents: &Text) -> Result<(), DocumentError> {
    let defaults: Values = variables
        .iter()
        .filter_map(|(name, variable)| Some((name.clone(), variable.get("default")?.as_str()?.to_owned())))
        .collect();
    for (first_line, part) in split(&documents.text) {
        let first_line = first_line as u64;
        let at_its_line = |error| within(documents.place(error, first_line));
        check_kind(&one_value::read_marked(part).map_err(at_its_line)?).map_err(at_its_line)?;
        let names: BTreeSet<&str> = placeholders(part).iter().map(|found| found.name).collect();
        let is_complete = names
            .iter()
            .all(|name| matches!(*name, HOST | HOSTS) || defaults.contains_key(*name));
        if is_complete {
            let part = Text {
                text: part.to_owned(),
                first_line: documents.line(first_line),
                keeps_lines: documents.keeps_lines,
            };
            render(&part, &defaults, &[SOME_HOST.to_owned()]).map_err(within)?;
        }
    }
    Ok(())
}

fn check_kind(root: &Node) -> Result<(), DocumentError> {
    let entries = map(root, "")?;
    let Some(entry) = find(entries, "kind") else {
        return Err(missing(root, "kind", "what the document is about"));
    };
    let word = word(&entry.value, "kind")?;
    if word == Kind::Template.singular() {
        return Err(fault(entry, "kind", "a template holds no templates"));
    }
    if one_value::has_mark(word) || Kind::from_word(word).is_some_and(|kind| kind.singular() == word) {
        return Ok(());
    }
    let near = did_you_mean(word, kinds().iter().map(|kind| kind.singular()));
    Err(fault(entry, "kind", format!("no such kind: {word}{near}")))
}

/// Said of a document in the template.
fn within(mut error: DocumentError) -> DocumentError {
    error.message = error.text();
    "spec.documents".clone_into(&mut error.path);
    error
}
