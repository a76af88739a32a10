//! The write-ahead log as openraft and a restart see it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails right there")]

mod failure;
mod fixture;
mod format;
mod memory_machine;
mod model;
mod open;
mod recovery;
mod segments;
mod suite;
