//! Members come, go, move and lose their disks, while writers go on; nothing that was acknowledged is lost.

use proto::etcdserverpb::{Member, MemberPromoteRequest, MemberUpdateRequest, PutRequest, RangeRequest};
use tests::cluster::{Cluster, Subject};
use tests::load::{History, Load};
use tests::tools::agentctl;
use tests::wait;

const WRITERS: usize = 4;
const SOME: u64 = 200;

async fn members(cluster: &Cluster, through: usize) -> Vec<Member> {
    let mut client = cluster.client(through);
    client.member_list().await.expect("member list")
}

async fn check(cluster: &Cluster, history: &History, running: &[usize]) {
    history.check_order();
    for &i in running {
        history.check_readable(&mut cluster.client(i)).await;
    }
}

/// Waits until a member has stopped by itself because it was removed.
async fn stops_for_good(cluster: &mut Cluster, i: usize) {
    let status = cluster
        .member_mut(i)
        .wait_exit(wait::PATIENCE)
        .await
        .expect("an end");
    assert!(!status.success(), "a removed member ended with {status}");
    let log = cluster.member(i).log();
    assert!(
        log.contains("has been permanently removed from the cluster"),
        "it must say why:\n{}",
        cluster.member(i).log_tail()
    );
    assert!(log.contains("agentctl member add"), "and what to do");
}

async fn agentctl_says(cluster: &Cluster, through: usize, args: &[&str]) -> String {
    let output = tokio::process::Command::new(agentctl())
        .arg("--endpoints")
        .arg(cluster.endpoint(through))
        .args(args)
        .output()
        .await
        .expect("agentctl runs");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "agentctl {args:?}: {text}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_grows_to_three_and_shrinks_back_under_load() {
    let mut cluster = Cluster::builder(&Subject::agent(), 1).start().await;
    let load = Load::start("load", &cluster.endpoints(), WRITERS);
    load.progress(SOME).await;
    let first = cluster.id(0).await;
    let second = cluster.grow(0).await;
    load.progress(SOME).await;
    let third = cluster.grow(0).await;
    load.progress(SOME).await;

    let listed = members(&cluster, third).await;
    assert_eq!(listed.len(), 3);
    assert!(
        listed
            .iter()
            .all(|member| !member.is_learner && !member.name.is_empty())
    );
    let cluster_ids = [0, second, third].map(|i| cluster.client(i));
    let mut seen = Vec::new();
    for mut client in cluster_ids {
        let status = client.status().await.expect("status");
        seen.push(status.header.map(|header| header.cluster_id));
    }
    assert!(seen.iter().all(|id| *id == seen[0]), "one cluster: {seen:?}");

    for i in [second, third] {
        let id = cluster.id(i).await;
        wait::until("the removal", async || cluster.remove(0, id).await.ok()).await;
        stops_for_good(&mut cluster, i).await;
        load.progress(SOME).await;
    }
    let history = load.stop().await;
    check(&cluster, &history, &[0]).await;
    let left: Vec<u64> = members(&cluster, 0)
        .await
        .iter()
        .map(|member| member.id)
        .collect();
    assert_eq!(left, [first]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_leader_hands_over_and_stops_and_stays_stopped() {
    let mut cluster = Cluster::builder(&Subject::agent(), 3).start().await;
    let load = Load::start("load", &cluster.endpoints(), WRITERS);
    load.progress(SOME).await;
    let leader = cluster.leader().await;
    let id = cluster.id(leader).await;
    let left = cluster
        .remove(leader, id)
        .await
        .expect("the leader can be removed");
    assert_eq!(left.len(), 2, "{left:?}");
    stops_for_good(&mut cluster, leader).await;
    load.progress(SOME).await;
    cluster.start(leader);
    stops_for_good(&mut cluster, leader).await;
    let history = load.stop().await;
    let others: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    check(&cluster, &history, &others).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_while_it_was_down() {
    let mut cluster = Cluster::builder(&Subject::agent(), 3).start().await;
    let gone = cluster.follower().await;
    let id = cluster.id(gone).await;
    cluster.kill(gone);
    let through = cluster.leader().await;
    wait::until("the removal", async || cluster.remove(through, id).await.ok()).await;
    cluster.start(gone);
    stops_for_good(&mut cluster, gone).await;
}

/// Removing the other one now would leave two voters, and one of them is dead: nothing could be committed any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_died_a_moment_ago_is_no_part_of_a_new_quorum() {
    let mut cluster = Cluster::builder(&Subject::agent(), 3).start().await;
    let leader = cluster.leader().await;
    let dies = cluster.follower().await;
    let other = (0..3).find(|i| *i != dies && *i != leader).expect("a third");
    let (dead, alive) = (cluster.id(dies).await, cluster.id(other).await);
    cluster.kill(dies);
    let refused = cluster
        .remove(leader, alive)
        .await
        .expect_err("one of two is dead");
    assert_eq!(refused.message(), "etcdserver: unhealthy cluster");
    cluster
        .client(leader)
        .put("still", b"writable")
        .await
        .expect("put");
    let left = cluster.remove(leader, dead).await.expect("the dead one may go");
    assert_eq!(left.len(), 2, "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_follows_refuses_and_is_promoted() {
    let mut cluster = Cluster::builder(&Subject::agent(), 1).start().await;
    cluster.client(0).put("kept", b"yes").await.expect("put");
    let learner = cluster.place();
    let id = cluster
        .admit(0, learner, true)
        .await
        .expect("a learner is admitted");
    let promote = MemberPromoteRequest { id };
    let lags = cluster.client(0).cluster.member_promote(promote).await;
    assert_eq!(
        lags.expect_err("it does not run").message(),
        "etcdserver: can only promote a learner member which is in sync with leader"
    );
    cluster.start(learner);
    let mut client = cluster.client(learner);
    let read = wait::until("the learner to have the key", async || {
        let range = cluster.client(learner).get_prefix("kept", true).await.ok()?;
        (range.kvs.len() == 1).then_some(range)
    });
    read.await;
    assert!(client.status().await.expect("status").is_learner);
    let refused = [
        client
            .kv
            .put(PutRequest {
                key: "a".into(),
                ..PutRequest::default()
            })
            .await
            .err(),
        client
            .kv
            .range(RangeRequest {
                key: "a".into(),
                ..RangeRequest::default()
            })
            .await
            .err(),
    ];
    for status in refused {
        let status = status.expect("refused");
        assert_eq!(status.message(), "etcdserver: rpc not supported for learner");
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    }
    let listed = members(&cluster, 0).await;
    assert!(listed.iter().any(|member| member.id == id && member.is_learner));

    wait::until("the promotion", async || {
        cluster.client(0).cluster.member_promote(promote).await.ok()
    })
    .await;
    cluster.member_ready(learner).await;
    client.put("by the former learner", b"1").await.expect("put");
    let listed = members(&cluster, learner).await;
    assert!(listed.iter().all(|member| !member.is_learner));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_counts_only_once_it_has_caught_up() {
    let mut cluster = Cluster::builder(&Subject::agent(), 1).start().await;
    let second = cluster.place();
    let id = cluster.admit(0, second, false).await.expect("admitted");
    let listed = members(&cluster, 0).await;
    let added = listed
        .iter()
        .find(|member| member.id == id)
        .expect("the new member");
    assert!(
        !added.is_learner && added.name.is_empty(),
        "shown as etcd shows it: {added:?}"
    );
    // With etcd the cluster of one has now lost its quorum; here it goes on.
    cluster.client(0).put("still", b"writable").await.expect("put");
    cluster.start(second);
    cluster.member_ready(second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_host_returns_under_a_new_id_with_one_command() {
    let mut cluster = Cluster::builder(&Subject::agent(), 3)
        .arg("--snapshot-count", "100")
        .start()
        .await;
    let load = Load::start("load", &cluster.endpoints(), WRITERS);
    load.progress(SOME).await;
    let wiped = cluster.follower().await;
    let old = cluster.id(wiped).await;
    cluster.kill(wiped);
    cluster.wipe(wiped);
    load.progress(SOME).await;
    cluster.start(wiped);
    wait::until("the wiped host to say what to type", async || {
        let log = cluster.member(wiped).log();
        log.contains(&format!("agentctl member replace m{wiped}"))
            .then_some(())
    })
    .await;
    assert!(
        cluster.member_mut(wiped).exited().is_none(),
        "it waits, and does not end"
    );
    load.progress(SOME).await;

    let through = (0..3).find(|i| *i != wiped).expect("another member");
    let name = format!("m{wiped}");
    let said = agentctl_says(&cluster, through, &["member", "replace", &name]).await;
    assert!(
        said.contains("removed from cluster") && said.contains("added to cluster"),
        "{said}"
    );
    cluster.member_ready(wiped).await;
    load.progress(SOME).await;
    let history = load.stop().await;
    check(&cluster, &history, &[0, 1, 2]).await;
    let new = cluster.id(wiped).await;
    assert_ne!(new, old);
    let listed = members(&cluster, wiped).await;
    assert_eq!(listed.len(), 3);
    assert!(listed.iter().all(|member| member.id != old && !member.is_learner));

    // It stays that member, and the old id stays removed, after everything was restarted.
    cluster.kill_all();
    for i in 0..3 {
        cluster.start(i);
    }
    cluster.ready().await;
    assert_eq!(cluster.id(wiped).await, new);
    let again = cluster.remove(wiped, old).await.expect_err("it is gone");
    assert_eq!(again.message(), "etcdserver: member not found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_moves_to_another_port() {
    let mut cluster = Cluster::builder(&Subject::agent(), 3).start().await;
    let moving = cluster.follower().await;
    let id = cluster.id(moving).await;
    let through = cluster.leader().await;
    cluster.kill(moving);
    let url = cluster.move_peer(moving);
    let update = MemberUpdateRequest {
        id,
        peer_ur_ls: vec![url.clone()],
    };
    cluster
        .client(through)
        .cluster
        .member_update(update)
        .await
        .expect("update");
    cluster
        .client(through)
        .put("while it was away", b"1")
        .await
        .expect("put");
    cluster.start(moving);
    cluster.ready().await;
    let listed = members(&cluster, moving).await;
    assert!(
        listed
            .iter()
            .any(|member| member.id == id && member.peer_ur_ls == [url.clone()])
    );
    // It is a full member there: with another one gone it is needed.
    let other = (0..3).find(|i| *i != moving && *i != through).expect("a third");
    cluster.kill(other);
    cluster.client(moving).put("by two", b"1").await.expect("put");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_start_of_three_elects_once() {
    let cluster = Cluster::builder(&Subject::agent(), 3).start().await;
    for i in 0..3 {
        let status = cluster.client(i).status().await.expect("status");
        assert_eq!(status.raft_term, 1, "the first election is the only one");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_that_stop_at_once_do_not_wait_for_each_other() {
    let mut cluster = Cluster::builder(&Subject::agent(), 3).start().await;
    for i in 0..3 {
        cluster.member(i).signal(nix::sys::signal::Signal::SIGTERM);
    }
    for i in 0..3 {
        let status = cluster
            .member_mut(i)
            .wait_exit(wait::PATIENCE)
            .await
            .expect("an end");
        assert!(status.success(), "m{i} ended with {status}");
        let log = cluster.member(i).log();
        assert!(
            !log.contains("no successor took over"),
            "{}",
            cluster.member(i).log_tail()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_survive_a_snapshot() {
    let mut cluster = Cluster::builder(&Subject::agent(), 3)
        .arg("--snapshot-count", "50")
        .start()
        .await;
    let away = cluster.follower().await;
    let through = cluster.leader().await;
    let removed = (0..3).find(|i| *i != away && *i != through).expect("a third");
    let removed_id = cluster.id(removed).await;
    let fourth = cluster.grow(through).await;
    cluster.kill(away);
    wait::until("the removal", async || {
        cluster.remove(through, removed_id).await.ok()
    })
    .await;
    stops_for_good(&mut cluster, removed).await;
    for i in 0..300 {
        cluster
            .client(through)
            .put(&format!("key{i}"), b"1")
            .await
            .expect("put");
    }
    // The log that tells of the removal is purged: this one hears of it by snapshot.
    cluster.start(away);
    cluster.member_ready(away).await;
    let listed = members(&cluster, away).await;
    assert_eq!(listed.len(), 3, "{listed:?}");
    assert!(listed.iter().all(|member| member.id != removed_id));
    // And it refuses the removed one by name, when it is the only one left to ask.
    cluster.kill(fourth);
    cluster.kill(through);
    cluster.start(removed);
    stops_for_good(&mut cluster, removed).await;
}
