//! What a document names beside itself: its project, its profiles, its image, its pools, networks and volumes.

use serde_json::Value;

use super::View;
use super::create::image_alias;
use super::tenancy;
use crate::document::{DEFAULT_TENANT, DesiredKey, Document, Kind};
use crate::reconciler::desired::Text;
use crate::reconciler::observe::local_alias;

/// A name that leads nowhere on this host.
#[derive(Debug)]
pub(super) struct BadReference {
    pub(super) path: String,
    pub(super) message: String,
}

/// Refuses what is neither there nor promised by another document.
pub(super) fn check(view: View<'_>, document: &Document) -> Result<(), BadReference> {
    if document.kind.has_tenant() {
        project(view, document)?;
        tenancy::check(view.desired, view.context.host, document)?;
    }
    for Reference { path, key, hint } in references(view, document) {
        if !exists(view, &key) {
            let within = match key.tenant.as_str() {
                "" => String::new(),
                tenant => format!(" in project {tenant}"),
            };
            let message = format!(
                "no {} {} on {}{within}{hint}",
                key.kind, key.name, view.context.host
            );
            return Err(BadReference { path, message });
        }
    }
    image(view, document)
}

/// What must be there, and finished, before this document's object can be made; `None` when all of it is.
pub(super) fn waits_for(view: View<'_>, document: &Document) -> Option<String> {
    let project = document.kind.has_tenant().then(|| project_key(&document.tenant));
    let image = promised_image(view, document).cloned();
    references(view, document)
        .into_iter()
        .map(|reference| reference.key)
        .chain(image)
        .chain(project)
        .find(|key| {
            let is_unfinished = view.planned.get(key).is_some_and(|plan| !plan.steps.is_empty());
            is_unfinished || view.context.busy.contains(key) || !view.observed.objects.contains_key(key)
        })
        .map(|key| format!("waits for {key}"))
}

/// A name in a document that is another object's.
struct Reference {
    path: String,
    key: DesiredKey,
    /// What to do where there is none.
    hint: &'static str,
}

fn references(view: View<'_>, document: &Document) -> Vec<Reference> {
    let mut found = profiles(view, document);
    match document.kind {
        Kind::Volume => found.extend(named(document, "pool", Kind::StoragePool)),
        Kind::NetworkForward => found.extend(named(document, "network", Kind::Network)),
        Kind::Network => found.extend(acls(document)),
        _ => {}
    }
    let devices = document.spec.get("devices").and_then(Value::as_object);
    for (name, device) in devices.into_iter().flatten() {
        found.extend(device_references(view, document, name, device));
    }
    found
}

fn named(document: &Document, field: &str, kind: Kind) -> Option<Reference> {
    let name = document.spec.get(field)?.as_str()?;
    Some(Reference {
        path: format!("spec.{field}"),
        key: cluster_key(kind, name),
        hint: "; put a document that makes it, or name another",
    })
}

fn acls(document: &Document) -> Vec<Reference> {
    let config = document.spec.get("config");
    let acls = config.and_then(|config| config.get("security.acls")?.as_str());
    let names = acls.into_iter().flat_map(|acls| acls.split(','));
    names
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| Reference {
            path: "spec.config.security.acls".to_owned(),
            key: cluster_key(Kind::NetworkAcl, name),
            hint: "",
        })
        .collect()
}

/// A device's pool, network and volume. What Incus takes by other names (a path of the host, a parent interface) is
/// not ours to judge.
fn device_references(view: View<'_>, document: &Document, name: &str, device: &Value) -> Vec<Reference> {
    let text = |field: &str| {
        device
            .get(field)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let reference = |field: &str, key: DesiredKey| Reference {
        path: format!("spec.devices.{name}.{field}"),
        key,
        hint: "",
    };
    let mut found = Vec::new();
    match text("type") {
        Some("nic") => {
            found.extend(
                text("network").map(|network| reference("network", cluster_key(Kind::Network, network))),
            );
        }
        Some("disk") => {
            let Some(pool) = text("pool") else { return found };
            found.push(reference("pool", cluster_key(Kind::StoragePool, pool)));
            let source = text("source").filter(|source| !source.contains('/') && text("path") != Some("/"));
            found.extend(source.map(|volume| {
                let key = DesiredKey {
                    kind: Kind::Volume,
                    tenant: view.project_of(Kind::Volume, &document.tenant).to_owned(),
                    name: volume.to_owned(),
                };
                reference("source", key)
            }));
        }
        _ => {}
    }
    found
}

fn project(view: View<'_>, document: &Document) -> Result<(), BadReference> {
    let tenant = document.tenant.as_str();
    let message = if !exists(view, &project_key(tenant)) {
        format!(
            "no project {tenant} on {}; put a document of kind project",
            view.context.host
        )
    } else {
        let feature = match document.kind {
            Kind::Profile => "features.profiles",
            Kind::Image => "features.images",
            Kind::Volume => "features.storage.volumes",
            _ => return Ok(()),
        };
        if view.project_of(document.kind, tenant) == tenant {
            return Ok(());
        }
        let plural = document.kind.plural();
        format!("project {tenant} has {feature} off: its {plural} are those of tenant default")
    };
    Err(BadReference {
        path: "tenant".to_owned(),
        message,
    })
}

/// The image of an instance that is yet to be made must be there, or come with another document.
fn image(view: View<'_>, document: &Document) -> Result<(), BadReference> {
    let is_new = !view.observed.objects.contains_key(&document.desired_key());
    let Some(alias) = local_alias(&document.spec).filter(|_| is_new && document.kind == Kind::Instance)
    else {
        return Ok(());
    };
    let has = |project: &str| view.observed.has_image(project, alias);
    let shared = view.project_of(Kind::Image, &document.tenant);
    if has(&document.tenant) || has(shared) || promised_image(view, document).is_some() {
        return Ok(());
    }
    Err(BadReference {
        path: "spec.source.alias".to_owned(),
        message: format!(
            "no image {alias} on {}; import it, put a document of kind image, or name the server that has it",
            view.context.host
        ),
    })
}

/// The document of the image that an instance is made from, where there is one.
fn promised_image<'a>(view: View<'a>, document: &Document) -> Option<&'a DesiredKey> {
    if document.kind != Kind::Instance {
        return None;
    }
    let alias = local_alias(&document.spec)?;
    let project = view.project_of(Kind::Image, &document.tenant);
    view.desired
        .documents
        .iter()
        .filter(|(key, _)| key.kind == Kind::Image && key.tenant == project)
        .find_map(|(key, wanted)| match &wanted.text {
            Text::Good(image) if image.names_host(view.context.host) && image_alias(image) == alias => {
                Some(key)
            }
            _ => None,
        })
}

fn exists(view: View<'_>, key: &DesiredKey) -> bool {
    let promised = || view.desired.documents.get(key)?.names_host(view.context.host);
    view.observed.objects.contains_key(key) || promised() == Some(true)
}

fn project_key(tenant: &str) -> DesiredKey {
    let name = if tenant.is_empty() { DEFAULT_TENANT } else { tenant };
    DesiredKey {
        kind: Kind::Project,
        tenant: String::new(),
        name: name.to_owned(),
    }
}

fn cluster_key(kind: Kind, name: &str) -> DesiredKey {
    DesiredKey {
        kind,
        tenant: String::new(),
        name: name.to_owned(),
    }
}

fn profiles(view: View<'_>, document: &Document) -> Vec<Reference> {
    let project = view.project_of(Kind::Profile, &document.tenant);
    let names = document.spec.get("profiles").and_then(Value::as_array);
    let names = names.into_iter().flatten().filter_map(Value::as_str);
    names
        .enumerate()
        .map(|(index, name)| Reference {
            path: format!("spec.profiles[{index}]"),
            key: DesiredKey {
                kind: Kind::Profile,
                tenant: project.to_owned(),
                name: name.to_owned(),
            },
            hint: "",
        })
        .collect()
}
