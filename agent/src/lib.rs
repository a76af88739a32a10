//! One binary for every host: a Raft member that speaks the etcd v3 API, and a reconciler that keeps the local
//! Incus as the replicated documents say.
//!
//! [`server`] is the composition root: every long-lived task starts there. [`node`] is the member itself;
//! [`peer`] is how members talk; [`api`] is how clients talk to it. [`document`] says what is desired,
//! [`reconciler`] makes it so through [`incus`] and [`service`], [`operator`] does there what a person asks for at
//! once; [`attended`] keeps those two from acting on one object at once. [`tunnel`] carries connections between hosts
//! and instances, [`join`] makes a machine a host, [`install`] has its member started. [`api`] and [`reconciler`] never import each other; `tonic::Status` stays
//! in [`api`] and [`peer`].

pub mod api;
pub mod attended;
pub mod backup;
pub mod cli;
pub mod config;
pub mod dev;
pub mod document;
pub mod fence;
pub mod incus;
pub mod install;
pub mod join;
pub mod node;
pub mod operator;
pub mod peer;
pub mod reconciler;
pub mod secrets;
pub mod server;
pub mod service;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod tunnel;
mod written_through;
