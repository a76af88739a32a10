//! Random operations on a log and on a model of it, with starts in between.
//!
//! A failure prints the smallest case, and the seed that finds it again: `SEED=... cargo test random_steps`.

use std::hash::{BuildHasher, Hasher, RandomState};

use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use raft_store::{Entry, LogId, LogStore, Vote};

use crate::fixture::{Contents, Fixture, append, contents, entry, log_id, settle};

#[derive(Clone, Debug)]
enum Step {
    /// Values of these sizes; waited for or not.
    Append {
        sizes: Vec<usize>,
        wait: bool,
    },
    /// Keeps this part of the entries, in percent.
    Truncate {
        keep: u64,
    },
    /// Drops this part of the entries; over 100: past the end.
    Purge {
        part: u64,
    },
    Vote {
        term: u64,
        committed: bool,
    },
    /// Commits this part of the entries.
    Commit {
        part: u64,
    },
    Read {
        start: u64,
        length: u64,
    },
    Reopen,
    /// As after a kill: a copy of the files while the log is open.
    Kill,
}

#[derive(Clone, Copy, Debug)]
struct Sizes {
    segment_bytes: u64,
    cache_bytes: usize,
}

fn steps() -> impl Strategy<Value = (Sizes, Vec<Step>)> {
    let step = prop_oneof![
        6 => (proptest::collection::vec(0_usize..300, 0..6), any::<bool>())
            .prop_map(|(sizes, wait)| Step::Append { sizes, wait }),
        2 => (0_u64..=100).prop_map(|keep| Step::Truncate { keep }),
        2 => (0_u64..=120).prop_map(|part| Step::Purge { part }),
        1 => (0_u64..9, any::<bool>()).prop_map(|(term, committed)| Step::Vote { term, committed }),
        2 => (0_u64..=100).prop_map(|part| Step::Commit { part }),
        2 => (0_u64..60, 0_u64..20).prop_map(|(start, length)| Step::Read { start, length }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
    ];
    let sizes = (100_u64..3000, 0_usize..4000).prop_map(|(segment_bytes, cache_bytes)| Sizes {
        segment_bytes,
        cache_bytes,
    });
    (sizes, proptest::collection::vec(step, 1..60))
}

/// The log as a list.
struct Model {
    contents: Contents,
    term: u64,
    values: u8,
}

impl Model {
    fn new() -> Model {
        let contents = Contents {
            vote: None,
            committed: None,
            purged: None,
            last: None,
            entries: Vec::new(),
        };
        Model {
            contents,
            term: 1,
            values: 0,
        }
    }

    fn next_index(&self) -> u64 {
        self.contents.last.map_or(0, |last| last.index() + 1)
    }

    /// The log id at a part of the entries, in percent; past the end above 100.
    fn at(&self, part: u64) -> Option<LogId> {
        let entries = &self.contents.entries;
        let first = entries.first()?.log_id.index();
        let index = first + entries.len() as u64 * part / 100;
        let known = entries
            .iter()
            .map(|entry| entry.log_id)
            .find(|id| id.index() == index);
        Some(known.unwrap_or_else(|| log_id(self.term, index)))
    }

    fn new_entries(&mut self, sizes: &[usize]) -> Vec<Entry> {
        let start = self.next_index();
        let entries: Vec<Entry> = (start..)
            .zip(sizes)
            .map(|(index, size)| {
                self.values = self.values.wrapping_add(1);
                entry(self.term, index, &vec![self.values; *size])
            })
            .collect();
        self.contents.entries.extend(entries.iter().cloned());
        self.settle();
        entries
    }

    fn truncate_after(&mut self, after: Option<LogId>) {
        self.contents
            .entries
            .retain(|entry| after.is_some_and(|after| entry.log_id.index() <= after.index()));
        self.settle();
    }

    fn purge(&mut self, upto: LogId) {
        self.contents
            .entries
            .retain(|entry| entry.log_id.index() > upto.index());
        self.contents.purged = self.contents.purged.max(Some(upto));
        self.settle();
    }

    fn settle(&mut self) {
        self.contents.last = self
            .contents
            .entries
            .last()
            .map(|entry| entry.log_id)
            .or(self.contents.purged);
    }
}

async fn step(fixture: &Fixture, log: LogStore, model: &mut Model, step: &Step) -> LogStore {
    let mut log = log;
    match step {
        Step::Append { sizes, wait } => {
            let entries = model.new_entries(sizes);
            if *wait {
                append(&mut log, entries).await.unwrap();
            } else {
                log.append(entries, IOFlushed::noop()).await.unwrap();
            }
        }
        Step::Truncate { keep } => {
            let after = model.at(*keep).filter(|_| *keep > 0);
            // The leader that overwrites has another term; most of the time.
            model.term += keep % 3;
            model.truncate_after(after);
            log.truncate_after(after).await.unwrap();
        }
        Step::Purge { part } => {
            if let Some(upto) = model.at(*part) {
                model.purge(upto);
                log.purge(upto).await.unwrap();
            }
        }
        Step::Vote { term, committed } => {
            let vote = if *committed {
                Vote::new_committed(*term, 7)
            } else {
                Vote::new(*term, 7)
            };
            model.contents.vote = Some(vote);
            log.save_vote(&vote).await.unwrap();
        }
        Step::Commit { part } => {
            let committed = model.at(*part).filter(|_| *part > 0);
            model.contents.committed = committed;
            log.save_committed(committed).await.unwrap();
        }
        Step::Read { start, length } => {
            let range = *start..start + length;
            let expected: Vec<Entry> = model
                .contents
                .entries
                .iter()
                .filter(|entry| range.contains(&entry.log_id.index()))
                .cloned()
                .collect();
            assert_eq!(log.try_get_log_entries(range).await.unwrap(), expected);
        }
        Step::Reopen => {
            drop(log);
            log = fixture.open();
        }
        Step::Kill => {
            settle(&mut log).await;
            // Segments are deleted after the answer; the next answer comes after that.
            settle(&mut log).await;
            assert_eq!(contents(&mut fixture.copy().open()).await, model.contents);
        }
    }
    log
}

fn check(sizes: Sizes, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let fixture = Fixture::new(sizes.segment_bytes, sizes.cache_bytes);
        let mut log = fixture.open();
        let mut model = Model::new();
        for next in steps {
            log = step(&fixture, log, &mut model, next).await;
            assert_eq!(contents(&mut log).await, model.contents, "after {next:?}");
        }
        drop(log);
        assert_eq!(
            contents(&mut fixture.open()).await,
            model.contents,
            "after the last start"
        );
    });
}

/// Seeds that once failed. After you find one, put it here.
const FOUND_SEEDS: [u64; 1] = [
    // A roll of an empty segment gave its successor the same name, and later deleted it.
    16_820_222_529_296_924_433,
];

fn run(seed: u64, cases: u32) {
    println!("SEED={seed}");
    let config = Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&steps(), |(sizes, steps)| {
        check(sizes, &steps);
        Ok(())
    });
    if let Err(error) = result {
        panic!("SEED={seed}: {error}");
    }
}

/// `SEED` runs one seed again; `CASES` sets how many cases there are.
#[test]
fn random_steps() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse::<u64>().ok())
    };
    let seed = number("SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish());
    run(
        seed,
        number("CASES").map_or(150, |cases| u32::try_from(cases).unwrap()),
    );
}

#[test]
fn found_seeds() {
    for seed in FOUND_SEEDS {
        run(seed, 150);
    }
}
