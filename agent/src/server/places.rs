//! How many may be connected to a port: so many in all, and of one address a share, so that one broken client
//! leaves room for the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// The places of one port.
#[derive(Clone, Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    per_address: usize,
}

impl Places {
    pub(super) fn new(all: usize, per_address: usize) -> Places {
        Places {
            free: Arc::new(Semaphore::new(all)),
            taken: Arc::default(),
            per_address,
        }
    }

    /// Waits until there is a place at all: until then nobody is accepted, and the kernel lets them wait.
    pub(super) async fn free(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        self.free.clone().acquire_owned().await
    }

    /// Gives the place to a client; `None`: its address has its share already.
    pub(super) fn take(&self, free: OwnedSemaphorePermit, address: IpAddr) -> Option<Place> {
        // However a client writes its address, it is the same one.
        let address = address.to_canonical();
        let mut taken = self.taken.lock();
        let count = taken.entry(address).or_default();
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        Some(Place {
            taken: self.taken.clone(),
            address,
            _free: free,
        })
    }
}

/// One connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
    _free: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_has_its_share() {
        let places = Places::new(3, 2);
        let take = async |address: &str| {
            let free = places.free().await.unwrap();
            places.take(free, address.parse().unwrap())
        };
        let first = take("10.0.0.1").await.unwrap();
        let _second = take("::ffff:10.0.0.1").await.unwrap();
        assert!(take("10.0.0.1").await.is_none());
        let _other = take("10.0.0.2").await.unwrap();
        assert_eq!(places.free.available_permits(), 0);
        drop(first);
        assert!(take("10.0.0.1").await.is_some());
        assert_eq!(places.taken.lock().len(), 2);
    }
}
