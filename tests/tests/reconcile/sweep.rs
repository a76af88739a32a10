//! Each write to Incus is lost once on its way there and once on its way back, one after the other, until there is
//! nothing left to write; with each loss the agent is killed, or its connection is cut. In the end everything is as if
//! nothing had happened.

use agent::incus::{Kind, StateAction};
use serde_json::json;
use tests::lab::Fault;
use tests::{notes, wait};

use super::site::{HOST, Site};

/// Far more than there are writes: a sweep that does not end is a loop.
const LOSSES_MAX: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// The agent is killed with its request on the way.
    Kill,
    /// The agent lives, and is told that the connection broke.
    Cut,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step() {
    sweep(Site::simulated(false).await, Loss::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_at_every_step() {
    sweep(Site::simulated(true).await, Loss::Cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_of_a_real_incus() {
    if let Some(site) = Site::real(false).await {
        sweep(site, Loss::Kill).await;
    }
}

/// A document of every kind that needs nothing from elsewhere; each is deleted with its document.
fn documents() -> Vec<String> {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let bridge = format!("sw{high:02x}{low:02x}");
    let address = format!("10.{}.{low}.1/24", 192 + high % 32);
    [
        "kind: incus\nname: default\nspec: {config: {user.swept: 1}}".to_owned(),
        "kind: storage-pool\nname: fast\nlifecycle: {deletion: delete}\nspec: {driver: dir}".to_owned(),
        "kind: network-acl\nname: web\nspec:\n  ingress:\n  - {action: allow, state: enabled, protocol: tcp, destination_port: 80}".to_owned(),
        format!("kind: network\nname: {bridge}\nspec: {{config: {{ipv4.address: {address}, ipv6.address: none}}}}"),
        "kind: project\nname: shop\nspec: {config: {features.images: false, features.profiles: true, features.storage.volumes: true}}".to_owned(),
        format!(
            "kind: profile\nname: web\ntenant: shop\nspec:\n  devices:\n    root: {{type: disk, path: /, pool: fast}}\n    eth0: {{type: nic, network: {bridge}}}\n    data: {{type: disk, pool: fast, source: data, path: /data}}"
        ),
        "kind: volume\nname: data\ntenant: shop\nlifecycle: {deletion: delete}\nspec: {pool: fast}".to_owned(),
        format!(
            "kind: instance\nname: web\ntenant: shop\nhost: {HOST}\nspec:\n  profiles: [web]\n  config: {{limits.processes: 100}}\n  source: {{type: image, alias: busybox}}"
        ),
    ]
    .to_vec()
}

/// The order in which documents go, few at a time, as the brake wants it.
const GOING: [&[usize]; 3] = [&[7, 6, 5], &[3, 2, 1], &[4, 0]];

async fn sweep(mut site: Site, loss: Loss) {
    by_hand(&site).await;
    let before = site.world().await;
    let documents = documents();
    let revision = site.put(&documents).await;
    site.until_ready(&documents, revision).await;
    let undisturbed = site.world().await;
    delete_all(&mut site, &documents, None).await;
    assert_eq!(
        site.world().await,
        before,
        "all that was made is gone, and nothing else"
    );

    let revision = site.put(&documents).await;
    let made = losses(&mut site, loss, async |site| {
        site.all_ready(&documents, revision).await
    })
    .await;
    assert_eq!(
        site.world().await,
        undisturbed,
        "{loss:?}: as if nothing had happened"
    );
    let removed = delete_all(&mut site, &documents, Some(loss)).await;
    assert_eq!(
        site.world().await,
        before,
        "{loss:?}: no orphan, and nobody else's touched"
    );
    notes::measured(&format!(
        "{loss:?}: {made} losses while making, {removed} while removing"
    ));
    // Every document is at least one write, and each write is lost twice.
    assert!(made >= 2 * documents.len(), "{made} losses");
    assert!(removed >= 2 * documents.len(), "{removed} losses");
}

/// What nobody but a person speaks of, and what only looks like ours.
async fn by_hand(site: &Site) {
    let copy = json!({"user.agent.cluster": "another", "user.agent.uid": "instance/default/web@1"});
    for (name, config) in [("byhand", json!({})), ("copied", copy)] {
        let body = json!({"name": name, "source": {"type": "image", "alias": "busybox"}, "config": config});
        site.incus.create(Kind::Instance, "default", &body).await.unwrap();
    }
    site.incus
        .set_state("default", "byhand", StateAction::Start, false, 30)
        .await
        .unwrap();
    let profile = json!({"name": "theirs", "config": {"user.theirs": "1"}});
    site.incus
        .create(Kind::Profile, "default", &profile)
        .await
        .unwrap();
}

/// Loses writes until what should be is. How many it were.
async fn losses(site: &mut Site, loss: Loss, done: impl AsyncFn(&Site) -> bool) -> usize {
    site.proxy.set(Fault::LoseEachTwice);
    let mut losses = Vec::new();
    while losses.len() < LOSSES_MAX {
        let lost = wait::within(wait::PATIENCE, "a write, or an end of writing", async || {
            let lost = site.proxy.lost();
            (!lost.is_empty() || done(site).await).then_some(lost)
        });
        match lost.await {
            Ok(lost) if lost.is_empty() => {
                site.proxy.set(Fault::None);
                return losses.len();
            }
            Ok(lost) => losses.extend(lost),
            Err(vain) => panic!("{vain} after {losses:#?}: {:#?}", site.statuses().await),
        }
        if loss == Loss::Kill {
            site.kill_agent().await;
        }
    }
    panic!("no end after {losses:#?}");
}

async fn delete_all(site: &mut Site, documents: &[String], loss: Option<Loss>) -> usize {
    let mut lost = 0;
    for some in GOING {
        let some: Vec<String> = some.iter().map(|i| documents[*i].clone()).collect();
        site.delete(&some).await;
        let gone = async |site: &Site| {
            let statuses = site.statuses().await;
            some.iter().all(|text| {
                let key = agent::document::parse(text).unwrap().desired_key();
                !statuses.contains_key(&key)
            })
        };
        match loss {
            Some(loss) => lost += losses(site, loss, gone).await,
            None => {
                wait::until("all to be gone", async || gone(site).await.then_some(())).await;
            }
        }
    }
    lost
}
