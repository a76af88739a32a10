//! Tenants: the project that is made of one, and documents that do not keep to it.

use super::Host;
use crate::document::{DesiredKey, Kind, Phase};
use crate::reconciler::plan::Report;

const TENANT: &str = "kind: tenant\nname: shop\nspec: {allow: [containers.nesting]}\n";
const NESTED: &str = "kind: profile\nname: web\ntenant: shop\nspec: {config: {security.nesting: true}}\n";
const AT: &str = "/cluster/desired/tenants/shop";

/// What is said of a document; its phase and the beginning of its message.
fn said(mut host: Host, kind: Kind, tenant: &str, name: &str) -> Report {
    let key = DesiredKey {
        kind,
        tenant: tenant.to_owned(),
        name: name.to_owned(),
    };
    let plan = host.plan();
    let Some(object) = plan.objects.get(&key) else {
        panic!("nothing is said of {key}:\n{plan}");
    };
    object.report.clone()
}

fn of_tenant(host: Host) -> Report {
    said(host, Kind::Tenant, "", "shop")
}

fn of_profile(host: Host) -> Report {
    said(host, Kind::Profile, "shop", "web")
}

#[test]
fn a_tenant_is_as_far_as_its_project() {
    let report = of_tenant(Host::new().put(14, TENANT));
    assert_eq!(report.phase, Phase::Progressing, "{report:?}");
    let project = said(Host::new().put(14, TENANT), Kind::Project, "", "shop");
    assert_eq!(project.phase, Phase::Progressing, "{project:?}");

    // A project that somebody made by hand is not taken over, so that its tenant has none.
    let by_hand = serde_json::json!({"name": "shop", "config": {}});
    let report = of_tenant(Host::new().put(14, TENANT).project(by_hand));
    assert_eq!(report.phase, Phase::Conflict, "{report:?}");

    let own = "kind: project\nname: shop\nspec: {}\n";
    let report = of_tenant(Host::new().put(14, TENANT).put(15, own));
    assert_eq!(report.phase, Phase::Conflict, "{report:?}");
    assert!(report.message.contains("has a document of its own"), "{report:?}");
}

#[test]
fn a_document_is_judged_by_the_tenants_own() {
    let allowed = of_profile(Host::new().put(14, TENANT).put(15, NESTED));
    assert_ne!(allowed.phase, Phase::Invalid, "{allowed:?}");
    // A text that nobody understands allows what the last good one did.
    let kept = of_profile(
        Host::new()
            .put(14, TENANT)
            .put_at(AT, 20, "kind: [")
            .put(21, NESTED),
    );
    assert_ne!(kept.phase, Phase::Invalid, "{kept:?}");

    for (why, host) in [
        (
            "it does not allow that",
            Host::new().put(14, "kind: tenant\nname: shop\nspec: {}\n"),
        ),
        (
            "it is for another host",
            Host::new()
                .put(14, &TENANT.replace("name: shop", "name: shop\nhost: ionos"))
                .put(15, "kind: project\nname: shop\nspec: {}\n"),
        ),
        (
            "there is none",
            Host::new().put(15, "kind: project\nname: shop\nspec: {}\n"),
        ),
    ] {
        let report = of_profile(host.put(20, NESTED));
        assert_eq!(report.phase, Phase::Invalid, "{why}: {report:?}");
        assert!(
            report.message.starts_with("spec.config.security.nesting: "),
            "{report:?}"
        );
        assert_eq!(report.line, Some(4), "{report:?}");
    }
}
