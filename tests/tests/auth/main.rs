//! Auth, on clusters of real processes: that what once let strangers into etcd does not let them in here, and that users,
//! tokens and permissions hold through whatever happens to members.

mod certificates;
mod jwt;
mod lasting;
mod local;
mod strangers;
mod watching;

use proto::authpb::Permission;
use proto::authpb::permission::Type::{self, Read, Write};
use proto::etcdserverpb::request_op::Request as Step;
use proto::etcdserverpb::*;
use tests::client::Client;
use tests::cluster::{Builder, Cluster, Subject};
use tonic::{Code, Response, Status};

/// A cluster with auth on: root, and ann, who reads `r` and writes `w`. `secret` is root's, on lease 7.
struct Guarded {
    cluster: Cluster,
    /// Logged in at the first member.
    root: Client,
    ann: Client,
}

const ROOT_PASSWORD: &str = "root-password";
const ANN_PASSWORD: &str = "ann-password";

fn members(count: usize) -> Builder {
    Cluster::builder(&Subject::agent(), count).arg("--bcrypt-cost", "4")
}

impl Guarded {
    async fn start(builder: Builder) -> Guarded {
        Guarded::guard(builder.start().await).await
    }

    /// Makes the users, and switches auth on. The cluster is asked as root from then on.
    async fn guard(mut cluster: Cluster) -> Guarded {
        let mut nobody = cluster.client(0);
        enable(&mut nobody).await;
        let root = nobody.log_in("root", ROOT_PASSWORD).await.expect("root logs in");
        let ann = nobody.log_in("ann", ANN_PASSWORD).await.expect("ann logs in");
        cluster.set_user(&root);
        Guarded { cluster, root, ann }
    }

    /// Ann, with the token of the first member, at another one.
    fn ann_at(&self, member: usize) -> Client {
        self.cluster.client(member).in_the_name_of(&self.ann)
    }

    fn nobody_at(&self, member: usize) -> Client {
        Client::new(self.cluster.endpoint(member))
    }
}

async fn enable(nobody: &mut Client) {
    add_user(nobody, "root", ROOT_PASSWORD).await;
    grant_role(nobody, "root", "root").await;
    add_user(nobody, "ann", ANN_PASSWORD).await;
    let role = AuthRoleAddRequest { name: "role".into() };
    nobody.auth.role_add(role).await.expect("a role");
    grant(nobody, Read, "r", "").await;
    grant(nobody, Write, "w", "").await;
    grant_role(nobody, "ann", "role").await;
    let lease = LeaseGrantRequest { id: 7, ttl: 6000 };
    nobody.lease.lease_grant(lease).await.expect("a lease");
    nobody.kv.put(on_lease("secret", 7)).await.expect("a key");
    nobody
        .auth
        .auth_enable(AuthEnableRequest {})
        .await
        .expect("auth is on");
}

async fn add_user(client: &mut Client, name: &str, password: &str) {
    let add = AuthUserAddRequest {
        name: name.to_owned(),
        password: password.to_owned(),
        ..Default::default()
    };
    client.auth.user_add(add).await.expect("a user");
}

async fn grant_role(client: &mut Client, user: &str, role: &str) {
    let grant = AuthUserGrantRoleRequest {
        user: user.to_owned(),
        role: role.to_owned(),
    };
    client.auth.user_grant_role(grant).await.expect("a role granted");
}

/// To ann's role.
async fn grant(client: &mut Client, kind: Type, key: &str, range_end: &str) {
    let perm = Some(Permission {
        perm_type: kind.into(),
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
    });
    let grant = AuthRoleGrantPermissionRequest {
        name: "role".into(),
        perm,
    };
    client
        .auth
        .role_grant_permission(grant)
        .await
        .expect("a permission");
}

/// From ann's role.
async fn revoke(client: &mut Client, key: &str, range_end: &str) {
    let revoke = AuthRoleRevokePermissionRequest {
        role: "role".into(),
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
    };
    client
        .auth
        .role_revoke_permission(revoke)
        .await
        .expect("a permission less");
}

async fn change_password(client: &mut Client, name: &str, password: &str) {
    let change = AuthUserChangePasswordRequest {
        name: name.to_owned(),
        password: password.to_owned(),
        ..Default::default()
    };
    client
        .auth
        .user_change_password(change)
        .await
        .expect("a new password");
}

async fn delete_user(client: &mut Client, name: &str) {
    let delete = AuthUserDeleteRequest {
        name: name.to_owned(),
    };
    client.auth.user_delete(delete).await.expect("a user less");
}

fn put(key: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: "1".into(),
        ..Default::default()
    }
}

fn on_lease(key: &str, lease: i64) -> PutRequest {
    PutRequest { lease, ..put(key) }
}

fn range(key: &str) -> RangeRequest {
    RangeRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

fn delete(key: &str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

/// A Txn of these steps, then and otherwise.
fn txn(success: Vec<Step>, failure: Vec<Step>) -> TxnRequest {
    let ops = |steps: Vec<Step>| {
        let request = |step| RequestOp { request: Some(step) };
        steps.into_iter().map(request).collect()
    };
    TxnRequest {
        compare: vec![],
        success: ops(success),
        failure: ops(failure),
    }
}

/// Refused, and with which words.
#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, message: &str) {
    let status = answer.expect_err("it is served");
    assert_eq!((status.code(), status.message()), (code, message));
}

#[track_caller]
fn denied<T: std::fmt::Debug>(answer: Result<Response<T>, Status>) {
    refused(answer, Code::PermissionDenied, "etcdserver: permission denied");
}
