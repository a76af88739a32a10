//! Whether a tenant's document keeps to its project, as far as the tenant's own document allows.
//!
//! A member judges by what it has: the tenant's document is replicated with all others. Where there is none nothing is
//! allowed; where its text is wrong, what the last good one allowed.

use super::references::BadReference;
use crate::document::{self, DesiredKey, Document, Kind, Permissions};
use crate::reconciler::desired::{Desired, Text};

pub(super) fn check(desired: &Desired, host: &str, document: &Document) -> Result<(), BadReference> {
    document::check_tenant(document, &permissions(desired, host, &document.tenant)).map_err(|violation| {
        BadReference {
            path: violation.path,
            message: violation.message,
        }
    })
}

fn permissions(desired: &Desired, host: &str, tenant: &str) -> Permissions {
    let key = DesiredKey {
        kind: Kind::Tenant,
        tenant: String::new(),
        name: tenant.to_owned(),
    };
    let in_force = desired.documents.get(&key).and_then(|wanted| match &wanted.text {
        Text::Good(document) => Some(document),
        Text::Invalid { last_good, .. } => last_good.as_ref().map(|(_, document)| document),
    });
    in_force
        .filter(|document| document.names_host(host))
        .map(|document| Permissions::of(document))
        .unwrap_or_default()
}
