//! Where an instance with `placement` was put: the decision, beside the document and not in it.
//!
//! A binding is the cluster's, the document its author's: an edit of a document moves nothing. It is written by the
//! scheduler and by whoever moves an instance, always in a transaction that compares what was read.

use serde::{Deserialize, Serialize};

use super::{DesiredKey, Kind};

/// The value at a binding's key, in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Empty: no host fits, and `reason` says why.
    pub host: String,
    /// How often the instance was bound to a host. Of two hosts that both believe to have it, the one of the higher
    /// epoch is right.
    pub epoch: u64,
    /// When that was: RFC 3339, UTC.
    pub since: String,
    /// Why that host, or why none.
    pub reason: String,
    /// It is to move there: it is stopped, and copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving_to: Option<String>,
    /// Where its data came from, with the move that brought it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_from: Option<String>,
    /// The host keeps to a fence: this long, at most, it lets the instance run without the word of a quorum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence_seconds: Option<u64>,
    /// The leader has heard nothing of the host since then: RFC 3339, UTC. While this stands, the host lets the instance
    /// run no longer than it has let it already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_since: Option<String>,
    /// It was seen here as its document says: the copy that it was made from is not needed any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub arrived: bool,
}

impl Binding {
    /// The host, where there is one.
    #[must_use]
    pub fn bound_host(&self) -> Option<&str> {
        (!self.host.is_empty()).then_some(self.host.as_str())
    }
}

/// All bindings of a tenant.
#[must_use]
pub fn binding_prefix(tenant: &str) -> String {
    format!("/tenants/{tenant}/bindings/")
}

/// Where the binding of an instance lives.
#[must_use]
pub fn binding_key(instance: &DesiredKey) -> String {
    let prefix = binding_prefix(&instance.tenant);
    format!("{prefix}{}/{}", instance.kind.plural(), instance.name)
}

/// The instance whose binding lives at `key`; `None` for any other key.
#[must_use]
pub fn parse_binding_key(key: &str) -> Option<DesiredKey> {
    let segments: Vec<&str> = key.strip_prefix("/tenants/")?.split('/').collect();
    match segments.as_slice() {
        [tenant, "bindings", "instances", name] if !tenant.is_empty() && !name.is_empty() => {
            Some(DesiredKey {
                kind: Kind::Instance,
                tenant: (*tenant).to_owned(),
                name: (*name).to_owned(),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_apart_again() {
        let key = "/tenants/shop/bindings/instances/web";
        let web = parse_binding_key(key).unwrap();
        assert_eq!(
            (web.to_string().as_str(), binding_key(&web).as_str()),
            ("instance shop/web", key)
        );
        for other in [
            "/tenants/shop/bindings/instances/",
            "/tenants/shop/bindings/profiles/web",
            "/tenants/shop/bindings/instances/web/ovh",
            "/tenants//bindings/instances/web",
            "/tenants/shop/desired/instances/web",
        ] {
            assert_eq!(parse_binding_key(other), None, "{other}");
        }
    }
}
