//! What differs from run to run in an answer, masked.

use crate::names::Names;

/// Commands whose answers come by id, by expiry or as the members answered: in no order that means anything.
const UNORDERED: [&str; 4] = ["endpoint", "member list", "lease list", "defrag --cluster"];

/// A number, with its unit, after each of these.
const NUMBERS: [(&str, &str); 14] = [
    (r#""raft_term":"#, "<term>"),
    (r#""RaftTerm" : "#, "<term>"),
    ("took = ", "<time>"),
    ("remaining(", "<time>"),
    (r#""hash":"#, "<hash>"),
    (r#""totalSize":"#, "<size>"),
    (r#""totalKey":"#, "<keys>"),
    ("etcdctl version: ", "<version>"),
    (r#""ttl":"#, "<time>"),
    (r#""TTL" : "#, "<time>"),
    ("etcd API ", "<version>"),
    (r#""took":""#, "<time>"),
    ("Compacting with revision ", "<revision>"),
    ("Compacted with revision ", "<revision>"),
];

pub(super) fn is_unordered(command: &str) -> bool {
    let command = command.replace("--endpoints=$ALL ", "");
    let words = of_any_program(&command);
    UNORDERED.iter().any(|prefix| words.starts_with(prefix))
}

/// Whether a command's verdict is about the machine's speed.
pub(super) fn is_measured(command: &str) -> bool {
    of_any_program(command).starts_with("check ")
}

/// A command without its program's name.
fn of_any_program(command: &str) -> &str {
    command.split_once(' ').map_or("", |(_, words)| words)
}

/// A line of an answer with ids, addresses, times, sizes and terms masked.
pub(super) fn same_in_every_run(command: &str, line: &str, names: &mut Names) -> String {
    let mut line = names.apply(&names.members_by_name(line));
    for (before, name) in NUMBERS {
        line = mask(&line, before, name);
    }
    if is_measured(command) {
        return verdict(&line);
    }
    if line.starts_with("+-") {
        return "+-".to_owned();
    }
    if line.starts_with('|') {
        return names.apply(&row(&line));
    }
    if command.starts_with("agentctl ") {
        line = our_columns(&line);
    }
    if let Some(members) = line.strip_prefix("ETCD_INITIAL_CLUSTER=\"") {
        return initial_cluster(members);
    }
    line = lease_in_key(&line);
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
            format!("{endpoint}, {}", names.given("hash", hash))
        }
        // The status of a snapshot's file.
        [_hash, revision, _keys, _size] if revision.parse::<u64>().is_ok() => {
            format!("<hash>, {revision}, <keys>, <size>")
        }
        _ => line,
    }
}

/// A row of a table without its widths. Cells that vary are those of an endpoint's status and its hash.
fn row(line: &str) -> String {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let varies = |cell: &str| {
        is_recent(cell) || cell.ends_with(" MB") || cell.ends_with(" kB") || cell.ends_with("ms")
    };
    let is_status = cells.len() == 10 && cells.iter().any(|cell| is_recent(cell));
    let masked = cells.iter().enumerate().map(|(i, &cell)| match i {
        4 | 6 | 7 | 8 if is_status => "<varies>",
        _ if varies(cell) => "<varies>",
        1 if cells.len() == 2 && cell.parse::<u32>().is_ok() => "<hash>",
        _ => cell,
    });
    format!("| {} |", masked.collect::<Vec<_>>().join(" | "))
}

/// A row of one of our tables, without its widths and what varies; a version of `agentctl`; a file's size.
fn our_columns(line: &str) -> String {
    if let Some(version) = line.strip_prefix("agentctl ")
        && version.starts_with(|c: char| c.is_ascii_digit())
    {
        return "agentctl <version>".to_owned();
    }
    if let Some((saved, _)) = line.split_once(" (")
        && line.starts_with("Snapshot saved at ")
    {
        return format!("{saved} (<size>)");
    }
    if line.ends_with(" leads already") {
        return "<leader> leads already".to_owned();
    }
    // What is proposed to a new member has the port of one that is there.
    if let Some((before, _)) = line.split_once("--listen-client-urls ") {
        return format!("{before}--listen-client-urls <url>");
    }
    let cells: Vec<&str> = line
        .split("  ")
        .map(str::trim)
        .filter(|cell| !cell.is_empty())
        .collect();
    // Indented text is no table.
    if cells.len() < 2 || line.starts_with(' ') {
        return line.to_owned();
    }
    let is_status = cells.iter().any(|cell| is_recent(cell));
    let masked = cells.iter().map(|&cell| {
        let number = cell.replace(',', "").parse::<u64>().is_ok();
        match cell {
            "leader" | "voter" if is_status => "<role>",
            _ if is_recent(cell) => "<version>",
            _ if cell.ends_with(" ms") || cell.ends_with(" s") => "<time>",
            _ if number && (is_status || cell.len() > 6) => "<number>",
            _ => cell,
        }
    });
    masked.collect::<Vec<_>>().join("  ")
}

/// Members by id, as every list of them, each with its name before its masked URL.
fn initial_cluster(members: &str) -> String {
    let urls = members
        .trim_end_matches('"')
        .split(',')
        .filter_map(|member| member.split_once('='));
    let mut urls: Vec<&str> = urls.map(|(_, url)| url).collect();
    urls.sort_unstable();
    format!("ETCD_INITIAL_CLUSTER=\"{}\"", urls.join(","))
}

/// `PASS: Throughput is 150 writes/s` says how fast the machine is; that it was measured is what counts.
fn verdict(line: &str) -> String {
    // A bar that is drawn over itself comes first, in the same line.
    let line = line.rsplit('\r').next().unwrap_or(line);
    const VERDICTS: [&str; 5] = ["PASS", "FAIL", "Slowest request", "Stddev", "compacted revision "];
    if VERDICTS.iter().any(|word| line.starts_with(word)) {
        "<verdict>".to_owned()
    } else if line.contains('%') {
        "<progress>".to_owned()
    } else {
        line.to_owned()
    }
}

/// The key of a lock or of a candidate ends with the lease that its holder was granted.
fn lease_in_key(line: &str) -> String {
    let words = line.split(' ').map(|word| match word.rsplit_once('/') {
        Some((name, id)) if id.len() >= 12 && id.chars().all(|c| c.is_ascii_hexdigit()) => {
            format!("{name}/<lease>")
        }
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Replaces the number, with its unit, that follows `before`.
fn mask(line: &str, before: &str, name: &str) -> String {
    let Some((head, tail)) = line.split_once(before) else {
        return line.to_owned();
    };
    // A number below zero stands for something.
    if tail.starts_with('-') {
        return line.to_owned();
    }
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
    fn numbers_that_vary_are_masked() {
        assert_eq!(
            mask("healthy: took = 1.49ms!", "took = ", "<time>"),
            "healthy: took = <time>!"
        );
        assert_eq!(
            mask("remaining(59s), keys", "remaining(", "<time>"),
            "remaining(<time>), keys"
        );
        assert_eq!(lease_in_key("held a/694d9f6c2f0d4a1b by"), "held a/<lease> by");
        assert_eq!(row("| a   | 20 kB |"), "| a | <varies> |");
        assert_eq!(
            our_columns("m0   leader  3.5.21   5.1 ms  1,008"),
            "m0  <role>  <version>  <time>  <number>"
        );
        assert_eq!(our_columns("agentctl 0.1.0"), "agentctl <version>");
        assert_eq!(verdict("1%\r60 / 60 100% 1m0s"), "<progress>");
        assert_eq!(verdict("PASS: Throughput is 150 writes/s"), "<verdict>");
        assert_eq!(verdict("Slowest request took too long: 0.591116s"), "<verdict>");
    }

    #[test]
    fn versions_must_be_numeric_and_recent() {
        assert!(is_recent("3.5.13") && is_recent("3.6.0"));
        assert!(!is_recent("3.5.9") && !is_recent("3.5.13-agent"));
    }
}
