//! A port: accepts connections up to a limit, speaks HTTP/1.1 and HTTP/2 on each, and ends them in order.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::response::Response;
use http::{Extensions, Request};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tower::{Service, ServiceExt};

use super::authority::LenientAuthority;
use super::handshakes::Handshakes;
use super::joiners;
use super::opening::Opening;
use super::places::Places;
use super::refusal;
use super::tls::{Caller, Security};
use crate::api::ClientAddress;
use crate::config::ListenUrl;
use crate::peer::JoinerAddress;
use crate::shutdown::Shutdown;

/// Connections to one port at once.
const CONNECTIONS: usize = 16_384;
/// Of those, from one address: many clients may share one, but not take all.
const CONNECTIONS_PER_ADDRESS: usize = CONNECTIONS / 4;
/// TLS handshakes under way at one port, and of those from one address.
const HANDSHAKES: usize = 2048;
const HANDSHAKES_PER_ADDRESS: usize = HANDSHAKES / 4;
/// Between two lines in the log about handshakes that failed.
const BETWEEN_COMPLAINTS: Duration = Duration::from_secs(5);
/// Calls on one connection at once: etcd's clients put all their watches and leases on one.
const STREAMS_PER_CONNECTION: u32 = 4096;
/// A client that does not say which HTTP it speaks within this time, or sends no request's head, is dropped.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// The head of a request: all names and values, in HTTP/2 as they are before they are compressed. HTTP/1.1 reads bodies by
/// as much at a time, too.
const HTTP1_HEAD_BYTES: usize = 64 << 10;
const HTTP1_HEADERS: usize = 100;
const HTTP2_HEAD_BYTES: u32 = 16 << 10;
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// What clients have under way at shutdown may take this long.
pub(super) const DRAIN_CLIENTS: Duration = Duration::from_secs(2);
/// Peers hold streams that end only with the member: they are cut as soon as Raft has stopped.
pub(super) const DRAIN_PEERS: Duration = Duration::from_millis(100);

/// Binds a port.
///
/// # Errors
/// The text names the URL and the cause.
pub(super) async fn bind(flag: &str, url: &ListenUrl) -> io::Result<TcpListener> {
    TcpListener::bind(url.address).await.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => "; another agent or etcd may be running, or choose another port",
            io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
            _ => "",
        };
        io::Error::new(
            error.kind(),
            format!("{flag}: cannot listen on {}: {error}{hint}", url.url),
        )
    })
}

/// A bound port, and what it is served with where that is TLS.
pub(super) struct Port {
    pub(super) listener: TcpListener,
    pub(super) security: Option<Security>,
}

/// Serves a port until the shutdown, and then what is under way, for as long as `drain`.
pub(super) async fn serve(port: Port, router: Router, shutdown: Shutdown, drain: Duration) {
    let Port { listener, security } = port;
    let http = http();
    let places = Places::new(CONNECTIONS, CONNECTIONS_PER_ADDRESS);
    let handshakes = Handshakes::new(HANDSHAKES, HANDSHAKES_PER_ADDRESS);
    let complaints = Complaints::default();
    let connections = GracefulShutdown::new();
    loop {
        let free = tokio::select! {
            free = places.free() => free,
            () = shutdown.cancelled() => break,
        };
        let Ok(free) = free else { break };
        let (socket, address) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most often: the connections that end give some back.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = shutdown.cancelled() => break,
        };
        let Some(place) = places.take(free, address.ip()) else {
            if complaints.may_complain() {
                tracing::warn!(address = %address.ip(), most = CONNECTIONS_PER_ADDRESS, "too many connections from one address");
            }
            continue;
        };
        // Small messages, answered one by one: waiting to fill packets would only delay them.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let handshake = security.as_ref().map(Security::handshake);
        let underway = handshake.is_some().then(|| handshakes.begin(address.ip()));
        let complaints = complaints.clone();
        let (http, router, watcher) = (http.clone(), router.clone(), connections.watcher());
        let mut about = Extensions::new();
        about.insert(ClientAddress(address.ip().to_canonical()));
        tokio::spawn(async move {
            let ended = match handshake.zip(underway) {
                Some((handshake, underway)) => match handshake.accept(socket, underway).await {
                    Ok((stream, Caller::Admitted(shows, revoked, shown))) => tokio::select! {
                        ended = speak(&http, stream, with_extensions(router, with(about, shows)), watcher) => ended,
                        reason = revoked.until_refused(shown) => {
                            tracing::warn!(address = %address.ip(), reason, "a connection is cut");
                            Err(reason.into())
                        }
                    },
                    Ok((stream, Caller::Joins(joiner))) => {
                        let mut about = Extensions::new();
                        about.insert(JoinerAddress(address.ip()));
                        let router = with_extensions(joiner.router.clone(), about);
                        let served = speak(&http, stream, router, watcher);
                        let served = tokio::time::timeout(joiners::LIMIT, served).await;
                        served.unwrap_or_else(|late| Err(late.into()))
                    }
                    Ok((stream, Caller::Misplaced(reason))) => {
                        tracing::warn!(address = %address.ip(), reason, "a connection is refused");
                        let router = refusal::router(reason);
                        speak(&http, stream, with_extensions(router, Extensions::new()), watcher).await
                    }
                    Err(error) => {
                        if error.kind() == io::ErrorKind::InvalidData && complaints.may_complain() {
                            tracing::warn!(address = %address.ip(), reason = %error, "a TLS handshake failed");
                        }
                        Err(error.into())
                    }
                },
                // Whoever says nothing at all is not worth a place.
                None => match tokio::time::timeout(HEADER_TIMEOUT, socket.readable()).await {
                    Ok(_) => speak(&http, socket, with_extensions(router, about), watcher).await,
                    Err(silent) => Err(silent.into()),
                },
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(drain, connections.shutdown()).await.is_err() {
        tracing::debug!("connections that did not end in time are cut");
    }
}

fn with(mut about: Extensions, more: Extensions) -> Extensions {
    about.extend(more);
    about
}

/// How every port speaks HTTP.
pub(super) fn http() -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HTTP1_HEAD_BYTES)
        .max_headers(HTTP1_HEADERS);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .max_header_list_size(HTTP2_HEAD_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    http
}

/// Strangers may fail as often as they like: what they do wrong is worth a line now and then.
#[derive(Clone, Default)]
struct Complaints(Arc<Mutex<Option<Instant>>>);

impl Complaints {
    fn may_complain(&self) -> bool {
        let mut last = self.0.lock();
        let may = last.is_none_or(|last| last.elapsed() >= BETWEEN_COMPLAINTS);
        if may {
            *last = Some(Instant::now());
        }
        may
    }
}

/// Serves one connection to its end.
pub(super) async fn speak<S, R>(
    http: &Builder<TokioExecutor>,
    stream: S,
    service: R,
    watcher: Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    R: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
{
    let service = TowerToHyperService::new(service);
    let stream = LenientAuthority::new(Opening::new(stream, HEADER_TIMEOUT));
    let connection = http.serve_connection(TokioIo::new(stream), service).into_owned();
    watcher.watch(connection).await
}

/// Each request of a connection carries what is known of who opened it.
pub(super) fn with_extensions(
    router: Router,
    about: Extensions,
) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
    router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().extend(about.clone());
        request
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::time::Instant;

    use super::*;

    /// The head of a request that goes no further: HTTP/1.1 counts its time, in HTTP/2 nobody answers for it.
    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_end_ends_the_connection() {
        // Settings, and the head of a frame of headers that are not sent.
        let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x20\x01\x04\0\0\0\x01";
        for (begun, most) in [
            (&b"GET / HTTP/1.1\r\nx: y"[..], HEADER_TIMEOUT),
            (http2, KEEP_ALIVE + KEEP_ALIVE_TIMEOUT),
        ] {
            let (mut client, server) = tokio::io::duplex(64 << 10);
            client.write_all(begun).await.unwrap();
            let connections = GracefulShutdown::new();
            let start = Instant::now();
            let service = with_extensions(Router::new(), Extensions::new());
            let http = http();
            let served = speak(&http, server, service, connections.watcher());
            let ended = tokio::time::timeout(most * 2, served).await;
            assert!(ended.is_ok(), "{} is waited for", begun.escape_ascii());
            assert_eq!(
                start.elapsed().as_secs(),
                most.as_secs(),
                "{}",
                begun.escape_ascii()
            );
            drop(client);
        }
    }
}
