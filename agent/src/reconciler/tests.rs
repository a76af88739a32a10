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
mod host;
mod instances;
mod tenants;

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
