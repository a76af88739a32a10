//! `/hosts/HOST/alive`: on a lease, so that it goes away with the host.

use std::time::Duration;

use bytes::Bytes;
use proto::etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest, PutRequest};
use proto::replicated::{Refusal, Reply, reply, request::Op};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::ReconcilerOptions;
use super::execute::in_full;
use crate::incus::Incus;
use crate::node::{Node, NodeError};
use crate::shutdown::Shutdown;

const TTL_SECONDS: i64 = 60;
const RENEW_EVERY: Duration = Duration::from_secs(20);
const RETRY_AFTER: Duration = Duration::from_secs(3);
/// Well within what is left of the lease.
const INCUS_LIMIT: Duration = Duration::from_secs(5);
const REVOKE_LIMIT: Duration = Duration::from_secs(2);

/// Says that this host is there.
#[derive(Debug)]
pub struct Alive {
    node: Node,
    incus: Incus,
    options: ReconcilerOptions,
    /// 0: none yet.
    lease: i64,
    /// What was last written on that lease.
    written: Option<HostAlive>,
}

/// The value at `/hosts/HOST/alive`, in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAlive {
    /// The agent's.
    pub version: String,
    pub provider: String,
    /// Empty while Incus does not answer.
    pub incus_version: String,
    pub addresses: Vec<String>,
}

#[derive(Debug, Error)]
enum RenewError {
    #[error("the cluster does not take it")]
    Node(#[from] NodeError),
    #[error("refused by the store: {}", .0.as_str_name())]
    Refused(Refusal),
}

impl Alive {
    #[must_use]
    pub fn new(node: Node, incus: Incus, options: ReconcilerOptions) -> Alive {
        Alive {
            node,
            incus,
            options,
            lease: 0,
            written: None,
        }
    }

    /// Runs until shutdown, and takes the key with it.
    pub async fn run(mut self, shutdown: Shutdown) {
        let renewals = async {
            loop {
                let wait = match self.renew().await {
                    Ok(()) => RENEW_EVERY,
                    Err(error) => {
                        debug!(error = in_full(&error), "cannot say that this host is alive");
                        RETRY_AFTER
                    }
                };
                sleep(wait).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = renewals => {}
        }
        if self.lease != 0 {
            let revoke = Op::LeaseRevoke(LeaseRevokeRequest { id: self.lease });
            if timeout(REVOKE_LIMIT, self.node.propose(revoke)).await.is_err() {
                debug!("the host's lease was not revoked; it runs out by itself");
            }
        }
    }

    async fn renew(&mut self) -> Result<(), RenewError> {
        if self.lease != 0 && self.node.lease_keep_alive(self.lease).await? <= 0 {
            self.lease = 0;
        }
        if self.lease == 0 {
            let id = self.node.new_lease_id();
            let grant = LeaseGrantRequest { id, ttl: TTL_SECONDS };
            accepted(&self.node.propose(Op::LeaseGrant(grant)).await?)?;
            self.lease = id;
            self.written = None;
        }
        let now = self.now().await;
        if self.written.as_ref() != Some(&now) || !self.is_there() {
            let put = PutRequest {
                key: key(&self.options.host),
                value: serde_json::to_vec(&now).unwrap_or_default().into(),
                lease: self.lease,
                ..PutRequest::default()
            };
            accepted(&self.node.propose(Op::Put(put)).await?)?;
            self.written = Some(now);
        }
        Ok(())
    }

    async fn now(&self) -> HostAlive {
        let incus_version = match timeout(INCUS_LIMIT, self.incus.server()).await {
            Ok(Ok(server)) => server.version,
            Ok(Err(_)) | Err(_) => String::new(),
        };
        HostAlive {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            provider: self.options.provider.clone(),
            incus_version,
            addresses: self.options.addresses.clone(),
        }
    }

    /// Whether nobody deleted the key.
    fn is_there(&self) -> bool {
        self.node
            .store()
            .lease_keys(self.lease)
            .contains(&key(&self.options.host))
    }
}

/// Where a host says that it is alive.
pub(super) fn key(host: &str) -> Bytes {
    format!("/hosts/{host}/alive").into()
}

fn accepted(reply: &Reply) -> Result<(), RenewError> {
    match &reply.result {
        Some(reply::Result::Refused(refusal)) => Err(RenewError::Refused(
            Refusal::try_from(*refusal).unwrap_or_default(),
        )),
        _ => Ok(()),
    }
}
