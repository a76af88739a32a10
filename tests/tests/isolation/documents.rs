//! Documents of a tenant that name what is another's, or the host's, on a real Incus. Put past the command line, which
//! would say so sooner: none comes to be, and all that is b's stays as it was.

use serde_json::Value;
use tests::client::Client;
use tests::hosts::Hosts;
use tests::wait;

use crate::{PASSWORD, found};

/// Whatever a host says of a document once it has looked at it.
const PHASES: [&str; 7] = [
    "Invalid",
    "Failed",
    "Pending",
    "Unsupported",
    "Conflict",
    "Ready",
    "Stopped",
];

const ROOT_DISK: &str = "root: {type: disk, path: /, pool: default}";

/// What is tried: the kind, what the document says after its name, and what the host names of it.
struct Attempt {
    what: &'static str,
    kind: &'static str,
    text: &'static str,
    named: &'static str,
}

const fn attempt(what: &'static str, kind: &'static str, text: &'static str, named: &'static str) -> Attempt {
    Attempt {
        what,
        kind,
        text,
        named,
    }
}

const TRIED: [Attempt; 29] = [
    attempt(
        "of tenant b",
        "instance",
        "tenant: b\nspec: {source: {type: none}, devices: {DISK}}",
        "tenant: is b",
    ),
    attempt(
        "a copy of b's",
        "instance",
        "spec: {source: {type: copy, source: web, project: b}, devices: {DISK}}",
        "spec.source.project",
    ),
    attempt(
        "a copy of an operator's",
        "instance",
        "spec: {source: {type: copy, source: web, project: default}, devices: {DISK}}",
        "spec.source.project",
    ),
    attempt(
        "pulled from anywhere",
        "instance",
        "spec: {source: {type: migration, mode: pull, operation: 'https://127.0.0.1/x'}, devices: {DISK}}",
        "spec.source.operation",
    ),
    attempt(
        "b's volume",
        "instance",
        "spec: {source: {type: none}, devices: {DISK, d: {type: disk, pool: default, source: data, path: /d}}}",
        "no volume data",
    ),
    attempt(
        "the host's files",
        "instance",
        "spec: {source: {type: none}, devices: {DISK, d: {type: disk, source: /etc, path: /d}}}",
        "spec.devices.d.source",
    ),
    attempt(
        "the agent's folder",
        "instance",
        "spec: {source: {type: none}, devices: {DISK, d: {type: disk, source: /var/lib/agent, path: /d}}}",
        "spec.devices.d.source",
    ),
    attempt(
        "Incus' socket",
        "instance",
        "spec: {source: {type: none}, devices: {DISK, d: {type: proxy, connect: 'unix:/var/lib/incus/unix.socket', listen: 'tcp:127.0.0.1:1', bind: instance}}}",
        "devices.proxy",
    ),
    attempt(
        "a port of the host",
        "instance",
        "spec: {source: {type: none}, devices: {DISK, d: {type: proxy, listen: 'tcp:0.0.0.0:22', connect: 'tcp:127.0.0.1:22'}}}",
        "devices.proxy",
    ),
    attempt(
        "a disk of the host",
        "instance",
        "spec: {source: {type: none}, devices: {DISK, d: {type: unix-block, source: /dev/sda}}}",
        "devices.unix-block",
    ),
    attempt(
        "a device of the host",
        "instance",
        "spec: {source: {type: none}, devices: {DISK, d: {type: unix-char, source: /dev/kmsg}}}",
        "devices.unix-char",
    ),
    attempt(
        "an interface of the host",
        "instance",
        "spec: {source: {type: none}, devices: {DISK, d: {type: nic, nictype: physical, parent: lo}}}",
        "spec.devices.d.parent",
    ),
    attempt(
        "raw settings",
        "instance",
        "spec: {source: {type: none}, config: {raw.lxc: lxc.mount.auto = proc:rw}, devices: {DISK}}",
        "spec.config.raw.lxc",
    ),
    attempt(
        "the host's ids",
        "instance",
        "spec: {source: {type: none}, config: {raw.idmap: both 0 0}, devices: {DISK}}",
        "spec.config.raw.idmap",
    ),
    attempt(
        "privileges",
        "instance",
        "spec: {source: {type: none}, config: {security.privileged: true}, devices: {DISK}}",
        "spec.config.security.privileged",
    ),
    attempt(
        "nesting",
        "instance",
        "spec: {source: {type: none}, config: {security.nesting: true}, devices: {DISK}}",
        "spec.config.security.nesting",
    ),
    attempt(
        "kernel modules",
        "instance",
        "spec: {source: {type: none}, config: {linux.kernel_modules: overlay}, devices: {DISK}}",
        "spec.config.linux.kernel_modules",
    ),
    attempt(
        "another's ownership",
        "instance",
        "spec: {source: {type: none}, config: {user.agent.uid: forged}, devices: {DISK}}",
        "spec.config.user.agent.uid",
    ),
    attempt(
        "a privileged profile",
        "profile",
        "spec: {config: {security.privileged: true}}",
        "spec.config.security.privileged",
    ),
    attempt(
        "a profile with the host's files",
        "profile",
        "spec: {devices: {d: {type: disk, source: /, path: /host}}}",
        "spec.devices.d.source",
    ),
    attempt(
        "an image out of the host's files",
        "image",
        "spec: {source: {type: file, path: /etc/shadow}}",
        "spec.source.path",
    ),
    attempt(
        "an address of the host",
        "tunnel",
        "spec: {listen: '0.0.0.0:0', instance: own, port: 22}",
        "devices.proxy",
    ),
    attempt(
        "a service of the host",
        "service",
        "spec: {exec: /bin/sh}",
        "tenant: a service of a host",
    ),
    attempt(
        "a file of the host",
        "file",
        "spec: {path: /etc/forged, content: forged}",
        "tenant: a file of a host",
    ),
    attempt(
        "privileges on one host",
        "instance",
        "perHost: {m0: {config: {security.privileged: true}}}\nspec: {source: {type: none}, devices: {DISK}}",
        "perHost",
    ),
    attempt(
        "the host's files on one host",
        "profile",
        "perHost: {m0: {devices: {d: {type: disk, source: /, path: /host}}}}\nspec: {}",
        "spec.devices.d",
    ),
    attempt(
        "a backup of b's instance",
        "backup",
        "spec: {instance: web, snapshots: {schedule: '0 0 1 1 *', keep: {last: 1}}}",
        "web",
    ),
    attempt(
        "a service in b's instance",
        "service",
        "instance: web\nspec: {exec: /bin/sh}",
        "web",
    ),
    attempt(
        "a file in b's instance",
        "file",
        "instance: web\nspec: {path: /etc/forged, content: forged}",
        "web",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_documents_name_others_in_vain() {
    let Some(mut hosts) = Hosts::builder(1)
        .with_root()
        .arg("--bcrypt-cost", "4")
        .start()
        .await
    else {
        return;
    };
    let mut root = found(&mut hosts.cluster).await;
    let web = "kind: instance\nname: web\ntenant: b\nhost: m0\nrunning: false\nspec: {source: {type: none}, devices: {root: {type: disk, path: /, pool: default}}}\n";
    root.put("/tenants/b/desired/instances/web", web.as_bytes())
        .await
        .expect("b's instance");
    let data = "kind: volume\nname: data\ntenant: b\nhost: m0\nspec: {pool: default}\n";
    root.put("/tenants/b/desired/volumes/data", data.as_bytes())
        .await
        .expect("b's volume");
    phase(&mut root, "/tenants/b/status/instances/web/m0", &["Stopped"]).await;
    phase(&mut root, "/tenants/b/status/volumes/data/m0", &["Ready"]).await;
    let of_b = |hosts: &Hosts| -> Vec<Value> {
        [
            "/1.0/instances/web?project=b",
            "/1.0/storage-pools/default/volumes/custom/data?project=b",
            "/1.0/projects/b",
            "/1.0/projects/a",
        ]
        .map(|path| {
            let mut found = hosts.query(0, path);
            // Who uses a project is counted there.
            found["used_by"].take();
            found
        })
        .into()
    };
    let before = of_b(&hosts);
    assert!(before.iter().all(|found| found["name"].is_string()), "{before:?}");

    let mut admin = hosts
        .cluster
        .client(0)
        .log_in("admin", PASSWORD)
        .await
        .expect("a login");
    let mut came_to_be = String::new();
    for (number, tried) in TRIED.iter().enumerate() {
        let (what, name) = (tried.what, format!("try{number}"));
        let (text, status) = document(tried.kind, &name, tried.text);
        let key = status.replace("/status/", "/desired/").replace("/m0", "");
        admin.put(&key, text.as_bytes()).await.expect("its own key");
        let said = phase(&mut root, &status, &PHASES).await;
        let is_vain = matches!(said["phase"].as_str(), Some("Invalid" | "Pending"));
        let message = said["message"].as_str().unwrap_or_default();
        if !is_vain || !message.contains(tried.named) {
            came_to_be.push_str(&format!("{what}: {said}\n"));
        }
    }
    assert!(came_to_be.is_empty(), "\n{came_to_be}");
    // What keeps to the project comes to be: it is not all refused alike.
    let (text, status) = document("instance", "own", "spec: {source: {type: none}, devices: {DISK}}");
    admin
        .put("/tenants/a/desired/instances/own", text.as_bytes())
        .await
        .expect("its own key");
    phase(&mut root, &status, &["Stopped"]).await;
    assert_eq!(of_b(&hosts), before);
    let instances = hosts.query(0, "/1.0/instances?project=a");
    assert_eq!(
        instances,
        serde_json::json!(["/1.0/instances/own?project=a"]),
        "instances of a"
    );
    assert!(!hosts.root().join("etc/forged").exists());

    // Lists show a's people nothing of b.
    for who in crate::PEOPLE {
        let user = format!("{who}:{PASSWORD}");
        for line in ["instance list", "backup list"] {
            let mut args: Vec<&str> = line.split(' ').collect();
            args.extend(["--user", &user]);
            let said = hosts.agentctl_says(&args).await;
            assert!(
                !said.contains("web") && !said.contains("error"),
                "{who}: {line}: {said}"
            );
        }
    }
}

/// The document's text, and the key of its status.
fn document(kind: &str, name: &str, rest: &str) -> (String, String) {
    let tenant = if rest.starts_with("tenant:") {
        ""
    } else {
        "tenant: a\n"
    };
    let place = match kind {
        "instance" => "host: m0\nrunning: false\n",
        // They are where their instance is.
        _ if rest.starts_with("instance:") || kind == "backup" => "",
        _ => "hosts: [m0]\n",
    };
    let text = format!("kind: {kind}\nname: {name}\n{tenant}{place}{rest}\n");
    let status = format!("/tenants/a/status/{kind}s/{name}/m0");
    (text.replace("DISK", ROOT_DISK), status)
}

/// Waits until the host says one of these phases; what it says.
async fn phase(root: &mut Client, key: &str, phases: &[&str]) -> Value {
    let client = root.clone();
    wait::until(&format!("{key} to be one of {phases:?}"), async || {
        let found = client.clone().get_prefix(key, false).await.ok()?;
        let status: Value = serde_json::from_slice(&found.kvs.first()?.value).ok()?;
        phases
            .iter()
            .any(|phase| status["phase"] == *phase)
            .then_some(status)
    })
    .await
}
