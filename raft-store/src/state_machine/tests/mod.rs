//! The state machine as openraft drives it. [`Fixture`] serves apply's own tests too.

mod auth;
mod fixture;
mod golden;
mod hash;
mod kv;
mod lease;
mod membership;
mod model;
mod recovery;
mod restore;
mod snapshot;
mod suite;
mod txn;

pub(crate) use fixture::{Fixture, compact, delete, op_delete, op_get, op_put, put, range};
