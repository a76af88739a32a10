//! A value that is put into a text stays the one value that it stands for.
//!
//! `memory: @MEMORY@` with `1GiB, security.privileged: true` would be two settings, `"@NAME@"` with a quote in it the
//! end of a string, and `@NOTE@` with ` #` half of what was given. So the text is read twice: once with a mark in the
//! place of each placeholder, where the values are put into what was read; and once as it is with the values in it.
//! Both must be the same.

use super::Values;
use super::placeholder::{placeholders, replace};
use crate::document::DocumentError;
use crate::document::yaml::{self, Content, Node};

/// Around a name, in the place of a placeholder: private characters of Unicode, which YAML takes for letters.
const OPEN: char = '\u{E000}';
const CLOSE: char = '\u{E001}';

/// A text with placeholders as a tree with marks.
pub(super) fn read_marked(text: &str) -> Result<Node, DocumentError> {
    if let Some(line) = text.lines().position(|line| line.contains([OPEN, CLOSE])) {
        let message = "holds U+E000 or U+E001, which are used for placeholders";
        return Err(DocumentError::new(line as u64 + 1, 1, "", message));
    }
    yaml::read(&replace(text, |name| format!("{OPEN}{name}{CLOSE}")))
}

/// Whether a scalar of a marked tree holds a mark.
pub(super) fn has_mark(scalar: &str) -> bool {
    scalar.contains(OPEN)
}

/// Refuses a text that says more, or less, with the values in it than was meant.
pub(super) fn check(template: &str, values: &Values) -> Result<(), DocumentError> {
    let meant = read_marked(template)?;
    let found = placeholders(template);
    // One by one first, so that the one that is to blame is named; then all together, for those side by side.
    for placeholder in &found {
        let only = |name: &str| name == placeholder.name;
        if let Some(line) = difference(template, &meant, values, only) {
            return Err(refusal(
                line.unwrap_or(placeholder.line),
                placeholder.name,
                values,
            ));
        }
    }
    match (difference(template, &meant, values, |_| true), found.first()) {
        (Some(line), Some(first)) => Err(refusal(line.unwrap_or(first.line), first.name, values)),
        _ => Ok(()),
    }
}

fn refusal(line: u64, name: &str, values: &Values) -> DocumentError {
    let value = values.get(name).map_or("", String::as_str);
    let message = format!(
        "`{value}` for @{name}@ does not stay one value here; write '@{name}@' or \"@{name}@\" in the template"
    );
    DocumentError::new(line, 1, "", message)
}

/// Where the text differs from what was meant once the placeholders that are `wanted` have their values; the line
/// within is not known where it is no YAML any more.
fn difference(
    template: &str,
    meant: &Node,
    values: &Values,
    wanted: impl Fn(&str) -> bool,
) -> Option<Option<u64>> {
    let fill = |name: &str| match values.get(name) {
        Some(value) if wanted(name) => value.clone(),
        _ => format!("{OPEN}{name}{CLOSE}"),
    };
    match yaml::read(&replace(template, fill)) {
        Ok(said) => compare(meant, &said, &|marked| fill_marked(marked, &fill)).map(Some),
        Err(_) => Some(None),
    }
}

/// The line of the first place where the trees differ.
fn compare(meant: &Node, said: &Node, fill: &impl Fn(&str) -> String) -> Option<u64> {
    match (&meant.content, &said.content) {
        (Content::Null, Content::Null) => None,
        (Content::Scalar { text, .. }, Content::Scalar { text: said, .. }) => {
            (fill(text) != *said).then_some(meant.line)
        }
        // Nothing, in so many words.
        (Content::Scalar { text, plain: true }, Content::Null) => {
            let is_null = matches!(fill(text).as_str(), "" | "~" | "null" | "Null" | "NULL");
            (!is_null).then_some(meant.line)
        }
        (Content::List(items), Content::List(said)) if items.len() == said.len() => items
            .iter()
            .zip(said)
            .find_map(|(item, said)| compare(item, said, fill)),
        (Content::Map(entries), Content::Map(said)) => {
            let differs = entries.iter().zip(said).find_map(|(entry, said)| {
                if fill(&entry.name) == said.name {
                    compare(&entry.value, &said.value, fill)
                } else {
                    Some(entry.line)
                }
            });
            differs.or_else(|| (entries.len() != said.len()).then_some(meant.line))
        }
        _ => Some(meant.line),
    }
}

/// A scalar of the marked tree with values in the place of its marks.
fn fill_marked(marked: &str, fill: &impl Fn(&str) -> String) -> String {
    let mut filled = String::with_capacity(marked.len());
    let mut rest = marked;
    while let Some((before, after)) = rest.split_once(OPEN) {
        let Some((name, behind)) = after.split_once(CLOSE) else {
            break;
        };
        filled.push_str(before);
        filled.push_str(&fill(name));
        rest = behind;
    }
    filled.push_str(rest);
    filled
}
