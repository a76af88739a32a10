//! What a tenant's role reaches: its own documents, and nothing that only hosts and operators may say. And what its
//! documents reach on a real Incus: its project.

use proto::authpb::Permission;
use proto::authpb::permission::Type::{Read, Readwrite};
use proto::etcdserverpb::*;
use tests::client::Client;
use tests::cluster::{Cluster, Subject};
use tests::hosts::Hosts;
use tests::{agentctl, wait};
use tonic::Code;

const PASSWORD: &str = "pw";
const OWN: &str = "/tenants/shop/desired/profiles/web";

#[tokio::test]
async fn a_tenants_role_ends_at_its_own_documents() {
    let cluster = Cluster::builder(&Subject::agent(), 1)
        .arg("--bcrypt-cost", "4")
        .start()
        .await;
    let mut root = root(&cluster).await;
    let keys = [
        "/tenants/shop/status/profiles/web/m0",
        "/tenants/other/desired/profiles/web",
        "/tenants/shop2/desired/profiles/web",
        "/tenants/default/desired/instances/web",
        "/cluster/desired/tenants/shop",
        "/hosts/m0/inventory/instances/other/web",
        "/hosts/m0/alive",
        "greeting",
    ];
    for key in keys {
        put(&mut root, key).await.expect("root writes");
    }
    let instance =
        r#"{"kind": "instance", "name": "web", "project": "shop", "host": "m0", "status": "Running"}"#;
    let own_instance = "/hosts/m0/inventory/instances/shop/web";
    root.put(own_instance, instance.as_bytes())
        .await
        .expect("root writes");
    give_role(&mut root).await;
    let nobody = cluster.client(0);
    let mut eva = nobody.log_in("eva", PASSWORD).await.expect("eva logs in");

    put(&mut eva, OWN).await.expect("her own document");
    get(&mut eva, OWN).await.expect("her own document");
    get(&mut eva, keys[0]).await.expect("what a host says of it");
    // A status is the host's to say: hers would be a lie.
    assert_eq!(
        put(&mut eva, keys[0]).await,
        Err(Code::PermissionDenied),
        "{}",
        keys[0]
    );
    for key in &keys[1..] {
        assert_eq!(get(&mut eva, key).await, Err(Code::PermissionDenied), "{key}");
        assert_eq!(put(&mut eva, key).await, Err(Code::PermissionDenied), "{key}");
    }
    let everything = eva.kv.range(RangeRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        ..RangeRequest::default()
    });
    assert_eq!(
        everything.await.expect_err("all keys").code(),
        Code::PermissionDenied
    );

    // The command line asks for no more than that, where it is told whose things are meant.
    let listed = evas(&cluster, &["get", "--tenant", "shop"]).await;
    assert!(listed.contains("web") && !listed.contains("error"), "{listed}");
    let instances = [
        "inventory",
        "query",
        "instances",
        "--host",
        "m0",
        "--tenant",
        "shop",
    ];
    let listed = evas(&cluster, &instances).await;
    assert!(listed.contains("web") && !listed.contains("alive"), "{listed}");
    let all = evas(&cluster, &["inventory", "query"]).await;
    assert!(all.contains("permission denied"), "{all}");
    let file = cluster.folder().join("own.yaml");
    std::fs::write(&file, "kind: profile\nname: own\ntenant: shop\nspec: {}\n").expect("write a document");
    let applied = evas(&cluster, &["apply", "-f", &file.to_string_lossy()]).await;
    assert!(applied.contains("+ profile"), "{applied}");
    std::fs::write(&file, "kind: profile\nname: own\ntenant: other\nspec: {}\n").expect("write a document");
    let refused = evas(&cluster, &["apply", "-f", &file.to_string_lossy()]).await;
    assert!(refused.contains("permission denied"), "{refused}");
}

/// The project is restricted by Incus, and its documents are judged before Incus is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_documents_end_at_its_project() {
    const WEB: &str = "kind: instance\nname: web\ntenant: shop\nhost: m0\nrunning: false\nspec:\n  \
                       source: {type: none}\n  devices: {root: {type: disk, path: /, pool: default}}\n";
    const AT: &str = "/tenants/shop/desired/instances/web";
    let Some(hosts) = Hosts::builder(1).start().await else {
        return;
    };
    let cluster = &hosts.cluster;

    let tenant = "kind: tenant\nname: shop\nspec:\n  limits: {instances: 1}\n";
    store(cluster, "/cluster/desired/tenants/shop", tenant).await;
    store(cluster, AT, WEB).await;
    until_status(cluster, AT, "Stopped").await;
    let incus = |args: &[&str]| hosts.daemon(0).incus(args);
    let project = incus(&["project", "show", "shop"]).expect("a project");
    for line in ["restricted: \"true\"", "limits.instances: \"1\""] {
        assert!(project.contains(line), "{line} in\n{project}");
    }

    let nested = format!("{WEB}  config: {{security.nesting: true}}\n");
    store(cluster, AT, &nested).await;
    let status = until_status(cluster, AT, "Invalid").await;
    assert_eq!(status["line"], 9, "{status}");
    // Incus would refuse it as well, and refuses it by hand.
    let by_hand = incus(&[
        "config",
        "set",
        "web",
        "security.nesting=true",
        "--project",
        "shop",
    ]);
    assert!(by_hand.is_err(), "{by_hand:?}");
    store(cluster, AT, WEB).await;
    until_status(cluster, AT, "Stopped").await;
}

async fn store(cluster: &Cluster, key: &str, document: &str) {
    let stored = cluster.client(0).put(key, document.as_bytes()).await;
    stored.expect("a document is stored");
}

/// Waits until the host says this of the document as it is now.
async fn until_status(cluster: &Cluster, document: &str, phase: &str) -> serde_json::Value {
    let status = document.replace("/desired/", "/status/");
    let wanted = cluster
        .client(0)
        .get_prefix(document, false)
        .await
        .expect("the document");
    let revision = wanted.kvs.first().expect("the document").mod_revision;
    wait::until(&format!("{document} to be {phase}"), async || {
        let answer = cluster.client(0).get_prefix(&status, false).await.ok()?;
        let status: serde_json::Value = serde_json::from_slice(&answer.kvs.first()?.value).ok()?;
        (status["phase"] == phase && status["revision"] == revision).then_some(status)
    })
    .await
}

/// Root, and auth switched on.
async fn root(cluster: &Cluster) -> Client {
    let mut nobody = cluster.client(0);
    add_user(&mut nobody, "root").await;
    let grant = AuthUserGrantRoleRequest {
        user: "root".into(),
        role: "root".into(),
    };
    nobody.auth.user_grant_role(grant).await.expect("root's role");
    nobody
        .auth
        .auth_enable(AuthEnableRequest {})
        .await
        .expect("auth on");
    nobody.log_in("root", PASSWORD).await.expect("root logs in")
}

/// The role of the README: it writes what is desired, and reads all of the tenant.
async fn give_role(root: &mut Client) {
    root.auth
        .role_add(AuthRoleAddRequest { name: "shop".into() })
        .await
        .expect("a role");
    for (perm_type, key, range_end) in [
        (Readwrite, "/tenants/shop/desired/", "/tenants/shop/desired0"),
        (Read, "/tenants/shop/", "/tenants/shop0"),
        (
            Read,
            "/hosts/m0/inventory/instances/shop/",
            "/hosts/m0/inventory/instances/shop0",
        ),
    ] {
        let grant = AuthRoleGrantPermissionRequest {
            name: "shop".into(),
            perm: Some(Permission {
                perm_type: perm_type.into(),
                key: key.into(),
                range_end: range_end.into(),
            }),
        };
        root.auth
            .role_grant_permission(grant)
            .await
            .expect("a permission");
    }
    add_user(root, "eva").await;
    let grant = AuthUserGrantRoleRequest {
        user: "eva".into(),
        role: "shop".into(),
    };
    root.auth.user_grant_role(grant).await.expect("eva's role");
}

async fn add_user(client: &mut Client, name: &str) {
    let add = AuthUserAddRequest {
        name: name.into(),
        password: PASSWORD.into(),
        ..AuthUserAddRequest::default()
    };
    client.auth.user_add(add).await.expect("a user");
}

async fn put(client: &mut Client, key: &str) -> Result<(), Code> {
    let put = PutRequest {
        key: key.to_owned().into(),
        value: "kind: profile\nname: web\ntenant: shop\nspec: {}\n".into(),
        ..PutRequest::default()
    };
    client.kv.put(put).await.map(drop).map_err(|status| status.code())
}

async fn get(client: &mut Client, key: &str) -> Result<(), Code> {
    let range = RangeRequest {
        key: key.to_owned().into(),
        ..RangeRequest::default()
    };
    client
        .kv
        .range(range)
        .await
        .map(drop)
        .map_err(|status| status.code())
}

/// What it says as eva, whether it succeeds or not.
async fn evas(cluster: &Cluster, args: &[&str]) -> String {
    let mut command = agentctl::command(&cluster.endpoints().join(","), args);
    command.env("AGENTCTL_USER", format!("eva:{PASSWORD}"));
    agentctl::says(&agentctl::run(command, b"").await)
}
