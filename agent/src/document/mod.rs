//! Documents: what an operator writes, and what a host answers.
//!
//! Owns the text of a document (YAML or JSON), its fields and rules, the keys it lives at, and the status a host
//! writes on it. Everything here is pure: no store, no Incus, no clock but the one handed in.
//!
//! Must not: touch the network or the store, or know how a document is made true. A document that parses may
//! still name something that does not exist on its host; that is the reconciler's to say.

mod backup;
mod binding;
mod canonical;
mod error;
mod fields;
mod host;
mod inventory;
mod keys;
mod kind;
mod lifecycle;
mod name;
mod overlay;
mod parts;
mod place;
mod placement;
mod retention;
mod schedule;
mod secret;
mod shapes;
mod spec;
mod split;
mod status;
mod suggest;
mod template;
mod tenant;
mod tunnel;
mod yaml;

pub use backup::{BackupSpec, Exports, Rule, Subject};
pub use binding::{Binding, binding_key, binding_prefix, parse_binding_key};
pub use canonical::{canonical_spec, canonical_text};
pub use error::DocumentError;
pub use fields::{Document, hosts_named, origin_fault, parse, parse_at};
pub use host::HostSpec;
pub use inventory::{
    INVENTORY_FIELDS, InventoryKey, InventoryKind, NO_PROJECT, inventory_prefix, parse_inventory_key,
};
pub use keys::{
    DesiredKey, desired_prefixes, key, parse_desired_key, parse_status_key, status_key, status_prefix,
    status_prefixes,
};
pub use kind::{Kind, kinds};
pub use lifecycle::{Deletion, Lifecycle, Managed, Update};
pub use placement::{Failover, Placement, Spread};
pub use retention::Keep;
pub use schedule::{Schedule, Stamp};
pub use secret::{
    SecretKey, StandIn, another_value, hide_secrets, is_among_secrets, may_hold_stand_in, parse_secret_key,
    secret_name_fault, secret_named_by, secret_prefix, shown, stands_for,
};
pub use spec::needs_restart;
pub use split::split;
pub use status::{Phase, Status, rfc3339_utc};
pub(crate) use suggest::did_you_mean;
pub use template::{
    Rendered, Template, Text, Values, Variable, parse_setting, parse_values, render, variables_used,
};
pub use tenant::{Permissions, Violation, check as check_tenant};
pub use tunnel::TunnelSpec;

/// Incus' own project, and the tenant of a document that names none.
pub const DEFAULT_TENANT: &str = "default";

/// What Incus makes itself is called so: its project, its profile, and, for us, the server.
pub const BUILTIN: &str = "default";

/// The config keys that say whose an object is. Users may not set them.
pub const OWNERSHIP_PREFIX: &str = "user.agent.";

#[cfg(test)]
mod tests;
