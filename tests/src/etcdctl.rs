//! Runs the stock `etcdctl` by a script and keeps a transcript.
//!
//! A script has one command on each line; `#` begins a comment. A command is written as in a shell, of which
//! this is understood: single and double quotes, `<<< 'input'` with `\n` for line ends, and `| head -n N` for
//! commands that never end. `$LEASE1` is the first lease that the script was granted, and so on; `$LEADER`,
//! `$FOLLOWER` (URLs), `$LEADER_ID` and `$FOLLOWER_ID` are asked of the cluster; `$FOLDER` is the test's own.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::cluster::Cluster;
use crate::names::Names;
use crate::tools::EtcdVersion;
use crate::transcript::Transcript;

const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);

/// A session of `etcdctl` with one member.
#[derive(Debug)]
pub struct Etcdctl<'a> {
    program: PathBuf,
    cluster: &'a Cluster,
    member: usize,
    names: Names,
    leases: Vec<String>,
}

/// One command of a script, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
struct Line {
    words: Vec<String>,
    input: String,
    head: Option<usize>,
}

impl<'a> Etcdctl<'a> {
    /// `None` where that release is missing.
    pub async fn new(version: EtcdVersion, cluster: &'a Cluster, member: usize) -> Option<Etcdctl<'a>> {
        let program = version.program("etcdctl")?;
        let names = Names::of(cluster, member).await;
        Some(Etcdctl {
            program,
            cluster,
            member,
            names,
            leases: Vec::new(),
        })
    }

    /// Runs every command of a script.
    pub async fn run(&mut self, script: &str) -> Transcript {
        let mut transcript = Transcript::default();
        for line in script
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let answer = self.step(line).await;
            transcript.push(line, &answer);
        }
        transcript
    }

    async fn step(&mut self, line: &str) -> String {
        let roles = self.roles(line).await;
        let mut expanded = line.replace("$FOLDER", &self.cluster.folder().to_string_lossy());
        for (i, lease) in self.leases.iter().enumerate() {
            expanded = expanded.replace(&format!("$LEASE{}", i + 1), lease);
        }
        for (role, value) in &roles {
            expanded = expanded.replace(role, value);
        }
        let (mut answer, code) = self.command(&Line::parse(&expanded)).await;
        for (role, value) in &roles {
            answer = answer.replace(value, role);
        }
        self.learn_lease(&answer);
        let mut lines: Vec<String> = answer
            .lines()
            // The client's own log.
            .filter(|line| !line.starts_with(r#"{"level""#))
            .map(|line| self.same_in_every_run(line))
            .collect();
        if ["etcdctl endpoint", "etcdctl member list", "etcdctl lease list"]
            .iter()
            .any(|c| line.starts_with(c))
        {
            // By id, by expiry or as the answers came: in no order that means anything.
            lines.sort();
        }
        if code != Some(0) && code.is_some() {
            lines.push(format!("exit {}", code.unwrap_or_default()));
        }
        lines.join("\n")
    }

    /// The values of the variables that follow the leader, longest name first.
    async fn roles(&self, line: &str) -> Vec<(&'static str, String)> {
        if !line.contains("$LEADER") && !line.contains("$FOLLOWER") {
            return Vec::new();
        }
        let leader = self.cluster.leader().await;
        let follower = self.cluster.follower().await;
        vec![
            ("$FOLLOWER_ID", self.id(follower).await),
            ("$LEADER_ID", self.id(leader).await),
            ("$FOLLOWER", self.cluster.endpoint(follower).to_owned()),
            ("$LEADER", self.cluster.endpoint(leader).to_owned()),
        ]
    }

    async fn id(&self, member: usize) -> String {
        let status = self.cluster.client(member).status().await.expect("status");
        format!("{:x}", status.header.map_or(0, |header| header.member_id))
    }

    /// What it printed on both outputs, and its exit code; none when it was stopped by `head`.
    async fn command(&self, line: &Line) -> (String, Option<i32>) {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("ETCDCTL_API", "3")
            .args(line.words.get(1..).unwrap_or_default());
        if !line.words.iter().any(|word| word.starts_with("--endpoints")) {
            command.env("ETCDCTL_ENDPOINTS", self.cluster.endpoint(self.member));
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("start etcdctl");
        let mut stdin = child.stdin.take().expect("its input");
        stdin
            .write_all(line.input.as_bytes())
            .await
            .expect("write its input");
        drop(stdin);
        let mut printed = String::new();
        let finished = tokio::time::timeout(COMMAND_TIMEOUT, async {
            let mut stdout = BufReader::new(child.stdout.take().expect("its output")).lines();
            let mut count = 0;
            while let Some(text) = stdout.next_line().await.expect("read its output") {
                printed.push_str(&text);
                printed.push('\n');
                count += 1;
                if Some(count) == line.head {
                    return None;
                }
            }
            let mut stderr = child.stderr.take().expect("its errors");
            stderr
                .read_to_string(&mut printed)
                .await
                .expect("read its errors");
            Some(child.wait().await.expect("wait for it"))
        })
        .await;
        match finished {
            Ok(status) => (printed, status.map(|status| status.code().unwrap_or(-1))),
            Err(_) => (format!("{printed}(no end after {COMMAND_TIMEOUT:?})"), None),
        }
    }

    /// `lease 694d... granted with TTL(60s)` names that lease from now on.
    fn learn_lease(&mut self, answer: &str) {
        let Some(id) = answer
            .strip_prefix("lease ")
            .and_then(|rest| rest.split_once(" granted with TTL("))
        else {
            return;
        };
        let id = id.0;
        if !self.leases.iter().any(|known| known == id) {
            self.leases.push(id.to_owned());
            self.names.learn("lease", id);
        }
    }

    fn same_in_every_run(&mut self, line: &str) -> String {
        let mut line = self.names.apply(&members_by_name(line, &self.names));
        let masks = [
            (r#""raft_term":"#, "<term>"),
            (r#""RaftTerm" : "#, "<term>"),
            ("took = ", "<time>"),
            ("remaining(", "<time>"),
        ];
        for (before, name) in masks {
            line = mask(&line, before, name);
        }
        let columns: Vec<&str> = line.split(", ").collect();
        match columns.as_slice() {
            [
                endpoint,
                id,
                version,
                _size,
                _leads,
                learner,
                _term,
                _index,
                _applied,
                errors,
            ] if endpoint.starts_with('<') && is_recent(version) => {
                let same = "<size>, <leads>";
                format!("{endpoint}, {id}, <version>, {same}, {learner}, <term>, <index>, <index>, {errors}")
            }
            [endpoint, hash] if endpoint.starts_with('<') && hash.parse::<u32>().is_ok() => {
                format!("{endpoint}, {}", self.names.given("hash", hash))
            }
            _ => line,
        }
    }
}

impl Line {
    fn parse(text: &str) -> Line {
        let mut line = Line::default();
        let mut words = words(text).into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "<<<" => line.input = words.next().unwrap_or_default().replace("\\n", "\n"),
                // The rest is `head -n N`.
                "|" => line.head = words.by_ref().last().and_then(|count| count.parse().ok()),
                _ => line.words.push(word),
            }
        }
        line
    }
}

/// Splits as a shell does, as far as quotes go.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// A member list in JSON is in the order of the ids, which are not the same in two runs.
fn members_by_name(line: &str, names: &Names) -> String {
    let parsed = line
        .contains(r#""members":["#)
        .then(|| serde_json::from_str::<serde_json::Value>(line).ok());
    let Some(mut json) = parsed.flatten() else {
        return line.to_owned();
    };
    if let Some(members) = json.get_mut("members").and_then(|members| members.as_array_mut()) {
        members.sort_by_cached_key(|member| names.apply(&format!("\"name\":{}", member["name"])));
    }
    json.to_string()
}

/// Replaces the number, with its unit, that follows `before`.
fn mask(line: &str, before: &str, name: &str) -> String {
    let Some((head, tail)) = line.split_once(before) else {
        return line.to_owned();
    };
    let rest = tail.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.' || c == 'µ');
    format!("{head}{before}{name}{rest}")
}

/// Clients parse the version and want 3.5.13 or newer.
fn is_recent(version: &str) -> bool {
    let parts: Vec<u32> = version.split('.').map_while(|part| part.parse().ok()).collect();
    parts.len() == 3 && parts.as_slice() >= [3, 5, 13].as_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart_as_by_a_shell() {
        let line = Line::parse(r#"etcdctl txn <<< 'mod("a") = "0"\n\n' | head -n 2"#);
        assert_eq!(line.words, ["etcdctl", "txn"]);
        assert_eq!(line.input, "mod(\"a\") = \"0\"\n\n");
        assert_eq!(line.head, Some(2));
        assert_eq!(words(r#"get "" 'a b' --prefix"#), ["get", "", "a b", "--prefix"]);
    }

    #[test]
    fn numbers_that_vary_are_masked() {
        assert_eq!(
            mask("healthy: took = 1.49ms!", "took = ", "<time>"),
            "healthy: took = <time>!"
        );
        assert_eq!(
            mask("remaining(59s), keys", "remaining(", "<time>"),
            "remaining(<time>), keys"
        );
    }

    #[test]
    fn versions_must_be_numeric_and_recent() {
        assert!(is_recent("3.5.13") && is_recent("3.6.0"));
        assert!(!is_recent("3.5.9") && !is_recent("3.5.13-agent"));
    }
}
