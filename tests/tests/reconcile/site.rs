//! One host: an agent, its Incus, and the proxy between them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use agent::document::{self, DesiredKey};
use agent::incus::simulated::SimulatedIncus;
use agent::incus::{Incus, Kind};
use proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, request_op};
use serde_json::Value;
use tempfile::TempDir;
use tests::cluster::{Cluster, Subject};
use tests::lab::{IncusProxy, Lab};
use tests::wait;

/// The host's name, which is the member's.
pub(crate) const HOST: &str = "m0";

pub(crate) struct Site {
    // Before the daemons: fields are dropped in this order, and an agent should not see its Incus go.
    pub(crate) cluster: Cluster,
    pub(crate) proxy: IncusProxy,
    /// Past the proxy.
    pub(crate) incus: Incus,
    _daemon: Daemon,
    _dir: TempDir,
}

/// What answers behind the proxy.
enum Daemon {
    Simulated { _incus: SimulatedIncus },
    Real { _lab: Lab },
}

impl Site {
    pub(crate) async fn simulated(cut: bool) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("incus.socket");
        let incus = SimulatedIncus::start(dir.path(), &socket).await.unwrap();
        Site::start(dir, socket, Daemon::Simulated { _incus: incus }, cut).await
    }

    /// `None`, said aloud, where Incus cannot run.
    pub(crate) async fn real(cut: bool) -> Option<Site> {
        let lab = Lab::running(1).await?;
        let socket = lab.daemons()[0].socket();
        let dir = tempfile::tempdir().unwrap();
        Some(Site::start(dir, socket, Daemon::Real { _lab: lab }, cut).await)
    }

    async fn start(dir: TempDir, upstream: PathBuf, daemon: Daemon, cut: bool) -> Site {
        let proxy = IncusProxy::start(&dir.path().join("proxy.socket"), &upstream, cut).unwrap();
        let cluster = Cluster::builder(&Subject::agent(), 1)
            .incus(&[proxy.socket().to_owned()])
            .start()
            .await;
        Site {
            cluster,
            proxy,
            incus: Incus::connect(&upstream).unwrap(),
            _daemon: daemon,
            _dir: dir,
        }
    }

    /// Kills the agent as a power failure would, and starts it again.
    pub(crate) async fn kill_agent(&mut self) {
        self.cluster.kill(0);
        self.cluster.start(0);
        self.cluster.ready().await;
    }

    /// Stores documents, all at one revision, which is returned.
    pub(crate) async fn put(&self, documents: &[String]) -> i64 {
        let puts = documents.iter().map(|text| {
            let key = document::key(&document::parse(text).unwrap());
            request_op::Request::RequestPut(PutRequest {
                key: key.into(),
                value: text.clone().into(),
                ..PutRequest::default()
            })
        });
        self.txn(puts).await
    }

    pub(crate) async fn delete(&self, documents: &[String]) -> i64 {
        let deletes = documents.iter().map(|text| {
            let key = document::key(&document::parse(text).unwrap());
            request_op::Request::RequestDeleteRange(DeleteRangeRequest {
                key: key.into(),
                ..DeleteRangeRequest::default()
            })
        });
        self.txn(deletes).await
    }

    async fn txn(&self, ops: impl Iterator<Item = request_op::Request>) -> i64 {
        let txn = TxnRequest {
            success: ops
                .map(|request| RequestOp {
                    request: Some(request),
                })
                .collect(),
            ..TxnRequest::default()
        };
        let answer = self.cluster.client(0).kv.txn(txn).await.unwrap().into_inner();
        answer.header.unwrap().revision
    }

    /// What the host says on each document.
    pub(crate) async fn statuses(&self) -> BTreeMap<DesiredKey, Value> {
        let mut found = BTreeMap::new();
        for prefix in document::status_prefixes() {
            let Ok(answer) = self.cluster.client(0).get_prefix(prefix, false).await else {
                continue;
            };
            found.extend(answer.kvs.iter().filter_map(|kv| {
                let (key, host) = document::parse_status_key(std::str::from_utf8(&kv.key).ok()?)?;
                (host == HOST).then_some((key, serde_json::from_slice(&kv.value).ok()?))
            }));
        }
        found
    }

    /// Whether every document is as it was put at `revision`.
    pub(crate) async fn all_ready(&self, documents: &[String], revision: i64) -> bool {
        let statuses = self.statuses().await;
        documents.iter().all(|text| {
            let key = document::parse(text).unwrap().desired_key();
            statuses
                .get(&key)
                .is_some_and(|status| status["phase"] == "Ready" && status["revision"] == revision)
        })
    }

    pub(crate) async fn until_ready(&self, documents: &[String], revision: i64) {
        let ready = wait::within(wait::PATIENCE, "all documents to be ready", async || {
            self.all_ready(documents, revision).await.then_some(())
        });
        if let Err(vain) = ready.await {
            panic!("{vain}: {:#?}", self.statuses().await);
        }
    }

    /// What a status says, once it is in this phase.
    pub(crate) async fn message(&self, text: &str, phase: &str) -> String {
        let key = document::parse(text).unwrap().desired_key();
        let said = wait::within(wait::PATIENCE, phase, async || {
            let status = self.statuses().await.remove(&key)?;
            (status["phase"] == phase).then(|| status["message"].as_str().unwrap_or_default().to_owned())
        });
        match said.await {
            Ok(said) => said,
            Err(vain) => panic!("{vain}: {:#?}", self.statuses().await),
        }
    }

    /// Everything that Incus has, without what differs from run to run: ids, and what Incus itself notes.
    pub(crate) async fn world(&self) -> BTreeMap<String, Value> {
        let mut world = BTreeMap::new();
        for kind in Kind::ALL {
            for live in self.incus.list_all(kind).await.unwrap() {
                let name = format!(
                    "{} {} {}",
                    kind.singular(),
                    live.project(),
                    kind.name_of(&live.object)
                );
                assert!(
                    world.insert(name.clone(), plain(kind, live.object)).is_none(),
                    "{name} is there twice"
                );
            }
        }
        world
    }
}

/// The fields that documents and people set.
fn plain(kind: Kind, mut object: Value) -> Value {
    const KEPT: [&str; 11] = [
        "config",
        "properties",
        "description",
        "devices",
        "profiles",
        "status",
        "type",
        "driver",
        "ingress",
        "ports",
        "aliases",
    ];
    let fields = object.as_object_mut().unwrap();
    fields.retain(|field, _| KEPT.contains(&field.as_str()));
    if kind == Kind::Server {
        fields.retain(|field, _| field == "config");
    }
    if let Some(words) = object.get_mut(kind.config_field()).and_then(Value::as_object_mut) {
        words.retain(|word, _| !word.starts_with("volatile.") && word != "user.agent.revision");
        if let Some(uid) = words.get_mut("user.agent.uid") {
            // Which revision created the document is not the same twice.
            *uid = uid.as_str().unwrap().split('@').next().unwrap().into();
        }
    }
    object
}
