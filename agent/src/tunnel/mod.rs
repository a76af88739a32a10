//! Tunnels: addresses of this host that lead to a port of an instance, wherever that is.
//!
//! [`TunnelTask`], which the server starts, owns the listeners and what passes through them; [`Tunnels`] asks it, for the
//! reconciler. Where the instance is, is found out for each connection, by the code that finds it for a person's
//! session, and the member of that host connects to it. [`carry()`] is `agentctl tunnel`'s as well.
//!
//! What holds, so that nothing is cut or left behind:
//! - another address, or another instance, is for the connections to come: those that are open go on;
//! - a tunnel that is closed takes its connections with it;
//! - so many tunnels, so many connections of each, so many in all: who comes then waits in the kernel's queue;
//! - a side that vanished is found by keep-alives, and half a connection does not outlive its silence (see
//!   `operator::tunnel`).
//!
//! It must not know documents' texts, nor decide what should be open: the reconciler's plan does.

mod carry;
mod listener;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::document::{DesiredKey, TunnelSpec};
use crate::peer::Hosts;
use crate::shutdown::Shutdown;
pub(crate) use carry::{carry, keep_alive};
use listener::Listener;

/// Tunnels of one host.
const TUNNELS_MAX: usize = 128;
/// Connections through all of them: the member has other uses for its file descriptors.
const CONNECTIONS_MAX: usize = 512;
/// Orders that wait; the caller of one more waits with it.
const ORDERS_MAX: usize = 16;
/// Nothing that is ordered waits for anybody else.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Why a tunnel is not open.
#[derive(Debug, Error)]
pub(crate) enum TunnelError {
    #[error("{address} on this host")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("{address}: {by} listens there; give one of them another port")]
    Taken { address: SocketAddr, by: DesiredKey },
    #[error("there are {TUNNELS_MAX} tunnels on this host already")]
    TooMany,
    #[error("the agent is stopping")]
    Stopping,
}

/// A tunnel that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    /// As it was asked for.
    pub(crate) spec: TunnelSpec,
    /// Where it listens: with the port that it was given, if any would do.
    pub(crate) address: SocketAddr,
}

type AllOpen = Arc<Mutex<BTreeMap<DesiredKey, Open>>>;

/// Asks for tunnels. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Tunnels {
    orders: mpsc::Sender<Order>,
    open: AllOpen,
}

/// Keeps the tunnels of this host.
#[derive(Debug)]
pub struct TunnelTask {
    orders: mpsc::Receiver<Order>,
    /// For those who look; changed here only.
    open: AllOpen,
    listening: BTreeMap<DesiredKey, Listening>,
    /// Those that listen, and those whose connections go on.
    listeners: JoinSet<()>,
    places: Arc<Semaphore>,
}

#[derive(Debug)]
enum Order {
    Open(DesiredKey, TunnelSpec, oneshot::Sender<Result<(), TunnelError>>),
    Close(DesiredKey, oneshot::Sender<()>),
}

/// What holds a listener.
#[derive(Debug)]
struct Listening {
    target: watch::Sender<TunnelSpec>,
    /// No more connections.
    retire: CancellationToken,
    /// The address is free again.
    retired: oneshot::Receiver<()>,
    /// Not even those that are there.
    cut: CancellationToken,
}

impl Tunnels {
    /// The two ends. What is asked for waits until the task runs.
    #[must_use]
    pub fn new() -> (TunnelTask, Tunnels) {
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        let open = AllOpen::default();
        let task = TunnelTask {
            orders,
            open: open.clone(),
            listening: BTreeMap::new(),
            listeners: JoinSet::new(),
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        };
        let orders = sender;
        (task, Tunnels { orders, open })
    }

    /// What is open.
    pub(crate) fn open(&self) -> BTreeMap<DesiredKey, Open> {
        self.open.lock().clone()
    }

    /// Opens a tunnel, or changes the one of this name.
    pub(crate) async fn listen(&self, key: &DesiredKey, spec: &TunnelSpec) -> Result<(), TunnelError> {
        self.ask(|answer| Order::Open(key.clone(), spec.clone(), answer))
            .await?
    }

    /// Closes a tunnel and all that passes through it. One that is not open is closed.
    pub(crate) async fn close(&self, key: &DesiredKey) -> Result<(), TunnelError> {
        self.ask(|answer| Order::Close(key.clone(), answer)).await
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, TunnelError> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.orders.send(order(answer)).await.ok()?;
            answered.await.ok()
        };
        let answer = tokio::time::timeout(ANSWER_LIMIT, asked).await;
        answer.ok().flatten().ok_or(TunnelError::Stopping)
    }
}

impl TunnelTask {
    /// Runs until shutdown, which closes everything.
    pub async fn run(mut self, hosts: Hosts, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                order = self.orders.recv() => match order {
                    Some(Order::Open(key, spec, answer)) => {
                        let opened = self.listen(&key, spec, &hosts).await;
                        let _ = answer.send(opened);
                    }
                    Some(Order::Close(key, answer)) => {
                        self.close(&key).await;
                        let _ = answer.send(());
                    }
                    None => return,
                },
                Some(_) = self.listeners.join_next() => {}
            }
        }
    }

    async fn listen(&mut self, key: &DesiredKey, spec: TunnelSpec, hosts: &Hosts) -> Result<(), TunnelError> {
        let before = self.open.lock().get(key).cloned();
        if let (Some(before), Some(listening)) = (before, self.listening.get(key))
            && before.spec.listen == spec.listen
        {
            info!(tunnel = %key, leads = %spec, "another target");
            listening.target.send_replace(spec.clone());
            let address = before.address;
            self.open.lock().insert(key.clone(), Open { spec, address });
            return Ok(());
        }
        // First, because the new address may be the old one in other words: all addresses instead of one.
        self.retire(key, false).await;
        if self.listening.len() >= TUNNELS_MAX {
            return Err(TunnelError::TooMany);
        }
        let listener = TcpListener::bind(spec.listen)
            .await
            .map_err(|source| self.refused(spec.listen, source))?;
        let address = listener.local_addr().map_err(|source| TunnelError::Listen {
            address: spec.listen,
            source,
        })?;
        info!(tunnel = %key, %address, leads = %spec, "listening");
        let (target, targets) = watch::channel(spec.clone());
        let (tell_retired, retired) = oneshot::channel();
        let listening = Listening {
            target,
            retire: CancellationToken::new(),
            retired,
            cut: CancellationToken::new(),
        };
        let task = Listener {
            listener,
            targets,
            hosts: hosts.clone(),
            places: self.places.clone(),
            retire: listening.retire.clone(),
            retired: tell_retired,
            cut: listening.cut.clone(),
        };
        self.listeners.spawn(task.run());
        self.listening.insert(key.clone(), listening);
        self.open.lock().insert(key.clone(), Open { spec, address });
        Ok(())
    }

    async fn close(&mut self, key: &DesiredKey) {
        if self.retire(key, true).await {
            info!(tunnel = %key, "closed");
        }
    }

    /// Gives the address back, and cuts what passes through it or not.
    async fn retire(&mut self, key: &DesiredKey, cut: bool) -> bool {
        self.open.lock().remove(key);
        let Some(listening) = self.listening.remove(key) else {
            return false;
        };
        listening.retire.cancel();
        if cut {
            listening.cut.cancel();
        }
        // It has nothing to wait for; one that failed has no address any more.
        let _ = listening.retired.await;
        true
    }

    fn refused(&self, address: SocketAddr, source: io::Error) -> TunnelError {
        let open = self.open.lock();
        let taken = open.iter().find(|(_, open)| {
            let other = open.address;
            let is_same =
                other.ip() == address.ip() || other.ip().is_unspecified() || address.ip().is_unspecified();
            source.kind() == io::ErrorKind::AddrInUse && other.port() == address.port() && is_same
        });
        match taken {
            Some((by, _)) => TunnelError::Taken {
                address,
                by: by.clone(),
            },
            None => TunnelError::Listen { address, source },
        }
    }
}
