//! What a document of kind tunnel says, in types.

use std::fmt;
use std::net::SocketAddr;

use serde_json::Value;

use super::{DesiredKey, Document, Kind};

/// Where a host listens, and what is behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelSpec {
    /// Port 0: any that is free.
    pub listen: SocketAddr,
    /// The document's: a tunnel leads to no other tenant's instance.
    pub tenant: String,
    pub instance: String,
    pub port: u16,
}

impl TunnelSpec {
    /// `None` for a document of another kind.
    #[must_use]
    pub fn of(document: &Document) -> Option<TunnelSpec> {
        if document.kind != Kind::Tunnel {
            return None;
        }
        let text = |name: &str| document.spec.get(name).and_then(Value::as_str);
        Some(TunnelSpec {
            listen: text("listen")?.parse().ok()?,
            tenant: document.tenant.clone(),
            instance: text("instance")?.to_owned(),
            port: u16::try_from(document.spec.get("port")?.as_u64()?).ok()?,
        })
    }

    /// The key of the instance's document.
    #[must_use]
    pub fn instance_key(&self) -> DesiredKey {
        DesiredKey {
            kind: Kind::Instance,
            tenant: self.tenant.clone(),
            name: self.instance.clone(),
        }
    }
}

impl fmt::Display for TunnelSpec {
    /// `127.0.0.1:15432 -> db:5432`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}:{}", self.listen, self.instance, self.port)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::document::{TunnelSpec, canonical_text, parse};

    #[test]
    fn a_tunnel_is_read_and_may_differ_on_a_host() {
        let text = "kind: tunnel\nname: db\ntenant: shop\nhosts: [ovh, ionos]\nspec: {listen: '127.0.0.1:5432', instance: db, port: 5432}\n\
                    perHost: {ionos: {listen: '[0::1]:15432'}}\n";
        let document = parse(text).unwrap();
        let spec = |host: &str| TunnelSpec::of(document.on_host(host)).unwrap().to_string();
        assert_eq!(spec("ovh"), "127.0.0.1:5432 -> db:5432");
        assert_eq!(spec("ionos"), "[::1]:15432 -> db:5432");
        let canonical = canonical_text(&document);
        assert_eq!(canonical_text(&parse(&canonical).unwrap()), canonical);
    }

    #[test]
    fn a_mistake_is_answered_where_it_was_made() {
        let cases = [
            "spec: {instance: db, port: 5432}",
            "spec: {listen: 5432, instance: db, port: 5432}",
            "spec: {listen: 'localhost:5432', instance: db, port: 5432}",
            "spec: {listen: '127.0.0.1:70000', instance: db, port: 5432}",
            "spec: {listen: '127.0.0.1:5432', port: 5432}",
            "spec: {listen: '127.0.0.1:5432', instance: a/b, port: 5432}",
            "spec: {listen: '127.0.0.1:5432', instance: db, port: 0}",
            "spec: {listen: '127.0.0.1:5432', instance: db, ports: 5432}",
            "instance: db\nspec: {listen: '127.0.0.1:5432', port: 5432}",
            "running: true\nspec: {}",
            "placement: {}\nspec: {}",
        ];
        let answers = cases.map(|rest| {
            let text = format!("kind: tunnel\nname: db\n{rest}\n");
            parse(&text).expect_err(&text).to_string()
        });
        expect![[r#"
            3: spec.listen: is missing: the address of the host, as 127.0.0.1:5432
            3: spec.listen: is an address of the host and a port, as 127.0.0.1:5432 or '[::1]:5432'; with port 0 it is any that is free
            3: spec.listen: is an address of the host and a port, as 127.0.0.1:5432 or '[::1]:5432'; with port 0 it is any that is free
            3: spec.listen: is an address of the host and a port, as 127.0.0.1:5432 or '[::1]:5432'; with port 0 it is any that is free
            3: spec.instance: is missing: the instance that it leads to
            3: spec.instance: an instance's name has letters, digits and hyphens only
            3: spec.port: is a number from 1 to 65535
            3: spec.ports: no such field for kind tunnel; did you mean port?
            3: instance: a tunnel is in no instance; the one that it leads to is spec.instance
            3: running: a tunnel does not run
            3: placement: only an instance is on one of several hosts; name those of a tunnel in hosts"#]].assert_eq(&answers.join("\n"));
    }
}
