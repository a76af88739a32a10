//! What a document names beside itself: its project, its profiles, its image.

use serde_json::Value;

use super::View;
use crate::document::{DEFAULT_TENANT, DesiredKey, Document, Kind};
use crate::reconciler::observe::local_alias;

/// A name that leads nowhere on this host.
#[derive(Debug)]
pub(super) struct BadReference {
    pub(super) path: String,
    pub(super) message: String,
}

/// Refuses what is neither there nor promised by another document.
pub(super) fn check(view: View<'_>, document: &Document) -> Result<(), BadReference> {
    if !document.kind.has_tenant() {
        return Ok(());
    }
    let bad = |path: &str, message: String| {
        Err(BadReference {
            path: path.to_owned(),
            message,
        })
    };
    let tenant = document.tenant.as_str();
    if !exists(view, &project_key(tenant)) {
        let message = format!(
            "no project {tenant} on {}; put a document of kind project",
            view.context.host
        );
        return bad("tenant", message);
    }
    let profile_project = view.profile_project(tenant);
    if document.kind == Kind::Profile && profile_project != tenant {
        let message =
            format!("project {tenant} has features.profiles off: its profiles are those of tenant default");
        return bad("tenant", message);
    }
    for (index, name) in profiles(document).into_iter().enumerate() {
        if !exists(view, &profile_key(profile_project, name)) {
            let message = format!(
                "no profile {name} on {} in project {profile_project}",
                view.context.host
            );
            return bad(&format!("spec.profiles[{index}]"), message);
        }
    }
    let is_new = !view.observed.objects.contains_key(&document.desired_key());
    if let Some(alias) = local_alias(&document.spec).filter(|_| is_new && document.kind == Kind::Instance)
        && view
            .observed
            .missing_images
            .contains(&(tenant.to_owned(), alias.to_owned()))
    {
        let message = format!(
            "no image {alias} on {}; import it, or name the server that has it",
            view.context.host
        );
        return bad("spec.source.alias", message);
    }
    Ok(())
}

/// What must be there, and finished, before this document's object can be made; `None` when all of it is.
pub(super) fn waits_for(view: View<'_>, document: &Document) -> Option<String> {
    if !document.kind.has_tenant() {
        return None;
    }
    let profile_project = view.profile_project(&document.tenant);
    let mut needed = vec![project_key(&document.tenant)];
    needed.extend(
        profiles(document)
            .into_iter()
            .map(|name| profile_key(profile_project, name)),
    );
    needed
        .into_iter()
        .find(|key| {
            let is_unfinished = view.planned.get(key).is_some_and(|plan| !plan.steps.is_empty());
            is_unfinished || !view.observed.objects.contains_key(key)
        })
        .map(|key| format!("waits for {key}"))
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

fn profile_key(project: &str, name: &str) -> DesiredKey {
    DesiredKey {
        kind: Kind::Profile,
        tenant: project.to_owned(),
        name: name.to_owned(),
    }
}

fn profiles(document: &Document) -> Vec<&str> {
    let profiles = document.spec.get("profiles").and_then(Value::as_array);
    profiles.into_iter().flatten().filter_map(Value::as_str).collect()
}
