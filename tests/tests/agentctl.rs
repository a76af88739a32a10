//! `agentctl` says what its golden files say, and where etcdctl has the same command, what etcdctl says.
//!
//! `golden/agentctl/*.script` are conversations of our own, each with what was answered beside it. The scripts of
//! `golden/etcdctl` are held with `agentctl` too; `golden/agentctl/as-etcdctl` keeps every answer that differs from
//! etcdctl 3.5's, so that each difference is deliberate. `UPDATE_GOLDEN=1` writes both.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tests::cluster::{Cluster, Subject};
use tests::etcdctl::Etcdctl;
use tests::shell::commands;
use tests::tools;
use tests::transcript::Transcript;

/// etcdctl's commands about keys are a group of their own here.
const KEY_COMMANDS: [&str; 5] = ["get", "put", "del", "watch", "txn"];

/// Tests of these scripts, by one function.
macro_rules! scripts {
    ($module:ident, $check:ident: $($script:ident),* $(,)?) => {
        mod $module {
            $(#[tokio::test]
            async fn $script() {
                crate::$check(stringify!($script)).await;
            })*
        }
    };
}

scripts!(ours, check_ours: help, refusals, keys, documents, applications, instances, members, leases, users, maintenance, checks, trust, contexts, tenants, secrets);
scripts!(as_etcdctl, check_as_etcdctl: kv, watch, lease, concurrency, auth, cluster, maintenance);

/// A script of our own. It is always held with the same member, so that names in answers are the same.
async fn check_ours(script: &str) {
    let cluster = Cluster::builder(&Subject::agent(), 3)
        .with_secrets()
        .start()
        .await;
    write_documents(&cluster);
    cluster.leader().await;
    let mut agentctl = Etcdctl::agentctl(&cluster, 0, None).await;
    let said = agentctl.run(&read(&format!("agentctl/{script}.script"))).await;
    let mut transcript = Transcript::default();
    for (asked, answer) in said.steps() {
        transcript.push(asked, &without_global_options(asked, answer));
    }
    transcript.check_own(&format!("agentctl/{script}.txt"));
}

/// They are the same in every help: one shows them.
fn without_global_options(asked: &str, answer: &str) -> String {
    let Some((before, after)) = answer.split_once("Global options:\n") else {
        return answer.to_owned();
    };
    if asked == "agentctl --help" {
        return answer.to_owned();
    }
    let after = after.split_once("\n\n").map_or("", |(_, after)| after);
    format!("{before}Global options: ...\n\n{after}")
}

/// What the scripts find in `$FOLDER`.
fn write_documents(cluster: &Cluster) {
    let write = |name: &str, text: &str| {
        fs::write(cluster.folder().join(name), text).expect("write a document");
    };
    let instance = "kind: instance\nname: web\nhost: ovh\nrunning: true\nspec:\n  type: container\n";
    write(
        "web.yaml",
        &format!("{instance}  source: {{type: image, alias: busybox}}\n"),
    );
    write(
        "with-secret.yaml",
        &format!(
            "{instance}  source: {{type: image, alias: busybox}}\n  config: {{environment.PASSWORD: {{secret: db-password}}}}\n"
        ),
    );
    write("wrong.yaml", &instance.replace("instance", "instanse"));
    write("value", "from a file\n");
    let template = include_str!("../../examples/template.yaml");
    write("template.yaml", template);
    write("wrong-template.yaml", &template.replace("@MEMORY@", "@MEMROY@"));
    write(
        "tenant.yaml",
        "kind: tenant\nname: shop\nspec: {limits: {instances: 5}}\n",
    );
    let nested = "\n  source: {type: none}\n  config: {security.nesting: true}\n";
    let tenants = instance.replace("name: web", "name: nested\ntenant: shop");
    write(
        "tenants-instance.yaml",
        &format!("{}{nested}", tenants.trim_end()),
    );
}

/// A script of etcdctl's, held by `agentctl`.
async fn check_as_etcdctl(script: &str) {
    let text = read(&format!("etcdctl/{script}.script"));
    let ours: Vec<String> = commands(&text).filter_map(translated).collect();
    let cluster = Cluster::builder(&Subject::agent(), 3).start().await;
    cluster.leader().await;
    let mut agentctl = Etcdctl::agentctl(&cluster, 0, Some("simple")).await;
    let said = agentctl.run(&ours.join("\n")).await;
    let theirs = Transcript::parse(&read(&format!("etcdctl/{script}-3.5.txt")));
    let mut differences = Transcript::default();
    // In the script's order; the golden file may hold more.
    let mut theirs = theirs.steps().iter();
    for (asked, answer) in said.steps() {
        let same = theirs.find(|(theirs_asked, _)| translated(theirs_asked).as_ref() == Some(asked));
        let (_, theirs) = same.unwrap_or_else(|| panic!("etcdctl's golden file of {script} lacks: {asked}"));
        // Where in its memory etcdctl panicked is nothing to compare with.
        let theirs = theirs.split("\ngoroutine ").next().unwrap_or_default();
        // A signal ends etcdctl without a word; how far a command of ours had come by then is chance.
        let is_cut_off = theirs == "exit -1";
        if !is_cut_off && !alike(theirs, answer) {
            differences.push(asked, &format!("{}{}", marked('-', theirs), marked('+', answer)));
        }
    }
    differences.check_own(&format!("agentctl/as-etcdctl/{script}.txt"));
}

/// The same command for `agentctl`; none for those that only an etcd answers.
fn translated(line: &str) -> Option<String> {
    let Some(words) = line.strip_prefix("etcdctl ") else {
        return (!line.starts_with("etcd: ")).then(|| line.to_owned());
    };
    let mut translated = vec!["agentctl"];
    let mut is_named = false;
    for word in words.split(' ') {
        if !is_named && !word.starts_with('-') {
            is_named = true;
            translated.extend(KEY_COMMANDS.contains(&word).then_some("kv"));
        }
        translated.push(word);
    }
    Some(translated.join(" "))
}

/// The same answer; for a failure, the same words of the cluster, wherever the two programs put them.
fn alike(theirs: &str, ours: &str) -> bool {
    let failed = |answer: &str| answer.lines().any(|line| line.starts_with("exit "));
    let before = |answer: &str, mark: &str| {
        let lines: Vec<String> = answer.lines().map(str::to_owned).collect();
        let at = lines.iter().position(|line| line.starts_with(mark))?;
        let printed = lines[..at].to_vec();
        Some((printed, lines[at][mark.len()..].to_owned()))
    };
    match (before(theirs, "Error: "), before(ours, "error: ")) {
        (Some(theirs_said), Some(ours_said)) => theirs_said == ours_said && failed(theirs) == failed(ours),
        _ => theirs == ours,
    }
}

fn marked(mark: char, answer: &str) -> String {
    answer.lines().map(|line| format!("{mark} {line}\n")).collect()
}

fn read(golden: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(golden);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Help alone does not count: each command is done, too.
#[test]
fn every_command_is_in_a_script() {
    let mut done = BTreeSet::new();
    let mut explained = BTreeSet::new();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/agentctl");
    for entry in std::fs::read_dir(folder).expect("the scripts") {
        let path = entry.expect("a script").path();
        if path.extension().is_none_or(|extension| extension != "script") {
            continue;
        }
        let script = std::fs::read_to_string(&path).expect("read a script");
        for line in commands(&script) {
            let words = line.split(' ').skip(1).take_while(|word| !word.starts_with('-'));
            let words: Vec<&str> = words.take(2).collect();
            let used = if line.contains(" --help") {
                &mut explained
            } else {
                &mut done
            };
            used.insert(words.join(" "));
            used.extend(words.first().map(|&word| word.to_owned()));
        }
    }
    let all = all_commands();
    assert!(all.len() > 55, "the help is not as this test reads it: {all:?}");
    let missing: Vec<&String> = all.difference(&done).collect();
    assert!(missing.is_empty(), "no script does {missing:?}");
    let missing: Vec<&String> = all.difference(&explained).collect();
    assert!(missing.is_empty(), "no script shows the help of {missing:?}");
}

/// `status`, `kv get`, ...: what can be run, by the help of `agentctl` itself.
fn all_commands() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for command in listed(&[]) {
        let below = listed(&[&command]);
        if below.is_empty() {
            all.insert(command);
        } else {
            all.extend(below.iter().map(|below| format!("{command} {below}")));
        }
    }
    all
}

/// The names in the part of a help that begins with `Commands:`.
fn listed(command: &[&str]) -> Vec<String> {
    let help = Command::new(tools::agentctl())
        .args(command)
        .arg("--help")
        .output()
        .expect("run agentctl");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty() && *name != "help")
        .map(str::to_owned)
        .collect()
}
