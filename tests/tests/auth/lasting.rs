//! Users, tokens and permissions through restarts, new members, lost leaders and a restore.

use proto::authpb::permission::Type::Write;
use proto::etcdserverpb::*;
use tests::client::Client;
use tests::cluster::{Cluster, Subject};
use tests::tools::agentctl;
use tests::wait;
use tonic::Code;

use crate::{
    ANN_PASSWORD, Guarded, ROOT_PASSWORD, change_password, delete_user, denied, grant, members, put, range,
    refused, revoke,
};

const INVALID_TOKEN: &str = "etcdserver: invalid auth token";

/// What ann may and may not, asked through one client of hers.
async fn check(ann: &mut Client) {
    ann.kv.put(put("w")).await.expect("ann writes");
    denied(ann.kv.put(put("r")).await);
    denied(ann.kv.put(put("secret")).await);
    ann.kv.range(range("r")).await.expect("ann reads");
    denied(ann.kv.range(range("secret")).await);
    let at_this_member = RangeRequest {
        serializable: true,
        ..range("secret")
    };
    denied(ann.kv.range(at_this_member).await);
    let reads_only = TxnRequest {
        compare: vec![Compare {
            key: "secret".into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    denied(ann.kv.txn(reads_only).await);
}

/// Followers forward what they are asked; the leader's log knows who asked.
#[tokio::test]
async fn every_member_knows_users_and_tokens() {
    let mut guarded = Guarded::start(members(3)).await;
    for member in 0..3 {
        check(&mut guarded.ann_at(member)).await;
        let nobody = guarded.nobody_at(member).kv.put(put("w")).await;
        refused(nobody, Code::InvalidArgument, "etcdserver: user name is empty");
    }
    // A change at one member is a change at all, at once.
    let mut elsewhere = guarded.ann_at(1);
    for _ in 0..10 {
        grant(&mut guarded.root, Write, "x", "").await;
        elsewhere.kv.put(put("x")).await.expect("ann writes");
        revoke(&mut guarded.root, "x", "").await;
        denied(elsewhere.kv.put(put("x")).await);
        let again = guarded
            .nobody_at(2)
            .log_in("ann", ANN_PASSWORD)
            .await
            .expect("ann logs in");
        let mut elsewhere = guarded.cluster.client(0).in_the_name_of(&again);
        elsewhere.kv.put(put("w")).await.expect("ann writes");
    }
}

#[tokio::test]
async fn a_token_ends_with_its_password_and_with_its_user() {
    let mut guarded = Guarded::start(members(3)).await;
    change_password(&mut guarded.root, "ann", "another").await;
    for member in 0..3 {
        let answer = guarded.ann_at(member).kv.put(put("w")).await;
        refused(answer, Code::Unauthenticated, INVALID_TOKEN);
    }
    let former = guarded.nobody_at(1).log_in("ann", ANN_PASSWORD).await;
    refused(
        former,
        Code::InvalidArgument,
        "etcdserver: authentication failed, invalid user ID or password",
    );
    guarded.ann = guarded
        .nobody_at(1)
        .log_in("ann", "another")
        .await
        .expect("ann logs in");
    for member in 0..3 {
        check(&mut guarded.ann_at(member)).await;
    }
    delete_user(&mut guarded.root, "ann").await;
    for member in 0..3 {
        let answer = guarded.ann_at(member).kv.put(put("w")).await;
        refused(answer, Code::Unauthenticated, INVALID_TOKEN);
    }
    // Another user of that name is another user.
    crate::add_user(&mut guarded.root, "ann", "another").await;
    let answer = guarded.ann_at(2).kv.put(put("w")).await;
    refused(answer, Code::Unauthenticated, INVALID_TOKEN);
}

#[tokio::test]
async fn users_and_tokens_survive_a_lost_leader_and_a_power_cut() {
    let mut guarded = Guarded::start(members(3)).await;
    let leader = guarded.cluster.leader().await;
    guarded.cluster.kill(leader);
    let survivor = (leader + 1) % 3;
    wait::until("a write without the first leader", async || {
        guarded.ann_at(survivor).kv.put(put("w")).await.ok()
    })
    .await;
    check(&mut guarded.ann_at(survivor)).await;
    guarded.cluster.kill_all();
    for member in 0..3 {
        guarded.cluster.start(member);
    }
    guarded.cluster.ready().await;
    for member in 0..3 {
        check(&mut guarded.ann_at(member)).await;
        let nobody = guarded.nobody_at(member).kv.range(range("r")).await;
        refused(nobody, Code::InvalidArgument, "etcdserver: user name is empty");
    }
    guarded
        .nobody_at(leader)
        .log_in("ann", ANN_PASSWORD)
        .await
        .expect("ann logs in");
}

#[tokio::test]
async fn a_new_member_gets_the_users_with_its_snapshot() {
    let mut guarded = Guarded::start(members(1).arg("--snapshot-count", "20")).await;
    // Logs are cut in large pieces.
    for _ in 0..600 {
        guarded.ann.kv.put(put("w")).await.expect("ann writes");
    }
    let new = guarded.cluster.grow(0).await;
    let log = guarded.cluster.member(new).log();
    assert!(
        log.contains("snapshot installed"),
        "it read the log instead:\n{log}"
    );
    wait::until("the new member to vote", async || {
        guarded.ann_at(new).kv.put(put("w")).await.ok()
    })
    .await;
    check(&mut guarded.ann_at(new)).await;
    guarded
        .nobody_at(new)
        .log_in("ann", ANN_PASSWORD)
        .await
        .expect("ann logs in");
}

#[tokio::test]
async fn a_restored_cluster_has_its_users() {
    let Guarded { cluster: old, .. } = Guarded::start(members(1)).await;
    let file = old.folder().join("saved");
    let run = |arguments: Vec<String>| async move {
        let output = tokio::process::Command::new(agentctl())
            .args(arguments)
            .output()
            .await
            .expect("agentctl runs");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text.into_owned())
    };
    let text = |path: &std::path::Path| path.to_str().expect("a path").to_owned();
    let save = |user: &str| {
        let words = ["--endpoints", old.endpoint(0), "--user", user, "snapshot", "save"];
        let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        words.push(text(&file));
        words
    };
    let (saved, said) = run(save(&format!("ann:{ANN_PASSWORD}"))).await;
    assert!(!saved && said.contains("permission denied"), "{said}");
    let (saved, said) = run(save(&format!("root:{ROOT_PASSWORD}"))).await;
    assert!(saved, "{said}");

    let mut new = Cluster::builder(&Subject::agent(), 1).token("restored").prepare();
    let member = new.member(0);
    let initial = format!("{}={}", member.name, member.peer_url);
    let words = [
        "snapshot",
        "restore",
        &text(&file),
        "--data-dir",
        &text(&member.data_dir),
        "--name",
        &member.name,
        "--initial-cluster",
        &initial,
        "--initial-cluster-token",
        "restored",
        "--initial-advertise-peer-urls",
        &member.peer_url,
    ];
    let (restored, said) = run(words.into_iter().map(str::to_owned).collect()).await;
    assert!(restored, "{said}");
    new.start(0);
    let nobody = new.client(0);
    let mut ann = wait::until("ann to log in", async || {
        nobody.log_in("ann", ANN_PASSWORD).await.ok()
    })
    .await;
    check(&mut ann).await;
    let answer = nobody.clone().kv.range(range("r")).await;
    refused(answer, Code::InvalidArgument, "etcdserver: user name is empty");
}
