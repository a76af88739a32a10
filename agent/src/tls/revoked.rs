//! Whose certificates are accepted no more: asked at each handshake, and told to connections that are open.
//!
//! What is revoked is replicated; it comes here through the composition root. Until it has, nobody is refused.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use raft_store::Revocations;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;

use super::holder::Holder;
use crate::written_through::written_through;

/// Cloneable; all clones learn at once.
#[derive(Clone, Debug)]
pub struct Revoked(watch::Receiver<Arc<Revocations>>);

impl Default for Revoked {
    /// Nothing is.
    fn default() -> Revoked {
        let (_, nothing) = watch::channel(Arc::default());
        Revoked(nothing)
    }
}

/// What the other side of a connection has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Of its certificate, and of those between it and its authority.
    pub sha256: Vec<[u8; 32]>,
    pub holder: Holder,
}

impl Shown {
    /// By the chain that was verified.
    #[must_use]
    pub fn of(chain: &[CertificateDer<'_>]) -> Shown {
        Shown {
            sha256: chain.iter().map(|one| Sha256::digest(one).into()).collect(),
            holder: chain.first().map(Holder::of).unwrap_or_default(),
        }
    }
}

impl Revoked {
    /// What is revoked, and how to tell of changes.
    #[must_use]
    pub fn channel() -> (watch::Sender<Arc<Revocations>>, Revoked) {
        let (sender, receiver) = watch::channel(Arc::default());
        (sender, Revoked(receiver))
    }

    /// Why it is not accepted.
    #[must_use]
    pub fn refuses(&self, shown: &Shown) -> Option<String> {
        reason(&self.0.borrow(), shown)
    }

    /// Completes when it is accepted no more: with the reason.
    pub async fn until_refused(mut self, shown: Shown) -> String {
        loop {
            let refused = reason(&self.0.borrow_and_update(), &shown);
            if let Some(reason) = refused {
                return reason;
            }
            if self.0.changed().await.is_err() {
                // Nothing is ever revoked any more.
                std::future::pending::<()>().await;
            }
        }
    }
}

fn reason(revocations: &Revocations, shown: &Shown) -> Option<String> {
    if shown.sha256.iter().any(|one| revocations.has_certificate(one)) {
        return Some(format!(
            "the certificate shown ({}) was revoked",
            shown.holder.shown()
        ));
    }
    match &shown.holder.member {
        Some(member) if revocations.has_member(member) => {
            Some(format!("the certificates of member {member} were revoked"))
        }
        Some(_) => None,
        None => {
            let client = shown.holder.common_name.as_deref()?;
            let revoked = revocations.has_client(client);
            revoked.then(|| format!("the certificates of client {client} were revoked"))
        }
    }
}

/// A connection that ends when what its other side has shown is revoked.
pub struct Heeding<S> {
    socket: S,
    refused: Pin<Box<dyn Future<Output = String> + Send + Sync>>,
}

impl<S: std::fmt::Debug> std::fmt::Debug for Heeding<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Heeding").field(&self.socket).finish()
    }
}

impl<S> Heeding<S> {
    pub fn new(socket: S, revoked: Revoked, shown: Shown) -> Heeding<S> {
        Heeding {
            socket,
            refused: Box::pin(revoked.until_refused(shown)),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heeding<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // A connection is always read from: it wakes up here.
        if let Poll::Ready(reason) = this.refused.as_mut().poll(context) {
            this.refused = Box::pin(std::future::ready(reason.clone()));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::PermissionDenied, reason)));
        }
        Pin::new(&mut this.socket).poll_read(context, buffer)
    }
}

written_through!(Heeding);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_ends_when_nobody_tells_of_changes_no_more() {
        // Without a word nothing is refused, and nothing ends.
        let shown = Shown {
            sha256: vec![[1; 32]],
            holder: Holder::default(),
        };
        let revoked = Revoked::default();
        assert_eq!(revoked.refuses(&shown), None);
        let ended = tokio::time::timeout(std::time::Duration::ZERO, revoked.until_refused(shown)).await;
        assert!(ended.is_err());
    }
}
