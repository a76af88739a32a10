//! What people may do with a tenant, or with the cluster as a whole: roles and their ranges of keys. Pure.
//!
//! Etcd's roles are ranges of keys, and only root changes users and roles: a tenant's admin decides over its documents,
//! and not over its people.

use bytes::Bytes;
use clap::ValueEnum;
use proto::authpb;
use proto::authpb::permission::Type;

use crate::cli::range::KeyRange;
use crate::document::{DesiredKey, InventoryKey, InventoryKind, Kind, secret_prefix};

/// How much. Each has what those before it have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(in crate::cli) enum Level {
    /// Reads
    Viewer,
    /// Runs things
    Operator,
    /// Decides everything there
    Admin,
}

/// Of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Reach {
    Cluster,
    Tenant(String),
}

/// What an operator of a tenant writes: what runs, and not what it stands on.
const OPERATED: [Kind; 5] = [
    Kind::Instance,
    Kind::Service,
    Kind::File,
    Kind::Tunnel,
    Kind::Backup,
];

/// What a host's inventory has by project.
const INVENTORY: [InventoryKind; 4] = [
    InventoryKind::Image,
    InventoryKind::Instance,
    InventoryKind::Profile,
    InventoryKind::Volume,
];

impl Level {
    pub(in crate::cli) const ALL: [Self; 3] = [Self::Admin, Self::Operator, Self::Viewer];

    pub(in crate::cli) fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl Reach {
    /// The role's name. Who decides everything in the cluster is etcd's root.
    pub(in crate::cli) fn role(&self, level: Level) -> String {
        match self {
            Self::Cluster if level == Level::Admin => "root".to_owned(),
            Self::Cluster => format!("cluster:{}", level.word()),
            Self::Tenant(tenant) => format!("tenant:{tenant}:{}", level.word()),
        }
    }

    /// The level of a role, if it is one of this reach.
    pub(in crate::cli) fn level(&self, role: &str) -> Option<Level> {
        Level::ALL.into_iter().find(|level| self.role(*level) == role)
    }

    /// "tenant shop", "the cluster".
    pub(in crate::cli) fn words(&self) -> String {
        match self {
            Self::Cluster => "the cluster".to_owned(),
            Self::Tenant(tenant) => format!("tenant {tenant}"),
        }
    }

    /// All that a role allows. A tenant's inventory stands below each host: `hosts` are those that are known.
    pub(in crate::cli) fn permissions(&self, level: Level, hosts: &[String]) -> Vec<authpb::Permission> {
        match self {
            Self::Cluster => of_cluster(level),
            Self::Tenant(tenant) => of_tenant(tenant, level, hosts),
        }
    }
}

fn of_cluster(level: Level) -> Vec<authpb::Permission> {
    let read = |prefix| below(Type::Read, prefix);
    match level {
        // Root is made of no ranges.
        Level::Admin => Vec::new(),
        Level::Viewer => vec![read("/cluster/"), read("/hosts/"), read("/tenants/")],
        Level::Operator => vec![
            read("/cluster/"),
            read("/hosts/"),
            below(Type::Readwrite, "/cluster/desired/"),
            below(Type::Readwrite, "/tenants/"),
        ],
    }
}

fn of_tenant(tenant: &str, level: Level, hosts: &[String]) -> Vec<authpb::Permission> {
    let document = DesiredKey {
        kind: Kind::Tenant,
        tenant: String::new(),
        name: tenant.to_owned(),
    };
    let mut all = vec![
        authpb::Permission {
            perm_type: Type::Read.into(),
            key: document.key().into(),
            range_end: Bytes::new(),
        },
        below(Type::Read, &format!("/tenants/{tenant}/")),
    ];
    let desired = format!("/tenants/{tenant}/desired/");
    // Who decides what an instance runs reads its secrets there: they are theirs to set, too.
    let secrets = below(Type::Readwrite, &secret_prefix(tenant));
    all.extend((level != Level::Viewer).then_some(secrets));
    match level {
        Level::Viewer => {}
        Level::Operator => all.extend(
            OPERATED
                .iter()
                .map(|kind| below(Type::Readwrite, &format!("{desired}{}/", kind.plural()))),
        ),
        Level::Admin => all.push(below(Type::Readwrite, &desired)),
    }
    for host in hosts {
        let prefix = |kind| InventoryKey {
            host: host.clone(),
            kind,
            project: tenant.to_owned(),
            name: String::new(),
        };
        all.extend(INVENTORY.map(|kind| below(Type::Read, &prefix(kind).key())));
    }
    all.sort_by(|one, other| (&one.key, &one.range_end).cmp(&(&other.key, &other.range_end)));
    all
}

fn below(kind: Type, prefix: &str) -> authpb::Permission {
    let range = KeyRange::prefix(prefix.as_bytes());
    authpb::Permission {
        perm_type: kind.into(),
        key: range.key,
        range_end: range.range_end,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn shown(reach: &Reach) -> String {
        let hosts = ["ovh".to_owned()];
        let mut text = String::new();
        for level in [Level::Viewer, Level::Operator, Level::Admin] {
            text.push_str(&format!("{}\n", reach.role(level)));
            for permission in reach.permissions(level, &hosts) {
                let kind = format!("{:?}", permission.perm_type()).to_lowercase();
                let key = String::from_utf8_lossy(&permission.key).into_owned();
                let prefix = if permission.range_end.is_empty() {
                    ""
                } else {
                    "..."
                };
                text.push_str(&format!("  {kind:<9} {key}{prefix}\n"));
            }
        }
        text
    }

    #[test]
    fn a_tenants_roles_end_at_its_keys() {
        expect![[r#"
            tenant:shop:viewer
              read      /cluster/desired/tenants/shop
              read      /hosts/ovh/inventory/images/shop/...
              read      /hosts/ovh/inventory/instances/shop/...
              read      /hosts/ovh/inventory/profiles/shop/...
              read      /hosts/ovh/inventory/volumes/shop/...
              read      /tenants/shop/...
            tenant:shop:operator
              read      /cluster/desired/tenants/shop
              read      /hosts/ovh/inventory/images/shop/...
              read      /hosts/ovh/inventory/instances/shop/...
              read      /hosts/ovh/inventory/profiles/shop/...
              read      /hosts/ovh/inventory/volumes/shop/...
              read      /tenants/shop/...
              readwrite /tenants/shop/desired/backups/...
              readwrite /tenants/shop/desired/files/...
              readwrite /tenants/shop/desired/instances/...
              readwrite /tenants/shop/desired/services/...
              readwrite /tenants/shop/desired/tunnels/...
              readwrite /tenants/shop/secrets/...
            tenant:shop:admin
              read      /cluster/desired/tenants/shop
              read      /hosts/ovh/inventory/images/shop/...
              read      /hosts/ovh/inventory/instances/shop/...
              read      /hosts/ovh/inventory/profiles/shop/...
              read      /hosts/ovh/inventory/volumes/shop/...
              read      /tenants/shop/...
              readwrite /tenants/shop/desired/...
              readwrite /tenants/shop/secrets/...
        "#]]
        .assert_eq(&shown(&Reach::Tenant("shop".into())));
    }

    #[test]
    fn the_clusters_roles() {
        expect![[r#"
            cluster:viewer
              read      /cluster/...
              read      /hosts/...
              read      /tenants/...
            cluster:operator
              read      /cluster/...
              read      /hosts/...
              readwrite /cluster/desired/...
              readwrite /tenants/...
            root
        "#]]
        .assert_eq(&shown(&Reach::Cluster));
    }

    #[test]
    fn a_role_says_whose_it_is() {
        let shop = Reach::Tenant("shop".into());
        assert_eq!(shop.level("tenant:shop:operator"), Some(Level::Operator));
        assert_eq!(shop.level("tenant:shop2:operator"), None);
        assert_eq!(shop.level("root"), None);
        assert_eq!(Reach::Cluster.level("root"), Some(Level::Admin));
    }
}
