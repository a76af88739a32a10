//! Whole passes: a member of its own, the simulated Incus, and documents put as any client would.
//!
//! Waiting is for something that happens (a status key, an Incus event), never for time to pass.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};
use proto::replicated::AuthChange;
use proto::replicated::auth_change::{self, Change};
use proto::replicated::request::Op;
use raft_store::watch::WatchOptions;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

mod attended;

use super::*;
use crate::attended::Attended;
use crate::document::{DesiredKey, Phase, Status, key, parse, parse_desired_key, status_key};
use crate::incus::simulated::SimulatedIncus;
use crate::incus::{Incus, Kind, StateAction};
use crate::node::identity::InitialCluster;
use crate::node::{Node, NodeOptions, bootstrap};
use crate::service::{HostMachine, Manager, Supervisor};
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;
use crate::tunnel::Tunnels;

/// Far more than anything here takes.
const DEADLINE: Duration = Duration::from_secs(30);

const WEB: &str = "/tenants/default/desired/instances/web";

fn web(spec: &str) -> String {
    format!(
        "kind: instance\nname: web\nhost: ovh\nspec:\n  source: {{type: image, alias: busybox}}\n{spec}\n"
    )
}

struct Host {
    node: Node,
    incus: Incus,
    reconciler: Option<(Shutdown, JoinHandle<()>)>,
    attended: Attended,
    tasks: JoinSet<()>,
    _simulated: SimulatedIncus,
    dir: TempDir,
}

impl Host {
    async fn start() -> Host {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("incus.socket");
        let simulated = SimulatedIncus::start(&dir.path().join("incus"), &socket)
            .await
            .unwrap();
        // The only member: nobody ever calls it.
        let urls = vec!["http://127.0.0.1:1".to_owned()];
        let initial_cluster = InitialCluster::parse("ovh=http://127.0.0.1:1", "test").unwrap();
        let identity = initial_cluster.identity("ovh", &urls).unwrap();
        let options = NodeOptions {
            dialer: crate::peer::Dialer::default(),
            name: "ovh".into(),
            data_dir: dir.path().join("member"),
            initial_cluster,
            advertise_peer_urls: urls,
            advertise_client_urls: vec!["http://127.0.0.1:2".into()],
            new_cluster: true,
            heartbeat_interval: Duration::from_millis(20),
            election_timeout: Duration::from_millis(200),
            lease_checkpoint_interval: Duration::from_secs(300),
            snapshot_count: 10_000,
            quota_bytes: 0,
            stopwatch: Metrics::new().stopwatch(),
        };
        let (node, tasks) = bootstrap::start(options, identity).await.unwrap();
        let mut running = JoinSet::new();
        running.spawn(async move {
            tasks.view.run().await;
        });
        running.spawn(tasks.read_index.run());
        running.spawn(tasks.leases.run());
        running.spawn(tasks.form.expect("a new cluster").run());
        let mut view = node.raft_view();
        timeout(DEADLINE, view.wait_for(|view| view.leader != 0))
            .await
            .unwrap()
            .unwrap();
        let incus = Incus::connect(&socket).unwrap();
        std::fs::create_dir_all(dir.path().join("root/etc")).unwrap();
        let mut host = Host {
            node,
            incus,
            reconciler: None,
            attended: Attended::default(),
            tasks: running,
            _simulated: simulated,
            dir,
        };
        host.reconcile();
        host
    }

    fn options() -> ReconcilerOptions {
        ReconcilerOptions {
            host: "ovh".into(),
            provider: "OVH".into(),
            addresses: vec!["51.0.0.10".into()],
        }
    }

    fn reconcile(&mut self) {
        let shutdown = Shutdown::new();
        let (supervisor, supervised) = Supervisor::new(&self.dir.path().join("supervised"));
        self.tasks.spawn(supervisor.run(shutdown.clone()));
        let host = HostMachine::new(&self.root(), None);
        let manager = Some(Manager::Supervised(supervised));
        let hands = Hands::new(
            self.incus.clone(),
            host,
            manager,
            &self.dir.path().join("ledger"),
            Tunnels::new().1,
            None,
        );
        self.attended = hands.attended.clone();
        let reconciler = Reconciler::new(
            self.node.clone(),
            hands,
            Held::none(),
            Boot::unnoticed(),
            &Self::options(),
            Metrics::new().passes(),
        );
        self.reconciler = Some((shutdown.clone(), tokio::spawn(reconciler.run(shutdown))));
    }

    /// What documents for the host itself see as `/`.
    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    async fn stop_reconciling(&mut self) {
        let (shutdown, task) = self.reconciler.take().unwrap();
        shutdown.cancel();
        timeout(DEADLINE, task).await.unwrap().unwrap();
    }

    /// Puts a document where it belongs; its revision.
    async fn put(&self, text: &str) -> i64 {
        self.put_at(&key(&parse(text).unwrap()), text).await
    }

    async fn put_at(&self, key: &str, text: &str) -> i64 {
        let put = PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(text.as_bytes()),
            ..PutRequest::default()
        };
        timeout(DEADLINE, self.node.propose(Op::Put(put)))
            .await
            .unwrap()
            .unwrap()
            .revision
    }

    async fn delete(&self, key: &str) {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let delete = DeleteRangeRequest {
            key,
            ..DeleteRangeRequest::default()
        };
        timeout(DEADLINE, self.node.propose(Op::DeleteRange(delete)))
            .await
            .unwrap()
            .unwrap();
    }

    fn get(&self, key: &str) -> Option<Bytes> {
        let request = RangeRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            ..RangeRequest::default()
        };
        self.node
            .store()
            .range(&request)
            .unwrap()
            .kvs
            .pop()
            .map(|pair| pair.value)
    }

    fn status(&self, document: &str) -> Option<Status> {
        let desired: DesiredKey = parse_desired_key(document).unwrap();
        Some(serde_json::from_slice(&self.get(&status_key(&desired, "ovh"))?).unwrap())
    }

    /// Waits until the key's value, or its absence, is as asked for.
    async fn until_key<T>(&self, key: &str, check: impl Fn(Option<Bytes>) -> Option<T>) -> T {
        let options = WatchOptions {
            key: Bytes::copy_from_slice(key.as_bytes()),
            ..WatchOptions::default()
        };
        let mut watcher = self.node.store().watch_hub().watch(options);
        let wait = async {
            loop {
                if let Some(found) = check(self.get(key)) {
                    return found;
                }
                watcher.recv().await.unwrap();
            }
        };
        match timeout(DEADLINE, wait).await {
            Ok(found) => found,
            Err(_) => panic!("{key} stays {:?}", self.get(key)),
        }
    }

    /// Waits for this phase of the document at this revision.
    async fn until(&self, document: &str, phase: Phase, revision: i64) -> Status {
        let desired = parse_desired_key(document).unwrap();
        self.until_key(&status_key(&desired, "ovh"), |value| {
            let status: Status = serde_json::from_slice(&value?).unwrap();
            (status.phase == phase && status.revision == revision).then_some(status)
        })
        .await
    }

    async fn until_forgotten(&self, document: &str) {
        let desired = parse_desired_key(document).unwrap();
        self.until_key(&status_key(&desired, "ovh"), |value| {
            value.is_none().then_some(())
        })
        .await;
    }

    async fn object(&self, kind: Kind, project: &str, name: &str) -> Option<Value> {
        Some(self.incus.get(kind, project, name).await.unwrap()?.object)
    }

    async fn instance(&self, name: &str) -> Option<Value> {
        self.object(Kind::Instance, "default", name).await
    }

    /// Waits until the instance is as asked for, looking again at every event of Incus.
    async fn until_instance(&self, name: &str, check: impl Fn(&Value) -> bool) {
        let mut events = self.incus.events().await.unwrap();
        let wait = async {
            while !self.instance(name).await.is_some_and(|instance| check(&instance)) {
                events.next().await.unwrap().unwrap();
            }
        };
        assert!(
            timeout(DEADLINE, wait).await.is_ok(),
            "{name} stays {:?}",
            self.instance(name).await
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_lives_as_its_document_does() {
    let host = Host::start().await;
    let revision = host.put(&web("  config: {limits.memory: 256MiB}")).await;
    let status = host.until(WEB, Phase::Ready, revision).await;
    assert_eq!((status.message.as_str(), status.host.as_str()), ("", "ovh"));
    assert_eq!(host.instance("web").await.unwrap()["status"], "Running");

    let revision = host.put(&web("  config: {limits.memory: 512MiB}")).await;
    host.until(WEB, Phase::Ready, revision).await;
    assert_eq!(
        host.instance("web").await.unwrap()["config"]["limits.memory"],
        "512MiB"
    );

    host.incus
        .set_state("default", "web", StateAction::Stop, true, 5)
        .await
        .unwrap();
    host.until_instance("web", |instance| instance["status"] == "Running")
        .await;

    host.delete(WEB).await;
    host.until_forgotten(WEB).await;
    assert_eq!(host.instance("web").await, None);
}

/// The host is the cluster's own: it has no user, and nothing is asked of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auth_hinders_no_host() {
    let host = Host::start().await;
    let root = || "root".to_owned();
    let add = auth_change::UserAdd {
        name: root(),
        ..Default::default()
    };
    let grant = auth_change::UserRole {
        user: root(),
        role: root(),
    };
    for change in [
        Change::UserAdd(add),
        Change::UserGrantRole(grant),
        Change::Enable(auth_change::Enable::default()),
    ] {
        let change = AuthChange { change: Some(change) };
        host.node.propose(Op::Auth(change)).await.unwrap();
    }
    assert!(host.node.store().auth().is_enabled());
    let revision = host.put(&web("")).await;
    host.until(WEB, Phase::Ready, revision).await;
    host.delete(WEB).await;
    host.until_forgotten(WEB).await;
    assert_eq!(host.instance("web").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_made_by_hand_is_never_touched() {
    let host = Host::start().await;
    let by_hand = json!({"name": "web", "source": {"type": "image", "alias": "busybox"},
        "config": {"limits.memory": "1GiB"}});
    host.incus
        .create(Kind::Instance, "default", &by_hand)
        .await
        .unwrap();
    let before = host.instance("web").await;
    let revision = host.put(&web("  config: {limits.memory: 256MiB}")).await;
    host.until(WEB, Phase::Conflict, revision).await;
    host.delete(WEB).await;
    host.until_forgotten(WEB).await;
    assert_eq!(host.instance("web").await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_document_says_so_and_changes_nothing() {
    let host = Host::start().await;
    let good = host.put(&web("  config: {limits.memory: 256MiB}")).await;
    host.until(WEB, Phase::Ready, good).await;
    let before = host.instance("web").await;
    for (text, line, message) in [
        ("kind: [".to_owned(), 1, "not YAML"),
        (
            web("  config: {limits.memroy: 1GiB}"),
            6,
            "did you mean limits.memory?",
        ),
        (web("  profiles: [nosuch]"), 6, "no profile nosuch"),
        (
            web("").replace("kind: instance", "kind: machine"),
            1,
            "no such kind",
        ),
        (
            web("").replace("host: ovh", "host: ovh\ncolour: red"),
            4,
            "no such field",
        ),
    ] {
        let revision = host.put_at(WEB, &text).await;
        let status = host.until(WEB, Phase::Invalid, revision).await;
        assert_eq!(status.line, Some(line), "{status:?}");
        assert!(status.message.contains(message), "{status:?}");
        assert!(
            status
                .message
                .contains(&format!("revision {good} stays in force")),
            "{status:?}"
        );
    }
    assert_eq!(host.instance("web").await, before);
    // The last good one is in force, not only remembered.
    host.incus
        .set_state("default", "web", StateAction::Stop, true, 5)
        .await
        .unwrap();
    host.until_instance("web", |instance| instance["status"] == "Running")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_is_not_there_is_a_bad_reference() {
    let host = Host::start().await;
    let revision = host.put(&web("").replace("busybox", "missing/1")).await;
    let status = host.until(WEB, Phase::Invalid, revision).await;
    assert_eq!(status.line, Some(5));
    assert!(
        status
            .message
            .starts_with("spec.source.alias: no image missing/1"),
        "{status:?}"
    );
    assert_eq!(host.instance("web").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_agent_leaves_instances_alone() {
    let mut host = Host::start().await;
    let revision = host.put(&web("  config: {limits.memory: 256MiB}")).await;
    let status = host.until(WEB, Phase::Ready, revision).await;
    let before = host.instance("web").await;
    host.stop_reconciling().await;
    host.reconcile();
    let revision = host.put("kind: profile\nname: after\nspec: {}\n").await;
    host.until("/tenants/default/desired/profiles/after", Phase::Ready, revision)
        .await;
    assert_eq!(host.instance("web").await, before);
    assert_eq!(host.status(WEB), Some(status));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_virtual_machine_takes_the_same_path() {
    let host = Host::start().await;
    let machine = |fields: &str, config: &str| {
        web(&format!("  type: virtual-machine\n  config: {{{config}}}"))
            .replace("spec:", &format!("{fields}spec:"))
    };
    let revision = host.put(&machine("", "limits.cpu: 2")).await;
    host.until(WEB, Phase::Ready, revision).await;
    assert_eq!(host.instance("web").await.unwrap()["type"], "virtual-machine");
    let revision = host.put(&machine("", "security.secureboot: false")).await;
    host.until(WEB, Phase::Failed, revision).await;
    let revision = host
        .put(&machine(
            "lifecycle: {update: restart}\n",
            "security.secureboot: false",
        ))
        .await;
    host.until(WEB, Phase::Ready, revision).await;
    let revision = host
        .put(&machine("running: false\n", "security.secureboot: false"))
        .await;
    host.until(WEB, Phase::Stopped, revision).await;
    assert_eq!(host.instance("web").await.unwrap()["status"], "Stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_comes_and_goes_in_order() {
    let host = Host::start().await;
    let texts = [
        web("  profiles: [web]").replace("host: ovh", "host: ovh\ntenant: t1"),
        "kind: profile\nname: web\ntenant: t1\nspec: {devices: {root: {type: disk, path: /, pool: default}}}\n".into(),
        "kind: project\nname: t1\nspec: {config: {features.images: false, limits.instances: 5}}\n".into(),
    ];
    let keys = texts.clone().map(|text| key(&parse(&text).unwrap()));
    for text in &texts {
        host.put(text).await;
    }
    for (index, key) in keys.iter().enumerate() {
        let revision = host.node.store().revision();
        let status = host
            .until_key(&status_key(&parse_desired_key(key).unwrap(), "ovh"), |value| {
                serde_json::from_slice::<Status>(&value?)
                    .ok()
                    .filter(|status| status.phase == Phase::Ready)
            })
            .await;
        assert!(status.revision <= revision, "{index}");
    }
    assert_eq!(
        host.object(Kind::Instance, "t1", "web").await.unwrap()["status"],
        "Running"
    );
    for key in keys.iter().rev() {
        host.delete(key).await;
    }
    for key in &keys {
        host.until_forgotten(key).await;
    }
    assert_eq!(host.object(Kind::Project, "", "t1").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_keeps_its_features_when_it_changes() {
    let host = Host::start().await;
    let text = "kind: project\nname: t1\nspec: {config: {features.images: false, limits.instances: 5}}\n";
    let key = "/cluster/desired/projects/t1";
    let revision = host.put(text).await;
    host.until(key, Phase::Ready, revision).await;
    let before = host.object(Kind::Project, "", "t1").await.unwrap();
    let revision = host
        .put(&text.replace("limits.instances: 5", "limits.instances: 9"))
        .await;
    host.until(key, Phase::Ready, revision).await;
    let after = host.object(Kind::Project, "", "t1").await.unwrap();
    assert_eq!(after["config"]["limits.instances"], "9");
    assert_eq!(
        after["config"]["features.profiles"],
        before["config"]["features.profiles"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_brake_holds_a_mass_deletion() {
    let host = Host::start().await;
    let profile = |index: usize| format!("kind: profile\nname: p{index}\nspec: {{}}\n");
    let key_of = |index: usize| format!("/tenants/default/desired/profiles/p{index}");
    for index in 0..5 {
        let revision = host.put(&profile(index)).await;
        host.until(&key_of(index), Phase::Ready, revision).await;
    }
    let range = DeleteRangeRequest {
        key: Bytes::from_static(b"/tenants/default/desired/profiles/"),
        range_end: Bytes::from_static(b"/tenants/default/desired/profiles0"),
        ..DeleteRangeRequest::default()
    };
    host.node.propose(Op::DeleteRange(range)).await.unwrap();
    for index in 0..5 {
        let status = host.until(&key_of(index), Phase::Pending, 0).await;
        assert!(status.message.contains("delete 5 of our 5 objects"), "{status:?}");
        assert!(
            host.object(Kind::Profile, "default", &format!("p{index}"))
                .await
                .is_some()
        );
    }
}

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

/// A template that is wrong says so on every host; nothing is ever made of one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_is_right_or_wrong() {
    const KEY: &str = "/cluster/desired/templates/web";
    let host = Host::start().await;
    let text = "kind: template\nname: web\nspec:\n  variables:\n    APP: {}\n  documents: |\n    kind: profile\n    name: @APP@\n    spec: {}\n";
    let revision = host.put(text).await;
    host.until(KEY, Phase::Ready, revision).await;
    let revision = host.put_at(KEY, &text.replace("@APP@", "@APPP@")).await;
    let status = host.until(KEY, Phase::Invalid, revision).await;
    assert_eq!(status.line, Some(8), "{status:?}");
    assert!(status.message.contains("did you mean APP?"), "{status:?}");
    host.delete(KEY).await;
    host.until_forgotten(KEY).await;
}

/// Whoever put it: a tenant's document keeps to its project, or is told what to ask for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_keeps_to_its_project() {
    const TENANT: &str = "/cluster/desired/tenants/shop";
    const WEB: &str = "/tenants/shop/desired/instances/web";
    let host = Host::start().await;
    let tenant = "kind: tenant\nname: shop\nspec: {limits: {instances: 5}}\n";
    let revision = host.put(tenant).await;
    host.until(TENANT, Phase::Ready, revision).await;
    let project = host.object(Kind::Project, "", "shop").await.unwrap();
    assert_eq!(
        (
            &project["config"]["restricted"],
            &project["config"]["limits.instances"]
        ),
        (&json!("true"), &json!("5"))
    );

    // A new project's profile has no root disk.
    let root = "  devices: {root: {type: disk, path: /, pool: default}}\n";
    let text = |config: &str| web(&format!("{root}{config}")).replace("name: web", "name: web\ntenant: shop");
    let good = host.put_at(WEB, &text("")).await;
    host.until(WEB, Phase::Ready, good).await;
    let nested = text("  config:\n    security.nesting: true");
    let revision = host.put_at(WEB, &nested).await;
    let status = host.until(WEB, Phase::Invalid, revision).await;
    assert_eq!(status.line, Some(9), "{status:?}");
    assert!(
        status
            .message
            .starts_with("spec.config.security.nesting: reaches out")
            && status.message.contains("containers.nesting under spec.allow"),
        "{status:?}"
    );
    let live = host.object(Kind::Instance, "shop", "web").await.unwrap();
    assert_eq!(
        live["config"]["security.nesting"],
        Value::Null,
        "the last good one is in force"
    );

    // The operator allows it: nobody has to put the instance again.
    let allowed = tenant.replace("}}", "}, allow: [containers.nesting]}");
    host.put_at(TENANT, &allowed).await;
    host.until_key(&status_key(&parse_desired_key(WEB).unwrap(), "ovh"), |value| {
        let status: Status = serde_json::from_slice(&value?).unwrap();
        (status.phase != Phase::Invalid).then_some(())
    })
    .await;
    let project = host.object(Kind::Project, "", "shop").await.unwrap();
    assert_eq!(project["config"]["restricted.containers.nesting"], json!("allow"));
}
