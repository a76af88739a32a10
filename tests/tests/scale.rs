//! Five hundred instances on three real daemons: one revision of so many documents, each made on its host, and what it
//! costs to keep them.

use std::time::{Duration, Instant};

use tests::hosts::Hosts;
use tests::{notes, wait};

const HOSTS: usize = 3;
const INSTANCES: usize = 500;
/// Making them is Incus' work, most of it.
const MADE_WITHIN: Duration = Duration::from_secs(900);
/// Passes that have nothing to do.
const IDLE_PASSES: u64 = 40;
/// A member that keeps anything of every pass grows by more than this in so many.
const GROWTH_MAX_MIB: u64 = 32;

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
    edits(&hosts).await;
    idle_passes(&hosts, IDLE_PASSES).await;
    let before: Vec<u64> = (0..HOSTS).map(|host| resident_mib(&hosts, host)).collect();
    let spent = idle_passes(&hosts, IDLE_PASSES).await;
    let after: Vec<u64> = (0..HOSTS).map(|host| resident_mib(&hosts, host)).collect();
    notes::measured(&format!(
        "a pass over {} instances with nothing to do takes {} ms of processor time; {IDLE_PASSES} of them on each host: \
         from {before:?} to {after:?} MiB resident",
        INSTANCES / HOSTS,
        spent.as_millis()
    ));
    for (before, after) in before.iter().zip(&after) {
        assert!(
            after.saturating_sub(*before) < GROWTH_MAX_MIB,
            "{before} to {after} MiB"
        );
    }
}

/// One document after the other is edited, and seen in Incus.
async fn edits(hosts: &Hosts) {
    let mut took = Vec::new();
    for number in (0..INSTANCES).step_by(50) {
        let file = hosts.file("edit.yaml", &instance(number, "1"));
        let started = Instant::now();
        hosts.agentctl(&["apply", "-f", &file]).await;
        wait::until("the edit to be in Incus", async || {
            let instance = hosts.instance(number % HOSTS, &name(number));
            (instance["config"]["user.edit"] == "1").then_some(())
        })
        .await;
        took.push(started.elapsed().as_millis());
    }
    took.sort_unstable();
    notes::measured(&format!(
        "an edit of one of {INSTANCES} reached Incus after {} ms (median of {}; longest {} ms)",
        took[took.len() / 2],
        took.len(),
        took[took.len() - 1]
    ));
}

/// So many passes on every host, one after the other, started by something that is none of our business; what each took
/// of its agent's processor time.
async fn idle_passes(hosts: &Hosts, wanted: u64) -> Duration {
    let mut spent = Duration::ZERO;
    for host in 0..HOSTS {
        let member = hosts.cluster.member(host);
        let started = member.processor_time();
        let first = passes(hosts, host).await;
        let mut seen = first;
        while seen < first + wanted {
            hosts.incus(
                host,
                &["profile", "set", "default", "user.seen", &seen.to_string()],
            );
            seen = wait::until("a pass", async || {
                let now = passes(hosts, host).await;
                (now > seen).then_some(now)
            })
            .await;
        }
        let each = (member.processor_time() - started) / u32::try_from(seen - first).unwrap_or(u32::MAX);
        spent = spent.max(each);
    }
    spent
}

async fn passes(hosts: &Hosts, host: usize) -> u64 {
    let metrics = hosts.cluster.metrics(host).await;
    let count = metrics.get("agent_reconciler_pass_duration_seconds_count");
    count.copied().map_or(0, |count| count as u64)
}

fn resident_mib(hosts: &Hosts, host: usize) -> u64 {
    hosts.cluster.member(host).resident_mib()
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
