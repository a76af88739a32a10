//! The JSON gateway asked by `curl`, as etcd's documentation shows it: the agent answers what etcd 3.5 answers.

use tests::cluster::{Cluster, Subject};
use tests::curl::Curl;
use tests::notes;

/// Tests of these scripts on etcd, which may write the golden files.
macro_rules! on_etcd {
    ($($script:ident),* $(,)?) => {
        mod etcd {
            $(#[tokio::test]
            #[ignore = "CI asks etcd as well; UPDATE_GOLDEN=1 writes down what it answers"]
            async fn $script() {
                match tests::cluster::Subject::etcd() {
                    Some(etcd) => super::check(&etcd, stringify!($script)).await,
                    None => tests::notes::skipped("no etcd 3.5"),
                }
            })*
        }
    };
}

/// The same on the agent.
macro_rules! on_agent {
    ($($script:ident),* $(,)?) => {
        mod agent {
            $(#[tokio::test]
            async fn $script() {
                super::check(&tests::cluster::Subject::agent(), stringify!($script)).await;
            })*
        }
    };
}

on_etcd!(keys, auth, concurrency, members);
on_agent!(keys, auth, concurrency, members);

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
