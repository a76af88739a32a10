//! The one call between peers that names no member: who asks does not know yet who is who.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use proto::peer::bootstrap_client::BootstrapClient;
use proto::peer::bootstrap_server::{Bootstrap, BootstrapServer};
use proto::peer::{DescribeRequest, Description};
use tonic::{Request, Response, Status};

use super::{Dialer, PeerTimeouts, Whom, reason};
use crate::node::Node;

/// Answers from the first moment on: before there is a [`Node`], with what the data directory says.
#[derive(Clone, Debug)]
pub struct Describer {
    before: Description,
    node: Arc<OnceLock<Node>>,
}

impl Describer {
    #[must_use]
    pub fn new(before: Description) -> Describer {
        Describer {
            before,
            node: Arc::default(),
        }
    }

    /// From now on the node answers.
    pub fn set_node(&self, node: &Node) {
        // Set once: there is one node.
        let _ = self.node.set(node.clone());
    }

    #[must_use]
    pub fn service(&self) -> BootstrapServer<Describer> {
        BootstrapServer::new(self.clone())
    }
}

#[tonic::async_trait]
impl Bootstrap for Describer {
    async fn describe(&self, _request: Request<DescribeRequest>) -> Result<Response<Description>, Status> {
        let description = match self.node.get() {
            Some(node) => node.describe().await,
            None => self.before.clone(),
        };
        Ok(Response::new(description))
    }
}

/// Asks whoever listens at a peer URL, over a connection of its own.
///
/// # Errors
/// The reason, as text.
pub async fn describe(
    dialer: &Dialer,
    url: &str,
    whom: &Whom,
    patience: Duration,
) -> Result<Description, String> {
    let timeouts = PeerTimeouts {
        connect: patience,
        keep_alive: patience,
    };
    let channel = dialer
        .channel(url, whom, timeouts)
        .map_err(|error| error.to_string())?;
    let answer = BootstrapClient::new(channel).describe(DescribeRequest {}).await;
    answer.map(Response::into_inner).map_err(|status| reason(&status))
}
