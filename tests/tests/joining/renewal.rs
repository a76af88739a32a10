//! Certificates that members renew by themselves.

use std::fs;
use std::time::{Duration, SystemTime};

use agent::tls::authority::{Authority, Role};
use agent::tls::issuer::Validity;

use crate::site::Site;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Certificates that have passed two thirds of their life, on all hosts: members get new ones from the issuer and from
/// each other, without a restart and without a failed request.
#[tokio::test]
async fn members_renew_their_certificates() {
    let mut site = Site::found(3);
    let read = |file: &str| fs::read_to_string(site.cluster().join(file)).expect("read a file");
    let authority = Authority::open(&read("ca.pem"), &read("ca.key")).expect("an authority");
    let then = SystemTime::now() - 80 * DAY;
    for host in &site.hosts {
        let address = host.client_url.trim_start_matches("https://");
        let names = [address.split(':').next().unwrap_or_default().to_owned()];
        let roles = [
            ("peer", Role::Member { name: &host.name }),
            (
                "server",
                Role::Server {
                    host: &host.name,
                    names: &names,
                },
            ),
        ];
        for (file, role) in roles {
            let issued = authority.issue(role, then, 100 * DAY).expect("a certificate");
            fs::write(host.dir.join(format!("{file}.key")), issued.key).expect("write a key");
            fs::write(host.dir.join(format!("{file}.pem")), issued.certificate).expect("write a certificate");
        }
    }
    // This one has nothing to issue with: it is given that first.
    fs::remove_file(site.hosts[2].dir.join("issuer.pem")).expect("remove a file");
    fs::remove_file(site.hosts[2].dir.join("secrets.key")).expect("remove a file");
    for i in 0..3 {
        site.start(i);
    }
    for i in 0..3 {
        site.serves(i).await;
        site.hosts[i].says("the certificate for peers is renewed").await;
        site.hosts[i].says("peer certificates read again").await;
    }
    site.hosts[2].says("this member can issue certificates now").await;
    site.hosts[2].says("this member can open secrets now").await;
    let key = |host: usize| fs::read(site.hosts[host].dir.join("secrets.key")).expect("a key");
    assert_eq!(key(2), key(0));
    for host in &site.hosts {
        for file in ["peer.pem", "server.pem"] {
            let certificate = fs::read_to_string(host.dir.join(file)).expect("read a file");
            let validity = Validity::of_pem(&certificate).expect("a certificate");
            assert!(!validity.is_due(SystemTime::now()), "{} {file}", host.name);
        }
    }
    // With the new ones, also after a restart.
    for i in 0..3 {
        site.hosts[i].kill();
        site.start(i);
        site.serves(i).await;
    }
}
