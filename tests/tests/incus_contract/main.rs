//! What our client relies on, asked of a real Incus and of the simulated one: so the simulation cannot drift.
//!
//! A scenario knows its subject only through the client. Where the two may differ, in prose and in status codes of
//! refusals, nothing is asserted: the reconciler decides by reading, not by errors.

#![expect(
    clippy::unwrap_used,
    reason = "a scenario fails by panicking, outside of test functions too"
)]

mod answers;
mod daemons;
mod foundations;
mod instances;
mod projects;

use std::path::Path;

use agent::incus::simulated::SimulatedIncus;
use agent::incus::{Incus, IncusError, Kind, Live, StateAction};
use serde_json::{Value, json};
use tempfile::TempDir;

use answers::{
    events_tell_of_changes, missing_objects, refused_creations_leave_nothing, server_says_its_version,
    stale_etag_is_refused,
};
use foundations::{
    images_live, networks_acls_and_forwards_live, pools_and_volumes_live, server_config_lives,
};
use instances::{container_lives, snapshots_bring_config_back, volatile_must_come_back};
use projects::{lists_span_projects, profile_lives, profiles_in_use_and_full_projects_stay, project_lives};

const STATE_TIMEOUT_SECONDS: u32 = 20;

/// Names a scenario once for each subject.
macro_rules! on_both {
    ($($scenario:ident),* $(,)?) => {
        mod simulated {
            $(#[tokio::test]
            async fn $scenario() {
                let dir = tempfile::tempdir().unwrap();
                let subject = super::simulated_subject(&dir).await;
                super::$scenario(&subject.1).await;
                subject.0.stop().await;
            })*
        }
        mod real {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $scenario() {
                let Some(lab) = tests::lab::Lab::running(1).await else { return };
                super::$scenario(&super::client(&lab.daemons()[0].socket())).await;
            })*
        }
    };
}

on_both!(
    server_says_its_version,
    project_lives,
    profile_lives,
    container_lives,
    stale_etag_is_refused,
    refused_creations_leave_nothing,
    missing_objects,
    volatile_must_come_back,
    profiles_in_use_and_full_projects_stay,
    lists_span_projects,
    events_tell_of_changes,
    snapshots_bring_config_back,
    server_config_lives,
    pools_and_volumes_live,
    networks_acls_and_forwards_live,
    images_live,
);

fn client(socket: &Path) -> Incus {
    Incus::connect(socket).unwrap()
}

async fn simulated_subject(dir: &TempDir) -> (SimulatedIncus, Incus) {
    let socket = dir.path().join("unix.socket");
    let simulated = SimulatedIncus::start(dir.path(), &socket).await.unwrap();
    (simulated, client(&socket))
}

fn container(name: &str) -> Value {
    json!({"name": name, "type": "container", "profiles": ["default"],
        "config": {"user.a": "1", "user.b": "1"}, "source": {"type": "image", "alias": "busybox"}})
}

async fn get(incus: &Incus, kind: Kind, project: &str, name: &str) -> Live {
    let live = incus.get(kind, project, name).await.unwrap();
    live.unwrap_or_else(|| panic!("no {kind:?} {name} in {project}"))
}

async fn set_state(incus: &Incus, action: StateAction, force: bool) -> Result<(), IncusError> {
    incus
        .set_state("default", "a", action, force, STATE_TIMEOUT_SECONDS)
        .await
}

/// All objects of a kind as `project/name`, sorted.
async fn list(incus: &Incus, kind: Kind) -> Vec<String> {
    let listed = incus.list_all(kind).await.unwrap();
    let mut names: Vec<_> = listed
        .iter()
        .map(|live| format!("{}/{}", live.project(), live.name()))
        .collect();
    names.sort();
    names
}
