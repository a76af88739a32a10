//! JSON web tokens, with the operator's own keys.

use std::path::Path;
use std::process::Command;

use proto::etcdserverpb::*;
use tests::client::Client;
use tests::cluster::{Builder, Cluster, Subject};
use tests::{notes, wait};
use tonic::Code;

use crate::{ANN_PASSWORD, Guarded, denied, enable, members, put, range, refused};

const OLD_REVISION: &str = "etcdserver: revision of auth store is old";

/// Makes a pair of keys for one method, as an operator would, and says how to name them. `None`: no openssl here.
fn keys(folder: &Path, method: &str) -> Option<String> {
    let (private, public) = (folder.join("private.pem"), folder.join("public.pem"));
    let (private, public) = (private.to_str()?, public.to_str()?);
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).output().ok()?;
        output.status.success().then_some(())
    };
    match method {
        "HS256" => {
            std::fs::write(private, "a secret that only members know").expect("write a secret");
            return Some(format!("jwt,priv-key={private},sign-method=HS256,ttl=10m"));
        }
        "ES256" => openssl(&[
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-out",
            private,
        ])?,
        _ => openssl(&[
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
            "-out",
            private,
        ])?,
    }
    openssl(&["pkey", "-in", private, "-pubout", "-out", public])?;
    Some(format!(
        "jwt,pub-key={public},priv-key={private},sign-method={method},ttl=10m"
    ))
}

async fn each_member_reads_it(method: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(flag) = keys(folder.path(), method) else {
        notes::skipped("no openssl");
        return;
    };
    let mut guarded = Guarded::start(members(2).arg("--auth-token", &flag)).await;
    assert_eq!(guarded.ann.token().split('.').count(), 3, "it is a JWT");
    for member in 0..2 {
        let mut ann = guarded.ann_at(member);
        ann.kv.put(put("w")).await.expect("ann writes");
        denied(ann.kv.put(put("secret")).await);
    }
    let (signed, _) = guarded.ann.token().rsplit_once('.').expect("a signature");
    let forged = guarded
        .ann
        .with_token(&format!("{signed}.AAAA"))
        .kv
        .put(put("w"))
        .await;
    refused(forged, Code::Unauthenticated, "etcdserver: invalid auth token");

    // Any change of users makes it old, as with etcd.
    crate::add_user(&mut guarded.root, "bob", "bob").await;
    for member in 0..2 {
        let mut ann = guarded.ann_at(member);
        refused(ann.kv.put(put("w")).await, Code::InvalidArgument, OLD_REVISION);
        refused(
            ann.kv.range(range("r")).await,
            Code::InvalidArgument,
            OLD_REVISION,
        );
    }
    let mut again = guarded
        .nobody_at(1)
        .log_in("ann", ANN_PASSWORD)
        .await
        .expect("ann logs in");
    again.kv.put(put("w")).await.expect("ann writes");
}

#[tokio::test]
async fn hs256() {
    each_member_reads_it("HS256").await;
}

#[tokio::test]
async fn es256() {
    each_member_reads_it("ES256").await;
}

#[tokio::test]
async fn rs256() {
    each_member_reads_it("RS256").await;
}

/// Started with these keys, with users, and the tokens of root and ann.
async fn with_users(builder: Builder) -> (Cluster, Client) {
    let cluster = builder.start().await;
    let mut nobody = cluster.client(0);
    enable(&mut nobody).await;
    let ann = nobody.log_in("ann", ANN_PASSWORD).await.expect("ann logs in");
    (cluster, ann)
}

#[tokio::test]
async fn etcds_tokens_are_read_here_and_ours_by_etcd() {
    let Some(etcd) = Subject::etcd() else {
        notes::skipped("no etcd 3.5");
        return;
    };
    for method in ["HS256", "ES256", "RS256"] {
        let folder = tempfile::tempdir().expect("a folder");
        let Some(flag) = keys(folder.path(), method) else {
            notes::skipped("no openssl");
            return;
        };
        let theirs = Cluster::builder(&etcd, 1).arg("--auth-token", &flag);
        let ours = members(1).arg("--auth-token", &flag);
        let (theirs, their_ann) = with_users(theirs).await;
        let (ours, our_ann) = with_users(ours).await;
        for (cluster, stranger) in [(&ours, &their_ann), (&theirs, &our_ann)] {
            let mut ann = cluster.client(0).in_the_name_of(stranger);
            ann.kv.put(put("w")).await.expect("ann writes");
            denied(ann.kv.put(put("secret")).await);
        }
    }
}

/// Whoever only has the public key reads tokens, and gives none.
#[tokio::test]
async fn a_member_with_the_public_key_only_reads_tokens() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(flag) = keys(folder.path(), "ES256") else {
        notes::skipped("no openssl");
        return;
    };
    let mut cluster = members(1).arg("--auth-token", &flag).start().await;
    let mut nobody = cluster.client(0);
    enable(&mut nobody).await;
    let ann = nobody.log_in("ann", ANN_PASSWORD).await.expect("ann logs in");
    cluster.terminate(0).await;
    let parts = flag.split(',').filter(|part| !part.starts_with("priv-key="));
    let only_public = parts.collect::<Vec<_>>().join(",");
    cluster.set_arg("--auth-token", &only_public);
    cluster.start(0);
    let mut ann = cluster.client(0).in_the_name_of(&ann);
    wait::until("ann to write", async || ann.clone().kv.put(put("w")).await.ok()).await;
    denied(ann.kv.put(put("secret")).await);
    let request = AuthenticateRequest {
        name: "ann".into(),
        password: ANN_PASSWORD.into(),
    };
    refused(
        nobody.auth.authenticate(request).await,
        Code::FailedPrecondition,
        "etcdserver: not capable",
    );
}
