//! Five hundred instances on three real daemons: what a host spends on looking at them when nothing is to be done, how
//! long an edit takes among so many, and whether memory grows with time.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest, request_op::Request};
use tests::hosts::Hosts;
use tests::{notes, wait};

const HOSTS: usize = 3;
const INSTANCES: usize = 500;
/// Making them is Incus' work, most of it.
const MADE_WITHIN: Duration = Duration::from_secs(900);
/// Processor time of a full pass with nothing to do.
const PASS_WITHIN: Duration = Duration::from_secs(1);
/// What a person who changed one document would put up with. What it does take is printed.
const REACHES_WITHIN: Duration = Duration::from_secs(10);
/// Passes that find nothing to do, to take the mean of.
const ROUNDS: u32 = 10;
const EDITS: usize = 20;
/// What an allocator may keep; a leak of one pass' lists would be more after so many passes.
const GROWTH_MAX_MIB: u64 = 16;

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

    passes_with_nothing_to_do(&hosts, "before").await;
    let before = resident(&hosts);
    edits_reach_incus(&hosts).await;
    passes_with_nothing_to_do(&hosts, "after").await;
    let after = resident(&hosts);
    notes::measured(&format!(
        "MiB resident before and after {EDITS} edits: {before:?} {after:?}"
    ));
    for (before, after) in before.iter().zip(&after) {
        assert!(
            after.saturating_sub(*before) <= GROWTH_MAX_MIB,
            "{before} -> {after} MiB"
        );
    }
}

/// Each round changes only a remark in one document of every host, all at one revision: each host passes over
/// everything, finds nothing to do, and says so of that document and of no other.
async fn passes_with_nothing_to_do(hosts: &Hosts, when: &str) {
    let before: Vec<Duration> = processor_time(hosts);
    for round in 0..ROUNDS {
        let remark = format!("# round {round} {when} the edits\n");
        let since = put(
            hosts,
            &[0, 1, 2].map(|number| (number, remark.clone() + &instance(number, "0"))),
        )
        .await;
        for number in 0..HOSTS {
            hosts
                .reported(number, &format!("instances/{}", name(number)), "Stopped", since)
                .await;
        }
        let said: BTreeSet<String> = said_since(hosts, since).await;
        let expected =
            (0..HOSTS).map(|number| format!("/tenants/default/status/instances/{}/m{number}", name(number)));
        assert_eq!(said, expected.collect(), "what is as it was is not said again");
    }
    let passes: Vec<Duration> = before
        .iter()
        .zip(processor_time(hosts))
        .map(|(before, after)| (after - *before) / ROUNDS)
        .collect();
    notes::measured(&format!(
        "processor time of a pass with nothing to do, each host, {when} the edits: {passes:?}"
    ));
    for (host, pass) in passes.iter().enumerate() {
        assert!(
            *pass < PASS_WITHIN,
            "m{host}: {pass:?} of processor time for a pass"
        );
    }
}

async fn edits_reach_incus(hosts: &Hosts) {
    let mut took = Vec::new();
    for edit in 0..EDITS {
        let number = HOSTS + edit;
        let value = format!("edit {edit}");
        let edited = Instant::now();
        put(hosts, &[(number, instance(number, &value))]).await;
        let reached = wait::within(REACHES_WITHIN, "the edit to reach Incus", async || {
            let live = hosts.instance(number % HOSTS, &name(number));
            (live["config"]["user.edit"] == value.as_str()).then(|| edited.elapsed())
        });
        took.push(reached.await.expect("an edit that is made soon"));
    }
    took.sort();
    notes::measured(&format!(
        "an edit among {INSTANCES} reached Incus after {} ms (median), {} ms (longest)",
        took[EDITS / 2].as_millis(),
        took[EDITS - 1].as_millis()
    ));
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

/// Stores some instances' documents at one revision, which is returned.
async fn put(hosts: &Hosts, documents: &[(usize, String)]) -> i64 {
    let success = documents.iter().map(|(number, text)| RequestOp {
        request: Some(Request::RequestPut(PutRequest {
            key: format!("/tenants/default/desired/instances/{}", name(*number)).into(),
            value: text.clone().into(),
            ..PutRequest::default()
        })),
    });
    let txn = TxnRequest {
        success: success.collect(),
        ..TxnRequest::default()
    };
    let answer = hosts
        .cluster
        .client(0)
        .kv
        .txn(txn)
        .await
        .expect("documents are stored");
    answer.into_inner().header.expect("a header").revision
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

/// The keys of statuses that were written after a revision.
async fn said_since(hosts: &Hosts, revision: i64) -> BTreeSet<String> {
    let mut client = hosts.cluster.client(0);
    let answer = client.get_prefix("/tenants/default/status/", false).await;
    let kvs = answer.expect("the statuses").kvs;
    kvs.iter()
        .filter(|kv| kv.mod_revision > revision)
        .map(|kv| String::from_utf8_lossy(&kv.key).into_owned())
        .collect()
}

fn processor_time(hosts: &Hosts) -> Vec<Duration> {
    hosts
        .cluster
        .members()
        .iter()
        .map(tests::cluster::Member::processor_time)
        .collect()
}

fn resident(hosts: &Hosts) -> Vec<u64> {
    hosts
        .cluster
        .members()
        .iter()
        .map(tests::cluster::Member::resident_mib)
        .collect()
}
