//! Tenants: whose documents may say how much. Pure.
//!
//! A document of kind tenant makes a restricted project of its name on each of its hosts, with its limits
//! ([`project`]). What a document of that tenant says must stay within the project ([`check`]): whatever reaches the
//! host, another project or the kernel is refused, unless the tenant's document allows it. Incus refuses the same when
//! it is asked; here it is refused before anything is changed, at its line, and where the project was made by hand
//! without restrictions too. The tenant `default` is the operators' own.

mod permissions;
mod read;
mod rules;

pub use permissions::Permissions;
pub(super) use permissions::project;

use permissions::ALLOWABLE;
pub(super) use read::read;
pub use rules::{Violation, check};

#[cfg(test)]
mod tests;
