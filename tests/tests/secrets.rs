//! Secrets, with a real Incus: an instance and files get their values, and nobody else does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tests::hosts::Hosts;
use tests::wait;

const PASSWORD: &str = "correct-horse-battery";
const NEXT_PASSWORD: &str = "staple-of-another-kind";
const KEY: &str = "-----BEGIN NOTHING-----\nzq8x7gk2p4\n-----END NOTHING-----\n";

const DOCUMENTS: &str = "kind: instance
name: web
host: m0
spec:
  profiles: [default, shared]
  config: {environment.PASSWORD: {secret: db-password}, user.token: {secret: db-password}, user.plain: seen}
  source: {type: image, alias: busybox}
---
kind: profile
name: shared
host: m0
spec: {config: {user.shared: {secret: db-password}}}
---
kind: file
name: inside
instance: web
spec: {path: /etc/web.key, mode: 0600, content: {secret: web-key}}
---
kind: file
name: outside
host: m0
spec: {path: /etc/web.key, mode: 0600, content: {secret: web-key}}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_secret_is_where_it_is_needed_and_nowhere_else() {
    let members = Hosts::among(3, 1)
        .with_root()
        .with_secrets()
        .arg("--log-level", "debug");
    let Some(host) = members.start().await else {
        return;
    };
    // Without them everything waits, and says for what.
    host.apply(DOCUMENTS).await;
    for (document, waits) in [
        (
            "instances/web",
            "waits for secret db-password: agentctl secret set db-password",
        ),
        (
            "profiles/shared",
            "waits for secret db-password: agentctl secret set db-password",
        ),
        (
            "files/outside",
            "waits for secret web-key: agentctl secret set web-key",
        ),
    ] {
        let status = host.reported(0, document, "Pending", None).await;
        assert_eq!(status["message"], waits, "{document}");
    }

    set(&host, "db-password", PASSWORD).await;
    set(&host, "web-key", KEY).await;
    for document in [
        "instances/web",
        "profiles/shared",
        "files/inside",
        "files/outside",
    ] {
        host.reported(0, document, "Ready", None).await;
    }
    assert_eq!(config(&host, "environment.PASSWORD"), PASSWORD);
    assert_eq!(in_guest(&host, "echo $PASSWORD"), format!("{PASSWORD}\n"));
    assert_eq!(in_guest(&host, "cat /etc/web.key"), KEY);
    let outside = host.root().join("etc/web.key");
    assert_eq!(fs::read_to_string(&outside).expect("the file"), KEY);
    let mode = fs::metadata(&outside).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        host.agentctl(&["diff"]).await,
        "no host differs from its documents\n"
    );
    let listed = host.agentctl(&["secret", "list"]).await;
    let used = "instance web, profile shared";
    assert!(
        listed.contains("db-password  21") && listed.contains(used),
        "{listed}"
    );

    // Another value: what has it gets it, and nothing else is touched.
    let pid = host.pid(0, "web");
    let planned = host
        .agentctl(&[
            "plan",
            "-f",
            &host.file(
                "next.yaml",
                &DOCUMENTS.replace("{secret: db-password}, user.plain", "mine, user.plain"),
            ),
        ])
        .await;
    assert!(
        planned.contains("config.user.token: (secret db-password) -> mine"),
        "{planned}"
    );
    set(&host, "db-password", NEXT_PASSWORD).await;
    for key in ["environment.PASSWORD", "user.token"] {
        wait::until(&format!("{key} to follow"), async || {
            (config(&host, key) == NEXT_PASSWORD).then_some(())
        })
        .await;
    }
    assert_eq!(host.pid(0, "web"), pid);
    // What is changed by hand is changed back, without a word of what it was or should be.
    host.incus(0, &["config", "set", "web", "user.token=by-hand"]);
    wait::until("the token to be back", async || {
        (config(&host, "user.token") == NEXT_PASSWORD).then_some(())
    })
    .await;

    // A snapshot has the values in Incus; its document has their names again.
    host.agentctl(&["instance", "snapshot", "web", "before"]).await;
    host.apply(&DOCUMENTS.replace("user.plain: seen", "user.plain: changed"))
        .await;
    wait::until("the change", async || {
        (config(&host, "user.plain") == "changed").then_some(())
    })
    .await;
    host.agentctl(&["instance", "restore", "web", "before"]).await;
    let document = host.agentctl(&["get", "instance", "web"]).await;
    assert!(
        document.contains("secret: db-password") && document.contains("seen"),
        "{document}"
    );

    let refused = host.fails(&["secret", "delete", "db-password"]).await;
    assert!(
        refused.contains("is used by instance web, profile shared"),
        "{refused}"
    );
    host.agentctl(&["secret", "delete", "db-password", "--force"])
        .await;
    host.reported(0, "instances/web", "Pending", None).await;
    assert_eq!(host.state(0, "web"), "Running");

    nobody_says(&host).await;
    nothing_keeps(&host);
}

/// Everything that can be asked.
async fn nobody_says(host: &Hosts) {
    let live = host
        .agentctl(&["-w", "json", "get", "instance", "web", "--live"])
        .await;
    assert!(live.contains("user.plain"), "{live}");
    let asked: [&[&str]; 9] = [
        &["get"],
        &["get", "instance", "web", "--live"],
        &["status"],
        &["diff"],
        &["inventory", "query", "instances"],
        &["secret", "list"],
        &["-w", "json", "secret", "list"],
        &["-w", "json", "kv", "get", "", "--prefix"],
        &["kv", "get", "/", "--prefix"],
    ];
    let mut said = vec![("get --live", live)];
    for args in asked {
        said.push((args[0], host.agentctl_says(args).await));
    }
    for (asked, said) in &said {
        for value in values() {
            assert!(!said.contains(&value), "{asked} says {value}:\n{said}");
        }
    }
}

/// What members keep, write and save: their data, with the log, and what they tell.
fn nothing_keeps(host: &Hosts) {
    let mut looked_at = 0;
    for path in files_below(host.cluster.folder()) {
        let bytes = fs::read(&path).unwrap_or_default();
        looked_at += bytes.len();
        for value in values() {
            let found = bytes
                .windows(value.len())
                .any(|window| window == value.as_bytes());
            assert!(!found, "{} has {value}", path.display());
        }
    }
    assert!(looked_at > 100_000, "only {looked_at} bytes were found");
}

/// Also as other formats would have them.
fn values() -> Vec<String> {
    let plain = [PASSWORD, NEXT_PASSWORD, "zq8x7gk2p4"];
    let encoded = plain[..2].iter().map(|value| STANDARD.encode(value));
    plain
        .iter()
        .map(|value| (*value).to_owned())
        .chain(encoded)
        .collect()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    let below = |path: PathBuf| match path.is_dir() {
        true => files_below(&path),
        false => vec![path],
    };
    entries.flat_map(|entry| below(entry.path())).collect()
}

async fn set(host: &Hosts, name: &str, value: &str) {
    let output = host
        .run(&["secret", "set", name, "-"], format!("{value}\n").as_bytes())
        .await;
    assert!(output.status.success(), "{output:?}");
}

fn config(host: &Hosts, key: &str) -> String {
    let instance = host.instance(0, "web");
    instance["config"][key].as_str().unwrap_or_default().to_owned()
}

fn in_guest(host: &Hosts, line: &str) -> String {
    host.incus(0, &["exec", "web", "--", "/bin/sh", "-c", line])
}
