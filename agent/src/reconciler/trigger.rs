//! What starts a pass: a document, a binding or a secret that changed, or something that happened in Incus. Neither says what to do: a pass
//! looks at everything.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use raft_store::watch::{WatchOptions, WatchOutput, Watcher};
use tokio::sync::Notify;
use tracing::{debug, info};

use super::execute::in_full;
use super::placement::Held;
use super::stored::prefix_end;
use crate::attended::Attended;
use crate::backup::Board;
use crate::document::{desired_prefixes, parse_binding_key, parse_desired_key, parse_secret_key};
use crate::incus::{Incus, IncusError};
use crate::node::Node;
use crate::service::Manager;

/// Between two attempts to follow Incus' events.
const RECONNECT_FIRST: Duration = Duration::from_secs(1);
const RECONNECT_LONGEST: Duration = Duration::from_secs(30);

/// Follows the documents. Ends when the store has stopped.
pub(crate) async fn follow_documents(node: &Node, wake: &Arc<Notify>) {
    let [cluster, tenants] = desired_prefixes();
    tokio::join!(
        follow_prefix(node, cluster, is_document, wake),
        follow_prefix(node, tenants, is_document, wake)
    );
}

/// Follows which hosts are alive. Ends when the store has stopped.
pub(crate) async fn follow_alive(node: &Node, wake: &Arc<Notify>) {
    follow_prefix(node, "/hosts/", |key| key.ends_with("/alive"), wake).await;
}

fn is_document(key: &str) -> bool {
    parse_desired_key(key).is_some() || parse_binding_key(key).is_some() || parse_secret_key(key).is_some()
}

async fn follow_prefix(node: &Node, prefix: &str, is_meant: fn(&str) -> bool, wake: &Arc<Notify>) {
    loop {
        let mut watcher = watch(node, prefix);
        // Whatever happened before the watcher was made is seen by a pass.
        wake.notify_one();
        loop {
            match watcher.recv().await {
                Some(WatchOutput::Events { events, .. }) => {
                    let is_reason = events
                        .iter()
                        .filter_map(|event| std::str::from_utf8(&event.kv.as_ref()?.key).ok())
                        .any(is_meant);
                    if is_reason {
                        wake.notify_one();
                    }
                }
                Some(WatchOutput::Compacted { .. }) => break,
                None => return,
            }
        }
    }
}

/// Follows what is to be said of backups.
pub(crate) async fn follow_backups(board: &Board, wake: &Notify) {
    loop {
        board.changed().await;
        wake.notify_one();
    }
}

/// Follows people's commands that let go of something: what they left is looked at.
pub(crate) async fn follow_attended(attended: &Attended, wake: &Notify) {
    loop {
        attended.let_go().await;
        wake.notify_one();
    }
}

/// Follows which fenced instances may run here.
pub(crate) async fn follow_fence(mut held: Held, wake: &Notify) {
    loop {
        held.changed().await;
        wake.notify_one();
    }
}

fn watch(node: &Node, prefix: &str) -> Watcher {
    node.store().watch_hub().watch(WatchOptions {
        key: Bytes::copy_from_slice(prefix.as_bytes()),
        range_end: prefix_end(prefix),
        ..WatchOptions::default()
    })
}

/// Follows Incus' events, and connects again whenever they end. Nothing is replayed, so every connection starts a
/// pass. Never ends.
pub(crate) async fn follow_incus(incus: &Incus, wake: &Arc<Notify>) {
    let mut wait = RECONNECT_FIRST;
    loop {
        match follow_events(incus, wake).await {
            Ok(()) => {
                info!("the events of incus ended");
                wait = RECONNECT_FIRST;
            }
            Err(error) => debug!(error = in_full(&error), "cannot follow the events of incus"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RECONNECT_LONGEST);
    }
}

/// We look into instances ourselves, and every look is told of: no pass may start the next one.
fn is_a_look_inside(action: &str) -> bool {
    ["instance-exec", "instance-file-", "instance-log-"]
        .iter()
        .any(|look| action.starts_with(look))
}

/// Follows what the agent's own services do: wakes when one starts or ends. Never ends.
pub(crate) async fn follow_services(manager: Option<&Manager>, wake: &Arc<Notify>) {
    let Some(Manager::Supervised(supervised)) = manager else {
        return std::future::pending().await;
    };
    loop {
        supervised.changed().await;
        wake.notify_one();
    }
}

async fn follow_events(incus: &Incus, wake: &Arc<Notify>) -> Result<(), IncusError> {
    let mut events = incus.events().await?;
    wake.notify_one();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if is_a_look_inside(&event.action) {
                    continue;
                }
                debug!(
                    project = event.project,
                    name = event.name,
                    action = event.action,
                    "incus event"
                );
                wake.notify_one();
            }
            Err(error) => {
                debug!(error = in_full(&error), "the events of incus broke off");
                break;
            }
        }
    }
    Ok(())
}
