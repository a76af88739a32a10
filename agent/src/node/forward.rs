//! The follower's end of forwarding: one long-lived stream to the leader it follows.
//!
//! A request that could not be sent is told apart from one whose answer was lost: only the first may be tried
//! again elsewhere without asking.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::StreamExt;
use parking_lot::Mutex;
use proto::peer::{ForwardRequest, ForwardResponse, forward_request, forward_response};
use raft_store::wal::Identity;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::Node;
use crate::peer::{Dialer, ForwardPeer, PeerTimeouts, Stamp, Whom, forward_client};

/// Requests queued for the stream, and answers awaited from it.
const QUEUED: usize = 4096;

/// Why a forwarded request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ForwardError {
    /// It never left this member.
    NotSent,
    /// It was sent, and the stream broke.
    Lost,
}

type Answer = Result<forward_response::Response, ForwardError>;

struct Pending {
    request: forward_request::Request,
    answer: oneshot::Sender<Answer>,
}

/// The stream to one leader. When it breaks, the receiver of `queue` is gone and a new link is made.
struct Link {
    leader: u64,
    queue: mpsc::Sender<Pending>,
}

/// Where the links are made: lock-free while the leader stays the same.
pub(super) struct Forwarder {
    identity: Identity,
    dialer: Dialer,
    timeouts: PeerTimeouts,
    current: ArcSwapOption<Link>,
    making: Mutex<()>,
}

impl Forwarder {
    pub(super) fn new(identity: Identity, dialer: Dialer, timeouts: PeerTimeouts) -> Self {
        Forwarder {
            identity,
            dialer,
            timeouts,
            current: ArcSwapOption::empty(),
            making: Mutex::new(()),
        }
    }

    fn usable(&self, leader: u64) -> Option<Arc<Link>> {
        self.current
            .load_full()
            .filter(|link| link.leader == leader && !link.queue.is_closed())
    }

    fn link(&self, leader: u64, url: Option<&String>, whom: &Whom) -> Option<Arc<Link>> {
        if let Some(link) = self.usable(leader) {
            return Some(link);
        }
        let _making = self.making.lock();
        if let Some(link) = self.usable(leader) {
            return Some(link);
        }
        let dialled = self.dialer.channel(url?, whom, self.timeouts);
        let channel = dialled
            .inspect_err(|error| tracing::debug!(%error, "cannot forward to the leader"))
            .ok()?;
        let peer = forward_client(channel, Stamp::new(self.identity, leader));
        let (queue, requests) = mpsc::channel(QUEUED);
        // Lives as long as the link: ends when the stream breaks or the leader changes.
        tokio::spawn(
            LinkTask {
                peer,
                requests,
                patience: self.timeouts.connect,
            }
            .run(),
        );
        let link = Arc::new(Link { leader, queue });
        self.current.store(Some(link.clone()));
        Some(link)
    }
}

impl Node {
    /// Sends a request to the leader, and waits for its answer.
    pub(super) async fn forward(
        &self,
        leader: u64,
        request: forward_request::Request,
    ) -> Result<forward_response::Response, ForwardError> {
        let url = self.peer_url(leader);
        let link = self
            .inner
            .forwarder
            .link(leader, url.as_ref(), &Whom::Member(leader, self.store().clone()))
            .ok_or(ForwardError::NotSent)?;
        let (answer, receiver) = oneshot::channel();
        link.queue
            .send(Pending { request, answer })
            .await
            .map_err(|_| ForwardError::NotSent)?;
        // The link ends with its last holder: who only waits for an answer must not keep it.
        drop(link);
        // The task drops what it never sent only after it has answered; a dropped sender is a lost answer.
        receiver.await.unwrap_or(Err(ForwardError::Lost))
    }
}

/// Owns the stream: numbers the requests, matches the answers.
struct LinkTask {
    peer: ForwardPeer,
    requests: mpsc::Receiver<Pending>,
    /// How long a former leader may take for the answers it still owes.
    patience: Duration,
}

impl LinkTask {
    async fn run(mut self) {
        let (outbound, stream) = mpsc::channel::<ForwardRequest>(QUEUED);
        let mut answers = match self.peer.forward(ReceiverStream::new(stream)).await {
            Ok(response) => response.into_inner(),
            Err(status) => {
                tracing::debug!(%status, "cannot reach the leader to forward to it");
                self.refuse_queued();
                return;
            }
        };
        let mut awaited: HashMap<u64, oneshot::Sender<Answer>> = HashMap::new();
        let mut next_id = 1;
        loop {
            tokio::select! {
                pending = self.requests.recv(), if awaited.len() < QUEUED => {
                    // The handle is gone: the leader changed, or the member stops.
                    let Some(Pending { request, answer }) = pending else {
                        let _ = timeout(self.patience, finish(&mut answers, &mut awaited)).await;
                        break;
                    };
                    if outbound.send(ForwardRequest { id: next_id, request: Some(request) }).await.is_err() {
                        // Not even queued in the transport.
                        let _ = answer.send(Err(ForwardError::NotSent));
                        break;
                    }
                    awaited.insert(next_id, answer);
                    next_id += 1;
                }
                message = answers.next() => match message {
                    Some(Ok(response)) => settle(&mut awaited, response),
                    Some(Err(_)) | None => break,
                },
            }
        }
        self.refuse_queued();
        for answer in awaited.into_values() {
            let _ = answer.send(Err(ForwardError::Lost));
        }
    }

    fn refuse_queued(&mut self) {
        self.requests.close();
        while let Ok(pending) = self.requests.try_recv() {
            // The asker may have given up: nothing is lost then.
            let _ = pending.answer.send(Err(ForwardError::NotSent));
        }
    }
}

/// The leader changed, but the old one still owes answers.
async fn finish(
    answers: &mut tonic::Streaming<ForwardResponse>,
    awaited: &mut HashMap<u64, oneshot::Sender<Answer>>,
) {
    while !awaited.is_empty() {
        match answers.next().await {
            Some(Ok(response)) => settle(awaited, response),
            Some(Err(_)) | None => break,
        }
    }
}

fn settle(awaited: &mut HashMap<u64, oneshot::Sender<Answer>>, response: ForwardResponse) {
    let Some(answer) = awaited.remove(&response.id) else {
        return;
    };
    let outcome = response.response.ok_or(ForwardError::Lost);
    // The asker may have given up.
    let _ = answer.send(outcome);
}
