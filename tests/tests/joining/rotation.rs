//! Another authority, and certificates that change very often, under load.

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use agent::peer::{Dialer, Whom, describe};
use agent::tls::about::About;
use agent::tls::authority::{Authority, Role};
use agent::tls::files::write_private;
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tests::{notes, wait};

use crate::client::{Identity, shown};
use crate::load::Load;
use crate::site::Site;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const ROTATIONS: usize = 1_000;

/// Two hosts of the operator's, and one that came by token, of which that folder knows nothing.
async fn three_hosts() -> Site {
    let mut site = Site::found(2);
    site.start(0);
    site.start(1);
    site.serves(0).await;
    let i = site.place("m2");
    let token = site.token(0, i, &[]);
    site.join(i, &token, &[]);
    site.voters(0, &["m0", "m1", "m2"]).await;
    site.serves(i).await;
    site
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_authority_comes_in_under_load() {
    let mut site = three_hosts().await;
    let rotate = |site: &Site, step: &str| site.ask(0, &["cert", "rotate", "prod", step]);
    let said = rotate(&site, "forget").expect_err("out of order");
    assert!(said.contains("the next step is trust"), "{said}");

    // While a member is away nothing is begun.
    site.hosts[2].kill();
    let said = rotate(&site, "trust").expect_err("a member is away");
    assert!(said.contains("not done on every member: m2"), "{said}");
    assert!(!site.cluster().join("next.pem").exists());
    site.restart(2).await;

    site.ask(0, &["kv", "put", "load", "first"]).expect("a put");
    let client = one_file(&site);
    let load = Load::start(&site, &client);
    load.progress(10).await;
    let said = rotate(&site, "trust").expect("both are trusted");
    assert!(
        said.contains("prod and prod 2 are trusted by every member: m0, m1, m2"),
        "{said}"
    );
    assert_eq!(
        rotate(&site, "trust").as_ref(),
        Ok(&said),
        "again, and nothing new"
    );
    let said = rotate(&site, "forget").expect_err("out of order");
    assert!(said.contains("the next step is issue"), "{said}");
    let former = former(&site);
    load.progress(10).await;
    let said = rotate(&site, "issue").expect("all have new certificates");
    assert!(
        said.contains("certificates of prod 2 are shown by every member"),
        "{said}"
    );
    rotate(&site, "issue").expect("again");
    let said = rotate(&site, "trust").expect_err("out of order");
    assert!(said.contains("the next step is forget"), "{said}");
    for host in &site.hosts {
        let about = client.shown(&host.client_url).await.expect("a handshake");
        assert_eq!(about.issuer, "prod 2 members", "{}", host.name);
    }
    load.progress(10).await;
    // Clients other than the operator are given theirs by whoever runs them.
    one_file(&site);
    rotate(&site, "forget").expect("the former is forgotten");
    load.progress(10).await;
    let done = load.stop().await;
    notes::measured(&format!("an authority replaced under load: {done}, no failure"));

    // The former authority's certificates open nothing any more, neither to clients nor among members.
    // What a connection was closed with may be lost: it is asked until it is heard, and let in never.
    let stranger = Identity::of(&former, "admin");
    wait::until("the reason", async || {
        let mut client = stranger.client(&site.hosts[0].client_url);
        let refused = client.put("k", b"v").await;
        let refused = refused.expect_err("a client of the former authority");
        format!("{refused:?}").contains("UnknownCA").then_some(())
    })
    .await;
    let dialer = Dialer::new(Some(Identity::of(&former, "peer").peer("m1")), false);
    let whom = Whom::Named("m0".to_owned());
    wait::until("the reason", async || {
        let refused = describe(&dialer, &site.hosts[0].peer_url, &whom, wait::PATIENCE).await;
        let refused = refused.expect_err("a member of the former authority");
        refused.contains("none that it trusts").then_some(())
    })
    .await;

    // With the new one alone, also after a restart; and hosts join by it.
    for i in 0..3 {
        site.hosts[i].kill();
        site.restart(i).await;
    }
    let i = site.place("m3");
    let token = site.token(0, i, &[]);
    site.join(i, &token, &[]);
    site.voters(0, &["m0", "m1", "m2", "m3"]).await;
    let said = rotate(&site, "issue").expect_err("nothing is under way");
    assert!(said.contains("no rotation is under way"), "{said}");
}

/// The operator's certificate and key in one file, so that a client which connects all the time never finds halves.
fn one_file(site: &Site) -> Identity {
    let read = |file: &str| fs::read_to_string(site.cluster().join(file)).expect("read a file");
    let both = site.cluster().join("client.pem");
    write_private(&both, &format!("{}{}", read("admin.pem"), read("admin.key"))).expect("write a file");
    Identity {
        ca: site.cluster().join("ca.pem"),
        cert: both.clone(),
        key: both,
    }
}

/// Copies of what the former authority has issued, beside what trusts both.
fn former(site: &Site) -> std::path::PathBuf {
    let folder = site.cluster().join("former");
    fs::create_dir(&folder).expect("a folder");
    let copy = |from: std::path::PathBuf, to: &str| {
        fs::copy(&from, folder.join(to)).unwrap_or_else(|error| panic!("{}: {error}", from.display()))
    };
    for file in ["ca.pem", "admin.pem", "admin.key"] {
        copy(site.cluster().join(file), file);
    }
    for file in ["peer.pem", "peer.key"] {
        copy(site.hosts[1].dir.join(file), file);
    }
    folder
}

/// The certificates of three members, towards clients and among members, again and again, each seen at its port before
/// the next one comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_rotations_fail_no_request() {
    let mut site = Site::found(3);
    for i in 0..3 {
        site.start(i);
    }
    for i in 0..3 {
        site.serves(i).await;
    }
    site.ask(0, &["kv", "put", "load", "first"]).expect("a put");
    let admin = Identity::of(&site.cluster(), "admin");
    let read = |file: &str| fs::read_to_string(site.cluster().join(file)).expect("read a file");
    let authority = Authority::open(&read("ca.pem"), &read("ca.key")).expect("an authority");
    let load = Load::start(&site, &admin);
    let (started, mut rotated) = (Instant::now(), 0);
    while rotated < ROTATIONS {
        let round = (0..3).flat_map(|i| [(i, "peer"), (i, "server")]);
        let round: Vec<_> = round.take(ROTATIONS - rotated).collect();
        let issued: Vec<_> = round
            .iter()
            .map(|&(i, file)| (i, file, issue(&site, i, file, &authority)))
            .collect();
        for (i, file, about) in issued {
            in_force(&site, i, file, &admin, &about).await;
            rotated += 1;
        }
    }
    let took = started.elapsed();
    load.progress(1).await;
    let done = load.stop().await;
    notes::measured(&format!(
        "{rotated} certificates rotated in {took:.1?}, each seen at its port: {done}, no failure"
    ));
    for host in &site.hosts {
        let log = host.log();
        let refused = log.contains("used on") || log.contains("served on");
        assert!(!refused, "{} could not use a certificate", host.name);
    }
}

/// A new certificate in the place of one, for the same key, as members renew theirs.
fn issue(site: &Site, i: usize, file: &str, authority: &Authority) -> About {
    let host = &site.hosts[i];
    let key = fs::read_to_string(host.dir.join(format!("{file}.key"))).expect("read a key");
    let key = KeyPair::from_pem(&key).expect("a key");
    let request = agent::tls::issuer::request(&key).expect("a request");
    let address = host.client_url.trim_start_matches("https://");
    let names = [address.split(':').next().unwrap_or_default().to_owned()];
    let role = match file {
        "peer" => Role::Member { name: &host.name },
        _ => Role::Server {
            host: &host.name,
            names: &names,
        },
    };
    let certificate = authority.certify(role, &request, SystemTime::now(), DAY);
    let certificate = certificate.expect("a certificate");
    write_private(&host.dir.join(format!("{file}.pem")), &certificate).expect("write a certificate");
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate");
    About::of(&der).expect("a certificate")
}

/// Waits until a new connection is shown this very certificate.
async fn in_force(site: &Site, i: usize, file: &str, admin: &Identity, about: &About) {
    let host = &site.hosts[i];
    let other = &site.hosts[(i + 1) % site.hosts.len()];
    wait::until("the new certificate at its port", async || {
        let seen = match file {
            "peer" => {
                let member = Identity::of(&other.dir, "peer").peer(&other.name);
                shown(member.client(), &host.peer_url).await
            }
            _ => admin.shown(&host.client_url).await,
        };
        let seen = seen.expect("no handshake fails");
        (seen.serial == about.serial).then_some(())
    })
    .await;
}
