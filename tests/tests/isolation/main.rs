//! A tenant tries everything against another, and against the cluster: nothing.
//!
//! Tenants `a` and `b` are made as people make them, by `agentctl tenant create`. Then each of a's people, its admin, its
//! operator and its viewer, tries what is in the tables: [`calls`] has a row for each call, [`documents`] a row for each
//! text. A row is a refusal, and afterwards all of b is as it was.

mod calls;
mod certificates;
mod documents;

use tests::agentctl;
use tests::client::Client;
use tests::cluster::Cluster;

const PASSWORD: &str = "pw";
/// Of tenant a, by what they may do there.
const PEOPLE: [&str; 3] = ["admin", "operator", "viewer"];
/// On which b's lock is.
const LEASE_OF_B: i64 = 77;
const LOCK_OF_B: &str = "/tenants/b/desired/lock";

/// All that is b's, and the cluster's: what nobody of a reads or writes.
const OTHERS: [&str; 12] = [
    "/tenants/b/desired/instances/web",
    "/tenants/b/desired/profiles/web",
    "/tenants/b/status/instances/web/m0",
    "/tenants/b/bindings/instances/web",
    "/tenants/b/secrets/password",
    "/tenants/default/desired/instances/web",
    "/cluster/desired/tenants/b",
    "/cluster/desired/networks/n",
    "/hosts/m0/alive",
    "/hosts/m0/inventory/instances/b/web",
    "/hosts/m0/inventory/instances/default/web",
    "greeting",
];

/// Makes root, the tenants and their people, and switches auth on. Returns root.
async fn found(cluster: &mut Cluster) -> Client {
    for line in [
        "user add root:pw",
        "user grant-role root root",
        "user add admin:pw",
        "user add operator:pw",
        "user add viewer:pw",
        "user add stranger:pw",
        "tenant create a --admin admin --operator operator --viewer viewer",
        "tenant create b --admin stranger",
        "auth enable",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let done = agentctl::run(agentctl::command(&cluster.endpoints().join(","), &args), b"").await;
        assert!(done.status.success(), "{line}: {}", agentctl::says(&done));
    }
    let root = cluster.client(0).log_in("root", PASSWORD).await;
    let root = root.expect("root logs in");
    cluster.set_user(&root);
    root
}

/// Every key that is not a's, with its revision and its lease: what must be the same afterwards.
async fn not_of_a(root: &mut Client) -> Vec<(String, i64, i64)> {
    let all = root.get_prefix("", false).await.expect("every key");
    let of_others = all
        .kvs
        .into_iter()
        .filter(|kv| !kv.key.starts_with(b"/tenants/a/"));
    of_others
        .map(|kv| {
            (
                String::from_utf8_lossy(&kv.key).into_owned(),
                kv.mod_revision,
                kv.lease,
            )
        })
        .collect()
}
