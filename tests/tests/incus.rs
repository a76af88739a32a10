//! Documents, three agents, and a real Incus at each: what is written becomes so, and nothing else is touched.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::hosts::Hosts;
use tests::{notes, wait};

const WEB: &str = "instances/web";

/// What a change may take to reach Incus. What it does take is printed.
const REACHES_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn life_of_an_instance() {
    let Some(mut hosts) = Hosts::builder(3).start().await else {
        return;
    };
    hosts.incus(0, &["launch", "busybox", "byhand"]);
    let untouched = by_hand(&hosts);

    let revision = hosts.apply(&web("64MiB")).await;
    hosts.running(0, "web").await;
    let status = hosts.agentctl(&["status", "--wait=60s"]).await;
    assert!(
        status.contains("Ready") && status.contains(&revision.to_string()),
        "revision {revision} in:\n{status}"
    );
    assert!(
        hosts.list(1).is_empty() && hosts.list(2).is_empty(),
        "other hosts have nothing of it"
    );

    changed_live(&hosts).await;
    stopped_by_hand_is_healed(&hosts).await;
    agents_restart(&mut hosts).await;
    moved_to_another_name(&hosts).await;

    let deleted = hosts.agentctl(&["delete", "instance", "web"]).await;
    assert!(deleted.contains("instance web"), "{deleted}");
    wait::until("the instance to be deleted", async || {
        (!hosts.list(0).contains(&"web".to_owned())).then_some(())
    })
    .await;
    assert_eq!(
        by_hand(&hosts),
        untouched,
        "what was made by hand is never touched"
    );
}

async fn changed_live(hosts: &Hosts) {
    let pid = hosts.pid(0, "web");
    let edited = Instant::now();
    hosts
        .agentctl(&[
            "kv",
            "put",
            "/tenants/default/desired/instances/web",
            &web("96MiB"),
        ])
        .await;
    let reached = wait::within(REACHES_WITHIN, "limits.memory to reach Incus", async || {
        (hosts.memory(0, "web") == "96MiB").then(|| edited.elapsed())
    });
    let reached = reached.await.expect("the change reaches Incus");
    notes::measured(&format!(
        "an edit of limits.memory reached Incus after {} ms",
        reached.as_millis()
    ));
    assert_eq!(hosts.pid(0, "web"), pid, "changed while it runs");
}

async fn stopped_by_hand_is_healed(hosts: &Hosts) {
    hosts.incus(0, &["stop", "--force", "web"]);
    let stopped = Instant::now();
    hosts.running(0, "web").await;
    notes::measured(&format!(
        "stopped by hand, running again after {} ms",
        stopped.elapsed().as_millis()
    ));
}

/// Neither a kill nor a stop of an agent is felt by what it looks after.
async fn agents_restart(hosts: &mut Hosts) {
    let pid = hosts.pid(0, "web");
    hosts.cluster.kill(0);
    hosts.cluster.start(0);
    hosts.cluster.ready().await;
    hosts.cluster.terminate(0).await;
    hosts.cluster.start(0);
    hosts.cluster.ready().await;
    // A change that arrives says that the agent has been all over its documents.
    hosts
        .agentctl(&[
            "kv",
            "put",
            "/tenants/default/desired/instances/web",
            &web("128MiB"),
        ])
        .await;
    wait::until("the restarted agent to work", async || {
        (hosts.memory(0, "web") == "128MiB").then_some(())
    })
    .await;
    assert_eq!(
        hosts.pid(0, "web"),
        pid,
        "the instance was restarted with its agent"
    );
}

/// A document of a name that is there already, and not ours, is a conflict.
async fn moved_to_another_name(hosts: &Hosts) {
    hosts
        .apply(&web("64MiB").replace("name: web", "name: byhand"))
        .await;
    let status = hosts.reported(0, "instances/byhand", "Conflict", None).await;
    assert!(
        !status["message"].as_str().unwrap_or_default().is_empty(),
        "{status}"
    );
    hosts.agentctl(&["delete", "instance", "byhand"]).await;
    hosts.forgotten(0, "instances/byhand").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_documents_change_nothing() {
    let Some(hosts) = Hosts::builder(1).start().await else {
        return;
    };
    hosts.apply(&web("64MiB")).await;
    hosts.running(0, "web").await;
    let (pid, before) = (hosts.pid(0, "web"), hosts.list(0));

    // What stands in the document, the line that is named (0: whichever), a word of the reason.
    let wrong = [
        ("name: web\n  host: [".to_owned(), 0, ""),
        (
            web("64MiB").replace("kind: instance", "kind: instanze"),
            1,
            "instanze",
        ),
        (web("64MiB").replace("running: true", "runing: true"), 4, "runing"),
        (web("64MiB").replace("host: m0", "hots: m0"), 3, "hots"),
    ];
    for (text, line, reason) in wrong {
        hosts
            .agentctl(&["kv", "put", "/tenants/default/desired/instances/web", &text])
            .await;
        let what = format!("a status Invalid with `{reason}` of:\n{text}");
        let status = wait::until(&what, async || {
            let status = hosts.status(0, WEB).await?;
            let message = status["message"].as_str()?.to_owned();
            (status["phase"] == "Invalid" && message.contains(reason)).then_some(status)
        });
        let status = status.await;
        assert!(
            line == 0 || status["line"] == line,
            "line {line} of:\n{text}\n{status}"
        );
        let shown = hosts.agentctl_says(&["status"]).await;
        assert!(shown.contains("Invalid") && shown.contains(reason), "{shown}");
        assert_eq!(
            (hosts.pid(0, "web"), hosts.list(0)),
            (pid, before.clone()),
            "the last good one is in force"
        );
    }

    // A reference to what is not there: nothing is made of it, and the status names it.
    let missing = web("64MiB")
        .replace("name: web", "name: other")
        .replace("[default]", "[nosuch]");
    hosts
        .agentctl(&["kv", "put", "/tenants/default/desired/instances/other", &missing])
        .await;
    wait::until("the missing profile to be named", async || {
        let status = hosts.status(0, "instances/other").await?;
        (status["phase"] != "Ready" && status["message"].as_str()?.contains("nosuch")).then_some(())
    })
    .await;
    assert_eq!((hosts.pid(0, "web"), hosts.list(0)), (pid, before));
}

fn web(memory: &str) -> String {
    format!(
        "kind: instance
name: web
host: m0
running: true
spec:
  type: container
  profiles: [default]
  config: {{limits.memory: {memory}}}
  source: {{type: image, alias: busybox}}
"
    )
}

/// Everything about the instance made by hand that a meddler would change.
fn by_hand(hosts: &Hosts) -> Value {
    let instance = hosts.instance(0, "byhand");
    let fields = [
        "config",
        "devices",
        "profiles",
        "status",
        "description",
        "last_used_at",
    ];
    let kept: Vec<Value> = fields.iter().map(|field| instance[*field].clone()).collect();
    Value::Array([kept, vec![Value::from(hosts.pid(0, "byhand"))]].concat())
}
