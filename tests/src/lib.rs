//! The harness: clusters of real processes, of our agent or of a real etcd, and the clients that try them.
//!
//! A scenario takes a [`cluster::Subject`], so that the same one runs on etcd first and on the agent next: what
//! etcd does is the expectation. Nothing here knows how the agent works inside; only `lab` knows Incus, and
//! `hosts` puts it beside members.

pub mod agentctl;
pub mod certificates;
pub mod client;
pub mod cluster;
pub mod curl;
pub mod etcdctl;
pub mod hosts;
pub mod lab;
pub mod load;
pub mod names;
pub mod notes;
mod on_both;
pub mod shell;
pub mod show;
pub mod tmpfs;
pub mod tools;
pub mod transcript;
pub mod wait;
