//! Templates: documents with `@NAME@` in them, and the variables that they are filled from. Pure.
//!
//! A template says what its variables are, so that it is refused when it is stored if one is used that it does not
//! declare, or declared that it does not use; a variable without a value is refused when the template is used.
//! `@HOST@` and `@HOSTS@` need no declaration: a document with the first comes out once for each host that the
//! template is applied to, the second is all of them, as `hosts: [@HOSTS@]` wants it.
//!
//! A value is put into the text, so that what is stored can be read, comments and all; but it never becomes more
//! than the value that it stands for (`one_value`).

mod one_value;
mod placeholder;
mod read;
mod render;
mod values;

use std::collections::BTreeSet;

use super::{Document, DocumentError};

pub(super) use read::read;
pub use render::{Rendered, render};
pub use values::{Values, parse_setting, parse_values};

/// The names of the variables that a text uses: all but the hosts.
#[must_use]
pub fn variables_used(text: &str) -> BTreeSet<&str> {
    let found = placeholder::placeholders(text)
        .into_iter()
        .map(|found| found.name);
    found.filter(|name| !matches!(*name, HOST | HOSTS)).collect()
}

/// Each of the hosts, one after the other.
const HOST: &str = "HOST";
/// All of the hosts, with commas between them.
const HOSTS: &str = "HOSTS";

/// Variables of one template.
const VARIABLES_MAX: usize = 100;

/// Text to be filled in, and where it stands in a larger one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub text: String,
    /// The line that it begins at, from 1.
    pub first_line: u64,
    /// Whether its lines are lines of the larger one; else all of it stands at that one line.
    pub keeps_lines: bool,
}

impl Text {
    /// The text of a whole file.
    #[must_use]
    pub fn of_file(text: String) -> Self {
        Self {
            text,
            first_line: 1,
            keeps_lines: true,
        }
    }

    /// Where a line of it is in the larger text.
    fn line(&self, line: u64) -> u64 {
        if self.keeps_lines {
            self.first_line + line.max(1) - 1
        } else {
            self.first_line
        }
    }

    /// The fault of a part that begins at this line of the text.
    fn place(&self, mut error: DocumentError, first_line: u64) -> DocumentError {
        error.line = self.line(first_line + error.line.max(1) - 1);
        error
    }
}

/// A template, out of its document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub name: String,
    pub description: String,
    pub variables: Vec<Variable>,
    pub documents: Text,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    pub description: String,
    /// `None`: whoever uses the template must say.
    pub default: Option<String>,
}

impl Template {
    /// A document of kind template, which [`super::parse`] has found to be right.
    #[must_use]
    pub fn of(document: &Document) -> Self {
        let text = |value: Option<&serde_json::Value>| {
            value
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let variables = document
            .spec
            .get("variables")
            .and_then(serde_json::Value::as_object);
        let variables = variables.into_iter().flatten().map(|(name, variable)| Variable {
            name: name.clone(),
            description: text(variable.get("description")),
            default: variable.get("default").map(|default| text(Some(default))),
        });
        Self {
            name: document.name.clone(),
            description: text(document.spec.get("description")),
            variables: variables.collect(),
            documents: Text {
                text: text(document.spec.get("documents")),
                first_line: document.line_of(read::CONTENT).unwrap_or(1),
                keeps_lines: document.line_of(read::CONTENT) != document.line_of("spec.documents"),
            },
        }
    }

    /// What each variable is: the values that are given, and the defaults of the others.
    ///
    /// # Errors
    /// A value that is for no variable, a variable that has no value.
    pub fn cover(&self, given: &Values) -> Result<Values, DocumentError> {
        values::cover(&self.variables, given)
    }

    /// The documents with these values, on these hosts.
    ///
    /// # Errors
    /// As for [`Template::cover`] and [`render`]; lines are those of the template's text.
    pub fn render(&self, given: &Values, hosts: &[String]) -> Result<Vec<Rendered>, DocumentError> {
        render(&self.documents, &self.cover(given)?, hosts)
    }
}

#[cfg(test)]
mod tests;
