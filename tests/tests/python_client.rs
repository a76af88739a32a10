//! The `etcd3` package of Python's index, as a program in Python uses it: etcd and the agent answer the same.

use std::process::Stdio;
use std::time::Duration;

use tests::cluster::{Cluster, Subject};
use tests::transcript::Transcript;
use tests::{notes, tools};

const TIMEOUT: Duration = Duration::from_secs(120);

tests::on_both!(check: keys, transactions, leases, locks, watches, maintenance, auth);

async fn check(subject: &Subject, part: &str) {
    let Some(python) = tools::folder("python") else {
        notes::skipped("no etcd client for Python");
        return;
    };
    let cluster = Cluster::builder(subject, 3).start().await;
    // A follower: what it forwards must be answered as by the leader.
    let member = cluster.follower().await;
    let address = cluster.endpoint(member).trim_start_matches("http://");
    let (host, port) = address.split_once(':').expect("a host and a port");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/conversation.py");
    let program = tokio::process::Command::new(python.join("bin/python"))
        .args([script, host, port, part])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(TIMEOUT, program).await;
    let output = output.expect("the program's end").expect("run Python");
    let errors = String::from_utf8_lossy(&output.stderr);
    let mut transcript = Transcript::default();
    let printed = String::from_utf8_lossy(&output.stdout);
    transcript.push(part, &printed);
    let whole = output.status.success();
    if !whole {
        transcript.push("its errors", &errors);
    }
    transcript.check(
        subject.name(),
        &format!("python/{part}.txt"),
        subject.is_etcd() && whole,
    );
}
