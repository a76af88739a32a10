//! Clients at different members at the same time, and the leader killed between: what each was answered fits one
//! order of all writes, which is the order of the revisions, and that order keeps to real time.
//!
//! The order itself is read back as the watch history from the first revision on; a request without an answer may
//! be in it or not. Runs on a real etcd too: the check holds for what it was made after.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
    WatchRequest, response_op::Response,
};
use proto::mvccpb::event::EventType;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tests::client::Client;
use tests::cluster::{Cluster, Subject};
use tests::{notes, wait};
use tokio::sync::watch;
use tonic::Status;

const CLIENTS: u64 = 6;
const KEYS: u32 = 4;
/// Acknowledged requests of all clients before the leader dies, and again after it came back.
const SOME: usize = 400;
/// An attempt is given up after this long.
const ATTEMPT: Duration = Duration::from_secs(1);

mod etcd {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn leader_killed() {
        match tests::cluster::Subject::etcd() {
            Some(subject) => super::leader_killed(subject).await,
            None => tests::notes::skipped("no etcd 3.5"),
        }
    }
}

mod agent {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn leader_killed() {
        super::leader_killed(tests::cluster::Subject::agent()).await;
    }
}

/// What a client asked. Every value is written once.
#[derive(Clone, Debug)]
enum Ask {
    Put {
        key: String,
        value: String,
    },
    Delete {
        key: String,
    },
    /// Changes a key if it still has this value, reads it otherwise.
    Swap {
        key: String,
        from: String,
        to: String,
    },
    Get {
        key: String,
    },
}

/// What it was answered.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    /// It wrote, and the value was this before, where it was asked for.
    Wrote { before: Option<String> },
    /// It wrote nothing, and saw this.
    Saw { value: Option<String> },
}

#[derive(Clone, Debug)]
struct Answered {
    ask: Ask,
    said: Said,
    revision: i64,
    asked: Instant,
    answered: Instant,
}

/// Every revision's change: a key, and its value from then on.
type Order = BTreeMap<i64, (String, Option<String>)>;

async fn leader_killed(subject: Subject) {
    let seed = rand::random();
    println!("the clients' seed is {seed}");
    let mut cluster = Cluster::builder(&subject, 3).start().await;
    let (stop, stopped) = watch::channel(false);
    let (count, mut counted) = watch::channel(0);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let endpoints = cluster.endpoints();
            tokio::spawn(ask_until(stopped.clone(), count.clone(), endpoints, seed, number))
        })
        .collect();
    wait_for(&mut counted, SOME).await;
    let leader = cluster.leader().await;
    cluster.kill(leader);
    let before = *counted.borrow();
    wait_for(&mut counted, before + SOME).await;
    cluster.start(leader);
    cluster.ready().await;
    let before = *counted.borrow();
    wait_for(&mut counted, before + SOME).await;
    stop.send(true).expect("the clients listen");
    let mut history = Vec::new();
    for client in clients {
        history.extend(client.await.expect("a client"));
    }
    for i in 0..cluster.len() {
        let order = read_order(cluster.client(i)).await;
        if let Err(wrong) = check(&order, &history) {
            panic!("seed {seed}, as m{i} tells the order: {wrong}");
        }
    }
    notes::measured(&format!(
        "{}: {} answers through a kill of the leader are linearizable",
        subject.name(),
        history.len()
    ));
}

async fn wait_for(counted: &mut watch::Receiver<usize>, target: usize) {
    let enough = tokio::time::timeout(wait::PATIENCE, counted.wait_for(|count| *count >= target));
    enough
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {target} answers"))
        .expect("the clients go on");
}

/// Asks the members in turn. An error moves on to the next one: whether it was done then is not known.
async fn ask_until(
    stop: watch::Receiver<bool>,
    count: watch::Sender<usize>,
    endpoints: Vec<String>,
    seed: u64,
    number: u64,
) -> Vec<Answered> {
    let mut random = StdRng::seed_from_u64(seed ^ number);
    let mut clients: Vec<Client> = endpoints.iter().map(|endpoint| Client::new(endpoint)).collect();
    let mut history = Vec::new();
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for turn in 0.. {
        if *stop.borrow() {
            break;
        }
        let ask = choose(&mut random, &known, &format!("{number}/{turn}"));
        let member = random.random_range(0..clients.len());
        let asked = Instant::now();
        let said = tokio::time::timeout(ATTEMPT, ask.send(&mut clients[member])).await;
        if let Ok(Ok((said, revision))) = said {
            match (&ask, &said) {
                (Ask::Put { key, value }, _)
                | (Ask::Swap { key, to: value, .. }, Said::Wrote { .. })
                | (Ask::Get { key } | Ask::Swap { key, .. }, Said::Saw { value: Some(value) }) => {
                    known.insert(key.clone(), value.clone());
                }
                _ => {}
            }
            history.push(Answered {
                ask,
                said,
                revision,
                asked,
                answered: Instant::now(),
            });
            count.send_modify(|count| *count += 1);
        } else {
            // A member that is down refuses at once.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    history
}

fn choose(random: &mut StdRng, known: &BTreeMap<String, String>, value: &str) -> Ask {
    let key = format!("k{}", random.random_range(0..KEYS));
    let value = value.to_owned();
    match random.random_range(0..10) {
        0..3 => Ask::Put { key, value },
        3 => Ask::Delete { key },
        4..7 => match known.get(&key) {
            Some(from) => Ask::Swap {
                from: from.clone(),
                key,
                to: value,
            },
            None => Ask::Put { key, value },
        },
        _ => Ask::Get { key },
    }
}

impl Ask {
    fn key(&self) -> &str {
        match self {
            Ask::Put { key, .. } | Ask::Delete { key } | Ask::Swap { key, .. } | Ask::Get { key } => key,
        }
    }

    async fn send(&self, client: &mut Client) -> Result<(Said, i64), Status> {
        let revision =
            |header: Option<proto::etcdserverpb::ResponseHeader>| header.map_or(0, |header| header.revision);
        let get = |key: &str| RangeRequest {
            key: key.to_owned().into(),
            ..Default::default()
        };
        Ok(match self {
            Ask::Put { key, value } => {
                let put = PutRequest {
                    prev_kv: true,
                    ..put(key, value)
                };
                let said = client.kv.put(put).await?.into_inner();
                let before = said.prev_kv.map(|kv| text(&kv.value));
                (Said::Wrote { before }, revision(said.header))
            }
            Ask::Delete { key } => {
                let delete = DeleteRangeRequest {
                    key: key.clone().into(),
                    prev_kv: true,
                    ..Default::default()
                };
                let said = client.kv.delete_range(delete).await?.into_inner();
                let before = said.prev_kvs.first().map(|kv| text(&kv.value));
                let wrote = if said.deleted > 0 {
                    Said::Wrote { before }
                } else {
                    Said::Saw { value: None }
                };
                (wrote, revision(said.header))
            }
            Ask::Swap { key, from, to } => {
                let compare = Compare {
                    result: CompareResult::Equal.into(),
                    target: CompareTarget::Value.into(),
                    key: key.clone().into(),
                    target_union: Some(TargetUnion::Value(from.clone().into())),
                    ..Default::default()
                };
                let op = |request| RequestOp {
                    request: Some(request),
                };
                let txn = TxnRequest {
                    compare: vec![compare],
                    success: vec![op(Request::RequestPut(put(key, to)))],
                    failure: vec![op(Request::RequestRange(get(key)))],
                };
                let said = client.kv.txn(txn).await?.into_inner();
                let first = said.responses.into_iter().next().and_then(|op| op.response);
                let told = match first {
                    Some(Response::ResponseRange(range)) => Said::Saw {
                        value: range.kvs.first().map(|kv| text(&kv.value)),
                    },
                    _ => Said::Wrote {
                        before: Some(from.clone()),
                    },
                };
                (told, revision(said.header))
            }
            Ask::Get { key } => {
                let said = client.kv.range(get(key)).await?.into_inner();
                let value = said.kvs.first().map(|kv| text(&kv.value));
                (Said::Saw { value }, revision(said.header))
            }
        })
    }
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every change there was, as one member tells it, up to one of our own.
async fn read_order(mut client: Client) -> Order {
    let last = client.put("last", b"").await.expect("a healthy cluster");
    let create = WatchCreateRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        start_revision: 1,
        ..Default::default()
    };
    let request = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    // The stream of requests must stay open: its end would be the client's.
    let requests = tokio_stream::StreamExt::chain(tokio_stream::iter([request]), tokio_stream::pending());
    let mut responses = client.watch.watch(requests).await.expect("a watch").into_inner();
    let mut order = Order::new();
    while !order.contains_key(&last) {
        let response = tokio::time::timeout(wait::PATIENCE, responses.message()).await;
        let response = response.expect("the history in time").expect("a response");
        for event in response.expect("the history up to the last").events {
            let deleted = event.r#type == i32::from(EventType::Delete);
            let kv = event.kv.expect("an event is about a key");
            let change = (text(&kv.key), (!deleted).then(|| text(&kv.value)));
            let twice = order.insert(kv.mod_revision, change);
            assert!(twice.is_none(), "two changes at {}: {twice:?}", kv.mod_revision);
        }
    }
    order
}

/// Pure. Says the first answer that does not fit.
fn check(order: &Order, history: &[Answered]) -> Result<(), String> {
    let last = order.last_key_value().map_or(1, |(revision, _)| *revision);
    if order.len() as i64 != last - 1 {
        return Err(format!("{} changes up to revision {last}", order.len()));
    }
    for answered in history {
        fits(order, answered)?;
    }
    let mut by_asking: Vec<&Answered> = history.iter().collect();
    by_asking.sort_by_key(|answered| answered.asked);
    let mut by_answer = by_asking.clone();
    by_answer.sort_by_key(|answered| answered.answered);
    let mut earlier = by_answer.into_iter().peekable();
    let mut newest: Option<&Answered> = None;
    for later in by_asking {
        while let Some(done) = earlier.next_if(|done| done.answered < later.asked) {
            if newest.is_none_or(|newest| newest.revision < done.revision) {
                newest = Some(done);
            }
        }
        let Some(done) = newest else { continue };
        // A write has a revision of its own, above all that was seen before it was asked for.
        let least = done.revision + i64::from(matches!(later.said, Said::Wrote { .. }));
        if later.revision < least {
            return Err(format!("{later:?} came after {done:?} was answered"));
        }
    }
    Ok(())
}

/// Whether the answer is what the order says of its revision.
fn fits(order: &Order, answered: &Answered) -> Result<(), String> {
    let key = answered.ask.key();
    let value_through = |revision: i64| {
        let mut changes = order.range(..=revision).rev();
        changes
            .find(|(_, (changed, _))| changed == key)
            .and_then(|(_, (_, value))| value.clone())
    };
    let Said::Wrote { before } = &answered.said else {
        let value = value_through(answered.revision);
        let expected = Said::Saw { value };
        // A swap that saw the value it asked for should have changed it.
        let swaps = matches!((&answered.ask, &answered.said),
            (Ask::Swap { from, .. }, Said::Saw { value: Some(value) }) if from == value);
        return if answered.said == expected && !swaps {
            Ok(())
        } else {
            Err(format!("{answered:?}, but it was {expected:?}"))
        };
    };
    let written = match &answered.ask {
        Ask::Put { value, .. } | Ask::Swap { to: value, .. } => Some(value.clone()),
        Ask::Delete { .. } => None,
        Ask::Get { .. } => return Err(format!("a get that wrote: {answered:?}")),
    };
    let in_order = order.get(&answered.revision);
    if in_order != Some(&(key.to_owned(), written)) {
        return Err(format!("{answered:?}, but the change there is {in_order:?}"));
    }
    let really = value_through(answered.revision - 1);
    if really == *before {
        Ok(())
    } else {
        Err(format!("{answered:?}, but the value before was {really:?}"))
    }
}

/// The check finds what it is for.
mod checking {
    use super::*;

    fn order() -> Order {
        let change = |value: Option<&str>| ("k".to_owned(), value.map(str::to_owned));
        [(2, change(Some("a"))), (3, change(None)), (4, change(Some("b")))].into()
    }

    fn get(began: Instant, from_ms: u64, value: Option<&str>, revision: i64) -> Answered {
        let said = Said::Saw {
            value: value.map(str::to_owned),
        };
        Answered {
            ask: Ask::Get { key: "k".to_owned() },
            said,
            revision,
            asked: began + Duration::from_millis(from_ms),
            answered: began + Duration::from_millis(from_ms + 5),
        }
    }

    #[test]
    fn a_stale_read_is_found_and_a_concurrent_one_is_not_blamed() {
        let began = Instant::now();
        let newest = get(began, 0, Some("b"), 4);
        assert_eq!(check(&order(), &[newest.clone(), get(began, 3, None, 3)]), Ok(()));
        let stale = check(&order(), &[newest, get(began, 10, None, 3)]).unwrap_err();
        assert!(stale.contains("came after"), "{stale}");
    }

    #[test]
    fn a_wrong_value_and_a_lost_revision_are_found() {
        let began = Instant::now();
        assert!(check(&order(), &[get(began, 0, Some("b"), 3)]).is_err());
        let mut gap = order();
        gap.remove(&3);
        assert!(check(&gap, &[]).is_err());
    }

    #[test]
    fn a_write_at_another_revision_than_answered_is_found() {
        let began = Instant::now();
        let write = |revision| Answered {
            ask: Ask::Put {
                key: "k".to_owned(),
                value: "b".to_owned(),
            },
            said: Said::Wrote { before: None },
            ..get(began, 0, None, revision)
        };
        assert_eq!(check(&order(), &[write(4)]), Ok(()));
        assert!(check(&order(), &[write(3)]).is_err());
    }
}
