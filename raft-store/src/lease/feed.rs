//! Grants and revokes as they are applied, for the one who keeps the deadlines.
//!
//! Bounded: a reader that is too slow is told to read all leases anew instead, and the writer never waits. Without a
//! reader nothing is kept.

use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Applied chunks that wait for a slow reader.
const KEPT_CHUNKS: usize = 256;

/// A lease came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseEvent {
    Granted {
        id: i64,
        ttl_seconds: i64,
    },
    /// Revoked or expired.
    Gone {
        id: i64,
    },
}

/// What a reader of the feed learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseNews {
    /// In the order of the log.
    Events(Arc<[LeaseEvent]>),
    /// Events were missed, or the store was replaced: read [`crate::Store::leases_after`] from the beginning. What the
    /// feed tells afterwards may be known from there already.
    ReadAnew,
}

/// A reader's end.
#[derive(Debug)]
pub struct LeaseFeed {
    receiver: broadcast::Receiver<LeaseNews>,
}

impl LeaseFeed {
    /// `None` when the store is gone. Nothing is lost when the future is dropped before it completes.
    pub async fn next(&mut self) -> Option<LeaseNews> {
        match self.receiver.recv().await {
            Ok(news) => Some(news),
            Err(RecvError::Lagged(_)) => Some(LeaseNews::ReadAnew),
            Err(RecvError::Closed) => None,
        }
    }
}

/// The store's end.
pub(crate) struct LeaseFeedSender {
    sender: broadcast::Sender<LeaseNews>,
}

impl LeaseFeedSender {
    pub(crate) fn new() -> LeaseFeedSender {
        LeaseFeedSender {
            sender: broadcast::Sender::new(KEPT_CHUNKS),
        }
    }

    pub(crate) fn subscribe(&self) -> LeaseFeed {
        LeaseFeed {
            receiver: self.sender.subscribe(),
        }
    }

    pub(crate) fn tell(&self, events: Vec<LeaseEvent>) {
        if !events.is_empty() {
            // It fails where nobody listens, which is so on all members but the leader.
            let _ = self.sender.send(LeaseNews::Events(events.into()));
        }
    }

    pub(crate) fn tell_replaced(&self) {
        let _ = self.sender.send(LeaseNews::ReadAnew);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(id: i64) -> LeaseEvent {
        LeaseEvent::Gone { id }
    }

    #[tokio::test]
    async fn a_reader_that_is_too_slow_reads_anew_and_goes_on() {
        let sender = LeaseFeedSender::new();
        sender.tell(vec![gone(1)]);
        let mut feed = sender.subscribe();
        sender.tell(Vec::new());
        sender.tell(vec![gone(2), gone(3)]);
        let told = feed.next().await;
        assert_eq!(
            told,
            Some(LeaseNews::Events([gone(2), gone(3)].into())),
            "from now on"
        );
        for id in 0..=256 {
            sender.tell(vec![gone(id)]);
        }
        assert_eq!(feed.next().await, Some(LeaseNews::ReadAnew));
        assert_eq!(feed.next().await, Some(LeaseNews::Events([gone(1)].into())));
        sender.tell_replaced();
        drop(sender);
        while let Some(news) = feed.next().await {
            if news == LeaseNews::ReadAnew {
                return;
            }
        }
        panic!("a replaced store was not told");
    }
}
