//! Loopback addresses and ports that nobody else in a test run has.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

/// A loopback address that no other caller in this test run has. Clients connect from 127.0.0.1, so that no
/// outgoing connection can take a server's port while the server is down.
#[must_use]
pub fn own_loopback() -> Ipv4Addr {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let [_, call] = call.to_be_bytes();
    Ipv4Addr::new(127, 1 + call % 254, high, low.clamp(1, 254))
}

/// Ports that are free now, all different, and different from those that other callers have been given: a member that
/// does not listen yet does not hold its own.
///
/// # Panics
/// When the address cannot be bound.
#[must_use]
pub fn free_ports<const N: usize>(address: Ipv4Addr) -> [u16; N] {
    static GIVEN: Mutex<BTreeSet<(Ipv4Addr, u16)>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().expect("nobody panics with it");
    // All are held until all are known, so that they differ.
    let mut held = Vec::new();
    [(); N].map(|()| {
        loop {
            let listener = TcpListener::bind((address, 0)).expect("bind a loopback port");
            let port = listener.local_addr().expect("bound address").port();
            held.push(listener);
            if given.insert((address, port)) {
                return port;
            }
        }
    })
}
