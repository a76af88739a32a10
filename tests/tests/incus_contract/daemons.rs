//! The daemons themselves: the simulated one, which remembers, and real ones side by side.

use std::path::PathBuf;

use agent::incus::simulated::SimulatedIncus;
use agent::incus::{IncusError, Kind, StateAction};
use futures::StreamExt;
use tests::lab::{IncusDaemon, Lab};

use super::{client, container, get, list, set_state, simulated_subject};

#[tokio::test]
async fn simulated_incus_remembers() {
    let dir = tempfile::tempdir().unwrap();
    let (simulated, incus) = simulated_subject(&dir).await;
    assert!(incus.server().await.unwrap().simulated);
    incus
        .create(Kind::Instance, "default", &container("a"))
        .await
        .unwrap();
    set_state(&incus, StateAction::Start, false).await.unwrap();
    let before = get(&incus, Kind::Instance, "default", "a").await;
    let socket = simulated.socket().to_owned();
    let second = SimulatedIncus::start(dir.path(), &socket).await;
    assert!(second.is_err(), "one listens there already");
    let mut events = incus.events().await.unwrap();
    simulated.stop().await;
    assert!(
        events.next().await.is_none_or(|event| event.is_err()),
        "the events end with the daemon"
    );
    assert!(events.next().await.is_none());
    let gone = incus.get(Kind::Instance, "default", "a").await.unwrap_err();
    assert!(gone.is_transient(), "{gone:?}");

    let simulated = SimulatedIncus::start(dir.path(), &socket).await.unwrap();
    assert_eq!(
        get(&incus, Kind::Instance, "default", "a").await,
        before,
        "the same client reaches it again"
    );
    simulated.stop().await;
}

/// The lab itself: as many daemons as a cluster has hosts, a container in each, and nothing of them afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_daemons_at_once() {
    let Some(mut lab) = Lab::running(3).await else {
        return;
    };
    for daemon in lab.daemons() {
        let incus = client(&daemon.socket());
        assert!(!incus.server().await.unwrap().simulated);
        incus
            .create(Kind::Instance, "default", &container("a"))
            .await
            .unwrap();
        set_state(&incus, StateAction::Start, false).await.unwrap();
    }
    for daemon in lab.daemons() {
        assert_eq!(
            list(&client(&daemon.socket()), Kind::Instance).await,
            ["default/a"]
        );
        let echoed = daemon
            .incus(&["exec", "a", "--", "/bin/busybox", "echo", "hello"])
            .unwrap();
        assert_eq!(echoed, "hello\n");
    }
    let sockets: Vec<PathBuf> = lab.daemons().iter().map(IncusDaemon::socket).collect();
    for daemon in lab.daemons_mut().drain(..) {
        daemon.stop().unwrap();
    }
    for socket in sockets {
        let gone = client(&socket).server().await.unwrap_err();
        assert!(matches!(gone, IncusError::Unreachable { .. }), "{gone:?}");
    }
}
