//! TLS at the ports: how a connection begins, and who is at its other end.
//!
//! Owns the handshake and nothing after it: what a name may do is for the API's interceptor, which members may say what
//! for `peer`. Which certificates are shown is for `crate::tls`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Extensions;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::handshakes::Underway;
use super::joiners::{Joiner, Joiners};
use super::plaintext;
use crate::api::ClientCertificate;
use crate::peer::PeerCertificate;
use crate::tls::peer::PeerTls;
use crate::tls::revoked::{Revoked, Shown};
use crate::tls::server::ServerTls;
use crate::tls::trouble::explained;

/// Who does not finish its handshake within this time is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long, and how much, one that was refused is listened to: a connection that is closed with something unread
/// in it loses what was sent last, which is the reason.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 16 << 10;

/// What a port with TLS is served with.
pub(super) enum Security {
    Clients(ServerTls, Revoked),
    Peers(PeerTls, Joiners, Revoked),
}

impl Security {
    /// How the next connection begins.
    pub(super) fn handshake(&self) -> Handshake {
        match self {
            Security::Clients(tls, revoked) => Handshake {
                config: tls.current(),
                revoked: revoked.clone(),
                with: With::Clients {
                    names_users: tls.files().names_users,
                },
            },
            Security::Peers(tls, joiners, revoked) if joiners.are_expected() => Handshake {
                config: tls.joining(),
                revoked: revoked.clone(),
                with: With::Peers(Some(joiners.clone())),
            },
            Security::Peers(tls, _, revoked) => Handshake {
                config: tls.server(),
                revoked: revoked.clone(),
                with: With::Peers(None),
            },
        }
    }
}

/// How one connection begins.
pub(super) struct Handshake {
    config: Arc<ServerConfig>,
    revoked: Revoked,
    with: With,
}

/// Who should be at the other end.
enum With {
    Clients {
        names_users: bool,
    },
    /// And hosts that come with a token, where one is expected.
    Peers(Option<Joiners>),
}

/// Who is there.
pub(super) enum Caller {
    /// What each request of the connection carries, and what was shown: for as long as that is accepted.
    Admitted(Extensions, Revoked, Shown),
    /// A host without a certificate, and what it may ask for.
    Joins(Joiner),
    /// Nobody for this port; every request is answered with the reason.
    Misplaced(String),
}

impl Handshake {
    /// Speaks TLS, until another connection needs the place of this one.
    ///
    /// # Errors
    /// The other side's mistake, or its silence.
    pub(super) async fn accept(
        self,
        socket: TcpStream,
        underway: Underway,
    ) -> io::Result<(TlsStream<TcpStream>, Caller)> {
        tokio::select! {
            stream = timeout(HANDSHAKE_TIMEOUT, self.speak(socket)) => {
                let stream = stream.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time"))??;
                let caller = self.caller(&stream);
                Ok((stream, caller))
            }
            () = underway.displaced() => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "too many TLS handshakes are under way: the oldest gives way",
            )),
        }
    }

    async fn speak(&self, mut socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        if let Some(answer) = plaintext::answer(&socket).await? {
            // It may be gone already.
            let _ = socket.write_all(&answer).await;
            linger(socket).await;
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "plaintext at a port that speaks TLS",
            ));
        }
        let accepting = TlsAcceptor::from(self.config.clone()).accept(socket);
        match accepting.into_fallible().await {
            Ok(stream) => Ok(stream),
            Err((error, socket)) => {
                linger(socket).await;
                Err(explained(error))
            }
        }
    }
}

impl Handshake {
    fn caller(self, stream: &TlsStream<TcpStream>) -> Caller {
        let (_, session) = stream.get_ref();
        let chain = session.peer_certificates();
        if let (With::Peers(Some(joiners)), None) = (&self.with, chain) {
            return match joiners.admit() {
                Some(joiner) => Caller::Joins(joiner),
                None => Caller::Misplaced("too many hosts are joining: try again in a minute".to_owned()),
            };
        }
        let shown = Shown::of(chain.unwrap_or_default());
        if let Some(reason) = self.revoked.refuses(&shown) {
            return Caller::Misplaced(reason);
        }
        let holder = shown.holder.clone();
        let mut extensions = Extensions::new();
        match (self.with, holder.member) {
            (With::Clients { .. }, Some(member)) => {
                return Caller::Misplaced(format!(
                    "the certificate shown is that of member {member}, which is for the other members: clients show one \
                     of their own"
                ));
            }
            (With::Clients { names_users }, None) => {
                let name = holder.common_name.filter(|_| names_users);
                if let Some(common_name) = name {
                    extensions.insert(ClientCertificate { common_name });
                }
            }
            (With::Peers(_), Some(member)) => {
                extensions.insert(PeerCertificate { member });
            }
            (With::Peers(_), None) => {
                let shown = holder.common_name.as_deref().unwrap_or("without a name");
                return Caller::Misplaced(format!(
                    "the certificate shown ({shown}) is no member's: this port is for members, clients have another one"
                ));
            }
        }
        extensions.insert(shown.clone());
        Caller::Admitted(extensions, self.revoked, shown)
    }
}

/// Sends no more, and reads for a moment what is still on its way.
async fn linger(mut socket: TcpStream) {
    let read = async {
        socket.shutdown().await?;
        let mut buffer = [0; 1024];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match socket.read(&mut buffer).await? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        io::Result::Ok(())
    };
    // Whatever comes of it, the connection ends.
    let _ = timeout(LINGER, read).await;
}
