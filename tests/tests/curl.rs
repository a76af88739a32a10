//! The JSON gateway asked by `curl`, as etcd's documentation shows it: the agent answers what etcd 3.5 answers.

use tests::cluster::{Cluster, Subject};
use tests::curl::Curl;
use tests::notes;

tests::on_both!(check: keys, auth, concurrency, members);

async fn check(subject: &Subject, script: &str) {
    if std::process::Command::new("curl")
        .arg("--version")
        .output()
        .is_err()
    {
        notes::skipped("no curl");
        return;
    }
    let path = format!("{}/golden/curl/{script}.script", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("read the script");
    let cluster = Cluster::builder(subject, 3).start().await;
    let member = cluster.follower().await;
    let transcript = Curl::new(&cluster, member).await.run(&text).await;
    transcript.check(subject.name(), &format!("curl/{script}.txt"), subject.is_etcd());
}
