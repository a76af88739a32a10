//! Certificates that are revoked: refused at once, on open connections too, everywhere and for good.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use agent::tls::authority::{Authority, Role};
use agent::tls::files::write_private;
use tests::client::Client;
use tests::wait;

use crate::client::Identity;
use crate::site::Site;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn three_hosts() -> Site {
    let mut site = Site::found(3);
    for i in 0..3 {
        site.start(i);
    }
    for i in 0..3 {
        site.serves(i).await;
    }
    site
}

/// A client's certificate of the cluster's authority.
fn client(site: &Site, file: &str, user: &str) -> Identity {
    let read = |file: &str| fs::read_to_string(site.cluster().join(file)).expect("read a file");
    let authority = Authority::open(&read("ca.pem"), &read("ca.key")).expect("an authority");
    let issued = authority.issue(Role::Client { user }, SystemTime::now(), DAY);
    let issued = issued.expect("a certificate");
    for (suffix, text) in [("pem", &issued.certificate), ("key", &issued.key)] {
        write_private(&site.cluster().join(format!("{file}.{suffix}")), text).expect("write a file");
    }
    Identity::of(&site.cluster(), file)
}

fn path(site: &Site, file: &str) -> String {
    let path: PathBuf = site.cluster().join(file);
    path.display().to_string()
}

async fn is_refused(client: &Client, words: &str) {
    wait::until(words, async || {
        let mut client = client.clone();
        let refused = client.put("k", b"v").await.err()?;
        format!("{refused:?}").contains(words).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_clients_certificate_is_refused_everywhere_at_once() {
    let mut site = three_hosts().await;
    let eva = client(&site, "eva", "eva");
    let other = client(&site, "other", "eva");
    let mut kept: Vec<Client> = site
        .hosts
        .iter()
        .map(|host| eva.client(&host.client_url))
        .collect();
    for client in &mut kept {
        client.put("k", b"v").await.expect("a put");
    }
    let revoke = |site: &Site, whom: &str, more: &[&str]| {
        site.ask(0, &[&["cert", "revoke", "prod", whom][..], more].concat())
    };
    let said = revoke(&site, &path(&site, "eva.pem"), &[]).expect("a revocation");
    assert!(said.starts_with("the certificate of eva"), "{said}");
    assert_eq!(revoke(&site, &path(&site, "eva.pem"), &[]), Ok(said), "again");
    // The connections that were open are cut, and new ones are told why.
    for (client, host) in kept.iter_mut().zip(&site.hosts) {
        is_refused(client, "was revoked").await;
        host.says("a connection is cut").await;
        is_refused(&eva.client(&host.client_url), "was revoked").await;
        other
            .client(&host.client_url)
            .put("k", b"v")
            .await
            .expect("another certificate of the same client");
    }

    // All of a client.
    revoke(&site, "client:eva", &[]).expect("a revocation");
    is_refused(
        &other.client(&site.hosts[1].client_url),
        "client eva were revoked",
    )
    .await;
    let listed = site.ask(0, &["cert", "list", "prod"]).expect("a list");
    assert!(
        listed.contains("client eva") && listed.contains("eva (sha256"),
        "{listed}"
    );
    assert!(listed.contains("hosts/m0/peer.pem"), "{listed}");

    // It lasts.
    for i in 0..3 {
        site.hosts[i].kill();
    }
    for i in 0..3 {
        site.start(i);
    }
    site.serves(2).await;
    is_refused(
        &other.client(&site.hosts[2].client_url),
        "client eva were revoked",
    )
    .await;
    revoke(&site, "client:eva", &["--undo"]).expect("taken back");
    wait::until("eva to be let in again", async || {
        other.client(&site.hosts[2].client_url).put("k", b"v").await.ok()
    })
    .await;
    is_refused(&eva.client(&site.hosts[2].client_url), "was revoked").await;

    // Nobody shuts himself out: another certificate first.
    let said = revoke(&site, &path(&site, "admin.pem"), &[]).expect_err("one's own");
    assert!(said.contains("agentctl cert renew NAME --admin"), "{said}");
    let said = revoke(&site, "client:root", &[]).expect_err("oneself");
    assert!(said.contains("you ask as root"), "{said}");
    let said = revoke(&site, &path(&site, "hosts/m0/peer.pem"), &[]).expect_err("the asked member's own");
    assert!(said.contains("depends on"), "{said}");
    site.ask(0, &["cert", "renew", "prod", "--admin"])
        .expect("renewed");
    revoke(&site, &path(&site, "former-admin.pem"), &[]).expect("the former one");
    site.serves(0).await;
}

#[tokio::test]
async fn a_members_certificate_is_refused_and_the_others_carry_on() {
    let mut site = three_hosts().await;
    let said = site
        .ask(0, &["cert", "revoke", "prod", "m9"])
        .expect_err("nobody");
    assert!(said.contains("there is no host m9"), "{said}");
    let said = site
        .ask(0, &["cert", "revoke", "prod", "m2"])
        .expect("a revocation");
    assert!(said.contains("2 of 3 voters are left"), "{said}");
    // Two of three have a quorum, the third has nobody.
    wait::until("the third to be alone", async || {
        let alone = site.ask(2, &["--command-timeout", "1s", "kv", "get", "k"]);
        alone.is_err().then_some(())
    })
    .await;
    site.serves(0).await;
    site.serves(1).await;
    let said = site
        .ask(0, &["cert", "revoke", "prod", "m1"])
        .expect_err("no quorum");
    assert!(said.contains("1 of 3 voters would be left"), "{said}");
    // A restart with the same certificate does not help it.
    site.hosts[2].kill();
    site.start(2);
    site.hosts[0].says("certificates of member m2 were revoked").await;

    site.ask(0, &["cert", "revoke", "prod", "m2", "--undo"])
        .expect("taken back");
    site.serves(2).await;

    // All three are members again, and one of them is down: without another nothing could be written.
    site.hosts[2].kill();
    let said = site
        .ask(0, &["cert", "revoke", "prod", "m1"])
        .expect_err("no quorum that answers");
    assert!(
        said.contains("1 of 3 voters would be left that answer now") && said.contains("until m2 is back"),
        "{said}"
    );
    site.serves(1).await;
    site.ask(0, &["cert", "revoke", "prod", "m1", "--force"])
        .expect("it was said twice");
    site.start(2);
    site.serves(0).await;
    site.serves(2).await;
}
