//! Tells the ports and the connections of this member what is revoked, as soon as that is applied here.

use std::sync::Arc;
use std::time::Duration;

use raft_store::{Revocations, Store};
use tokio::sync::watch;

/// A look is one pointer read.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct RevocationTask {
    store: Store,
    told: watch::Sender<Arc<Revocations>>,
}

impl RevocationTask {
    pub(super) fn new(store: Store, told: watch::Sender<Arc<Revocations>>) -> RevocationTask {
        RevocationTask { store, told }
    }

    /// Runs for as long as it is let.
    pub(super) async fn run(self) {
        loop {
            let now = self.store.revocations();
            self.told.send_if_modified(|told| {
                let changed = !Arc::ptr_eq(told, &now);
                if changed {
                    *told = now;
                }
                changed
            });
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}
