//! What keeps a service running: systemd, this agent itself, or a script in a guest that has neither.
//!
//! Owns the three ways behind one seam ([`Manager`]), the files and programs they need of a machine ([`Machine`]: this
//! host, or the inside of an instance), and what a service is ([`Definition`]). The unit and the script are plain
//! files whose text is made here and written by the caller, who knows whose they are.
//!
//! Must not: decide what should run, own a file, or know of documents and of Incus. Every program it runs has a limit
//! in time and in output, and nothing of a caller's text is ever read by a shell.

mod definition;
mod host;
mod machine;
mod manager;
mod script;
pub mod supervised;
mod systemd;

pub use definition::{Definition, Restart};
pub use host::HostMachine;
pub use machine::{FileFound, FileToWrite, Found, Machine, MachineError, Ran, digest};
pub use manager::{Activity, Loaded, Manager, ManagerChoice, ServiceError, UnitSeen};
pub use supervised::{Supervised, Supervisor};
