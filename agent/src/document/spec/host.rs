//! Strings that reach root on a host or in a guest: paths, modes, owners, words of a command line. Strict, because
//! nobody looks at them again.

use serde_json::{Map, Value};

use crate::document::fields::{Reader, fault, find, join, map, missing, word, wrong_type};
use crate::document::yaml::{Content, Entry, Node};
use crate::document::{DocumentError, secret};

const PATH_BYTES_MAX: usize = 1024;
const WORD_BYTES_MAX: usize = 4096;
const WORDS_MAX: usize = 256;
const FILES_MAX: usize = 64;

/// Where the kernel shows itself: nothing is kept there.
const NOT_FILES: [&str; 3] = ["/proc/", "/sys/", "/dev/"];

/// What of a kind's spec may be said, and is read as it is.
pub(super) fn known<'a>(
    reader: &mut Reader,
    node: &'a Node,
    kind: &str,
    names: &[&str],
) -> Result<&'a [Entry], DocumentError> {
    let entries = map(node, "spec")?;
    reader.known(entries, "spec", names, &format!("no such field for kind {kind}"))?;
    Ok(entries)
}

/// A path of a file that may be written.
pub(super) fn path<'a>(entry: &'a Entry, at: &str) -> Result<&'a str, DocumentError> {
    let path = word(&entry.value, at)?;
    let wrong = if !path.starts_with('/') {
        "is an absolute path"
    } else if path.len() > PATH_BYTES_MAX || path.chars().any(char::is_control) {
        "has at most 1024 bytes and no control characters"
    } else if path
        .split('/')
        .skip(1)
        .any(|part| matches!(part, "" | "." | ".."))
    {
        "has no empty parts, no . and no .., and does not end with a slash"
    } else if NOT_FILES.iter().any(|folder| path.starts_with(folder)) {
        "is not below /proc, /sys or /dev"
    } else {
        return Ok(path);
    };
    Err(fault(entry, at, wrong))
}

/// Permissions, as `0644`.
pub(super) fn mode<'a>(entry: &'a Entry, at: &str) -> Result<&'a str, DocumentError> {
    let mode = word(&entry.value, at)?;
    let is_octal = mode.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    match mode.len() {
        3 if is_octal => Ok(mode),
        4 if is_octal && mode.starts_with('0') => Ok(mode),
        _ => Err(fault(entry, at, "is three octal digits, as 0644; no set-id bits")),
    }
}

/// `UID` or `UID:GID`, in numbers: the names are the machine's, and a guest has its own.
pub(super) fn owner<'a>(entry: &'a Entry, at: &str) -> Result<&'a str, DocumentError> {
    let owner = word(&entry.value, at)?;
    let mut parts = owner.split(':');
    let is_number = |part: &str| part.parse::<u32>().is_ok_and(|id| id != u32::MAX);
    let good =
        parts.next().is_some_and(is_number) && parts.next().is_none_or(is_number) && parts.next().is_none();
    if good {
        Ok(owner)
    } else {
        Err(fault(entry, at, "is a number, or UID:GID in numbers, as 33:33"))
    }
}

/// One number of an owner.
pub(super) fn id(entry: &Entry, at: &str) -> Result<u32, DocumentError> {
    let id = word(&entry.value, at)?
        .parse::<u32>()
        .ok()
        .filter(|id| *id != u32::MAX);
    id.ok_or_else(|| fault(entry, at, "is a number, as 33"))
}

/// A word of a command line, or a value of an environment.
pub(super) fn line(node: &Node, at: &str) -> Result<String, DocumentError> {
    let text = word(node, at)?;
    if text.len() > WORD_BYTES_MAX || text.chars().any(char::is_control) {
        let message = "has at most 4096 bytes and no control characters";
        return Err(DocumentError::new(node.line, node.column, at, message));
    }
    Ok(text.to_owned())
}

pub(super) fn lines(reader: &mut Reader, entry: &Entry, at: &str) -> Result<Vec<Value>, DocumentError> {
    let Content::List(items) = &entry.value.content else {
        return Err(wrong_type(&entry.value, at, "a list of words"));
    };
    if items.len() > WORDS_MAX {
        return Err(fault(entry, at, "has at most 256 words"));
    }
    let mut words = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let at = format!("{at}[{index}]");
        reader.remember(&at, item.line);
        words.push(line(item, &at)?.into());
    }
    Ok(words)
}

/// The files of a service.
pub(super) fn files(reader: &mut Reader, entry: &Entry) -> Result<Vec<Value>, DocumentError> {
    let Content::List(items) = &entry.value.content else {
        return Err(wrong_type(&entry.value, "spec.files", "a list of files"));
    };
    if items.len() > FILES_MAX {
        return Err(fault(entry, "spec.files", "has at most 64 files"));
    }
    let mut files: Vec<Value> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let at = format!("spec.files[{index}]");
        reader.remember(&at, item.line);
        let entries = map(item, &at)?;
        reader.known(
            entries,
            &at,
            &["path", "mode", "owner", "content"],
            "no such field of a file",
        )?;
        let mut file = Map::new();
        for name in ["path", "content"] {
            if find(entries, name).is_none() {
                return Err(missing(
                    item,
                    &join(&at, name),
                    "every file has a path and a content",
                ));
            }
        }
        for entry in entries {
            let at = join(&at, &entry.name);
            let value: Value = match entry.name.as_str() {
                "path" => path(entry, &at)?.into(),
                "mode" => mode(entry, &at)?.into(),
                "owner" => owner(entry, &at)?.into(),
                _ => content(entry, &at)?,
            };
            if entry.name == "path" && files.iter().any(|other| other["path"] == value) {
                return Err(fault(
                    entry,
                    &at,
                    format!("{} stands here twice", value.as_str().unwrap_or_default()),
                ));
            }
            file.insert(entry.name.clone(), value);
        }
        files.push(file.into());
    }
    Ok(files)
}

/// What is in a file: its text, or a secret.
pub(super) fn content(entry: &Entry, at: &str) -> Result<Value, DocumentError> {
    match secret::reference(&entry.value, at)? {
        Some(reference) => Ok(reference),
        None => text(entry, at).map(Value::from),
    }
}

/// A file's text. Whatever it holds is the file's own.
pub(super) fn text<'a>(entry: &'a Entry, at: &str) -> Result<&'a str, DocumentError> {
    match &entry.value.content {
        Content::Scalar { text, .. } => match secret::text_fault(text) {
            Some(wrong) => Err(fault(entry, at, wrong)),
            None => Ok(text),
        },
        Content::Null => Err(fault(entry, at, "has no value; write \"\" for an empty file")),
        _ => Err(wrong_type(&entry.value, at, "the file's text, or {secret: NAME}")),
    }
}
