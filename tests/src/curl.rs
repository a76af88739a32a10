//! Asks the JSON gateway by `curl`, by a script, and keeps a transcript.
//!
//! Scripts are written as in [`crate::shell`]. `$SELF` is the member that is asked; `$LEASE1` the first lease
//! granted and `$TOKEN1` the first token given, and so on; `$MEMBER` the member's id. The HTTP status is the last
//! line of an answer that has an end.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::names::Names;
use crate::shell::{Command, Job, Line, steps};
use crate::transcript::Transcript;

const CHOSEN_ID_DIGITS: usize = 10;
const TIMEOUT: Duration = Duration::from_secs(20);

/// Fields whose values say how a server is built or how busy it was.
const VARYING: [&str; 13] = [
    "raft_term",
    "raftTerm",
    "raftIndex",
    "raftAppliedIndex",
    "dbSize",
    "dbSizeInUse",
    "leader",
    "version",
    "etcdserver",
    "hash",
    "blob",
    "remaining_bytes",
    "authRevision",
];

/// Fields of etcd 3.6, which the agent has already.
const NEWER: [&str; 3] = ["storageVersion", "dbSizeQuota", "hash_revision"];

/// A session of `curl` with one member.
#[derive(Debug)]
pub struct Curl<'a> {
    cluster: &'a Cluster,
    member: usize,
    id: String,
    names: Names,
    leases: Vec<String>,
    tokens: Vec<String>,
    left_running: VecDeque<Job>,
}

impl<'a> Curl<'a> {
    pub async fn new(cluster: &'a Cluster, member: usize) -> Curl<'a> {
        let status = cluster.client(member).status().await.expect("status");
        Curl {
            cluster,
            member,
            id: status.header.map_or(0, |header| header.member_id).to_string(),
            names: Names::of(cluster, member).await,
            leases: Vec::new(),
            tokens: Vec::new(),
            left_running: VecDeque::new(),
        }
    }

    /// Runs every command of a script.
    pub async fn run(&mut self, script: &str) -> Transcript {
        let mut transcript = Transcript::default();
        for (line, command) in steps(script, self.cluster.subject().is_etcd()) {
            let mut expanded = command
                .replace("$SELF", self.cluster.endpoint(self.member))
                .replace("$MEMBER", &self.id);
            for (kind, values) in [("LEASE", &self.leases), ("TOKEN", &self.tokens)] {
                for (i, value) in values.iter().enumerate() {
                    expanded = expanded.replace(&format!("${kind}{}", i + 1), value);
                }
            }
            let answer = self.perform(Line::parse(&expanded)).await;
            let answer: Vec<String> = answer.lines().map(|line| self.same_in_every_run(line)).collect();
            transcript.push(line, &answer.join("\n"));
        }
        assert!(self.left_running.is_empty(), "a script ends all that it starts");
        transcript
    }

    async fn perform(&mut self, line: Line) -> String {
        match line {
            Line::Run { command, head: None } => start(&command, true).await.finish().await.0,
            Line::Run {
                command,
                head: Some(count),
            } => {
                let mut job = start(&command, false).await;
                let lines = job.lines(count).await;
                job.stop().await;
                lines.map_or_else(|vain| vain, |lines| lines.join("\n"))
            }
            Line::Start { command, lines } => {
                let mut job = start(&command, false).await;
                let vain = job.lines(lines).await.err();
                self.left_running.push_back(job);
                vain.unwrap_or_default()
            }
            Line::Stop { lines } => {
                let mut job = self.left_running.pop_front().expect("a command left running");
                // What is missing shows in what it printed.
                let _ = job.lines(lines).await;
                job.stop().await.0
            }
            Line::Wait => {
                let job = self.left_running.pop_front().expect("a command left running");
                job.finish().await.0
            }
        }
    }

    /// A line of an answer with ids, terms, leases, tokens and what is measured masked. Where these are is known
    /// from the JSON; the text keeps its order of fields and its way of writing.
    fn same_in_every_run(&mut self, line: &str) -> String {
        let Ok(json) = serde_json::from_str::<Value>(line) else {
            return self.names.apply(line);
        };
        let result = json.get("result").unwrap_or(&json);
        if let (Some(id), Some(_)) = (text(result, "ID"), text(result, "TTL"))
            && !self.leases.contains(&id)
        {
            // One that the script chose is short, and would be found within other numbers.
            if id.len() > CHOSEN_ID_DIGITS {
                self.names.learn("lease", &id);
            }
            self.leases.push(id);
        }
        if let Some(token) = text(result, "token") {
            self.names.learn("token", &token);
            self.tokens.push(token);
        }
        let mut masked = self.names.members_by_name(&without_spaces(line));
        let (mut varying, mut newer) = (Vec::new(), Vec::new());
        collect(&json, &VARYING, &mut varying);
        collect(&json, &NEWER, &mut newer);
        for (field, value) in varying {
            masked = masked.replace(&format!("\"{field}\":{value}"), &format!("\"{field}\":<{field}>"));
        }
        for (field, value) in newer {
            masked = masked.replace(&format!(",\"{field}\":{value}"), "");
        }
        self.names.apply(&without_second_error(&json, &masked))
    }
}

async fn start(command: &Command, with_status: bool) -> Job {
    let mut curl = tokio::process::Command::new("curl");
    // Not buffered, so that the lines of a stream come as they are sent.
    curl.env_clear().args(["--silent", "--show-error", "--no-buffer"]);
    if with_status {
        curl.args(["--write-out", "\n%{http_code}"]);
    }
    curl.args(command.words.get(1..).unwrap_or_default());
    Job::start(curl, &command.input, false, TIMEOUT).await
}

fn text(json: &Value, field: &str) -> Option<String> {
    Some(json.get(field)?.as_str()?.to_owned())
}

/// Fields that are in the JSON, each with its value as text.
fn collect(json: &Value, fields: &[&str], found: &mut Vec<(String, String)>) {
    match json {
        Value::Object(parts) => {
            for (field, value) in parts {
                // A key's version is a number that means something; a server's is text with dots.
                let is_count = field == "version" && !value.as_str().is_some_and(|text| text.contains('.'));
                if fields.contains(&field.as_str()) && !value.is_object() && !is_count {
                    found.push((field.clone(), value.to_string()));
                } else {
                    collect(value, fields, found);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, fields, found)),
        _ => {}
    }
}

/// JSON without the spaces between its parts: etcd's library puts them there or not, by chance of its build.
fn without_spaces(json: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    let kept = json.chars().filter(|&c| {
        let is_quote = c == '"' && !escaped;
        quoted ^= is_quote;
        escaped = c == '\\' && !escaped;
        quoted || c != ' '
    });
    kept.collect()
}

/// A refusal's text stands in `error` too, as in etcd's own builds; those of Debian have `message` only.
fn without_second_error(json: &Value, line: &str) -> String {
    match (json.get("error"), json.get("message")) {
        (Some(error), Some(message)) if error == message => line.replace(&format!("\"error\":{error},"), ""),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_between_the_parts_mean_nothing() {
        let answer = r#"{"code":9, "message":"a \"b\", c", "kvs":[1, 2]}"#;
        let compact = r#"{"code":9,"message":"a \"b\", c","kvs":[1,2]}"#;
        assert_eq!(without_spaces(answer), compact);
    }

    #[test]
    fn an_error_is_compared_once() {
        let twice = r#"{"error":"no","code":9,"message":"no"}"#;
        let json = serde_json::from_str(twice).expect("JSON");
        assert_eq!(without_second_error(&json, twice), r#"{"code":9,"message":"no"}"#);
        let other = r#"{"error":"no","code":9,"message":"yes"}"#;
        let json = serde_json::from_str(other).expect("JSON");
        assert_eq!(without_second_error(&json, other), other);
    }
}
