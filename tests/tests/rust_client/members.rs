//! Members and maintenance.

use etcd_client::{AlarmAction, AlarmOptions, AlarmType, Client, MemberAddOptions, MemberAddResponse};
use tests::cluster::{Cluster, address};
use tests::wait;

use crate::message;

/// No member's id: a member's own alarm is lifted when there is room.
const NOBODY: u64 = 4711;

pub(crate) async fn check(cluster: &Cluster) {
    let mut client = Client::connect([cluster.endpoint(0)], None)
        .await
        .expect("connect");
    maintenance(&mut client).await;
    alarms(&mut client).await;
    membership(&mut client).await;
    leadership(cluster).await;
}

async fn maintenance(client: &mut Client) {
    client.put("kept", "1", None).await.expect("put");
    let status = client.status().await.expect("status");
    let members = client.member_list().await.expect("members");
    assert_eq!(members.members().len(), 3);
    assert!(
        members
            .members()
            .iter()
            .any(|member| member.id() == status.leader())
    );
    assert!(status.errors().is_empty() && !status.is_learner());
    assert!(status.db_size() > 0 && status.raft_applied_index() <= status.raft_index());
    client.defragment().await.expect("defragment");
    client.hash().await.expect("hash");
    let hash = client.hash_kv(0).await.expect("hash").hash();
    assert_eq!(client.hash_kv(0).await.expect("hash").hash(), hash);
    let mut stream = client.snapshot().await.expect("snapshot");
    let (mut size, mut remaining) = (0, u64::MAX);
    while let Some(part) = stream.message().await.expect("a part") {
        assert!(part.remaining_bytes() <= remaining, "it shrinks");
        remaining = part.remaining_bytes();
        size += part.blob().len();
    }
    assert_eq!(remaining, 0);
    assert!(size > 32, "data and its hash");
}

async fn alarms(client: &mut Client) {
    let none = client.alarm(AlarmAction::Get, AlarmType::None, None).await;
    assert!(none.expect("alarms").alarms().is_empty());
    let mut of = AlarmOptions::new();
    of.with_member(NOBODY);
    client
        .alarm(AlarmAction::Activate, AlarmType::Nospace, Some(of))
        .await
        .expect("raise an alarm");
    let refused = client
        .put("more", "1", None)
        .await
        .expect_err("there is no space");
    assert_eq!(message(&refused), "etcdserver: mvcc: database space exceeded");
    client
        .delete("kept", None)
        .await
        .expect("what frees space is done");
    let listed = client
        .alarm(AlarmAction::Get, AlarmType::None, None)
        .await
        .expect("alarms");
    assert_eq!(listed.alarms()[0].member_id(), NOBODY);
    assert_eq!(listed.alarms()[0].alarm(), AlarmType::Nospace);
    let mut of = AlarmOptions::new();
    of.with_member(NOBODY);
    client
        .alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(of))
        .await
        .expect("disarm");
    client.put("more", "1", None).await.expect("put");
}

async fn membership(client: &mut Client) {
    let address = address::own_loopback();
    let [port, moved] = address::free_ports(address).map(|port| format!("http://{address}:{port}"));
    // etcd wants its members connected for a while before it lets anyone in.
    let added = wait::until("the members to let another in", async || {
        let learner = MemberAddOptions::new().with_is_learner();
        client
            .clone()
            .member_add([port.as_str()], Some(learner))
            .await
            .ok()
    })
    .await;
    let id = added_id(&added);
    assert_eq!(added.member_list().len(), 4);
    assert!(added.member().expect("the new member").is_learner());
    let refused = client.member_promote(id).await.expect_err("it has never run");
    assert_eq!(
        message(&refused),
        "etcdserver: can only promote a learner member which is in sync with leader"
    );
    // After this etcd says that it is no learner any more, which is not so.
    client.member_update(id, [moved.clone()]).await.expect("update");
    let listed = client.member_list().await.expect("members");
    let listed = listed.members().iter().find(|member| member.id() == id);
    assert_eq!(listed.expect("the learner").peer_urls(), [moved]);
    assert_eq!(client.member_remove(id).await.expect("remove").members().len(), 3);
    let refused = client.member_remove(id).await.expect_err("it is gone");
    assert_eq!(message(&refused), "etcdserver: member not found");
}

async fn leadership(cluster: &Cluster) {
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let mut client = Client::connect([cluster.endpoint(leader)], None)
        .await
        .expect("connect");
    let mut other = Client::connect([cluster.endpoint(follower)], None)
        .await
        .expect("connect");
    let target = other.status().await.expect("status");
    let target = target.header().expect("a header").member_id();
    client.move_leader(target).await.expect("move the leader");
    assert_eq!(cluster.leader().await, follower);
    let refused = client.move_leader(target).await.expect_err("it does not lead");
    assert_eq!(message(&refused), "etcdserver: not leader");
}

fn added_id(added: &MemberAddResponse) -> u64 {
    added.member().expect("the new member").id()
}
