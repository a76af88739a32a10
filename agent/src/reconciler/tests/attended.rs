//! A person's command and the reconciler, on one instance.

use super::*;

const AFTER: &str = "/tenants/default/desired/profiles/after";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_person_is_at_work_on_is_left_alone() {
    let host = Host::start().await;
    let revision = host.put(&web("")).await;
    let before = host.until(WEB, Phase::Ready, revision).await;

    let key = parse_desired_key(WEB).unwrap();
    let attendance = host.attended.attend(&key, "restored").await.unwrap();
    let stop = host.incus.set_state("default", "web", StateAction::Stop, true, 5);
    stop.await.unwrap();
    // Made, and seen to be made: passes that would have started the instance.
    let revision = host.put("kind: profile\nname: after\nspec: {}\n").await;
    host.until(AFTER, Phase::Ready, revision).await;
    assert_eq!(host.instance("web").await.unwrap()["status"], "Stopped");
    assert_eq!(host.status(WEB), Some(before), "it is busy, not wrong");

    drop(attendance);
    host.until_instance("web", |instance| instance["status"] == "Running")
        .await;
}
