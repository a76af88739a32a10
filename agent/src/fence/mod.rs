//! The fence: what lets another host take over an instance (`failover: fenced`) of a host that says nothing.
//!
//! Such an instance may run only while a deadline lies ahead. The agent puts it off (`reconciler::Fencer`) whenever a quorum
//! has confirmed that the instance is still this host's. A process of its own, the guard ([`GuardArgs`]), stops the instance
//! once the deadline has passed, whatever has become of the agent: killed, stopped, or cut off. The leader waits longer
//! than that before it puts the instance on another host (`reconciler::placement`).
//!
//! Why no two hosts run it: the leader first writes into the binding that the host is silent. A deadline is counted from
//! before a read that a quorum confirmed, and is not put off where that read shows the note: so none is later than
//! [`HOLD`] after the note was committed. The leader counts [`HOLD`] and [`CLEAR`] from when it has seen the note.
//! No clock of one host is compared with another's, only how fast they run.
//!
//! What it must not do: put off a deadline from anything but a read that a quorum confirmed after the time that it is
//! counted from; let go of an instance whose deadline has passed before Incus shows that it is stopped.
//!
//! What it cannot do: a machine whose hypervisor stops it for minutes, clocks and all, may run its copy for up to [`HOLD`]
//! once it goes on.

mod client;
mod guard;
mod message;

use std::time::Duration;

pub(crate) use client::{FenceError, GuardClient};
pub use guard::GuardArgs;
pub(crate) use message::{Boottime, Hold, Name};

/// A deadline is so long after the moment that it is counted from.
pub(crate) const HOLD: Duration = Duration::from_secs(20);
/// What the guard is given to stop an instance, by Incus or past it, with a margin for clocks that run at another pace.
pub(crate) const CLEAR: Duration = Duration::from_secs(25);
