//! Connections to the other members, with TLS where their URLs say so.
//!
//! Owns the way from a URL to an open connection: the handshake, and the look at whose certificate is at the other
//! end, before anything is sent there. A member with certificates does not fall back to plaintext.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use raft_store::Store;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::admission::Roll;
use crate::tls::peer::PeerTls;
use crate::tls::revoked::{Heeding, Revoked, Shown};
use crate::tls::trouble::explained;

/// How long a peer may stay silent.
#[derive(Clone, Copy, Debug)]
pub struct PeerTimeouts {
    pub connect: Duration,
    /// Between HTTP/2 pings, and for the answer to one.
    pub keep_alive: Duration,
}

/// Who should be at the other end.
#[derive(Clone, Debug)]
pub enum Whom {
    /// The member of this name.
    Named(String),
    /// The member of this id, by the membership as it is when the connection is made.
    Member(u64, Store),
}

/// Why a peer is not connected to.
#[derive(Debug, Error)]
pub enum DialError {
    #[error("peer URL {0} is none")]
    Url(String),
    #[error("peer URL {0} asks for TLS: this member has no --peer-cert-file")]
    NoCertificate(String),
    #[error(
        "peer URL {0} is plaintext, and this member has certificates: the other one needs them too, and an https URL, or \
         this one --allow-plaintext while the cluster is moved"
    )]
    Plaintext(String),
}

/// Opens connections to peers. Cloneable.
#[derive(Clone, Debug, Default)]
pub struct Dialer {
    tls: Option<PeerTls>,
    allow_plaintext: bool,
    revoked: Revoked,
}

impl Dialer {
    /// With `allow_plaintext` a member that has certificates still talks to those that have none.
    #[must_use]
    pub fn new(tls: Option<PeerTls>, allow_plaintext: bool) -> Dialer {
        Dialer {
            tls,
            allow_plaintext,
            revoked: Revoked::default(),
        }
    }

    /// As this one, and not to whom a certificate was taken from.
    #[must_use]
    pub fn heeding(self, revoked: Revoked) -> Dialer {
        Dialer { revoked, ..self }
    }

    /// A channel to a peer, connected when first used and again whenever it breaks.
    ///
    /// # Errors
    /// See [`DialError`].
    pub fn channel(&self, url: &str, whom: &Whom, timeouts: PeerTimeouts) -> Result<Channel, DialError> {
        let not_a_url = || DialError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| not_a_url())?;
        let authority = uri.authority().ok_or_else(not_a_url)?.clone();
        // TLS is in the connector, so that each connection is made with the certificates as they are then.
        let endpoint = Endpoint::from_shared(format!("http://{authority}"))
            .map_err(|_| not_a_url())?
            .tcp_nodelay(true)
            .connect_timeout(timeouts.connect)
            .http2_keep_alive_interval(timeouts.keep_alive)
            .keep_alive_timeout(timeouts.keep_alive)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(8 << 20)
            .initial_connection_window_size(16 << 20);
        if uri.scheme_str() != Some("https") {
            let loopback = uri.host().is_some_and(is_loopback);
            if self.tls.is_some() && !self.allow_plaintext && !loopback {
                return Err(DialError::Plaintext(url.to_owned()));
            }
            return Ok(endpoint.connect_lazy());
        }
        let tls = self.tls.clone();
        let tls = tls.ok_or_else(|| DialError::NoCertificate(url.to_owned()))?;
        let (whom, revoked) = (whom.clone(), self.revoked.clone());
        let connector = tower::service_fn(move |_: Uri| {
            let (tls, whom, authority) = (tls.clone(), whom.clone(), authority.to_string());
            let revoked = revoked.clone();
            async move {
                let (stream, shown) = open(&authority, &tls, &whom).await?;
                if let Some(reason) = revoked.refuses(&shown) {
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
                }
                Ok(TokioIo::new(Heeding::new(stream, revoked, shown)))
            }
        });
        Ok(endpoint.connect_with_connector_lazy(connector))
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

async fn open(authority: &str, tls: &PeerTls, whom: &Whom) -> io::Result<(Explained, Shown)> {
    let stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    // Members are not known by their addresses: what is verified of the name comes after the handshake.
    let name = ServerName::try_from("peer.agent.internal").map_err(io::Error::other)?;
    let connecting = TlsConnector::from(tls.client()).connect(name, stream);
    let stream = connecting.await.map_err(explained)?;
    let (_, session) = stream.get_ref();
    let shown = Shown::of(session.peer_certificates().unwrap_or_default());
    let member = shown.holder.member.as_deref().ok_or_else(|| {
        let shown = shown.holder.shown();
        io::Error::other(format!(
            "the other side's certificate ({shown}) is no member's: is it the port for clients?"
        ))
    })?;
    whom.is(member).map_err(io::Error::other)?;
    Ok((Explained(stream), shown))
}

impl Whom {
    fn is(&self, shown: &str) -> Result<(), String> {
        match self {
            Whom::Named(name) if name.eq_ignore_ascii_case(shown) => Ok(()),
            Whom::Named(name) => Err(format!(
                "the other side's certificate is that of {shown}, not of {name}"
            )),
            Whom::Member(id, store) => Roll::of(store)
                .may_teach(*id, shown, false)
                .map_err(|reason| reason.to_string()),
        }
    }
}

/// A connection that says in words why the other side ended it.
#[derive(Debug)]
pub(super) struct Explained(pub(super) TlsStream<TcpStream>);

impl AsyncRead for Explained {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0)
            .poll_read(context, buffer)
            .map_err(explained)
    }
}

impl AsyncWrite for Explained {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(context, buffer)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(context)
    }
}

/// What lies at the bottom of a call's failure: the transport's own words are about itself.
#[must_use]
pub(super) fn reason(status: &Status) -> String {
    let mut reason = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        reason = error.to_string();
        cause = error.source();
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: PeerTimeouts = PeerTimeouts {
        connect: Duration::from_secs(1),
        keep_alive: Duration::from_secs(1),
    };

    #[tokio::test]
    async fn tls_needs_certificates() {
        let dial = |url: &str| {
            let whom = Whom::Named("ovh".to_owned());
            let channel = Dialer::default().channel(url, &whom, TIMEOUTS);
            channel.err().map(|error| error.to_string())
        };
        assert_eq!(dial("http://10.0.0.1:1"), None);
        assert_eq!(dial("").as_deref(), Some("peer URL  is none"));
        assert!(dial("https://10.0.0.1:1").unwrap().contains("--peer-cert-file"));
    }

    #[test]
    fn loopback_is_a_network_of_its_own() {
        assert!(is_loopback("127.1.2.3") && is_loopback("[::1]") && is_loopback("localhost"));
        assert!(!is_loopback("10.0.0.1") && !is_loopback("localhost.example.org"));
    }
}
