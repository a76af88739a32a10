//! The keys that documents and their status live at.

use std::fmt;

use super::{DEFAULT_TENANT, Document, Kind};

/// A key of the desired state, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DesiredKey {
    pub kind: Kind,
    /// Empty for a kind without a tenant.
    pub tenant: String,
    pub name: String,
}

/// Where a document lives.
#[must_use]
pub fn key(document: &Document) -> String {
    document.desired_key().key()
}

/// Everything that hosts say on a document: one key for each host, its name the last segment.
#[must_use]
pub fn status_prefix(kind: Kind, tenant: &str, name: &str) -> String {
    if kind.has_tenant() {
        format!("/tenants/{tenant}/status/{}/{name}/", kind.plural())
    } else {
        format!("/cluster/status/{}/{name}/", kind.plural())
    }
}

/// What one host says on a document.
#[must_use]
pub fn status_key(key: &DesiredKey, host: &str) -> String {
    status_prefix(key.kind, &key.tenant, &key.name) + host
}

/// The prefixes under which every document is found, among other keys.
#[must_use]
pub const fn desired_prefixes() -> [&'static str; 2] {
    ["/cluster/desired/", "/tenants/"]
}

/// The prefixes under which every status is found, among other keys.
#[must_use]
pub const fn status_prefixes() -> [&'static str; 2] {
    ["/cluster/status/", "/tenants/"]
}

/// Takes a key of the desired state apart; `None` for any other key, and for a kind that is not ours to know.
#[must_use]
pub fn parse_desired_key(key: &str) -> Option<DesiredKey> {
    let segments: Vec<&str> = key.strip_prefix('/')?.split('/').collect();
    match segments.as_slice() {
        ["cluster", "desired", kind, name] => desired_key(kind, "", name),
        ["tenants", tenant, "desired", kind, name] if !tenant.is_empty() => desired_key(kind, tenant, name),
        _ => None,
    }
}

/// Takes a status' key apart into the document's and the host.
#[must_use]
pub fn parse_status_key(key: &str) -> Option<(DesiredKey, String)> {
    let segments: Vec<&str> = key.strip_prefix('/')?.split('/').collect();
    let (desired, host) = match segments.as_slice() {
        ["cluster", "status", kind, name, host] => (desired_key(kind, "", name)?, *host),
        ["tenants", tenant, "status", kind, name, host] if !tenant.is_empty() => {
            (desired_key(kind, tenant, name)?, *host)
        }
        _ => return None,
    };
    (!host.is_empty()).then(|| (desired, host.to_owned()))
}

fn desired_key(plural: &str, tenant: &str, name: &str) -> Option<DesiredKey> {
    let kind = Kind::from_word(plural).filter(|kind| kind.plural() == plural)?;
    (kind.has_tenant() != tenant.is_empty() && !name.is_empty()).then(|| DesiredKey {
        kind,
        tenant: tenant.to_owned(),
        name: name.to_owned(),
    })
}

impl DesiredKey {
    #[must_use]
    pub fn key(&self) -> String {
        if self.kind.has_tenant() {
            format!(
                "/tenants/{}/desired/{}/{}",
                self.tenant,
                self.kind.plural(),
                self.name
            )
        } else {
            format!("/cluster/desired/{}/{}", self.kind.plural(), self.name)
        }
    }
}

impl fmt::Display for DesiredKey {
    /// `instance web`, or with its tenant where that is not the default one: `instance t1/web`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tenant.is_empty() || self.tenant == DEFAULT_TENANT {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.tenant, self.name)
        }
    }
}
