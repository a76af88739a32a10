//! The local Incus, over its unix socket.
//!
//! Owns the REST client ([`Incus`]): its envelope, its operations, ETags, the stream of lifecycle events
//! and sessions in an instance. It must
//! not decide what should be there (the reconciler does), must not change what it is given to send, and must not
//! judge an error by its prose: Incus answers "exists already", "image missing" and "is running" alike with status
//! 500, so a caller reads before and after.
//!
//! A write's error does not say that nothing happened: [`IncusError::Timeout`] and [`IncusError::Unreachable`] leave
//! the outcome open. Observe again, then decide.

mod backups;
mod client;
mod error;
mod events;
mod guest;
mod images;
mod instance;
mod lifecycle;
mod listing;
mod object;
mod operation;
mod path;
mod session;
pub mod simulated;
mod transport;
mod websocket;

pub use backups::{Export, ExportOptions};
pub use client::{Incus, ServerInfo, StateAction};
pub use error::IncusError;
pub use events::{Event, EventStream};
pub use guest::{Guest, GuestEntry, GuestFile, GuestRan};
pub use listing::{ChangeStream, Collection};
pub use object::{AttachedVolume, Kind, Live, attached_volumes};
pub use session::{Command, Incoming, Outgoing, Session, Size, Stream};

/// What the simulated daemon calls itself in `environment.server`, where the real one says `incus`.
const SIMULATED_SERVER: &str = "incus (simulated)";
