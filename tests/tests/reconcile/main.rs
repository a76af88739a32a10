//! What the reconciler does when things go wrong: agents that are killed at every step, and an Incus that refuses, is
//! silent, or loses what it was told. On the simulated daemon and on a real one.

#![expect(
    clippy::unwrap_used,
    reason = "a scenario fails by panicking, outside of test functions too"
)]

mod faults;
mod site;
mod sweep;
