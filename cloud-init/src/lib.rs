//! Renders a host's cloud-init user-data: what makes a bare Debian machine a host, with nothing installed by hand.
//!
//! Owns the checks of what goes in ([`Host::new`], [`First::new`], [`Joiner::new`], [`Extras::new`]) and the text that comes out
//! ([`UserData`], [`unit`]), and nothing else: no file, no network, no clock. A host that passed
//! the checks renders, always, and its text holds no character that YAML or a shell could take for something else.

mod extras;
mod files;
mod host;
mod script;
mod user_data;

pub use extras::Extras;
pub use files::CTL;
pub use host::{Binary, First, Flags, Host, HostError, Joiner, Peer, Seed};
pub use user_data::{UserData, render, render_first, render_joiner};

/// How the member of a host is started, as a shell and systemd read it alike; of one that joins by the token that was put
/// beside its settings where `joins` says so.
///
/// # Errors
/// [`HostError::Provider`].
pub fn start_line(joins: bool, flags: &Flags) -> Result<String, HostError> {
    host::check_provider(&flags.provider)?;
    Ok(match joins {
        true => files::join_line(flags),
        false => files::run_line(flags),
    })
}

/// The unit of a member that is started like this.
#[must_use]
pub fn unit(start_line: &str) -> String {
    files::unit(start_line)
}
