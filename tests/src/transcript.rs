//! Transcripts: what was asked and what came back, step by step, kept in golden files that etcd wrote.
//!
//! A file is rewritten by running its test on etcd with `UPDATE_GOLDEN=1`; the agent never writes one, but for
//! what `agentctl` says.

use std::fmt::Write as _;
use std::path::PathBuf;

/// The steps of one run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    steps: Vec<(String, String)>,
}

impl Transcript {
    /// Adds a step: one line of what was asked, any lines of answer.
    pub fn push(&mut self, asked: &str, answer: &str) {
        self.steps.push((asked.to_owned(), answer.trim_end().to_owned()));
    }

    /// What was answered to the first step that asked this.
    #[must_use]
    pub fn answer(&self, asked: &str) -> Option<&str> {
        let step = self.steps.iter().find(|(step, _)| step == asked)?;
        Some(&step.1)
    }

    /// Compares with the golden file, or writes it. Steps that only etcd is asked for, `etcd: ...`, are expected
    /// of etcd only, which is also the only one that may write the file.
    ///
    /// # Panics
    /// When they differ; the message shows every step that does.
    pub fn check(&self, subject: &str, golden: &str, is_etcd: bool) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("golden")
            .join(golden);
        if is_etcd && std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("make the golden folder");
            std::fs::write(&path, self.to_text()).expect("write the golden file");
            return;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let mut expected = Transcript::parse(&text);
        expected
            .steps
            .retain(|(asked, _)| is_etcd || !asked.starts_with("etcd: "));
        let differences = expected.differences(self);
        assert!(
            differences.is_empty(),
            "{golden}: {subject} differs:\n{differences}"
        );
    }

    /// Compares with a golden file that is our own, or writes it.
    ///
    /// # Panics
    /// When they differ.
    pub fn check_own(&self, golden: &str) {
        self.check("agentctl", golden, true);
    }

    /// What was asked and answered, in order.
    #[must_use]
    pub fn steps(&self) -> &[(String, String)] {
        &self.steps
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        for (asked, answer) in &self.steps {
            let _ = writeln!(text, "$ {asked}");
            if !answer.is_empty() {
                let _ = writeln!(text, "{answer}");
            }
            text.push('\n');
        }
        text
    }

    /// Reads a golden file.
    #[must_use]
    pub fn parse(text: &str) -> Transcript {
        let mut parsed = Transcript::default();
        for line in text.lines() {
            match (line.strip_prefix("$ "), parsed.steps.last_mut()) {
                (Some(asked), _) => parsed.steps.push((asked.to_owned(), String::new())),
                (None, Some((_, answer))) => {
                    answer.push_str(line);
                    answer.push('\n');
                }
                (None, None) => {}
            }
        }
        for (_, answer) in &mut parsed.steps {
            answer.truncate(answer.trim_end().len());
        }
        parsed
    }

    fn differences(&self, actual: &Transcript) -> String {
        let mut differences = String::new();
        for i in 0..self.steps.len().max(actual.steps.len()) {
            let (expected, got) = (self.steps.get(i), actual.steps.get(i));
            if expected == got {
                continue;
            }
            let show = |step: Option<&(String, String)>| match step {
                Some((asked, answer)) => format!("$ {asked}\n{answer}"),
                None => "(no such step)".to_owned(),
            };
            let _ = writeln!(
                differences,
                "--- expected\n{}\n+++ got\n{}\n",
                show(expected),
                show(got)
            );
        }
        differences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let mut transcript = Transcript::default();
        transcript.push("etcdctl put a 1", "OK\n");
        transcript.push("etcdctl del nothing", "");
        transcript.push("etcdctl get a", "a\n\n1\n");
        assert_eq!(Transcript::parse(&transcript.to_text()), transcript);
    }

    #[test]
    fn every_difference_is_shown() {
        let mut expected = Transcript::default();
        let mut actual = Transcript::default();
        for (step, (left, right)) in [("0", "0"), ("1", "one"), ("2", "two")].into_iter().enumerate() {
            expected.push(&step.to_string(), left);
            actual.push(&step.to_string(), right);
        }
        let differences = expected.differences(&actual);
        assert!(!differences.contains("$ 0"));
        assert!(differences.contains("$ 1\n1\n+++ got\n$ 1\none"));
        assert!(differences.contains("$ 2\n2\n+++ got\n$ 2\ntwo"));
    }
}
