//! TLS handshakes under way at a port: so many in all, and of one address a share. Where there is no more room the
//! oldest gives way: whoever finishes its handshake does so in moments, whoever only holds connections open pays with
//! its own.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The handshakes of one port.
#[derive(Clone, Debug)]
pub(super) struct Handshakes {
    open: Arc<Mutex<Open>>,
    all: usize,
    per_address: usize,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    /// By the order in which they began.
    underway: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
    of_address: HashMap<IpAddr, usize>,
}

impl Handshakes {
    pub(super) fn new(all: usize, per_address: usize) -> Handshakes {
        Handshakes {
            open: Arc::default(),
            all,
            per_address,
        }
    }

    /// One more, which may displace another.
    pub(super) fn begin(&self, address: IpAddr) -> Underway {
        let address = address.to_canonical();
        let mut open = self.open.lock();
        if open.of_address.get(&address).copied().unwrap_or(0) >= self.per_address {
            let mut oldest = open.underway.iter().filter(|(_, (of, _))| *of == address);
            let oldest = oldest.next().map(|(number, _)| *number);
            open.displace(oldest);
        }
        if open.underway.len() >= self.all {
            let oldest = open.underway.keys().next().copied();
            open.displace(oldest);
        }
        let number = open.next;
        open.next += 1;
        let (displace, displaced) = oneshot::channel();
        open.underway.insert(number, (address, displace));
        *open.of_address.entry(address).or_default() += 1;
        Underway {
            number,
            displaced,
            open: self.open.clone(),
        }
    }
}

impl Open {
    fn displace(&mut self, number: Option<u64>) {
        if let Some(displace) = number.and_then(|number| self.end(number)) {
            // It may have ended just now.
            let _ = displace.send(());
        }
    }

    fn end(&mut self, number: u64) -> Option<oneshot::Sender<()>> {
        let (address, displace) = self.underway.remove(&number)?;
        if let Some(count) = self.of_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.of_address.remove(&address);
            }
        }
        Some(displace)
    }
}

/// One handshake, until it is dropped.
#[derive(Debug)]
pub(super) struct Underway {
    number: u64,
    displaced: oneshot::Receiver<()>,
    open: Arc<Mutex<Open>>,
}

impl Underway {
    /// Completes when another needs the place.
    pub(super) async fn displaced(mut self) {
        // The sender goes only by being used, or with this.
        let _ = (&mut self.displaced).await;
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.open.lock().end(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_displaced(underway: &mut Underway) -> bool {
        underway.displaced.try_recv().is_ok()
    }

    #[test]
    fn the_oldest_gives_way() {
        let handshakes = Handshakes::new(3, 2);
        let begin = |address: &str| handshakes.begin(address.parse().unwrap());
        let mut first = begin("10.0.0.1");
        let mut second = begin("::ffff:10.0.0.1");
        let mut other = begin("10.0.0.2");
        assert!(!is_displaced(&mut first) && !is_displaced(&mut second));
        // Its own share is full: its own oldest goes.
        let mut third = begin("10.0.0.1");
        assert!(is_displaced(&mut first) && !is_displaced(&mut other));
        // All are full: the oldest of all goes.
        let mut stranger = begin("10.0.0.3");
        assert!(is_displaced(&mut second) && !is_displaced(&mut other) && !is_displaced(&mut third));
        // One that has ended makes room.
        drop(other);
        let _fourth = begin("10.0.0.4");
        assert!(!is_displaced(&mut third) && !is_displaced(&mut stranger));
        let open = handshakes.open.lock();
        assert_eq!((open.underway.len(), open.of_address.len()), (3, 3));
    }
}
