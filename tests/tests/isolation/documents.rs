//! Documents of a tenant that name what is another's, or the host's, on a real Incus. Put past the command line, which
//! would say so sooner: none comes to be, and all that is b's stays as it was.

use serde_json::Value;
use tests::client::Client;
use tests::hosts::Hosts;
use tests::wait;

use crate::{PASSWORD, found};

const ROOT_DISK: &str = "root: {type: disk, path: /, pool: default}";

/// What is tried: the kind, and what the document says after its name.
const TRIED: [(&str, &str, &str); 24] = [
    (
        "of tenant b",
        "instance",
        "tenant: b\nspec: {source: {type: none}, devices: {DISK}}",
    ),
    (
        "a copy of b's",
        "instance",
        "spec: {source: {type: copy, source: web, project: b}, devices: {DISK}}",
    ),
    (
        "a copy of an operator's",
        "instance",
        "spec: {source: {type: copy, source: web, project: default}, devices: {DISK}}",
    ),
    (
        "pulled from anywhere",
        "instance",
        "spec: {source: {type: migration, mode: pull, operation: 'https://127.0.0.1/x'}, devices: {DISK}}",
    ),
    (
        "b's volume",
        "instance",
        "spec: {source: {type: none}, devices: {DISK, d: {type: disk, pool: default, source: data, path: /d}}}",
    ),
    (
        "the host's files",
        "instance",
        "spec: {source: {type: none}, devices: {DISK, d: {type: disk, source: /etc, path: /d}}}",
    ),
    (
        "the agent's folder",
        "instance",
        "spec: {source: {type: none}, devices: {DISK, d: {type: disk, source: /var/lib/agent, path: /d}}}",
    ),
    (
        "Incus' socket",
        "instance",
        "spec: {source: {type: none}, devices: {DISK, d: {type: proxy, connect: 'unix:/var/lib/incus/unix.socket', listen: 'tcp:127.0.0.1:1', bind: instance}}}",
    ),
    (
        "a port of the host",
        "instance",
        "spec: {source: {type: none}, devices: {DISK, d: {type: proxy, listen: 'tcp:0.0.0.0:22', connect: 'tcp:127.0.0.1:22'}}}",
    ),
    (
        "a disk of the host",
        "instance",
        "spec: {source: {type: none}, devices: {DISK, d: {type: unix-block, source: /dev/sda}}}",
    ),
    (
        "a device of the host",
        "instance",
        "spec: {source: {type: none}, devices: {DISK, d: {type: unix-char, source: /dev/kmsg}}}",
    ),
    (
        "an interface of the host",
        "instance",
        "spec: {source: {type: none}, devices: {DISK, d: {type: nic, nictype: physical, parent: lo}}}",
    ),
    (
        "raw settings",
        "instance",
        "spec: {source: {type: none}, config: {raw.lxc: lxc.mount.auto = proc:rw}, devices: {DISK}}",
    ),
    (
        "the host's ids",
        "instance",
        "spec: {source: {type: none}, config: {raw.idmap: both 0 0}, devices: {DISK}}",
    ),
    (
        "privileges",
        "instance",
        "spec: {source: {type: none}, config: {security.privileged: true}, devices: {DISK}}",
    ),
    (
        "nesting",
        "instance",
        "spec: {source: {type: none}, config: {security.nesting: true}, devices: {DISK}}",
    ),
    (
        "kernel modules",
        "instance",
        "spec: {source: {type: none}, config: {linux.kernel_modules: overlay}, devices: {DISK}}",
    ),
    (
        "another's ownership",
        "instance",
        "spec: {source: {type: none}, config: {user.agent.uid: forged}, devices: {DISK}}",
    ),
    (
        "a privileged profile",
        "profile",
        "spec: {config: {security.privileged: true}}",
    ),
    (
        "a profile with the host's files",
        "profile",
        "spec: {devices: {d: {type: disk, source: /, path: /host}}}",
    ),
    (
        "an image out of the host's files",
        "image",
        "spec: {source: {type: file, path: /etc/shadow}}",
    ),
    (
        "an address of the host",
        "tunnel",
        "spec: {listen: '0.0.0.0:0', instance: own, port: 22}",
    ),
    ("a service of the host", "service", "spec: {exec: /bin/sh}"),
    (
        "a file of the host",
        "file",
        "spec: {path: /etc/forged, content: forged}",
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
    for (number, (what, kind, rest)) in TRIED.iter().enumerate() {
        let name = format!("try{number}");
        let tenant = if rest.starts_with("tenant:") {
            ""
        } else {
            "tenant: a\n"
        };
        let text =
            format!("kind: {kind}\nname: {name}\n{tenant}hosts: [m0]\n{rest}\n").replace("DISK", ROOT_DISK);
        let text = if *kind == "instance" {
            text.replace("hosts: [m0]", "host: m0\nrunning: false")
        } else {
            text
        };
        let key = format!("/tenants/a/desired/{kind}s/{name}");
        admin.put(&key, text.as_bytes()).await.expect("its own key");
        let status = format!("/tenants/a/status/{kind}s/{name}/m0");
        let said = phase(
            &mut root,
            &status,
            &[
                "Invalid",
                "Failed",
                "Pending",
                "Unsupported",
                "Conflict",
                "Ready",
                "Stopped",
            ],
        )
        .await;
        if matches!(said["phase"].as_str(), Some("Ready" | "Stopped")) {
            came_to_be.push_str(&format!("{what}: {said}\n"));
        }
    }
    assert!(came_to_be.is_empty(), "\n{came_to_be}");
    assert_eq!(of_b(&hosts), before);
    let project = hosts.query(0, "/1.0/instances?project=a");
    assert_eq!(project, serde_json::json!([]), "instances of a");
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
