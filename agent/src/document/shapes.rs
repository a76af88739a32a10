//! The shapes that a node may have, and the words for one that has another.

use super::DocumentError;
use super::suggest::did_you_mean;
use super::yaml::{Content, Entry, Node};

pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

pub(super) fn map<'a>(node: &'a Node, path: &str) -> Result<&'a [Entry], DocumentError> {
    match &node.content {
        Content::Map(entries) => Ok(entries),
        _ if path.is_empty() => Err(wrong_type(
            node,
            path,
            "a document of fields (kind, name, ..., spec)",
        )),
        _ => Err(wrong_type(node, path, "a map")),
    }
}

pub(super) fn find<'a>(entries: &'a [Entry], name: &str) -> Option<&'a Entry> {
    entries.iter().find(|entry| entry.name == name)
}

/// A word: any scalar. A name may look like a number.
pub(super) fn word<'a>(node: &'a Node, path: &str) -> Result<&'a str, DocumentError> {
    match &node.content {
        Content::Scalar { text, .. } => Ok(text),
        _ => Err(wrong_type(node, path, "a word")),
    }
}

pub(super) fn boolean(node: &Node, path: &str) -> Result<bool, DocumentError> {
    match &node.content {
        Content::Scalar { text, plain: true } if text == "true" => Ok(true),
        Content::Scalar { text, plain: true } if text == "false" => Ok(false),
        _ => Err(wrong_type(node, path, "true or false")),
    }
}

pub(super) fn one_of<'a>(node: &'a Node, path: &str, words: &[&str]) -> Result<&'a str, DocumentError> {
    let word = word(node, path)?;
    if words.contains(&word) {
        return Ok(word);
    }
    let message = format!(
        "is one of {}, found {}{}",
        words.join(", "),
        node.found(),
        did_you_mean(word, words.iter().copied())
    );
    Err(DocumentError::new(node.line, node.column, path, message))
}

pub(super) fn wrong_type(node: &Node, path: &str, expected: &str) -> DocumentError {
    DocumentError::new(
        node.line,
        node.column,
        path,
        format!("expected {expected}, found {}", node.found()),
    )
}

pub(super) fn missing(node: &Node, path: &str, what: &str) -> DocumentError {
    DocumentError::new(node.line, node.column, path, format!("is missing: {what}"))
}

pub(super) fn fault(entry: &Entry, path: &str, message: impl Into<String>) -> DocumentError {
    DocumentError::new(entry.line, entry.column, path, message)
}
