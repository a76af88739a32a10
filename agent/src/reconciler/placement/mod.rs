//! Which host an instance with `placement` is put on.
//!
//! `choose` decides, and is pure: the same documents, bindings and hosts always give the same answer, so that a plan
//! says before what the scheduler does later. [`Scheduler`] runs on every member and acts on the Raft leader's: it
//! writes decisions as bindings, in transactions that compare what was read.
//!
//! [`Mover`] fetches, on every host, the instances that a person moves there. [`Fencer`] lets this host's fenced
//! instances run, and no longer than it may; `failover` puts those of a silent host elsewhere.
//!
//! What it must not do: move what is bound. An instance stays where it is until a person says otherwise, whatever
//! becomes of documents and hosts; but for one that its document has fenced, whose host is silent.

mod choose;
mod failover;
mod fenced;
mod hosts;
mod mover;
mod record;
mod scheduler;

pub(super) use choose::{Decision, decide};
pub use fenced::{Fencer, Held};
pub(super) use hosts::read as read_hosts;
pub(super) use mover::{Move, moves_to};
pub use mover::{Mover, Moves};
pub use scheduler::Scheduler;
