//! What etcd answers, row by row, and that the agent answers the same.
//!
//! A table is a list of rules, each with the request that shows it. The rows of a table are asked in order of
//! one fresh cluster; the golden files hold what etcd 3.5 answered.

mod ask;
mod auth;
mod cluster;
mod guarded;
mod kv;
mod lease;
mod maintenance;
mod txn;
mod watch;
