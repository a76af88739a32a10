//! Whether the documents of a tenant keep to its project, before they are stored.
//!
//! The hosts judge in any case. Who may not read the tenant's own document (a tenant may not) is told by them.

use std::collections::BTreeMap;

use proto::etcdserverpb as pb;

use super::client::Client;
use super::documents::Source;
use super::error::CliError;
use crate::document::{self, DEFAULT_TENANT, DesiredKey, Kind, Permissions};

/// Refuses documents that reach out of their tenant's project further than it is allowed.
pub(super) async fn check(client: &Client, sources: &[Source]) -> Result<(), CliError> {
    let mut known: BTreeMap<String, Option<Permissions>> = BTreeMap::new();
    let mut mistakes = Vec::new();
    for source in sources {
        let tenant = &source.document.tenant;
        if tenant.is_empty() || tenant == DEFAULT_TENANT {
            continue;
        }
        if !known.contains_key(tenant) {
            known.insert(tenant.clone(), permissions(client, sources, tenant).await);
        }
        let Some(Some(permissions)) = known.get(tenant) else {
            continue;
        };
        if let Err(violation) = document::check_tenant(&source.document, permissions) {
            let line = source.document.line_of(&violation.path).unwrap_or(1);
            mistakes.push(format!(
                "{}: {}: {}",
                source.place_of_line(line),
                violation.path,
                violation.message
            ));
        }
    }
    if mistakes.is_empty() {
        return Ok(());
    }
    Err(CliError::failed(mistakes.join("\nerror: ")).hint("nothing was changed"))
}

/// What the tenant is allowed, as it will be once `sources` are stored; `None` where that cannot be read.
async fn permissions(client: &Client, sources: &[Source], tenant: &str) -> Option<Permissions> {
    let is_it = |source: &&Source| source.document.kind == Kind::Tenant && source.document.name == tenant;
    if let Some(source) = sources.iter().find(is_it) {
        return Some(Permissions::of(&source.document));
    }
    let key = DesiredKey {
        kind: Kind::Tenant,
        tenant: String::new(),
        name: tenant.to_owned(),
    };
    let request = pb::RangeRequest {
        key: key.key().into(),
        ..Default::default()
    };
    let kv = client.range(request).await.ok()?.kvs.into_iter().next();
    let Some(kv) = kv else {
        return Some(Permissions::default());
    };
    let document = document::parse(&String::from_utf8_lossy(&kv.value)).ok()?;
    Some(Permissions::of(&document))
}
