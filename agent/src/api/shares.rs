//! What clients have of something that does not last for all: so much in all, and of one client a share, so that who
//! takes too much is refused itself, and others are served.
//!
//! A client is whoever is known of it: the user who signed in, else whom its certificate names, else the address that it
//! comes from. It must not decide what happens when there is no more: that is the taker's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::Extensions;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Where a connection comes from: an extension of each request on it, put there by the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// Whose share it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Client {
    User(Arc<str>),
    Certificate(Arc<str>),
    Address(IpAddr),
    /// By the socket of this machine.
    Local,
}

impl Client {
    /// As far as its connection says.
    pub(super) fn of_connection(extensions: &Extensions) -> Client {
        extensions
            .get::<ClientAddress>()
            .map_or(Client::Local, |ClientAddress(address)| Client::Address(*address))
    }
}

/// Cloneable; all clones count together.
#[derive(Clone, Debug)]
pub(super) struct Shares {
    all: usize,
    each: usize,
    taken: Arc<Mutex<Taken>>,
    freed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Without those who have nothing.
    by: HashMap<Client, usize>,
}

impl Shares {
    pub(super) fn new(all: usize, each: usize) -> Shares {
        Shares {
            all,
            each,
            taken: Arc::default(),
            freed: Arc::default(),
        }
    }

    /// What one client may have.
    pub(super) fn each(&self) -> usize {
        self.each
    }

    /// `None`: the client has its share, or there is no more at all.
    pub(super) fn take(&self, client: &Client, amount: usize) -> Option<Held> {
        self.take_within(self.each, client, amount)
    }

    /// As [`Shares::take`], and no more than half of the share: for what can do without.
    pub(super) fn take_some(&self, client: &Client, amount: usize) -> Option<Held> {
        self.take_within(self.each / 2, client, amount)
    }

    /// As [`Shares::take`], once there is as much: what a client has may be on its way out.
    pub(super) async fn take_until(&self, deadline: Instant, client: &Client, amount: usize) -> Option<Held> {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // Before the look, so that nothing that is given back after it is missed.
            freed.as_mut().enable();
            if let Some(held) = self.take(client, amount) {
                return Some(held);
            }
            timeout_at(deadline, freed).await.ok()?;
        }
    }

    fn take_within(&self, each: usize, client: &Client, amount: usize) -> Option<Held> {
        let mut taken = self.taken.lock();
        let own = taken.by.get(client).copied().unwrap_or(0).saturating_add(amount);
        let all = taken.all.saturating_add(amount);
        if own > each || all > self.all {
            return None;
        }
        taken.all = all;
        taken.by.insert(client.clone(), own);
        Some(Held {
            shares: self.clone(),
            client: client.clone(),
            amount,
        })
    }
}

/// What a client has, until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    shares: Shares,
    client: Client,
    amount: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock();
        taken.all = taken.all.saturating_sub(self.amount);
        if let Some(own) = taken.by.get_mut(&self.client) {
            *own = own.saturating_sub(self.amount);
            if *own == 0 {
                taken.by.remove(&self.client);
            }
        }
        drop(taken);
        self.shares.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_its_share_keeps_nobody_out() {
        let shares = Shares::new(10, 4);
        let client = |name: &str| Client::User(name.into());
        let first = shares.take(&client("ann"), 3).unwrap();
        assert!(shares.take(&client("ann"), 2).is_none());
        assert!(shares.take_some(&client("bob"), 3).is_none());
        let _second = shares.take(&client("ann"), 1).unwrap();
        // Another of that name is somebody else.
        let _third = shares.take(&Client::Certificate("ann".into()), 4).unwrap();
        let some = shares.take_some(&client("bob"), 2).unwrap();
        assert!(
            shares.take(&client("eve"), 1).is_none(),
            "there is no more at all"
        );
        drop(some);
        drop(first);
        assert!(shares.take(&client("ann"), 3).is_some());
        assert_eq!(shares.taken.lock().by.len(), 2);
        assert_eq!(shares.taken.lock().all, 5);
    }
}
