//! Users, roles and what they may do with which keys: pure data, and pure questions about it.
//!
//! [`Auth`] is one version of all of it. Apply changes its own and publishes it; readers hold the version that they
//! asked with. [`Permissions`] are a user's roles taken together, merged and sorted.
//!
//! What it must not do: see a password (users hold what bcrypt made of one), look at a clock, or know of tokens more
//! than the key that signs them.

mod change;
mod permissions;
mod stored;
mod users;

pub use permissions::Permissions;
pub(crate) use stored::{entries, load, record};
pub use users::{Auth, ROOT, Record, User};

#[cfg(test)]
mod tests;
