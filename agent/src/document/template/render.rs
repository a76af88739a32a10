//! Documents out of a text with placeholders.

use super::placeholder::{placeholders, replace};
use super::{HOST, HOSTS, Text, Values, one_value};
use crate::document::fields::find;
use crate::document::suggest::did_you_mean;
use crate::document::yaml::{self, Content, Entry};
use crate::document::{Document, DocumentError, Kind, parse, split};

/// Documents that one text may become; a transaction holds not many more.
const DOCUMENTS_MAX: usize = 128;

/// One document that came out.
#[derive(Clone, Debug)]
pub struct Rendered {
    pub text: String,
    pub document: Document,
    /// Where it begins in the text that it came from.
    pub line: u64,
}

impl Rendered {
    /// The same document, as one of an application.
    ///
    /// # Errors
    /// When it says already what it is of, or cannot take the field.
    pub fn of_origin(self, origin: &str) -> Result<Self, DocumentError> {
        if let Some(other) = &self.document.origin {
            let message =
                format!("says that it is of {other}: leave it out, it is what the documents are applied as");
            return Err(DocumentError::new(self.line, 1, "origin", message));
        }
        let line = self.line;
        let text = add_line(&self.text, &format!("origin: {origin}"))
            .map_err(|error| DocumentError { line, ..error })?;
        let document = parse(&text).map_err(|error| DocumentError { line, ..error })?;
        Ok(Self { text, document, line })
    }
}

/// Fills in a text of documents: once for each host where a document says `@HOST@`. A document that names no host
/// gets those that are given.
///
/// # Errors
/// A placeholder without a value, a value that breaks out of its place, a document that is wrong. Lines are counted
/// as the text's own are.
pub fn render(text: &Text, values: &Values, hosts: &[String]) -> Result<Vec<Rendered>, DocumentError> {
    let mut rendered: Vec<Rendered> = Vec::new();
    for (first_line, part) in split(&text.text) {
        let first_line = first_line as u64;
        let line = text.line(first_line);
        let documents = part_on_hosts(part, values, hosts).map_err(|error| text.place(error, first_line))?;
        for document in documents {
            let key = document.document.desired_key();
            if rendered.iter().any(|other| other.document.desired_key() == key) {
                let more = if hosts.len() > 1 {
                    ": put @HOST@ into its name"
                } else {
                    ""
                };
                let message = format!("{key} comes out twice{more}");
                return Err(DocumentError::new(line, 1, "", message));
            }
            rendered.push(Rendered { line, ..document });
        }
        if rendered.len() > DOCUMENTS_MAX {
            let message = format!("more than {DOCUMENTS_MAX} documents come out");
            return Err(DocumentError::new(line, 1, "", message));
        }
    }
    Ok(rendered)
}

/// One document of the text, as often as it comes out.
fn part_on_hosts(part: &str, values: &Values, hosts: &[String]) -> Result<Vec<Rendered>, DocumentError> {
    let uses = |name: &str| placeholders(part).into_iter().find(|found| found.name == name);
    if let Some(found) = uses(HOST).or_else(|| uses(HOSTS)).filter(|_| hosts.is_empty()) {
        let message = format!("@{}@ needs hosts: name them with --hosts", found.name);
        return Err(DocumentError::new(found.line, 1, "", message));
    }
    let on: Vec<&[String]> = if uses(HOST).is_some() {
        hosts.chunks(1).collect()
    } else {
        vec![hosts]
    };
    on.into_iter().map(|on| one(part, values, on, hosts)).collect()
}

/// One document, on one of the hosts or on all of them.
fn one(part: &str, values: &Values, on: &[String], hosts: &[String]) -> Result<Rendered, DocumentError> {
    let mut values = values.clone();
    for placeholder in placeholders(part) {
        let is_known = matches!(placeholder.name, HOST | HOSTS) || values.contains_key(placeholder.name);
        if !is_known {
            let near = did_you_mean(placeholder.name, values.keys().map(String::as_str));
            let message = format!("no value for @{}@{near}", placeholder.name);
            return Err(DocumentError::new(placeholder.line, 1, "", message));
        }
    }
    values.insert(HOST.to_owned(), on.first().cloned().unwrap_or_default());
    values.insert(HOSTS.to_owned(), hosts.join(", "));
    // A list of hosts is the one value that may be several.
    let listed = replace(part, |name| match name {
        HOSTS => hosts.join(", "),
        name => format!("@{name}@"),
    });
    one_value::check(&listed, &values)?;
    let filled = replace(part, |name| values.get(name).cloned().unwrap_or_default());
    let text = with_hosts(filled, on)?;
    let document = parse(&text)?;
    Ok(Rendered {
        text,
        document,
        line: 1,
    })
}

/// A document that names no host is for those that were given. The line is added behind all others, so that theirs
/// stay what they are.
fn with_hosts(text: String, hosts: &[String]) -> Result<String, DocumentError> {
    let root = yaml::read(&text)?;
    let Content::Map(entries) = &root.content else {
        return Ok(text);
    };
    let names_hosts = ["host", "hosts", "placement"]
        .iter()
        .any(|field| find(entries, field).is_some());
    if hosts.is_empty() || names_hosts {
        return Ok(text);
    }
    let line = match (hosts, is_instance(entries)) {
        ([host], _) => format!("host: {host}"),
        (_, false) => format!("hosts: [{}]", hosts.join(", ")),
        (_, true) => {
            let message = "names no host: write host: @HOST@, and @HOST@ into its name, for one on each host";
            return Err(DocumentError::new(root.line, 1, "", message));
        }
    };
    add_line(&text, &line)
}

fn is_instance(entries: &[Entry]) -> bool {
    let kind = find(entries, "kind").map(|entry| &entry.value.content);
    matches!(kind, Some(Content::Scalar { text, .. }) if text == Kind::Instance.singular())
}

/// Adds a field at the end of a document of one field a line.
fn add_line(text: &str, line: &str) -> Result<String, DocumentError> {
    if text.trim_start().starts_with('{') {
        let message = format!("cannot add `{line}` to a document in braces: write it, or one field a line");
        return Err(DocumentError::new(1, 1, "", message));
    }
    let end = if text.ends_with('\n') { "" } else { "\n" };
    Ok(format!("{text}{end}{line}\n"))
}
