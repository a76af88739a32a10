//! Hosts that become members by a token: what they are told, what an interrupted one finds, and who is kept out.

mod client;
mod load;
mod names;
mod renewal;
mod revocation;
mod rotation;
mod secrets;
mod site;

use agent::join::ticket;
use agent::peer::{JoinError, join};
use proto::peer::JoinRequest;
use site::{Site, altered};
use tests::wait;

/// The first host, running.
async fn one_host() -> Site {
    let mut site = Site::found(1);
    site.start(0);
    site.serves(0).await;
    site
}

/// From one host that was told to begin to three, and then to three others: every host but the first comes by token only.
#[tokio::test]
async fn three_members_by_tokens_and_a_lost_one_replaced() {
    let mut site = one_host().await;
    site.ask(0, &["kv", "put", "before", "v"]).expect("a put");
    for name in ["m1", "m2"] {
        let i = site.place(name);
        let token = site.token(0, i, &[]);
        site.join(i, &token, &[]);
    }
    // Both at once: one waits for the other.
    site.voters(0, &["m0", "m1", "m2"]).await;
    let listed = site.ask(0, &["token", "list"]).expect("the tokens");
    assert_eq!(listed.matches(" used ").count(), 2, "{listed}");

    // The same command on a host that has joined only runs its member.
    site.hosts[1].kill();
    site.join(1, "", &[]);
    site.serves(1).await;
    // Each has what is needed to let others in.
    for i in [1, 2] {
        site.hosts[i].says("this member can issue certificates now").await;
    }

    // The first host, and all that was on it, is gone. Another machine takes its name.
    site.hosts[0].kill();
    let i = site.place("m0");
    let token = site.token(1, i, &[]);
    let said = site.refused(i, &token, &[]).await;
    assert!(
        said.contains("is a member of the cluster") && said.contains("token create --host m0 --replace"),
        "{said}"
    );
    let token = site.token(1, i, &["--replace"]);
    site.join(i, &token, &[]);
    site.voters(1, &["m0", "m1", "m2"]).await;
    site.serves(i).await;
    // Only a voter answers that.
    wait::until("what was there before", async || {
        let kept = site.ask(i, &["kv", "get", "before", "--print-value-only"]);
        (kept.as_deref() == Ok("v\n")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn whose_token_is_not_good_is_told_why() {
    let mut site = one_host().await;
    let i = site.place("m1");

    let expired = site.token(0, i, &["--ttl", "1s"]);
    wait::until("the token to end", async || {
        let listed = site.ask(0, &["token", "list"]).ok()?;
        listed.contains(" expired ").then_some(())
    })
    .await;
    let said = site.refused(i, &expired, &[]).await;
    assert!(said.contains("the join token has expired"), "{said}");

    let token = site.token(0, i, &[]);
    let said = site.refused(i, &token, &["--name", "m9"]).await;
    assert!(said.contains("is for host m1, and --name is m9"), "{said}");
    let other = altered(&token, |ticket| ticket.host = "m9".to_owned());
    let said = site.refused(i, &other, &[]).await;
    assert!(said.contains("is for host m1, and this is m9"), "{said}");
    let other = altered(&token, |ticket| ticket.cluster_id += 1);
    let said = site.refused(i, &other, &[]).await;
    assert!(said.contains("is for cluster"), "{said}");
    let guessed = altered(&token, |ticket| ticket.secret = vec![0; 32].into());
    let said = site.refused(i, &guessed, &[]).await;
    assert!(said.contains("there is no such join token"), "{said}");
    let said = site.refused(i, &token[..token.len() - 1], &[]).await;
    assert!(said.contains("not complete"), "{said}");

    // Whoever is not of the pinned authority gets no token, however long it is asked.
    let elsewhere = altered(&token, |ticket| ticket.ca_sha256 = vec![0; 32].into());
    site.join(i, &elsewhere, &[]);
    site.hosts[i].says("its pin differs").await;
    site.hosts[i].kill();
    let nowhere = altered(&token, |ticket| {
        ticket.endpoints = vec!["https://127.0.0.1:1".to_owned()];
    });
    site.join(i, &nowhere, &[]);
    site.hosts[i].says("onnection refused").await;
    site.hosts[i].kill();
    let listed = site.ask(0, &["token", "list"]).expect("the tokens");
    assert!(listed.contains(" open "), "nothing of that has used it: {listed}");

    let id = ticket::read(&token).expect("a token").token_id;
    site.ask(0, &["token", "revoke", &format!("{id:x}")])
        .expect("revoked");
    let said = site.refused(i, &token, &[]).await;
    assert!(said.contains("the join token was revoked"), "{said}");

    // Used once, by one machine: another one of that name has another key.
    let token = site.token(0, i, &[]);
    site.join(i, &token, &[]);
    site.voters(0, &["m0", "m1"]).await;
    let thief = site.place("m1");
    let said = site.refused(thief, &token, &[]).await;
    assert!(said.contains("the join token was used already"), "{said}");
}

/// As a host's unit starts it: it does not come and go, and takes up the next token by itself.
#[tokio::test]
async fn a_host_whose_token_is_refused_waits_for_another() {
    let mut site = one_host().await;
    let i = site.place("m1");
    let token = site.token(0, i, &[]);
    let guessed = altered(&token, |ticket| ticket.secret = vec![0; 32].into());
    site.join_patiently(i, &guessed);
    site.hosts[i]
        .says("this host needs a new token in its file")
        .await;
    site.bring_token(i, &token);
    site.voters(0, &["m0", "m1"]).await;
    site.serves(i).await;
}

/// Wherever it is cut off, the same command goes on, and the cluster has one more member, not several.
#[tokio::test]
async fn a_join_that_is_killed_at_each_step_goes_on() {
    let mut site = one_host().await;
    let i = site.place("m1");
    let token = site.token(0, i, &[]);
    for step in [
        "etc/peer.key",
        "etc/server.key",
        "etc/ca.pem",
        "etc/peer.pem",
        "etc/config.yaml",
        "data/wal",
    ] {
        site.join(i, &token, &[]);
        let place = site.hosts[i].dir.parent().expect("a folder").join(step);
        wait::until(step, async || place.exists().then_some(())).await;
        site.hosts[i].kill();
    }
    site.join(i, &token, &[]);
    site.voters(0, &["m0", "m1"]).await;
    site.serves(i).await;
}

/// Who guesses is slowed down and keeps nobody out.
#[tokio::test(flavor = "multi_thread")]
async fn many_wrong_tokens_keep_nobody_out() {
    const GUESSES: usize = 300;
    let mut site = one_host().await;
    let i = site.place("m1");
    let token = site.token(0, i, &[]);
    let ticket = ticket::read(&token).expect("a token");
    let pin = ticket.ca_sha256.as_ref().try_into().expect("a pin");
    let csr: bytes::Bytes = agent::tls::issuer::request(&rcgen::KeyPair::generate().expect("a key"))
        .expect("a request")
        .into();
    let guesses = (0..GUESSES).map(|guess| {
        let request = JoinRequest {
            cluster_id: ticket.cluster_id,
            token_id: ticket.token_id,
            secret: guess.to_be_bytes().to_vec().into(),
            host: "m1".to_owned(),
            peer_csr: csr.clone(),
            server_csr: csr.clone(),
        };
        let url = site.hosts[0].peer_url.clone();
        tokio::spawn(async move { join(&url, pin, request).await })
    });
    let guesses: Vec<_> = guesses.collect();
    site.ask(0, &["kv", "put", "k", "v"]).expect("a put meanwhile");
    let mut told = 0;
    for guess in guesses {
        match guess.await.expect("a guess") {
            Ok(_) => panic!("a guess was right"),
            Err(JoinError::Refused(reason)) => {
                assert!(reason.contains("no such join token"), "{reason}");
                told += 1;
            }
            Err(JoinError::NotNow(_)) => {}
        }
    }
    // The others were not looked at.
    assert!(told < GUESSES / 2, "{told} of {GUESSES} were answered");
    site.join(i, &token, &[]);
    site.voters(0, &["m0", "m1"]).await;
}
