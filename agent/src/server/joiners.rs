//! Connections without a certificate at the port for members: hosts that come with a join token.
//!
//! They are let as far as that one call only, few at a time and not for long, and only while there is a token at all.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::node::Node;
use crate::node::join_tokens::now;

/// At once.
const CONNECTIONS: usize = 64;
/// From the handshake to the end.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// Cloneable; all clones are opened at once.
#[derive(Clone, Debug)]
pub(super) struct Joiners {
    open: Arc<OnceLock<(Node, Router)>>,
    places: Arc<Semaphore>,
}

/// One joiner's connection.
pub(super) struct Joiner {
    pub(super) router: Router,
    pub(super) _place: OwnedSemaphorePermit,
}

impl Joiners {
    pub(super) fn new() -> Joiners {
        Joiners {
            open: Arc::default(),
            places: Arc::new(Semaphore::new(CONNECTIONS)),
        }
    }

    /// From now on whoever comes with a token is answered.
    pub(super) fn open(&self, node: &Node, routes: Router) {
        // Opened once: there is one node.
        let _ = self.open.set((node.clone(), routes));
    }

    /// Whether somebody may come: there is a token, or was a day ago, whose bearer is told what became of it.
    pub(super) fn are_expected(&self) -> bool {
        let open = self.open.get();
        open.is_some_and(|(node, _)| node.store().join_tokens().any_known(now()))
    }

    /// `None`: there are too many already, or none is expected any more.
    pub(super) fn admit(&self) -> Option<Joiner> {
        let (_, router) = self.open.get()?;
        let place = self.places.clone().try_acquire_owned().ok()?;
        Some(Joiner {
            router: router.clone(),
            _place: place,
        })
    }
}
