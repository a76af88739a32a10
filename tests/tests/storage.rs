//! What a member does when its disk is full, or is not its own.

use std::time::Duration;

use tests::cluster::{Cluster, Subject};
use tests::load::Load;
use tests::tmpfs::SmallDisk;
use tests::{notes, tools, wait};

const WRITERS: usize = 4;
/// Room for the preallocated segments of a log, etcd's too, and for little more.
const DISK_MIB: u32 = 256;
const GROWN_MIB: u32 = 512;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_of_etcd() {
    match Subject::etcd() {
        Some(etcd) => full_disk(&etcd).await,
        None => notes::skipped("no etcd 3.5"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_of_agent() {
    full_disk(&Subject::agent()).await;
}

#[tokio::test]
async fn another_clusters_folder_is_refused_by_etcd() {
    match Subject::etcd() {
        Some(etcd) => another_clusters_folder(&etcd).await,
        None => notes::skipped("no etcd 3.5"),
    }
}

#[tokio::test]
async fn another_clusters_folder_is_refused_by_agent() {
    another_clusters_folder(&Subject::agent()).await;
}

#[tokio::test]
async fn another_members_folder_is_refused_by_agent() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let first = Cluster::builder(&Subject::agent(), 1).data_dir(0, folder.path());
    drop(first.start().await);
    let mut other = Cluster::builder(&Subject::agent(), 3)
        .data_dir(2, folder.path())
        .prepare();
    other.start(2);
    let status = other
        .member_mut(2)
        .wait_exit(wait::PATIENCE)
        .await
        .expect("an end");
    assert!(!status.success());
    let log = other.member(2).log();
    assert!(
        log.contains(&*folder.path().to_string_lossy()),
        "the message names the folder:\n{log}"
    );
}

/// One member's disk fills up under load: the others carry on, nothing acknowledged is lost, the member says
/// what is wrong, and comes back when there is room.
async fn full_disk(subject: &Subject) {
    if !tools::is_root() {
        notes::skipped("a small disk needs root to be mounted");
        return;
    }
    let mount = tempfile::tempdir().expect("temporary folder");
    // Dropped after the cluster, whose member writes to it.
    let disk = SmallDisk::mount(mount.path(), DISK_MIB);
    let mut cluster = Cluster::builder(subject, 3)
        .data_dir(2, &disk.path().join("data"))
        .start()
        .await;
    let load = Load::start("load", &cluster.endpoints(), WRITERS);
    load.progress(100).await;
    disk.fill(256);
    load.progress(2_000).await;
    let said = wait::until("the member to say that its disk is full", async || {
        let log = cluster.member(2).log().to_lowercase();
        log.lines()
            .find(|line| line.contains("no space left"))
            .map(str::to_owned)
    });
    println!("it said: {}", said.await);
    load.progress(100).await;
    let history = load.stop().await;

    cluster.kill(2);
    disk.grow(GROWN_MIB);
    cluster.start(2);
    cluster.ready().await;
    history.check_order();
    for i in 0..cluster.len() {
        history.check_readable(&mut cluster.client(i)).await;
    }
    assert!(history.longest_gap() < Duration::from_secs(30));
}

/// A folder of one cluster given to another: refused, by name, and left as it was.
async fn another_clusters_folder(subject: &Subject) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let data = folder.path().join("data");
    let first = Cluster::builder(subject, 1)
        .token("first")
        .data_dir(0, &data)
        .start()
        .await;
    first.client(0).put("kept", b"yes").await.expect("put");
    let first_member = first
        .client(0)
        .status()
        .await
        .expect("status")
        .header
        .expect("a header");
    drop(first);

    let mut second = Cluster::builder(subject, 3)
        .token("second")
        .data_dir(0, &data)
        .prepare();
    for i in 0..3 {
        second.start(i);
    }
    // etcd starts with what it finds and is then ignored by its peers; the agent must refuse.
    if !subject.is_etcd() {
        let status = second
            .member_mut(0)
            .wait_exit(wait::PATIENCE)
            .await
            .expect("an end");
        assert!(!status.success());
        let log = second.member(0).log();
        let names_both = [
            data.to_string_lossy().into_owned(),
            format!("{:x}", first_member.cluster_id),
        ];
        for name in names_both {
            assert!(log.contains(&name), "the message does not name {name}:\n{log}");
        }
    }
    // The two others are a quorum of the second cluster.
    second.member_ready(1).await;
    let answer = second
        .client(1)
        .get_within("kept", wait::PATIENCE)
        .await
        .expect("get");
    assert!(
        answer.kvs.is_empty(),
        "nothing of the one cluster comes into the other"
    );
    drop(second);
}
