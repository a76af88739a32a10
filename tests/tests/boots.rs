//! Hosts from nothing: machines that are given user-data, and no other help, become a cluster that runs instances; one
//! that burns is replaced by another.

use std::time::Instant;

use tests::machines::{Provider, sha256};
use tests::{notes, tools};

const HOSTS: [(&str, &str); 3] = [
    ("ovh", "10.91.0.10"),
    ("ionos", "10.91.0.11"),
    ("liquidweb", "10.91.0.12"),
];

/// What is on each host: an instance with all that it stands on, from an Incus that has nothing yet; on one of them a
/// service of the host itself.
const DOCUMENTS: &str = "\
kind: storage-pool
name: local
spec: {driver: dir}
---
kind: profile
name: base
spec:
  config: {security.privileged: true}
  devices: {root: {type: disk, path: /, pool: local}}
---
kind: image
name: busybox
spec:
  source: {type: file, path: /srv/busybox.tar.gz}
---
kind: service
name: beat
host: ionos
spec:
  exec: /bin/sh
  args: [-c, 'while sleep 1; do cat /etc/beat; done']
  files:
  - {path: /etc/beat, content: \"beat\\n\"}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_come_from_user_data_alone_and_one_is_replaced() {
    let Some(provider) = Provider::open().await else {
        return;
    };
    let agent = tools::agent();
    let url = provider.serve("agent", &agent);
    let sum = sha256(&agent).expect("a sum");
    let folder = tempfile::tempdir().expect("a folder");
    let image = tests::lab::build_image(folder.path()).expect("an image");
    let image = provider.serve("busybox.tar.gz", &image);
    let user_data = |host: &str| user_data(host, &url, &sum);

    let mut third = Instant::now();
    for (host, address) in HOSTS {
        third = Instant::now();
        provider.rent(host, address, &user_data(host));
    }
    three_voters(&provider, "ovh").await;
    notes::measured(&format!(
        "from the start of the third machine to three voters: {:.1} s",
        third.elapsed().as_secs_f64()
    ));
    for (host, _) in HOSTS {
        provider.booted(host).await;
        bring_image(&provider, host, &image);
    }

    provider.put("ovh", "/root/documents.yaml", &documents());
    provider.on("ovh", "agentctl apply -f /root/documents.yaml");
    provider.on("ovh", "agentctl status --wait=120s");
    for (host, _) in HOSTS {
        runs(&provider, host).await;
    }
    provider.on(
        "ionos",
        "systemctl is-active beat.service && systemctl is-enabled beat.service",
    );
    hardened(&provider);
    a_reset_changes_nothing(&provider).await;

    provider.on("ionos", "agentctl kv put greeting hello");
    provider.destroy("liquidweb");
    provider
        .says("ovh", "agentctl kv put greeting still", |said| {
            said.contains("OK")
        })
        .await;
    provider.on("ovh", "agentctl member replace liquidweb");
    let replaced = Instant::now();
    let (host, address) = HOSTS[2];
    provider.rent(host, address, &user_data(host));
    three_voters(&provider, "ionos").await;
    bring_image(&provider, host, &image);
    runs(&provider, host).await;
    notes::measured(&format!(
        "from a new machine to its instance: {:.1} s",
        replaced.elapsed().as_secs_f64()
    ));
    assert_eq!(
        provider.on(host, "agentctl kv get greeting --print-value-only"),
        "still\n"
    );
}

/// As an operator renders it.
fn user_data(host: &str, url: &str, sum: &str) -> String {
    let cluster = HOSTS.map(|(name, address)| format!("{name}=http://{address}:2380"));
    let rendered = std::process::Command::new(tools::agentctl())
        .args([
            "cloud-init",
            "render",
            "--host",
            host,
            "--cluster",
            &cluster.join(","),
        ])
        .args(["--allow-plaintext", "--binary-url", url, "--binary-sha256", sum])
        .output()
        .expect("run agentctl");
    assert!(
        rendered.status.success(),
        "{}",
        String::from_utf8_lossy(&rendered.stderr)
    );
    String::from_utf8(rendered.stdout).expect("text")
}

fn documents() -> String {
    let instance = |(host, _): (&str, &str)| {
        format!(
            "---\nkind: instance\nname: web-{host}\nhost: {host}\nrunning: true\nspec:\n  type: container\n  \
             profiles: [base]\n  source: {{type: image, alias: busybox}}\n"
        )
    };
    format!("{DOCUMENTS}{}", HOSTS.map(instance).concat())
}

/// What a document of kind image takes from the host's own disk.
fn bring_image(provider: &Provider, host: &str, url: &str) {
    provider.on(
        host,
        &format!("curl --fail --silent --output /srv/busybox.tar.gz {url}"),
    );
}

async fn three_voters(provider: &Provider, asked: &str) {
    let are_there = |said: &str| {
        let mut roles: Vec<&str> = said
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1))
            .collect();
        roles.sort_unstable();
        roles == ["ROLE", "leader", "voter", "voter"]
    };
    provider.says(asked, "agentctl endpoint status", are_there).await;
}

/// The instance of a host runs there.
async fn runs(provider: &Provider, host: &str) {
    let line = format!("incus list --format csv --columns ns web-{host}");
    provider
        .says(host, &line, |said| said.trim() == format!("web-{host},RUNNING"))
        .await;
}

/// 2.0 is what the unit of a program that holds Incus' socket can come to.
fn hardened(provider: &Provider) {
    let said = provider.on(
        "ovh",
        "systemd-analyze security agent.service --no-pager | tail -n 1",
    );
    let exposure = said.split_whitespace().find_map(|word| word.parse::<f64>().ok());
    assert!(exposure.is_some_and(|exposure| exposure <= 2.0), "{said}");
}

/// The machine comes back with the instance that it had, not with another of the same name.
async fn a_reset_changes_nothing(provider: &Provider) {
    let made =
        |provider: &Provider| provider.on("ionos", "incus query /1.0/instances/web-ionos | grep created_at");
    let before = made(provider);
    provider.reset("ionos");
    three_voters(provider, "ovh").await;
    runs(provider, "ionos").await;
    assert_eq!(made(provider), before);
    provider
        .says("ionos", "systemctl is-active beat.service", |said| {
            said.trim() == "active"
        })
        .await;
}
