//! Tenants, their projects, and templates; and the brake.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_comes_and_goes_in_order() {
    let host = Host::start().await;
    let texts = [
        web("  profiles: [web]").replace("host: ovh", "host: ovh\ntenant: t1"),
        "kind: profile\nname: web\ntenant: t1\nspec: {devices: {root: {type: disk, path: /, pool: default}}}\n".into(),
        "kind: project\nname: t1\nspec: {config: {features.images: false, limits.instances: 5}}\n".into(),
    ];
    let keys = texts.clone().map(|text| key(&parse(&text).unwrap()));
    for text in &texts {
        host.put(text).await;
    }
    for (index, key) in keys.iter().enumerate() {
        let revision = host.node.store().revision();
        let status = host
            .until_key(&status_key(&parse_desired_key(key).unwrap(), "ovh"), |value| {
                serde_json::from_slice::<Status>(&value?)
                    .ok()
                    .filter(|status| status.phase == Phase::Ready)
            })
            .await;
        assert!(status.revision <= revision, "{index}");
    }
    assert_eq!(
        host.object(Kind::Instance, "t1", "web").await.unwrap()["status"],
        "Running"
    );
    for key in keys.iter().rev() {
        host.delete(key).await;
    }
    for key in &keys {
        host.until_forgotten(key).await;
    }
    assert_eq!(host.object(Kind::Project, "", "t1").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_keeps_its_features_when_it_changes() {
    let host = Host::start().await;
    let text = "kind: project\nname: t1\nspec: {config: {features.images: false, limits.instances: 5}}\n";
    let key = "/cluster/desired/projects/t1";
    let revision = host.put(text).await;
    host.until(key, Phase::Ready, revision).await;
    let before = host.object(Kind::Project, "", "t1").await.unwrap();
    let revision = host
        .put(&text.replace("limits.instances: 5", "limits.instances: 9"))
        .await;
    host.until(key, Phase::Ready, revision).await;
    let after = host.object(Kind::Project, "", "t1").await.unwrap();
    assert_eq!(after["config"]["limits.instances"], "9");
    assert_eq!(
        after["config"]["features.profiles"],
        before["config"]["features.profiles"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_brake_holds_a_mass_deletion() {
    let host = Host::start().await;
    let profile = |index: usize| format!("kind: profile\nname: p{index}\nspec: {{}}\n");
    let key_of = |index: usize| format!("/tenants/default/desired/profiles/p{index}");
    for index in 0..5 {
        let revision = host.put(&profile(index)).await;
        host.until(&key_of(index), Phase::Ready, revision).await;
    }
    let range = DeleteRangeRequest {
        key: Bytes::from_static(b"/tenants/default/desired/profiles/"),
        range_end: Bytes::from_static(b"/tenants/default/desired/profiles0"),
        ..DeleteRangeRequest::default()
    };
    host.node.propose(Op::DeleteRange(range)).await.unwrap();
    for index in 0..5 {
        let status = host.until(&key_of(index), Phase::Pending, 0).await;
        assert!(status.message.contains("delete 5 of our 5 objects"), "{status:?}");
        assert!(
            host.object(Kind::Profile, "default", &format!("p{index}"))
                .await
                .is_some()
        );
    }
}

/// A template that is wrong says so on every host; nothing is ever made of one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_is_right_or_wrong() {
    const KEY: &str = "/cluster/desired/templates/web";
    let host = Host::start().await;
    let text = "kind: template\nname: web\nspec:\n  variables:\n    APP: {}\n  documents: |\n    kind: profile\n    name: @APP@\n    spec: {}\n";
    let revision = host.put(text).await;
    host.until(KEY, Phase::Ready, revision).await;
    let revision = host.put_at(KEY, &text.replace("@APP@", "@APPP@")).await;
    let status = host.until(KEY, Phase::Invalid, revision).await;
    assert_eq!(status.line, Some(8), "{status:?}");
    assert!(status.message.contains("did you mean APP?"), "{status:?}");
    host.delete(KEY).await;
    host.until_forgotten(KEY).await;
}

/// Whoever put it: a tenant's document keeps to its project, or is told what to ask for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_keeps_to_its_project() {
    const TENANT: &str = "/cluster/desired/tenants/shop";
    const WEB: &str = "/tenants/shop/desired/instances/web";
    let host = Host::start().await;
    let tenant = "kind: tenant\nname: shop\nspec: {limits: {instances: 5}}\n";
    let revision = host.put(tenant).await;
    host.until(TENANT, Phase::Ready, revision).await;
    let project = host.object(Kind::Project, "", "shop").await.unwrap();
    assert_eq!(
        (
            &project["config"]["restricted"],
            &project["config"]["limits.instances"]
        ),
        (&json!("true"), &json!("5"))
    );

    // A new project's profile has no root disk.
    let root = "  devices: {root: {type: disk, path: /, pool: default}}\n";
    let text = |config: &str| web(&format!("{root}{config}")).replace("name: web", "name: web\ntenant: shop");
    let good = host.put_at(WEB, &text("")).await;
    host.until(WEB, Phase::Ready, good).await;
    let nested = text("  config:\n    security.nesting: true");
    let revision = host.put_at(WEB, &nested).await;
    let status = host.until(WEB, Phase::Invalid, revision).await;
    assert_eq!(status.line, Some(9), "{status:?}");
    assert!(
        status
            .message
            .starts_with("spec.config.security.nesting: reaches out")
            && status.message.contains("containers.nesting under spec.allow"),
        "{status:?}"
    );
    let live = host.object(Kind::Instance, "shop", "web").await.unwrap();
    assert_eq!(
        live["config"]["security.nesting"],
        Value::Null,
        "the last good one is in force"
    );

    // The operator allows it: nobody has to put the instance again.
    let allowed = tenant.replace("}}", "}, allow: [containers.nesting]}");
    host.put_at(TENANT, &allowed).await;
    host.until_key(&status_key(&parse_desired_key(WEB).unwrap(), "ovh"), |value| {
        let status: Status = serde_json::from_slice(&value?).unwrap();
        (status.phase != Phase::Invalid).then_some(())
    })
    .await;
    let project = host.object(Kind::Project, "", "shop").await.unwrap();
    assert_eq!(project["config"]["restricted.containers.nesting"], json!("allow"));
}
