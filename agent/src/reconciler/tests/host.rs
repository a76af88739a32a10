//! The host itself: that it is alive, its files and services, its inventory.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_says_that_it_is_alive_and_takes_that_back() {
    let host = Host::start().await;
    let shutdown = Shutdown::new();
    let alive = Alive::new(host.node.clone(), host.incus.clone(), Host::options());
    let task = tokio::spawn(alive.run(shutdown.clone()));
    let said: HostAlive = host
        .until_key("/hosts/ovh/alive", |value| serde_json::from_slice(&value?).ok())
        .await;
    assert_eq!(
        said,
        HostAlive {
            version: env!("CARGO_PKG_VERSION").into(),
            provider: "OVH".into(),
            incus_version: "6.0.4".into(),
            addresses: vec!["51.0.0.10".into()],
        }
    );
    shutdown.cancel();
    timeout(DEADLINE, task).await.unwrap().unwrap();
    host.until_key("/hosts/ovh/alive", |value| value.is_none().then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_and_a_service_of_the_host_itself() {
    let host = Host::start().await;
    let motd = "/tenants/default/desired/files/motd";
    let file = "kind: file\nname: motd\nhost: ovh\nspec: {path: /etc/motd, content: hello}\n";
    // The owner is whoever runs this: a stranger may not give files away.
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let file = file.replace("content:", &format!("uid: {uid}, gid: {gid}, content:"));
    let revision = host.put(&file).await;
    host.until(motd, Phase::Ready, revision).await;
    assert_eq!(
        std::fs::read_to_string(host.root().join("etc/motd")).unwrap(),
        "hello"
    );

    std::fs::write(host.root().join("etc/issue"), "theirs").unwrap();
    let revision = host.put(&file.replace("/etc/motd", "/etc/issue")).await;
    let status = host.until(motd, Phase::Conflict, revision).await;
    assert!(status.message.contains("/etc/issue"), "{status:?}");
    host.delete(motd).await;
    host.until_forgotten(motd).await;
    assert_eq!(
        std::fs::read_to_string(host.root().join("etc/issue")).unwrap(),
        "theirs"
    );
    assert!(!host.root().join("etc/motd").exists());

    let sleeper = "/tenants/default/desired/services/sleeper";
    let service = "kind: service\nname: sleeper\nhost: ovh\nspec: {exec: /bin/sleep, args: ['300']}\n";
    let revision = host.put(service).await;
    host.until(sleeper, Phase::Ready, revision).await;
    let revision = host.put(&service.replace("exec:", "enabled: false, exec:")).await;
    host.until(sleeper, Phase::Stopped, revision).await;
    let failing = service.replace(
        "/bin/sleep, args: ['300']",
        "/bin/cat, args: [/no/such/file], restart: on-failure",
    );
    let revision = host.put(&failing).await;
    let status = host.until(sleeper, Phase::Failed, revision).await;
    assert!(status.message.contains("/no/such/file"), "{status:?}");
    host.delete(sleeper).await;
    host.until_forgotten(sleeper).await;
}

/// What is made by hand appears in the inventory, what changes is written, what is gone is deleted; and where nothing
/// changes nothing is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inventory_is_what_incus_has() {
    let host = Host::start().await;
    let shutdown = Shutdown::new();
    let inventory = Inventory::new(host.node.clone(), host.incus.clone(), &Host::options());
    let task = tokio::spawn(inventory.run(shutdown.clone()));
    let key = "/hosts/ovh/inventory/instances/default/byhand";
    let field = |field: &'static str, wanted: Value| {
        move |value: Option<Bytes>| {
            let value: Value = serde_json::from_slice(&value?).unwrap();
            (value[field] == wanted).then_some(value)
        }
    };

    let by_hand = json!({"name": "byhand", "source": {"type": "image", "alias": "busybox"}});
    host.incus
        .create(Kind::Instance, "default", &by_hand)
        .await
        .unwrap();
    let value = host.until_key(key, field("status", json!("Stopped"))).await;
    assert_eq!(
        (&value["managed"], &value["host"]),
        (&json!(false), &json!("ovh"))
    );
    host.incus
        .set_state("default", "byhand", StateAction::Start, false, 5)
        .await
        .unwrap();
    host.until_key(key, field("status", json!("Running"))).await;

    let revision = host.put(&web("")).await;
    host.until(WEB, Phase::Ready, revision).await;
    let ours = "/hosts/ovh/inventory/instances/default/web";
    let value = host.until_key(ours, field("managed", json!(true))).await;
    assert_eq!(value["document"], json!(WEB));
    host.until_key(
        "/hosts/ovh/inventory/projects/-/default",
        field("kind", json!("project")),
    )
    .await;

    // Incus' own bookkeeping: looked at, and not written.
    let written = host.get(key);
    let live = host
        .incus
        .get(Kind::Instance, "default", "byhand")
        .await
        .unwrap()
        .unwrap();
    let note = json!({"config": {"user.note": "nobody's business"}});
    host.incus
        .patch(Kind::Instance, "default", "byhand", &note, &live.etag)
        .await
        .unwrap();
    host.incus
        .set_state("default", "byhand", StateAction::Stop, true, 5)
        .await
        .unwrap();
    host.until_key(key, field("status", json!("Stopped"))).await;
    assert!(!String::from_utf8_lossy(&written.unwrap()).contains("note"));

    host.incus
        .delete(Kind::Instance, "default", "byhand")
        .await
        .unwrap();
    host.until_key(key, |value| value.is_none().then_some(())).await;
    shutdown.cancel();
    timeout(DEADLINE, task).await.unwrap().unwrap();
    assert!(host.get(ours).is_some(), "a stopped agent's inventory stays");
}
