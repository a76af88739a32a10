//! Values of variables: from a file, from the command line, from a template's defaults.

use std::collections::BTreeMap;

use super::placeholder::is_name;
use super::{HOST, HOSTS, Variable};
use crate::document::DocumentError;
use crate::document::fields::fault;
use crate::document::suggest::did_you_mean;
use crate::document::yaml::{self, Content, Entry, Node};

const VALUE_CHARS_MAX: usize = 4_096;

/// What variables stand for.
pub type Values = BTreeMap<String, String>;

/// Reads a file of values: `NAME: value`, one after the other.
///
/// # Errors
/// The first fault of the text, with its place.
pub fn parse_values(text: &str) -> Result<Values, DocumentError> {
    let mut values = Values::new();
    let root = yaml::read(text)?;
    let Content::Map(entries) = &root.content else {
        return Err(DocumentError::new(
            root.line,
            root.column,
            "",
            format!("expected variables, as NAME: value, found {}", root.found()),
        ));
    };
    for entry in entries {
        check_name(entry, &entry.name)?;
        values.insert(entry.name.clone(), value(&entry.value, &entry.name)?);
    }
    Ok(values)
}

/// Reads `NAME=VALUE`.
///
/// # Errors
/// A text for the command line.
pub fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    if let Some(why) = name_fault(name) {
        return Err(why);
    }
    match value_fault(value) {
        Some(why) => Err(why.to_owned()),
        None => Ok((name.to_owned(), value.to_owned())),
    }
}

pub(super) fn check_name(entry: &Entry, path: &str) -> Result<(), DocumentError> {
    match name_fault(&entry.name) {
        Some(why) => Err(fault(entry, path, why)),
        None => Ok(()),
    }
}

fn name_fault(name: &str) -> Option<String> {
    if matches!(name, HOST | HOSTS) {
        return Some(format!("@{name}@ is what --hosts says: it is no variable"));
    }
    (!is_name(name)).then(|| {
        "a variable's name is of capital letters, digits and underscores, and begins with a letter".to_owned()
    })
}

/// One value, as written.
pub(super) fn value(node: &Node, path: &str) -> Result<String, DocumentError> {
    let wrong = |message: String| Err(DocumentError::new(node.line, node.column, path, message));
    match &node.content {
        Content::Scalar { text, .. } => match value_fault(text) {
            Some(why) => wrong(why.to_owned()),
            None => Ok(text.clone()),
        },
        Content::Null => wrong("has no value; write \"\" for an empty one".to_owned()),
        Content::List(_) | Content::Map(_) => wrong(format!(
            "expected a word, a number, true or false, found {}",
            node.found()
        )),
    }
}

fn value_fault(value: &str) -> Option<&'static str> {
    if value.contains(char::is_control) {
        return Some("a value is one line; longer text belongs into the template");
    }
    (value.chars().count() > VALUE_CHARS_MAX).then_some("a value has at most 4,096 characters")
}

pub(super) fn cover(variables: &[Variable], given: &Values) -> Result<Values, DocumentError> {
    let names = || variables.iter().map(|variable| variable.name.as_str());
    if let Some(unknown) = given.keys().find(|name| !names().any(|known| known == *name)) {
        let near = did_you_mean(unknown, names());
        let message = format!("{unknown} is no variable of the template{near}");
        return Err(DocumentError::new(0, 0, "", message));
    }
    let mut values = given.clone();
    let mut open = Vec::new();
    for variable in variables {
        match &variable.default {
            _ if given.contains_key(&variable.name) => {}
            Some(default) => {
                values.insert(variable.name.clone(), default.clone());
            }
            None if variable.description.is_empty() => open.push(variable.name.clone()),
            None => open.push(format!("{} ({})", variable.name, variable.description)),
        }
    }
    if open.is_empty() {
        return Ok(values);
    }
    let message = format!("no value for {}", open.join(", "));
    Err(DocumentError::new(0, 0, "", message))
}
