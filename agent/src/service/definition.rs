//! A service, and its text as a systemd unit.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// What is run, and how. Strings are free of control characters: the document's rules see to that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    pub name: String,
    /// An absolute path.
    pub exec: String,
    pub args: Vec<String>,
    pub environment: BTreeMap<String, String>,
    /// Whose rights it has. `None`: root's.
    pub user: Option<String>,
    /// An absolute path. `None`: `/`.
    pub working_directory: Option<String>,
    pub restart: Restart,
    /// Units that are started before it, where there are units.
    pub after: Vec<String>,
}

/// When a service that ended is started again. The words are systemd's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    #[default]
    Always,
    OnFailure,
    No,
}

impl Restart {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Restart::Always => "always",
            Restart::OnFailure => "on-failure",
            Restart::No => "no",
        }
    }

    /// Whether what ended so is started again.
    #[must_use]
    pub fn applies(self, success: bool) -> bool {
        match self {
            Restart::Always => true,
            Restart::OnFailure => !success,
            Restart::No => false,
        }
    }
}

impl Definition {
    /// The systemd unit. `mark` is its first line, a comment that says whose it is.
    #[must_use]
    pub fn unit_text(&self, mark: &str) -> String {
        let mut text = format!("{mark}\n[Unit]\nDescription={}\n", specifiers(&self.name));
        if !self.after.is_empty() {
            let _ = writeln!(text, "After={}", self.after.join(" "));
        }
        text.push_str("\n[Service]\nType=exec\n");
        let words: Vec<String> = std::iter::once(&self.exec)
            .chain(&self.args)
            .map(|word| quoted(&specifiers(word).replace('$', "$$")))
            .collect();
        let _ = writeln!(text, "ExecStart={}", words.join(" "));
        for (name, value) in &self.environment {
            let _ = writeln!(
                text,
                "Environment={}",
                quoted(&specifiers(&format!("{name}={value}")))
            );
        }
        if let Some(user) = &self.user {
            let _ = writeln!(text, "User={user}");
        }
        if let Some(directory) = &self.working_directory {
            let _ = writeln!(text, "WorkingDirectory={}", specifiers(directory));
        }
        let _ = writeln!(text, "Restart={}", self.restart.as_str());
        if self.restart != Restart::No {
            text.push_str("RestartSec=1\n");
        }
        text.push_str("\n[Install]\nWantedBy=multi-user.target\n");
        text
    }
}

/// systemd reads `%` as the beginning of a name of its own.
fn specifiers(word: &str) -> String {
    word.replace('%', "%%")
}

/// Quoted as systemd reads it, where it needs to be.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%$".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_unit_says_what_the_definition_says() {
        let definition = Definition {
            name: "web".into(),
            exec: "/usr/bin/web".into(),
            args: ["--port=80", "two words", "50% $HOME \"x\" \\", ""]
                .map(str::to_owned)
                .into(),
            environment: [("GREETING", "hello you"), ("RATE", "5%")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            user: Some("www-data".into()),
            working_directory: Some("/srv/web".into()),
            restart: Restart::OnFailure,
            after: vec!["network-online.target".into(), "db.service".into()],
        };
        expect![[r#"
            # mine
            [Unit]
            Description=web
            After=network-online.target db.service

            [Service]
            Type=exec
            ExecStart=/usr/bin/web --port=80 "two words" "50%% $$HOME \"x\" \\" ""
            Environment="GREETING=hello you"
            Environment=RATE=5%%
            User=www-data
            WorkingDirectory=/srv/web
            Restart=on-failure
            RestartSec=1

            [Install]
            WantedBy=multi-user.target
        "#]]
        .assert_eq(&definition.unit_text("# mine"));
    }

    #[test]
    fn a_small_definition_is_a_small_unit() {
        let definition = Definition {
            name: "once".into(),
            exec: "/bin/true".into(),
            restart: Restart::No,
            ..Definition::default()
        };
        expect![[r#"
            # mine
            [Unit]
            Description=once

            [Service]
            Type=exec
            ExecStart=/bin/true
            Restart=no

            [Install]
            WantedBy=multi-user.target
        "#]]
        .assert_eq(&definition.unit_text("# mine"));
    }
}
