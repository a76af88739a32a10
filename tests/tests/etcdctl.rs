//! The stock `etcdctl`, of both releases, has the same conversations with the agent as with etcd 3.5.
//!
//! A script for each subject, in `golden/etcdctl`, and beside it what etcd answered each client.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tests::cluster::{Cluster, Subject};
use tests::etcdctl::Etcdctl;
use tests::notes;
use tests::shell::commands;
use tests::tools::EtcdVersion;

/// Which member a script talks to.
#[derive(Clone, Copy, Debug)]
enum Member {
    Leader,
    Follower,
}

/// Tests of these scripts on etcd, which may write the golden files.
macro_rules! on_etcd {
    ($($script:ident),* $(,)?) => {
        mod etcd {
            $(mod $script {
                use crate::{Member, check_etcd};
                use tests::tools::EtcdVersion;

                #[tokio::test]
                #[ignore = "CI asks etcd as well; UPDATE_GOLDEN=1 writes down what it answers"]
                async fn with_3_4() {
                    check_etcd(stringify!($script), EtcdVersion::V3_4, Member::Follower).await;
                }

                #[tokio::test]
                #[ignore = "CI asks etcd as well; UPDATE_GOLDEN=1 writes down what it answers"]
                async fn with_3_5() {
                    check_etcd(stringify!($script), EtcdVersion::V3_5, Member::Leader).await;
                }
            })*
        }
    };
}

/// The same on the agent. The two clients talk to the leader and to a follower, so that what is forwarded and
/// what is not are both seen.
macro_rules! on_agent {
    ($($script:ident),* $(,)?) => {
        mod agent {
            $(mod $script {
                use crate::{Member, check};
                use tests::cluster::Subject;
                use tests::tools::EtcdVersion;

                #[tokio::test]
                async fn with_3_4() {
                    check(stringify!($script), &Subject::agent(), EtcdVersion::V3_4, Member::Leader).await;
                }

                #[tokio::test]
                async fn with_3_5() {
                    check(stringify!($script), &Subject::agent(), EtcdVersion::V3_5, Member::Follower).await;
                }
            })*
        }
    };
}

on_etcd!(kv, watch, lease, concurrency, auth, cluster, maintenance);
on_agent!(kv, watch, lease, concurrency, auth, cluster, maintenance);

/// `check` loads the server for minutes.
mod performance {
    use super::{Member, check, check_etcd};
    use tests::cluster::Subject;
    use tests::tools::EtcdVersion;

    #[tokio::test]
    #[ignore = "takes two minutes; in CI"]
    async fn etcd_with_3_5() {
        check_etcd("check", EtcdVersion::V3_5, Member::Leader).await;
    }

    #[tokio::test]
    #[ignore = "takes two minutes; in CI"]
    async fn agent_with_3_5() {
        check("check", &Subject::agent(), EtcdVersion::V3_5, Member::Leader).await;
    }
}

/// `etcdctl` reads and restores snapshots by itself, in the format of etcd's own store. Ours are another, which it
/// must notice; `agentctl` reads and restores them.
#[tokio::test]
async fn our_snapshots_are_not_taken_for_its_own() {
    for client in [EtcdVersion::V3_4, EtcdVersion::V3_5] {
        if client.program("etcdctl").is_none() {
            notes::skipped(&format!("no etcdctl {}", client.name()));
            continue;
        }
        let cluster = Cluster::builder(&Subject::agent(), 1).start().await;
        let mut etcdctl = Etcdctl::new(client, &cluster, 0).await.expect("etcdctl");
        let (save, status) = (
            "etcdctl snapshot save $FOLDER/s",
            "etcdctl snapshot status $FOLDER/s",
        );
        let transcript = etcdctl.run(&format!("{save}\n{status}\n")).await;
        assert_eq!(transcript.answer(save), Some("Snapshot saved at <folder>/s"));
        let answer = transcript.answer(status).expect("an answer");
        assert!(answer.ends_with("Error: invalid database\nexit 1"), "{answer}");
    }
}

/// Where etcd lets any user do it, or refuses in words of its own: what `auth.script` marks as allowed to differ.
#[tokio::test]
async fn only_root_touches_a_member() {
    let client = EtcdVersion::V3_5;
    if client.program("etcdctl").is_none() {
        notes::skipped(&format!("no etcdctl {}", client.name()));
        return;
    }
    let cluster = Cluster::builder(&Subject::agent(), 3).start().await;
    let leader = cluster.leader().await;
    let mut etcdctl = Etcdctl::new(client, &cluster, leader).await.expect("etcdctl");
    let prepared = etcdctl
        .run("etcdctl user add root:secret\netcdctl user add alice:one\netcdctl auth enable")
        .await;
    assert_eq!(
        prepared.answer("etcdctl auth enable"),
        Some("Authentication Enabled")
    );
    for (command, as_root) in [
        (
            "move-leader 123",
            "Error: etcdserver: bad leader transferee\nexit 1",
        ),
        ("endpoint hashkv", "<client0>, <hash1>"),
        ("defrag", "Finished defragmenting etcd member[<client0>]"),
    ] {
        let ask = |user: &str| format!("etcdctl --user={user} {command}");
        let transcript = etcdctl
            .run(&format!("{}\n{}\n", ask("alice:one"), ask("root:secret")))
            .await;
        let refused = transcript.answer(&ask("alice:one")).expect("an answer");
        assert!(refused.contains("etcdserver: permission denied"), "{refused}");
        assert_eq!(transcript.answer(&ask("root:secret")), Some(as_root));
    }
}

#[test]
fn every_command_is_in_a_script() {
    let mut used = BTreeSet::new();
    for entry in std::fs::read_dir(golden()).expect("the scripts") {
        let path = entry.expect("a script").path();
        if path.extension().is_some_and(|extension| extension == "script") {
            let script = std::fs::read_to_string(&path).expect("read a script");
            for line in commands(&script) {
                let command = line.strip_prefix("etcd: ").unwrap_or(line);
                let words = command.split(' ').skip(1).filter(|word| !word.starts_with('-'));
                let words: Vec<&str> = words.take(2).collect();
                used.insert(words.join(" "));
                used.extend(words.first().map(|&word| word.to_owned()));
            }
        }
    }
    for version in [EtcdVersion::V3_4, EtcdVersion::V3_5] {
        let Some(program) = version.program("etcdctl") else {
            notes::skipped(&format!("no etcdctl {}", version.name()));
            continue;
        };
        let help = std::process::Command::new(program)
            .env("ETCDCTL_API", "3")
            .arg("help")
            .output()
            .expect("run etcdctl help");
        let listed = listed_commands(&String::from_utf8_lossy(&help.stdout));
        assert!(
            listed.len() > 40,
            "the help is not as this test reads it: {listed:?}"
        );
        let missing: Vec<&String> = listed.difference(&used).collect();
        assert!(
            missing.is_empty(),
            "etcdctl {} has commands that no script has: {missing:?}",
            version.name()
        );
    }
}

/// The first column of the part that begins with `COMMANDS:`.
fn listed_commands(help: &str) -> BTreeSet<String> {
    help.lines()
        .skip_while(|line| *line != "COMMANDS:")
        .skip(1)
        .take_while(|line| *line != "OPTIONS:")
        .filter_map(|line| line.strip_prefix('\t')?.split('\t').next())
        .map(|command| command.trim().to_owned())
        .filter(|command| !command.is_empty())
        .collect()
}

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/etcdctl")
}

async fn check_etcd(script: &str, client: EtcdVersion, member: Member) {
    match Subject::etcd() {
        Some(etcd) => check(script, &etcd, client, member).await,
        None => notes::skipped("no etcd 3.5"),
    }
}

async fn check(script: &str, subject: &Subject, client: EtcdVersion, member: Member) {
    if client.program("etcdctl").is_none() {
        notes::skipped(&format!("no etcdctl {}", client.name()));
        return;
    }
    let text = std::fs::read_to_string(golden().join(format!("{script}.script"))).expect("read the script");
    let cluster = Cluster::builder(subject, 3).start().await;
    let asked = match member {
        Member::Leader => cluster.leader().await,
        Member::Follower => cluster.follower().await,
    };
    let mut etcdctl = Etcdctl::new(client, &cluster, asked).await.expect("etcdctl");
    let transcript = etcdctl.run(&text).await;
    transcript.check(
        &format!("{} {member:?}", subject.name()),
        &format!("etcdctl/{script}-{}.txt", client.name()),
        subject.is_etcd(),
    );
}
