//! An Incus that is not well.

use agent::incus::Kind;
use tests::lab::Fault;
use tests::wait;

use super::site::{HOST, Site};

fn web(memory: &str) -> String {
    format!(
        "kind: instance\nname: web\nhost: {HOST}\nspec:\n  config: {{limits.memory: {memory}}}\n  source: {{type: image, alias: busybox}}"
    )
}

async fn memory(site: &Site) -> Option<String> {
    let live = site.incus.get(Kind::Instance, "default", "web").await.unwrap()?;
    live.config("limits.memory").map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_is_said_and_tried_again() {
    let site = Site::simulated(false).await;
    let documents = [web("64MiB")];
    site.until_ready(&documents, site.put(&documents).await).await;
    site.proxy.set(Fault::RefuseWrites);
    let documents = [web("96MiB")];
    let revision = site.put(&documents).await;
    let said = site.message(&documents[0], "Failed").await;
    assert!(said.contains("status 500: out of luck"), "{said}");
    assert_eq!(memory(&site).await.as_deref(), Some("64MiB"));
    site.proxy.set(Fault::None);
    site.until_ready(&documents, revision).await;
    assert_eq!(memory(&site).await.as_deref(), Some("96MiB"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_incus_is_said_and_what_was_wanted_meanwhile_is_done_later() {
    let mut site = Site::simulated(false).await;
    let documents = [web("64MiB")];
    site.until_ready(&documents, site.put(&documents).await).await;
    site.proxy.set(Fault::Gone);
    let documents = [web("96MiB")];
    let revision = site.put(&documents).await;
    let said = site.message(&documents[0], "Pending").await;
    assert!(said.contains("incus does not answer"), "{said}");
    // The agent does not forget what it does not see.
    site.kill_agent().await;
    site.proxy.set(Fault::None);
    site.until_ready(&documents, revision).await;
    assert_eq!(memory(&site).await.as_deref(), Some("96MiB"));
}

/// Requests that have no answer do not hang the host for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "CI has the minute that it takes: requests are given up after half of one"]
async fn what_hangs_is_given_up_and_tried_again() {
    let site = Site::simulated(false).await;
    site.proxy.set(Fault::LoseEachTwice);
    let documents = [web("64MiB")];
    let revision = site.put(&documents).await;
    wait::until("a write that nothing answers", async || {
        (!site.proxy.lost().is_empty()).then_some(())
    })
    .await;
    site.proxy.set(Fault::None);
    site.until_ready(&documents, revision).await;
    assert_eq!(memory(&site).await.as_deref(), Some("64MiB"));
}
