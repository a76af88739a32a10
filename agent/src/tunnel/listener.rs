//! One address that is listened at, and the connections that come there.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use proto::agent::v1::attach_start::What;
use proto::agent::v1::{AttachStart, InstanceRef, Tunnel};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{carry, keep_alive};
use crate::document::TunnelSpec;
use crate::operator::{OperatorError, SESSION_QUEUE};
use crate::peer::Hosts;

/// Connections of one tunnel; the next one waits.
const CONNECTIONS_EACH: usize = 128;
/// After an accept that failed: out of file descriptors, most often.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Listener {
    pub(super) listener: TcpListener,
    /// What new connections lead to.
    pub(super) targets: watch::Receiver<TunnelSpec>,
    pub(super) hosts: Hosts,
    /// Of all tunnels.
    pub(super) places: Arc<Semaphore>,
    pub(super) retire: CancellationToken,
    pub(super) retired: oneshot::Sender<()>,
    pub(super) cut: CancellationToken,
}

impl Listener {
    /// Listens until it is retired, and then waits for the connections, unless they are cut.
    pub(super) async fn run(self) {
        let Listener {
            listener,
            targets,
            hosts,
            places,
            retire,
            retired,
            cut,
        } = self;
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = retire.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = accept(&listener, &places), if connections.len() < CONNECTIONS_EACH => {
                    if let Some(stream) = accepted {
                        let spec = targets.borrow().clone();
                        connections.spawn(connection(hosts.clone(), places.clone(), spec, stream));
                    }
                }
            }
        }
        drop(listener);
        // Nobody asks where the tunnels' task has ended.
        let _ = retired.send(());
        let ended = async { while connections.join_next().await.is_some() {} };
        tokio::select! {
            () = cut.cancelled() => {}
            () = ended => {}
        }
    }
}

/// The next connection, once there is a place for it somewhere. A place that is waited for is not held: idle tunnels would
/// take them all. So there may be more than places by one for each tunnel, and these wait.
async fn accept(listener: &TcpListener, places: &Semaphore) -> Option<TcpStream> {
    drop(places.acquire().await);
    match listener.accept().await {
        Ok((stream, _)) => Some(stream),
        Err(error) => {
            debug!(%error, "cannot accept a connection to a tunnel");
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}

async fn connection(hosts: Hosts, places: Arc<Semaphore>, spec: TunnelSpec, mut stream: TcpStream) {
    let Ok(_place) = places.acquire().await else {
        return;
    };
    keep_alive(&stream);
    if let Err(error) = through(&hosts, &spec, &mut stream).await {
        debug!(tunnel = %spec, %error, "a connection broke");
        // So that nobody takes what was cut for what had come to its end.
        let _ = stream.set_zero_linger();
    }
}

async fn through(hosts: &Hosts, spec: &TunnelSpec, stream: &mut TcpStream) -> Result<(), OperatorError> {
    let instance = InstanceRef {
        tenant: spec.tenant.clone(),
        name: spec.instance.clone(),
        host: String::new(),
    };
    let host = hosts.whereabouts(&instance).await?;
    let start = AttachStart {
        instance: Some(instance),
        what: Some(What::Tunnel(Tunnel {
            port: spec.port.into(),
        })),
    };
    let (to_session, requests) = mpsc::channel(SESSION_QUEUE);
    let (answers, from_session) = mpsc::channel(SESSION_QUEUE);
    let session = hosts.attach(&host, start, requests, answers);
    let answers = ReceiverStream::new(from_session).map(Ok);
    let carried = carry(stream, to_session, answers);
    tokio::pin!(session, carried);
    tokio::select! {
        ended = &mut session => {
            ended?;
            // What it said last is still on its way.
            carried.await
        }
        ended = &mut carried => ended,
    }
}
