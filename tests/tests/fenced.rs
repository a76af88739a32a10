//! `failover: fenced`, with real Incus daemons: the instance runs on one host at a time, whatever becomes of agents.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::hosts::Hosts;
use tests::wait;

const DOCUMENT: &str = "kind: instance\nname: web\nplacement: {failover: fenced}\nspec:\n  type: container\n  \
                        source: {type: image, alias: busybox}\n";
const BINDING: &str = "/tenants/default/bindings/instances/web";
/// The longest way: a new leader, the host's lease, its deadline, and the margin beyond.
const FAILOVER: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_host_takes_it_over() {
    let Some((mut hosts, first)) = fenced().await else {
        return;
    };
    an_agent_that_restarts_changes_nothing(&mut hosts, first).await;

    // Nothing is worse than an agent that is still there: it may go on at any moment.
    hosts.cluster.member(first).signal(Signal::SIGSTOP);
    let asked = (first + 1) % 3;
    hosts.ask(Some(asked));
    forget_that_it_is_alive(&hosts, first, asked).await;
    let second = wait::within(FAILOVER, "another host to have it", async || {
        let running = running_on(&hosts);
        assert!(running.len() <= 1, "it runs on {running:?}");
        running.into_iter().find(|host| *host != first)
    })
    .await
    .unwrap_or_else(|vain| panic!("{vain}: stands at {first}"));
    let bound = binding(&hosts, asked).await;
    assert_eq!(bound["host"], format!("m{second}"));
    assert_eq!(bound["epoch"], 2);
    let reason = bound["reason"].as_str().unwrap_or_default();
    assert!(
        reason.starts_with(&format!("m{first} said nothing since")),
        "{reason}"
    );

    hosts.cluster.member(first).signal(Signal::SIGCONT);
    wait::until("the host that is back to say what it has", async || {
        let running = running_on(&hosts);
        assert_eq!(running, [second], "back again");
        let said = hosts.status(first, "instances/web").await?;
        let message = said["message"].as_str()?;
        message
            .starts_with(&format!("it is on m{second} now; this copy is stopped and kept"))
            .then_some(())
    })
    .await;
}

/// Its host is alive, and cut off from the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_it_stops() {
    let Some((mut hosts, at)) = fenced().await else {
        return;
    };
    let others = [(at + 1) % 3, (at + 2) % 3];
    for other in others {
        hosts.cluster.kill(other);
    }
    wait::until("the instance to be stopped", async || {
        running_on(&hosts).is_empty().then_some(())
    })
    .await;
    for other in others {
        hosts.cluster.start(other);
    }
    wait::until("the instance to run again", async || {
        (running_on(&hosts) == [at]).then_some(())
    })
    .await;
}

/// Three hosts, and the one that the instance runs on, fenced.
async fn fenced() -> Option<(Hosts, usize)> {
    let hosts = Hosts::builder(3).start().await?;
    hosts.apply(DOCUMENT).await;
    hosts.agentctl(&["status", "--wait=120s"]).await;
    let running = running_on(&hosts);
    let [at] = running.as_slice() else {
        panic!("it runs on {running:?}")
    };
    assert_eq!(
        hosts.instance(*at, "web")["config"]["boot.autostart"],
        "false",
        "Incus is not to start it after a boot"
    );
    let at = *at;
    assert!(binding(&hosts, at).await["fence_seconds"].is_u64());
    Some((hosts, at))
}

async fn an_agent_that_restarts_changes_nothing(hosts: &mut Hosts, at: usize) {
    let process = hosts.pid(at, "web");
    hosts.cluster.kill(at);
    hosts.cluster.start(at);
    hosts.cluster.ready().await;
    hosts.agentctl(&["status", "--wait=60s"]).await;
    assert_eq!(hosts.pid(at, "web"), process);
}

/// Its lease would run out a minute from now.
async fn forget_that_it_is_alive(hosts: &Hosts, silent: usize, asked: usize) {
    let key = format!("/hosts/m{silent}/alive");
    wait::until("the lease of the silent host to be revoked", async || {
        let mut client = hosts.cluster.client(asked);
        let found = client.get_prefix(&key, false).await.ok()?;
        let lease = found.kvs.first().map_or(0, |kv| kv.lease);
        if lease == 0 {
            return Some(());
        }
        let id = proto::etcdserverpb::LeaseRevokeRequest { id: lease };
        client.lease.lease_revoke(id).await.ok().map(|_| ())
    })
    .await;
}

fn running_on(hosts: &Hosts) -> Vec<usize> {
    (0..3)
        .filter(|host| hosts.instance(*host, "web")["status"] == "Running")
        .collect()
}

async fn binding(hosts: &Hosts, asked: usize) -> Value {
    let mut client = hosts.cluster.client(asked);
    let found = client.get_prefix(BINDING, false).await.expect("the binding");
    let kv = found.kvs.first().expect("a binding");
    serde_json::from_slice(&kv.value).expect("a binding in JSON")
}
