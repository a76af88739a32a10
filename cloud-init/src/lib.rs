//! Renders a host's cloud-init user-data: what makes a bare Debian machine a host, with nothing installed by hand.
//!
//! Owns the checks of what goes in ([`Host::new`], [`First::new`], [`Joiner::new`]) and the text that comes out
//! ([`render`], [`render_first`], [`render_joiner`]), and nothing else: no file, no network, no clock. A host that passed
//! the checks renders, always, and its text holds no character that YAML or a shell could take for something else.

mod files;
mod host;
mod user_data;

pub use host::{Binary, First, Host, HostError, Joiner, Peer, Seed};
pub use user_data::{render, render_first, render_joiner};
