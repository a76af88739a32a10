//! The example of three hosts, on three real daemons: one `apply` makes all of it, a second one changes nothing, and
//! what is changed by hand comes back.

use std::path::PathBuf;

use serde_json::Value;
use tests::cluster::{Cluster, Subject};
use tests::lab::{IncusDaemon, Lab};
use tests::{notes, tools, wait};

const EXAMPLE: &str = include_str!("../../examples/three-hosts.yaml");
const FROM_A_SERVER: &str =
    r#"{type: image, server: "https://images.linuxcontainers.org", alias: debian/12}"#;
const HOSTS: [&str; 3] = ["ovh", "ionos", "liquidweb"];

/// What of an object documents and people change, and what shows that an instance was restarted.
const KEPT: [&str; 8] = [
    "name",
    "config",
    "devices",
    "profiles",
    "status",
    "state",
    "description",
    "type",
];

struct Site {
    // Before the daemons: fields are dropped in this order, and an agent should not see its Incus go.
    cluster: Cluster,
    lab: Lab,
}

/// What somebody does by hand, and what Incus shows before and after: host, command, path, pointer.
type Drift = (usize, &'static [&'static str], &'static str, &'static str);

const DRIFTS: [Drift; 8] = [
    (
        0,
        &["profile", "set", "web", "limits.memory=1GiB"],
        "/1.0/profiles/web",
        "/config/limits.memory",
    ),
    (
        1,
        &["profile", "device", "remove", "web", "eth0"],
        "/1.0/profiles/web",
        "/devices/eth0",
    ),
    (
        0,
        &["config", "device", "remove", "web-1", "content"],
        "/1.0/instances/web-1",
        "/devices/content",
    ),
    (
        0,
        &["config", "set", "router", "linux.sysctl.net.ipv4.ip_forward=0"],
        "/1.0/instances/router",
        "/config/linux.sysctl.net.ipv4.ip_forward",
    ),
    (
        1,
        &["stop", "--force", "web-2"],
        "/1.0/instances/web-2",
        "/status",
    ),
    (
        2,
        &["delete", "--force", "web-3"],
        "/1.0/instances/web-3",
        "/status",
    ),
    (
        2,
        &["network", "set", "site0", "ipv4.nat=false"],
        "/1.0/networks/site0",
        "/config/ipv4.nat",
    ),
    (
        2,
        &["image", "alias", "delete", "web"],
        "/1.0/images/aliases/web",
        "/name",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_apply_makes_it_all_and_keeps_it() {
    let Some(site) = Site::start().await else { return };
    let example = site.example();
    let applied = site.agentctl(&["apply", "-f", &example]).await;
    assert!(applied.contains("9 documents at revision"), "{applied}");
    let status = site.agentctl(&["status", "--wait=120s"]).await;
    assert!(
        !status.contains("Pending") && !status.contains("Failed"),
        "{status}"
    );
    for (host, name) in [(0, "web-1"), (0, "router"), (1, "web-2"), (2, "web-3")] {
        let instance = site.query(host, &format!("/1.0/instances/{name}"));
        assert_eq!(instance["status"], "Running", "{name}: {status}");
    }
    for (host, address) in ["10.80.1.1/24", "10.80.2.1/24", "10.80.3.1/24"]
        .iter()
        .enumerate()
    {
        assert_eq!(
            site.query(host, "/1.0/networks/site0")["config"]["ipv4.address"],
            *address
        );
    }

    let before = site.objects();
    let again = site.agentctl(&["apply", "-f", &example]).await;
    assert!(
        again.lines().all(|line| !line.starts_with(['+', '~', '-', '!'])),
        "a second apply changes nothing:\n{again}"
    );
    assert_eq!(site.objects(), before);

    for drift in DRIFTS {
        heals(&site, drift).await;
    }
}

async fn heals(site: &Site, (host, command, path, pointer): Drift) {
    let shown = || site.query(host, path).pointer(pointer).cloned();
    let before = shown().unwrap_or_else(|| panic!("{path} has no {pointer}"));
    site.lab.daemons()[host]
        .incus(command)
        .unwrap_or_else(|error| panic!("incus {command:?}: {error:#}"));
    let healed = wait::within(wait::PATIENCE, "the drift to be healed", async || {
        (shown().as_ref() == Some(&before)).then_some(())
    });
    if let Err(vain) = healed.await {
        panic!(
            "{vain}: incus {command:?}: {:?} instead of {before}\n{}",
            shown(),
            site.agentctl(&["status"]).await
        );
    }
}

impl Site {
    /// `None`, said aloud, where Incus cannot run.
    async fn start() -> Option<Site> {
        if let Err(missing) = Lab::available() {
            notes::skipped(&missing);
            return None;
        }
        let lab = tokio::task::spawn_blocking(|| Lab::start_apart(HOSTS.len()))
            .await
            .expect("a task");
        let lab = lab.expect("Incus starts");
        let sockets: Vec<PathBuf> = lab.daemons().iter().map(IncusDaemon::socket).collect();
        let cluster = Cluster::builder(&Subject::agent(), HOSTS.len())
            .incus(&sockets)
            .start()
            .await;
        Some(Site { cluster, lab })
    }

    /// The example, for hosts that are called as members of tests are, with an image that needs no network.
    fn example(&self) -> String {
        let folder = self.cluster.folder();
        let image = tests::lab::build_image(&folder.join("image")).expect("an image");
        // Not the one that the lab brought: Incus keeps one image of a kind only once.
        for daemon in self.lab.daemons() {
            daemon
                .incus(&["image", "delete", "busybox"])
                .expect("the lab's image goes");
        }
        let mut text = EXAMPLE.replace(
            FROM_A_SERVER,
            &format!("{{type: file, path: {}}}", image.display()),
        );
        assert_ne!(text, EXAMPLE, "the example's image is somewhere else now");
        for (i, host) in HOSTS.iter().enumerate() {
            text = text
                .replace(&format!("host: {host}"), &format!("host: m{i}"))
                .replace(&format!("  {host}: "), &format!("  m{i}: "));
        }
        let file = folder.join("three-hosts.yaml");
        std::fs::write(&file, text).expect("write the example");
        file.to_string_lossy().into_owned()
    }

    fn query(&self, host: usize, path: &str) -> Value {
        let answer = self.lab.daemons()[host].incus(&["query", path]);
        answer
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default()
    }

    /// What would show a change: the configuration of everything, and since when instances run.
    fn objects(&self) -> Vec<Value> {
        let paths = [
            "/1.0/instances?recursion=2",
            "/1.0/profiles?recursion=1",
            "/1.0/networks?recursion=1",
            "/1.0/storage-pools?recursion=1",
        ];
        let each = (0..HOSTS.len()).flat_map(|host| paths.map(|path| (host, path)));
        each.map(|(host, path)| {
            let mut list = self.query(host, path);
            for object in list.as_array_mut().into_iter().flatten() {
                let pid = object.pointer("/state/pid").cloned().unwrap_or_default();
                object["state"] = pid;
                // Incus' own notes: when it was last asked for, what uses it, in no order.
                if let Some(fields) = object.as_object_mut() {
                    fields.retain(|field, _| KEPT.contains(&field.as_str()));
                }
            }
            list
        })
        .collect()
    }

    async fn agentctl(&self, args: &[&str]) -> String {
        let mut command = tokio::process::Command::new(tools::agentctl());
        command
            .env_clear()
            .env("AGENTCTL_ENDPOINTS", self.cluster.endpoints().join(","))
            .args(args)
            .kill_on_drop(true);
        let output = tokio::time::timeout(wait::PATIENCE * 3, command.output()).await;
        let output = output.expect("an end of agentctl").expect("start agentctl");
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "agentctl {args:?}: {said}");
        said
    }
}
