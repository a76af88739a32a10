//! What is wrong with a document, and where.

use std::fmt;

use thiserror::Error;

/// A fault in a document's text. Displays as `LINE: PATH: MESSAGE`, so that a file name and a colon before it
/// make the usual form of a compiler's answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub struct DocumentError {
    /// From 1. 0: the fault has no place in the text.
    pub line: u64,
    /// From 1. 0: unknown.
    pub column: u64,
    /// Where in the document, as `spec.config.limits.memory`. Empty: the document as a whole.
    pub path: String,
    pub message: String,
}

impl DocumentError {
    #[must_use]
    pub fn new(line: u64, column: u64, path: &str, message: impl Into<String>) -> Self {
        DocumentError {
            line,
            column,
            path: path.to_owned(),
            message: message.into(),
        }
    }

    /// The path and the message, without the line: for a status, which has a field for that.
    #[must_use]
    pub fn text(&self) -> String {
        if self.path.is_empty() {
            self.message.clone()
        } else {
            format!("{}: {}", self.path, self.message)
        }
    }

    /// The same fault, where what it calls `spec` stands at `path` of a larger document.
    #[must_use]
    pub(super) fn within(mut self, path: &str) -> Self {
        if let Some(rest) = self.path.strip_prefix("spec") {
            self.path = format!("{path}{rest}");
        }
        self
    }

    /// The same fault in a file in which the document begins at `first_line`.
    #[must_use]
    pub fn in_file(mut self, first_line: usize) -> Self {
        if self.line > 0 {
            self.line += first_line.saturating_sub(1) as u64;
        }
        self
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}: ", self.line)?;
        }
        f.write_str(&self.text())
    }
}
