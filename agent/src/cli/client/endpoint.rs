//! One endpoint: where it is, whether it speaks TLS, and the connection to it.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use http::Uri;
use http::uri::Authority;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::Channel;

use super::ClientOptions;
use super::tls::Tls;
use crate::cli::error::CliError;

/// An address of a member. `https://` speaks TLS, `http://` does not; without either it does when anything was said
/// about TLS. `unix://` is the socket in a member's data directory, on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    authority: Authority,
    secure: bool,
    socket: Option<PathBuf>,
}

/// A connection without anything on it yet.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Endpoint {
    /// Reads `HOST:PORT`, `http://HOST:PORT`, `https://HOST:PORT` or `unix:///PATH`.
    pub(crate) fn parse(text: &str, tls: &Tls) -> Result<Self, CliError> {
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(CliError::usage(format!("`{text}` is not an endpoint"))
                    .hint("a socket is named by its whole path: unix:///var/lib/agent/agent.sock"));
            }
            return Ok(Self {
                authority: Authority::from_static("localhost"),
                secure: false,
                socket: Some(PathBuf::from(path)),
            });
        }
        let (secure, rest) = if let Some(rest) = text.strip_prefix("https://") {
            (true, rest)
        } else if let Some(rest) = text.strip_prefix("http://") {
            (false, rest)
        } else {
            (tls.wanted(), text)
        };
        let rest = rest.trim_end_matches('/');
        let has_port = rest
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
        let authority = rest.parse::<Authority>().ok();
        match authority.filter(|authority| has_port && !authority.as_str().contains('@')) {
            Some(authority) => Ok(Self {
                authority,
                secure,
                socket: None,
            }),
            None => Err(
                CliError::usage(format!("`{text}` is not an endpoint")).hint(
                    "an endpoint is HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:///PATH; several are separated by commas",
                ),
            ),
        }
    }

    /// `http://HOST:PORT`, `https://HOST:PORT`, or `unix:///PATH`.
    pub(crate) fn url(&self) -> String {
        if let Some(path) = &self.socket {
            return format!("unix://{}", path.display());
        }
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }

    /// A gRPC channel, connected. It reconnects by itself later.
    pub(super) async fn connect(
        &self,
        options: &ClientOptions,
    ) -> Result<Channel, Box<dyn Error + Send + Sync>> {
        // TLS is in the connector: tonic itself sees an open connection, and tells the member its real address.
        let open = Channel::from_shared(format!("http://{}", self.authority))?
            .connect_timeout(options.dial_timeout)
            .http2_keep_alive_interval(options.keep_alive_time)
            .keep_alive_timeout(options.keep_alive_timeout)
            .keep_alive_while_idle(true);
        if let Some(path) = self.socket.clone() {
            let connector = tower::service_fn(move |_uri: Uri| {
                let path = path.clone();
                async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
            });
            return Ok(open.connect_with_connector(connector).await?);
        }
        if !self.secure {
            return Ok(open.connect().await?);
        }
        let origin: Uri = self.url().parse()?;
        let (tls, host, port) = (options.tls.clone(), self.host(), self.port());
        let connector = tower::service_fn(move |_uri: Uri| {
            let (tls, host) = (tls.clone(), host.clone());
            async move {
                let stream = open_tcp(&host, port).await?;
                let stream = tls.connect(&host, stream).await?;
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        Ok(open.origin(origin).connect_with_connector(connector).await?)
    }

    /// A connection without anything on it yet.
    pub(super) async fn open(&self) -> io::Result<Box<dyn Stream>> {
        if let Some(path) = &self.socket {
            return Ok(Box::new(UnixStream::connect(path).await?));
        }
        Ok(Box::new(open_tcp(&self.host(), self.port()).await?))
    }

    pub(super) fn is_secure(&self) -> bool {
        self.secure
    }

    pub(super) fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// Without the brackets of an IPv6 address.
    pub(super) fn host(&self) -> String {
        let host = self.authority.host();
        host.trim_start_matches('[').trim_end_matches(']').to_owned()
    }

    fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or_default()
    }
}

async fn open_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str, tls: &Tls) -> Result<String, CliError> {
        Endpoint::parse(text, tls).map(|endpoint| endpoint.url())
    }

    #[test]
    fn endpoints_are_checked() {
        let plain = Tls::default();
        let cases = [
            ("127.0.0.1:2379", "http://127.0.0.1:2379"),
            ("http://127.0.0.1:2379", "http://127.0.0.1:2379"),
            ("http://ovh:2379/", "http://ovh:2379"),
            ("https://ovh:2379", "https://ovh:2379"),
            ("[::1]:2379", "http://[::1]:2379"),
            (
                "unix:///var/lib/agent/agent.sock",
                "unix:///var/lib/agent/agent.sock",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(url(text, &plain).as_deref(), Ok(expected));
        }
        for wrong in [
            "",
            "ovh",
            "ovh:0",
            "ovh:99999",
            ":2379",
            "ftp://ovh:2379",
            "unix://agent.sock",
            "me@ovh:1",
        ] {
            assert!(url(wrong, &plain).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_said_about_tls_holds_for_endpoints_without_a_scheme() {
        let tls = Tls::unverified();
        assert_eq!(url("ovh:2379", &tls).as_deref(), Ok("https://ovh:2379"));
        assert_eq!(url("http://ovh:2379", &tls).as_deref(), Ok("http://ovh:2379"));
    }
}
