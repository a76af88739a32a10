//! The rules for names, which are Incus' where it has any, and strict enough for a key's segment.

use super::{DEFAULT_TENANT, Kind, spec};

/// Why `name` is no name for an object of a kind; `None` when it is one.
pub(super) fn fault(kind: Kind, name: &str) -> Option<&'static str> {
    match kind {
        Kind::Incus => (name != "default").then_some("is default: there is one Incus on a host"),
        Kind::Instance => instance_fault(name),
        Kind::Project => project_fault(name),
        Kind::Tenant if name == DEFAULT_TENANT => Some("is not default: that tenant is who runs the cluster"),
        Kind::Tenant => project_fault(name),
        Kind::Network => interface_fault(name),
        Kind::Host
        | Kind::StoragePool
        | Kind::NetworkAcl
        | Kind::NetworkForward
        | Kind::Profile
        | Kind::Volume
        | Kind::Image
        | Kind::File
        | Kind::Service
        | Kind::Tunnel
        | Kind::Backup
        | Kind::Template => plain_fault(name),
        Kind::OsService if spec::OS_SERVICES.contains(&name) => None,
        Kind::OsService => Some(
            "an os-service is one of ceph, iscsi, linstor, lvm, multipath, netbird, nvme, ovn, tailscale, usbip",
        ),
    }
}

/// A network becomes an interface of this name.
fn interface_fault(name: &str) -> Option<&'static str> {
    if !(2..=15).contains(&name.len()) {
        return Some("a network's name has 2 to 15 characters: it becomes an interface");
    }
    plain_fault(name)
}

/// Why `name` is no name for an instance. Incus makes it a host name.
fn instance_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() || name.len() > 63 {
        return Some("a name has 1 to 63 characters");
    }
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        return Some("an instance's name has letters, digits and hyphens only");
    }
    if name.starts_with('-') || name.ends_with('-') {
        return Some("an instance's name neither begins nor ends with a hyphen");
    }
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some("an instance's name is not a number");
    }
    None
}

/// Why `name` is no name for anything else (a profile, a project, a tenant, a host).
pub(super) fn plain_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() || name.len() > 63 {
        return Some("a name has 1 to 63 characters");
    }
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
    {
        return Some("a name has letters, digits, hyphens, dots and underscores only");
    }
    if !name.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return Some("a name begins with a letter or a digit");
    }
    None
}

/// Why `name` is no name for a project. Incus takes no underscore there.
pub(super) fn project_fault(name: &str) -> Option<&'static str> {
    plain_fault(name).or_else(|| name.contains('_').then_some("a project's name has no underscore"))
}
