//! The example of three hosts, on three real daemons: one `apply` makes all of it, a second one changes nothing, and
//! what is changed by hand comes back.

use serde_json::Value;
use tests::hosts::Hosts;
use tests::wait;

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
    let hosts = Hosts::builder(HOSTS.len()).apart().with_root().start();
    let Some(hosts) = hosts.await else { return };
    let file = example(&hosts);
    let applied = hosts.agentctl(&["apply", "-f", &file]).await;
    assert!(applied.contains("16 documents at revision"), "{applied}");
    let status = hosts.agentctl(&["status", "--wait=120s"]).await;
    assert!(
        !status.contains("Pending") && !status.contains("Failed"),
        "{status}"
    );
    // The first is where its volume is; the others are kept apart from it and from each other.
    for (host, name) in [(0, "web-1"), (0, "router"), (1, "web-2"), (2, "web-3")] {
        let instance = hosts.query(host, &format!("/1.0/instances/{name}"));
        assert_eq!(instance["status"], "Running", "{name}: {status}");
    }
    for (host, address) in ["10.80.1.1/24", "10.80.2.1/24", "10.80.3.1/24"]
        .iter()
        .enumerate()
    {
        assert_eq!(
            hosts.query(host, "/1.0/networks/site0")["config"]["ipv4.address"],
            *address
        );
    }

    let before = objects(&hosts);
    let again = hosts.agentctl(&["apply", "-f", &file]).await;
    assert!(
        again.lines().all(|line| !line.starts_with(['+', '~', '-', '!'])),
        "a second apply changes nothing:\n{again}"
    );
    assert_eq!(objects(&hosts), before);

    for drift in DRIFTS {
        heals(&hosts, drift).await;
    }
    files_are_kept(&hosts).await;
}

/// What services have in an instance and on a host, changed by hand.
async fn files_are_kept(hosts: &Hosts) {
    let inside = |line: &str| hosts.incus(1, &["exec", "web-2", "--", "/bin/sh", "-c", line]);
    // It was stopped by hand before, and its service runs in it again.
    wait::until("the service in web-2", async || {
        let processes = inside("ps");
        processes.contains("cat /etc/site/motto").then_some(())
    })
    .await;
    inside("echo by hand >/etc/site/motto");
    wait::until("the file in web-2 to be put back", async || {
        (inside("cat /etc/site/motto") == "served by web-2\n").then_some(())
    })
    .await;
    let on_host = hosts.root().join("etc/watchdog.conf");
    std::fs::write(&on_host, "by hand\n").expect("write by hand");
    wait::until("the file on the host to be put back", async || {
        let text = std::fs::read_to_string(&on_host).ok()?;
        (text == "every minute\n").then_some(())
    })
    .await;
    let status = hosts.agentctl(&["status", "--wait=60s"]).await;
    assert!(!status.contains("Conflict"), "{status}");
}

async fn heals(hosts: &Hosts, (host, command, path, pointer): Drift) {
    let shown = || hosts.query(host, path).pointer(pointer).cloned();
    let before = shown().unwrap_or_else(|| panic!("{path} has no {pointer}"));
    hosts
        .daemon(host)
        .incus(command)
        .unwrap_or_else(|error| panic!("incus {command:?}: {error:#}"));
    let healed = wait::within(wait::PATIENCE, "the drift to be healed", async || {
        (shown().as_ref() == Some(&before)).then_some(())
    });
    if let Err(vain) = healed.await {
        panic!(
            "{vain}: incus {command:?}: {:?} instead of {before}\n{}",
            shown(),
            hosts.agentctl(&["status"]).await
        );
    }
}

/// The example, for hosts that are called as members of tests are, with an image that needs no network.
fn example(hosts: &Hosts) -> String {
    let folder = hosts.cluster.folder();
    let image = tests::lab::build_image(&folder.join("image")).expect("an image");
    // Not the one that the lab brought: Incus keeps one image of a kind only once.
    for host in 0..HOSTS.len() {
        hosts.incus(host, &["image", "delete", "busybox"]);
    }
    let mut text = EXAMPLE.replace(
        FROM_A_SERVER,
        &format!("{{type: file, path: {}}}", image.display()),
    );
    assert_ne!(text, EXAMPLE, "the example's image is somewhere else now");
    // Paths in a command line are the machine's own.
    let at_root = format!("cat {}", hosts.root().join("etc/watchdog.conf").display());
    text = text.replace("cat /etc/watchdog.conf", &at_root);
    for (i, host) in HOSTS.iter().enumerate() {
        text = text
            .replace(&format!("host: {host}"), &format!("host: m{i}"))
            .replace(&format!("name: {host}\n"), &format!("name: m{i}\n"))
            .replace(&format!("  {host}: "), &format!("  m{i}: "));
    }
    let file = folder.join("three-hosts.yaml");
    std::fs::write(&file, text).expect("write the example");
    file.to_string_lossy().into_owned()
}

/// What would show a change: the configuration of everything, and since when instances run.
fn objects(hosts: &Hosts) -> Vec<Value> {
    let paths = [
        "/1.0/instances?recursion=2",
        "/1.0/profiles?recursion=1",
        "/1.0/networks?recursion=1",
        "/1.0/storage-pools?recursion=1",
    ];
    let each = (0..HOSTS.len()).flat_map(|host| paths.map(|path| (host, path)));
    each.map(|(host, path)| {
        let mut list = hosts.query(host, path);
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
