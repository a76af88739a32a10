//! Five hundred instances on three real daemons: one revision of so many documents, and each made on its host.

use std::time::{Duration, Instant};

use tests::hosts::Hosts;
use tests::{notes, wait};

const HOSTS: usize = 3;
const INSTANCES: usize = 500;
/// Making them is Incus' work, most of it.
const MADE_WITHIN: Duration = Duration::from_secs(900);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "CI has the minutes that it takes to make 500 instances"]
async fn five_hundred_instances() {
    let Some(hosts) = Hosts::builder(HOSTS).start().await else {
        return;
    };
    let started = Instant::now();
    let documents: Vec<String> = (0..INSTANCES).map(|number| instance(number, "0")).collect();
    hosts.apply(&documents.join("---\n")).await;
    until_all_ready(&hosts).await;
    notes::measured(&format!(
        "{INSTANCES} documents were ready after {} s",
        started.elapsed().as_secs()
    ));
    for host in 0..HOSTS {
        let expected = (0..INSTANCES).filter(|number| number % HOSTS == host).count();
        assert_eq!(hosts.list(host).len(), expected, "m{host}");
    }
}

fn name(number: usize) -> String {
    format!("i{number:03}")
}

fn instance(number: usize, edit: &str) -> String {
    format!(
        "kind: instance\nname: {}\nhost: m{}\nrunning: false\nspec:\n  profiles: [default]\n  \
         config: {{limits.memory: 64MiB, user.edit: {edit}}}\n  source: {{type: none}}\n",
        name(number),
        number % HOSTS
    )
}

async fn until_all_ready(hosts: &Hosts) {
    let ready = wait::within(MADE_WITHIN, "all instances to be there", async || {
        let stopped = statuses(hosts).await.matches(r#""phase":"Stopped""#).count();
        (stopped == INSTANCES).then_some(())
    });
    if let Err(vain) = ready.await {
        panic!("{vain}:\n{}", hosts.agentctl(&["status"]).await);
    }
}

async fn statuses(hosts: &Hosts) -> String {
    let mut client = hosts.cluster.client(0);
    let answer = client.get_prefix("/tenants/default/status/", false).await;
    let kvs = answer.map(|answer| answer.kvs).unwrap_or_default();
    kvs.iter().map(|kv| String::from_utf8_lossy(&kv.value)).collect()
}
