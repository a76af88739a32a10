//! The same random sequences, run on three members of ours and on a real etcd 3.5: equal answers, errors, revisions
//! and watch streams, but for the short list in `allowed`.
//!
//! Each sequence comes from a seed, and begins with an empty store. A run prints its fresh seed; `DIFF_SEED=n` runs
//! that one alone, on its own clusters, and `DIFF_OPS=n` says how many operations a test runs. A sequence that
//! differs is made short and printed as lines for `cases`.

mod allowed;
mod auth;
mod cases;
mod compare;
mod generate;
mod generate_auth;
mod op;
mod run;
mod shrink;
mod stream;
mod wire;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tests::cluster::{Cluster, Subject};
use tests::notes;

use crate::allowed::{ALLOWED, Uses};
use crate::cases::CASES;
use crate::generate::{Profile, sequence};
use crate::op::Op;
use crate::run::Runner;

/// Operations of one test, if `DIFF_OPS` does not say.
const OPERATIONS: usize = 15_000;
/// Operations of one sequence: long enough for histories, short enough to be made shorter.
const LENGTH: usize = 250;
/// Pairs of clusters that work at once.
const PAIRS: usize = 2;
const SHRINK_AT_MOST: Duration = Duration::from_secs(60);

#[tokio::test]
async fn kv() {
    check(Profile::Kv).await;
}

#[tokio::test]
async fn txn() {
    check(Profile::Txn).await;
}

#[tokio::test]
async fn lease() {
    check(Profile::Lease).await;
}

#[tokio::test]
async fn watch() {
    check(Profile::Watch).await;
}

#[tokio::test]
async fn compaction() {
    check(Profile::Compaction).await;
}

#[tokio::test]
async fn everything() {
    check(Profile::Everything).await;
}

#[tokio::test]
async fn auth() {
    check(Profile::Auth).await;
}

/// What once differed.
#[tokio::test]
async fn kept_cases() {
    let Some(etcd) = Subject::etcd() else {
        return notes::skipped("no etcd 3.5");
    };
    let mut pair = Pair::start(&etcd).await;
    let mut uses = Uses::default();
    for case in CASES {
        let steps = case.steps.lines().map(str::trim).filter(|line| !line.is_empty());
        let ops: Vec<Op> = steps.map(Op::parse).collect();
        let found = pair.run(&ops, &mut uses).await;
        assert!(found.is_empty(), "{}:\n{found}", case.name);
    }
}

async fn check(profile: Profile) {
    let Some(etcd) = Subject::etcd() else {
        return notes::skipped("no etcd 3.5");
    };
    let operations = number("DIFF_OPS").unwrap_or(OPERATIONS as u64) as usize;
    let seeds = seeds(operations.div_ceil(LENGTH));
    let next = AtomicUsize::new(0);
    let uses = Mutex::new(Uses::default());
    let started = Instant::now();
    let work = || async {
        let mut pair = Pair::start(&etcd).await;
        while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let ops = sequence(profile, seed, LENGTH);
            let mut used = Uses::default();
            let found = pair.run(&ops, &mut used).await;
            if !found.is_empty() {
                report(&etcd, profile, seed, ops, &found).await;
            }
            let mut uses = uses.lock().expect("no one panicked with it");
            for (name, times) in used {
                *uses.entry(name).or_default() += times;
            }
        }
    };
    join_all((0..PAIRS.min(seeds.len())).map(|_| work())).await;
    let uses = uses.into_inner().expect("no one panicked with it");
    let ran = seeds.len() * LENGTH;
    let seconds = started.elapsed().as_secs();
    notes::measured(&format!(
        "{}: {ran} operations in {seconds} s, no difference but: {uses:?}",
        profile.name()
    ));
    for allowed in ALLOWED.iter().filter(|allowed| uses.contains_key(allowed.name)) {
        println!("{}: {}", allowed.name, allowed.reason);
    }
    if ran >= OPERATIONS {
        let unused = allowed::unused(profile, &uses);
        assert!(unused.is_empty(), "allowed, and never seen: {unused:?}");
    }
}

/// The fixed ones and a fresh one, or the one that was asked for.
fn seeds(count: usize) -> Vec<u64> {
    if let Some(seed) = number("DIFF_SEED") {
        return vec![seed];
    }
    let fresh = rand::random::<u32>().into();
    println!("DIFF_SEED={fresh} is the fresh seed of this run");
    std::iter::once(fresh)
        .chain(0..count.saturating_sub(1) as u64)
        .collect()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number")),
    )
}

/// Makes the sequence short on clusters of its own, and fails the test.
async fn report(etcd: &Subject, profile: Profile, seed: u64, ops: Vec<Op>, found: &str) {
    let name = profile.name();
    eprintln!("DIFF_SEED={seed} of profile {name} shows a difference:\n{found}\nIt is made short now.");
    let mut pair = Pair::start(etcd).await;
    let again = pair.run(&ops, &mut Uses::default()).await;
    assert!(
        !again.is_empty(),
        "DIFF_SEED={seed} of profile {name} shows no difference alone, but did among others:\n{found}"
    );
    let mut last = again;
    let short = shrink::shrink(ops, Instant::now() + SHRINK_AT_MOST, async |fewer: &[Op]| {
        if pair.apart() {
            pair = Pair::start(etcd).await;
        }
        let found = pair.run(fewer, &mut Uses::default()).await;
        let differs = !found.is_empty();
        if differs {
            last = found;
        }
        differs
    })
    .await;
    let lines: Vec<String> = short.iter().map(Op::line).collect();
    panic!(
        "DIFF_SEED={seed} of profile {name} shows a difference:\n{last}\nthe steps:\n{}",
        lines.join("\n")
    );
}

/// The two that are compared.
struct Pair {
    agent: Runner,
    etcd: Runner,
    /// Where the two were after the last sequence.
    places: (op::Place, op::Place),
    _clusters: [Cluster; 2],
    _memory: tempfile::TempDir,
}

impl Pair {
    async fn start(etcd: &Subject) -> Pair {
        // What reaches a disk is not the matter here: memory is faster, where there is any.
        let shared_memory = Path::new("/dev/shm");
        let folder = if shared_memory.is_dir() {
            shared_memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let memory = tempfile::Builder::new()
            .prefix("differential-")
            .tempdir_in(folder)
            .expect("temporary folder");
        let cost = ("--bcrypt-cost", "4");
        let mut members = Cluster::builder(&Subject::agent(), 3).arg(cost.0, cost.1);
        for i in 0..3 {
            members = members.data_dir(i, &memory.path().join(format!("agent{i}")));
        }
        let single = Cluster::builder(etcd, 1)
            .data_dir(0, &memory.path().join("etcd"))
            .arg("--unsafe-no-fsync", "true")
            .arg(cost.0, cost.1);
        let clusters = [members.start().await, single.start().await];
        let [agent, etcd] = &clusters;
        let (mut agent, mut etcd) = (Runner::new(agent), Runner::new(etcd));
        tokio::join!(agent.clean(), etcd.clean());
        Pair {
            agent,
            etcd,
            places: Default::default(),
            _clusters: clusters,
            _memory: memory,
        }
    }

    /// Runs a sequence on both, and says what differs without being allowed to.
    async fn run(&mut self, ops: &[Op], uses: &mut Uses) -> String {
        let (agent, etcd) = tokio::join!(self.agent.run(ops), self.etcd.run(ops));
        self.places = (agent.place, etcd.place);
        compare::unexplained(ops, &agent, &etcd, uses)
    }

    /// Whether a sequence left the two at different revisions, so that another cannot begin alike.
    fn apart(&self) -> bool {
        self.places.0 != self.places.1
    }
}
