//! Secrets that are none.

use agent::join::ticket;
use agent::peer::{JoinError, join};
use bytes::Bytes;
use proto::agent::v1::CreateTokenRequest;
use proto::peer::JoinRequest;
use sha2::{Digest, Sha256};
use tests::cluster::{Cluster, Subject};
use tests::wait;
use tonic::Code;

use crate::client::Identity;
use crate::site::Site;

/// CVE-2021-32001: where no token was given, k3s made the key of its cluster's secrets of the empty one. Here nothing is
/// opened by a secret that is empty or short.
#[tokio::test]
async fn cve_2021_32001_an_empty_secret_opens_nothing() {
    let mut site = Site::found(1);
    site.start(0);
    site.serves(0).await;
    let i = site.place("m1");
    let good = ticket::read(&site.token(0, i, &[])).expect("a token");
    let mut root = Identity::of(&site.cluster(), "admin").client(&site.hosts[0].client_url);
    let (peer_url, client_url) = (site.hosts[i].peer_url.clone(), site.hosts[i].client_url.clone());
    let create = |secret_sha256: Bytes| CreateTokenRequest {
        host: "m1".to_owned(),
        peer_url: peer_url.clone(),
        client_url: client_url.clone(),
        ttl_seconds: 60,
        replace: false,
        secret_sha256,
    };

    // No hash, half of one, and that of nothing.
    let whole = Bytes::from(Sha256::digest([]).to_vec());
    for hash in [Bytes::new(), whole.slice(..16), whole] {
        let refused = root
            .trust
            .create_token(create(hash))
            .await
            .expect_err("no secret");
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert!(refused.message().contains("the hash of a secret"), "{refused:?}");
    }
    // Of a word, which the hash does not show: nobody gets in by it.
    for secret in ["k3s", "sixteen letters."] {
        let hash = Sha256::digest(secret).to_vec().into();
        let made = root
            .trust
            .create_token(create(hash))
            .await
            .expect("a token")
            .into_inner();
        let csr: Bytes = agent::tls::issuer::request(&rcgen::KeyPair::generate().expect("a key"))
            .expect("a request")
            .into();
        let request = JoinRequest {
            cluster_id: good.cluster_id,
            token_id: made.id,
            secret: Bytes::from_static(secret.as_bytes()),
            host: "m1".to_owned(),
            peer_csr: csr.clone(),
            server_csr: csr,
        };
        let pin = good.ca_sha256.as_ref().try_into().expect("a pin");
        match join(&site.hosts[0].peer_url, pin, request).await {
            Err(JoinError::Refused(reason)) => assert!(reason.contains("no such join token"), "{reason}"),
            other => panic!("{secret}: {other:?}"),
        }
    }
}

/// CVE-2021-32001, of the secret that signs the users' tokens.
#[tokio::test]
async fn cve_2021_32001_an_empty_secret_signs_no_tokens() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secret");
    for (secret, found) in [("", "0 bytes"), ("\n\n", "0 bytes"), ("hunter2\n", "7 bytes")] {
        std::fs::write(&file, secret).expect("write a file");
        let flag = format!("jwt,sign-method=HS256,priv-key={}", file.display());
        let builder = Cluster::builder(&Subject::agent(), 1).arg("--auth-token", &flag);
        let mut cluster = builder.prepare();
        cluster.start(0);
        let status = cluster.member_mut(0).wait_exit(wait::PATIENCE).await;
        assert!(!status.expect("it ends").success());
        let log = cluster.member(0).log();
        assert!(
            log.contains("--auth-token") && log.contains(found) && log.contains(&*file.to_string_lossy()),
            "{secret:?}: {log}"
        );
    }
}
