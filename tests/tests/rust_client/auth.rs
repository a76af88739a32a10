//! Users, roles and permissions, and what they keep out.

use etcd_client::{
    Client, ConnectOptions, Error, GetOptions, Permission, PermissionType, RoleRevokePermissionOptions,
    UserAddOptions, WatchOptions,
};
use tests::cluster::Cluster;

use crate::message;

pub(crate) async fn check(cluster: &Cluster) {
    let mut client = Client::connect(cluster.endpoints(), None).await.expect("connect");
    prepare(&mut client).await;
    client.auth_enable().await.expect("enable auth");

    let refused = client.get("open/a", None).await.expect_err("nobody asked");
    assert_eq!(message(&refused), "etcdserver: user name is empty");
    let wrong = sign_in(cluster, "alice", "two")
        .await
        .err()
        .expect("a wrong password");
    let wanted = "etcdserver: authentication failed, invalid user ID or password";
    assert_eq!(message(&wrong), wanted);
    let mut root = sign_in(cluster, "root", "secret").await.expect("sign in");
    let mut alice = sign_in(cluster, "alice", "one").await.expect("sign in");
    root.put("open/a", "1", None).await.expect("put");
    root.put("closed/a", "2", None).await.expect("put");
    restricted(&mut alice).await;
    changes(cluster, &mut root, &mut alice).await;

    root.auth_disable().await.expect("disable auth");
    let open = client.get("closed/a", None).await.expect("get");
    assert_eq!(open.kvs()[0].value(), b"2");
}

async fn prepare(client: &mut Client) {
    for role in ["root", "reader", "spare"] {
        client.role_add(role).await.expect("add a role");
    }
    let reads = Permission::new(PermissionType::Read, "open/").with_prefix();
    client
        .role_grant_permission("reader", reads)
        .await
        .expect("grant");
    let spare = Permission::read_write("spare/").with_from_key();
    client.role_grant_permission("spare", spare).await.expect("grant");
    let revoked = RoleRevokePermissionOptions::new().with_from_key();
    client
        .role_revoke_permission("spare", "spare/", Some(revoked))
        .await
        .expect("revoke");
    assert!(
        client
            .role_get("spare")
            .await
            .expect("role")
            .permissions()
            .is_empty()
    );
    let listed = client.role_get("reader").await.expect("role").permissions();
    assert_eq!(listed, [Permission::read("open/").with_prefix()]);
    for (user, password, role) in [("root", "secret", "root"), ("alice", "one", "reader")] {
        client.user_add(user, password, None).await.expect("add a user");
        client.user_grant_role(user, role).await.expect("grant a role");
    }
    let certificate_only = UserAddOptions::new().with_no_pwd();
    client
        .user_add("carol", "", Some(certificate_only))
        .await
        .expect("add a user");
    client
        .user_grant_role("alice", "spare")
        .await
        .expect("grant a role");
    client
        .user_revoke_role("alice", "spare")
        .await
        .expect("revoke a role");
    assert_eq!(client.user_get("alice").await.expect("user").roles(), ["reader"]);
    assert_eq!(
        client.user_list().await.expect("users").users(),
        ["alice", "carol", "root"]
    );
    client.role_delete("spare").await.expect("delete a role");
    assert_eq!(
        client.role_list().await.expect("roles").roles(),
        ["reader", "root"]
    );
}

async fn restricted(alice: &mut Client) {
    assert_eq!(
        alice.get("open/a", None).await.expect("get").kvs()[0].value(),
        b"1"
    );
    let denied = "etcdserver: permission denied";
    let refused = alice.get("closed/a", None).await.expect_err("not hers");
    assert_eq!(message(&refused), denied);
    let refused = alice.put("open/a", "2", None).await.expect_err("to read only");
    assert_eq!(message(&refused), denied);
    let all = Some(GetOptions::new().with_all_keys());
    let refused = alice.get("", all).await.expect_err("more than hers");
    assert_eq!(message(&refused), denied);
    let refused = alice.user_list().await.expect_err("root's only");
    assert_eq!(message(&refused), denied);
    let mut stream = alice
        .watch("closed/", Some(WatchOptions::new().with_prefix()))
        .await
        .expect("a stream");
    let cancelled = stream.message().await.expect("a response").expect("a response");
    assert!(cancelled.canceled());
    assert!(
        cancelled.cancel_reason().ends_with(denied),
        "{}",
        cancelled.cancel_reason()
    );
}

/// What an administrator changes is so at the next request.
async fn changes(cluster: &Cluster, root: &mut Client, alice: &mut Client) {
    root.user_change_password("alice", "new")
        .await
        .expect("change a password");
    sign_in(cluster, "alice", "one")
        .await
        .err()
        .expect("the old password");
    let mut again = sign_in(cluster, "alice", "new").await.expect("sign in");
    root.user_revoke_role("alice", "reader")
        .await
        .expect("revoke a role");
    again.get("open/a", None).await.expect_err("she has no role");
    root.user_delete("alice").await.expect("delete a user");
    alice.get("open/a", None).await.expect_err("she is gone");
    root.user_delete("carol").await.expect("delete a user");
}

async fn sign_in(cluster: &Cluster, user: &str, password: &str) -> Result<Client, Error> {
    let options = ConnectOptions::new().with_user(user, password);
    Client::connect(cluster.endpoints(), Some(options)).await
}
