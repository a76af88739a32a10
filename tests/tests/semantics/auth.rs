//! Users, roles and who may do what with which keys. The calls of other services are in `guarded`.

use std::collections::BTreeMap;

use proto::authpb::permission::Type::{self, Read, Readwrite, Write};
use proto::authpb::{Permission, UserAddOptions};
use proto::etcdserverpb::auth_client::AuthClient;
use proto::etcdserverpb::request_op::Request as Step;
use proto::etcdserverpb::*;
use tests::cluster::{Cluster, Subject};
use tests::transcript::Transcript;
use tests::{client::Client, show};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::ask::{delete, delete_to, put, range, range_to};

/// One request, of any service that auth is about.
enum Ask {
    Enable,
    Disable,
    Status,
    Login(&'static str),
    UserAdd(&'static str, &'static str),
    UserWithoutPassword(&'static str),
    UserGet(&'static str),
    UserList,
    UserDelete(&'static str),
    Password(&'static str, &'static str),
    GrantRole(&'static str, &'static str),
    RevokeRole(&'static str, &'static str),
    RoleAdd(&'static str),
    RoleGet(&'static str),
    RoleList,
    RoleDelete(&'static str),
    Grant(&'static str, Type, &'static str, &'static str),
    GrantNothing(&'static str),
    Revoke(&'static str, &'static str, &'static str),
    Put(PutRequest),
    Range(RangeRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    LeaseGrant(i64),
    LeaseRevoke(i64),
    LeaseKeys(i64),
}

/// Clients of several users: tokens by name.
struct Users {
    client: Client,
    auth: AuthClient<Channel>,
    tokens: BTreeMap<String, String>,
}

impl Users {
    fn of(endpoint: &str) -> Users {
        let channel = Endpoint::from_shared(endpoint.to_owned())
            .expect("a URL")
            .connect_lazy();
        Users {
            client: Client::new(endpoint),
            auth: AuthClient::new(channel),
            tokens: BTreeMap::new(),
        }
    }

    /// `who` empty: without a token; a name that never logged in: with a bad one.
    fn request<T>(&self, who: &str, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if !who.is_empty() {
            let token = self.tokens.get(who).map_or("bad", String::as_str);
            request
                .metadata_mut()
                .insert("token", token.parse().expect("a token"));
        }
        request
    }

    async fn login(&mut self, name: &str, password: &str) -> Result<(), Status> {
        let request = AuthenticateRequest {
            name: name.to_owned(),
            password: password.to_owned(),
        };
        let token = self.auth.authenticate(request).await?.into_inner().token;
        self.tokens.insert(name.to_owned(), token);
        Ok(())
    }

    async fn ask(&mut self, who: &str, ask: Ask) -> Result<String, Status> {
        let header = |header: Option<ResponseHeader>| show::header(header.as_ref());
        macro_rules! call {
            ($service:expr, $method:ident, $message:expr) => {{
                let request = self.request(who, $message);
                $service.$method(request).await?.into_inner()
            }};
        }
        Ok(match ask {
            Ask::Enable => header(call!(self.auth, auth_enable, AuthEnableRequest {}).header),
            Ask::Disable => header(call!(self.auth, auth_disable, AuthDisableRequest {}).header),
            Ask::Status => {
                let status = call!(self.auth, auth_status, AuthStatusRequest {});
                format!("enabled={} revision={}", status.enabled, status.auth_revision)
            }
            Ask::Login(password) => {
                self.login(who, password).await?;
                "a token".to_owned()
            }
            Ask::UserAdd(name, password) => {
                let add = AuthUserAddRequest {
                    name: name.into(),
                    password: password.into(),
                    ..Default::default()
                };
                header(call!(self.auth, user_add, add).header)
            }
            Ask::UserWithoutPassword(name) => {
                let options = Some(UserAddOptions { no_password: true });
                let add = AuthUserAddRequest {
                    name: name.into(),
                    options,
                    ..Default::default()
                };
                header(call!(self.auth, user_add, add).header)
            }
            Ask::UserGet(name) => format!(
                "{:?}",
                call!(self.auth, user_get, AuthUserGetRequest { name: name.into() }).roles
            ),
            Ask::UserList => format!("{:?}", call!(self.auth, user_list, AuthUserListRequest {}).users),
            Ask::UserDelete(name) => header(
                call!(
                    self.auth,
                    user_delete,
                    AuthUserDeleteRequest { name: name.into() }
                )
                .header,
            ),
            Ask::Password(name, password) => {
                let change = AuthUserChangePasswordRequest {
                    name: name.into(),
                    password: password.into(),
                    ..Default::default()
                };
                header(call!(self.auth, user_change_password, change).header)
            }
            Ask::GrantRole(user, role) => header(
                call!(
                    self.auth,
                    user_grant_role,
                    AuthUserGrantRoleRequest {
                        user: user.into(),
                        role: role.into()
                    }
                )
                .header,
            ),
            Ask::RevokeRole(name, role) => header(
                call!(
                    self.auth,
                    user_revoke_role,
                    AuthUserRevokeRoleRequest {
                        name: name.into(),
                        role: role.into()
                    }
                )
                .header,
            ),
            Ask::RoleAdd(name) => {
                header(call!(self.auth, role_add, AuthRoleAddRequest { name: name.into() }).header)
            }
            Ask::RoleGet(role) => {
                let granted = call!(self.auth, role_get, AuthRoleGetRequest { role: role.into() }).perm;
                let shown: Vec<String> = granted
                    .iter()
                    .map(|one| {
                        format!(
                            "{:?} {} {}",
                            one.perm_type(),
                            show::bytes(&one.key),
                            show::bytes(&one.range_end)
                        )
                    })
                    .collect();
                shown.join("\n")
            }
            Ask::RoleList => format!("{:?}", call!(self.auth, role_list, AuthRoleListRequest {}).roles),
            Ask::RoleDelete(role) => header(
                call!(
                    self.auth,
                    role_delete,
                    AuthRoleDeleteRequest { role: role.into() }
                )
                .header,
            ),
            Ask::Grant(name, kind, key, end) => {
                let perm = Some(Permission {
                    perm_type: kind.into(),
                    key: key.into(),
                    range_end: end.into(),
                });
                header(
                    call!(
                        self.auth,
                        role_grant_permission,
                        AuthRoleGrantPermissionRequest {
                            name: name.into(),
                            perm
                        }
                    )
                    .header,
                )
            }
            Ask::GrantNothing(name) => header(
                call!(
                    self.auth,
                    role_grant_permission,
                    AuthRoleGrantPermissionRequest {
                        name: name.into(),
                        perm: None
                    }
                )
                .header,
            ),
            Ask::Revoke(role, key, end) => {
                let revoke = AuthRoleRevokePermissionRequest {
                    role: role.into(),
                    key: key.into(),
                    range_end: end.into(),
                };
                header(call!(self.auth, role_revoke_permission, revoke).header)
            }
            Ask::Put(put) => {
                let answer = call!(self.client.kv, put, put);
                header(answer.header) + &show::previous(answer.prev_kv.as_slice())
            }
            Ask::Range(range) => show::range(&call!(self.client.kv, range, range)),
            Ask::Delete(delete) => format!("deleted={}", call!(self.client.kv, delete_range, delete).deleted),
            Ask::Txn(txn) => show::txn(&call!(self.client.kv, txn, txn)),
            Ask::LeaseGrant(id) => {
                header(call!(self.client.lease, lease_grant, LeaseGrantRequest { id, ttl: 600 }).header)
            }
            Ask::LeaseRevoke(id) => {
                header(call!(self.client.lease, lease_revoke, LeaseRevokeRequest { id }).header)
            }
            Ask::LeaseKeys(id) => {
                let answer = call!(
                    self.client.lease,
                    lease_time_to_live,
                    LeaseTimeToLiveRequest { id, keys: true }
                );
                let keys: Vec<String> = answer.keys.iter().map(|key| show::bytes(key)).collect();
                format!("{keys:?}")
            }
        })
    }
}

fn on_lease(key: &str, lease: i64) -> PutRequest {
    PutRequest {
        lease,
        ..put(key, "1")
    }
}

fn with_prev(key: &str) -> PutRequest {
    PutRequest {
        prev_kv: true,
        ..put(key, "2")
    }
}

/// A Txn with one step, then and otherwise.
fn txn(success: Vec<Step>, failure: Vec<Step>) -> TxnRequest {
    let ops = |steps: Vec<Step>| {
        steps
            .into_iter()
            .map(|step| RequestOp { request: Some(step) })
            .collect()
    };
    TxnRequest {
        compare: vec![],
        success: ops(success),
        failure: ops(failure),
    }
}

/// Whose request, the rule it shows, and the request.
fn rows() -> Vec<(&'static str, &'static str, Ask)> {
    use Ask::*;
    let keep = |compare_key: &str| TxnRequest {
        compare: vec![Compare {
            key: compare_key.to_owned().into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    vec![
        ("", "auth is off", Status),
        ("ann", "nobody can log in", Login("x")),
        ("", "a user needs a name", UserAdd("", "x")),
        ("", "an empty password is one", UserAdd("empty", "")),
        ("", "a user", UserAdd("ann", "a")),
        ("", "once", UserAdd("ann", "b")),
        (
            "",
            "a password has its limit",
            UserAdd(
                "long",
                "0123456789012345678901234567890123456789012345678901234567890123456789012",
            ),
        ),
        ("", "one without a password", UserWithoutPassword("cert")),
        ("", "who is not", UserGet("zoe")),
        ("", "all of them", UserList),
        ("", "a role needs a name", RoleAdd("")),
        ("", "a role", RoleAdd("r")),
        ("", "once", RoleAdd("r")),
        ("", "a role that is not", RoleGet("zoe")),
        ("", "granted", GrantRole("ann", "r")),
        ("", "granted again", GrantRole("ann", "r")),
        ("", "which did not count", Status),
        ("", "a role that is not is not granted", GrantRole("ann", "zoe")),
        ("", "nor to a user that is not", GrantRole("zoe", "r")),
        ("", "nor a role that neither is", GrantRole("zoe", "zoe")),
        ("", "no permission", GrantNothing("r")),
        ("", "no key", Grant("r", Read, "", "")),
        ("", "no key in it", Grant("r", Read, "b", "a")),
        ("", "no role", Grant("zoe", Read, "b", "")),
        ("", "to read", Grant("r", Read, "r", "")),
        ("", "to write", Grant("r", Write, "w", "")),
        ("", "both, of a range", Grant("r", Read, "b", "c")),
        ("", "changed", Grant("r", Readwrite, "b", "c")),
        ("", "one that touches it", Grant("r", Readwrite, "c", "d")),
        ("", "to the end", Grant("r", Read, "y", "\0")),
        ("", "what there is", RoleGet("r")),
        ("", "what is not granted is not revoked", Revoke("r", "b", "")),
        ("", "nor from a role that is not", Revoke("zoe", "b", "")),
        ("", "a role that the user has not", RevokeRole("ann", "zoe")),
        ("", "a user that is not", RevokeRole("zoe", "r")),
        ("", "a password for nobody", Password("zoe", "x")),
        ("", "a password for who needs none", Password("cert", "x")),
        ("", "without root", Enable),
        ("", "root", UserAdd("root", "r")),
        ("", "without the role", Enable),
        ("", "its role needs not be added", GrantRole("root", "root")),
        ("", "every change counted", Status),
        ("", "on", Enable),
        ("", "nobody is asked nothing", Status),
        ("", "nor given", Range(range("r"))),
        ("stranger", "a bad token", Range(range("r"))),
        ("root", "a wrong password", Login("x")),
        ("zoe", "nobody", Login("x")),
        ("cert", "who has no password", Login("x")),
        ("empty", "an empty password fits", Login("")),
        ("root", "logs in", Login("r")),
        ("root", "on already", Enable),
        ("root", "which did not count", Status),
        ("ann", "logs in", Login("a")),
        ("ann", "may not ask", Status),
        ("ann", "but of itself", UserGet("ann")),
        ("ann", "not of others", UserGet("root")),
        ("ann", "nor whether there are", UserGet("zoe")),
        ("ann", "of its roles", RoleGet("r")),
        ("ann", "not of others", RoleGet("zoe")),
        ("ann", "nor list", UserList),
        ("ann", "roles neither", RoleList),
        ("ann", "nor make", UserAdd("eve", "x")),
        ("ann", "nor change its password", Password("ann", "x")),
        ("ann", "writes", Put(put("w", "1"))),
        ("ann", "what it may", Put(put("r", "1"))),
        ("ann", "nor reads", Range(range("w"))),
        ("ann", "but what it may", Range(range("r"))),
        ("ann", "what was before is read", Put(with_prev("w"))),
        ("ann", "and may be", Put(with_prev("b"))),
        ("ann", "a range of two permissions", Range(range_to("b", "d"))),
        ("ann", "no further", Range(range_to("b", "e"))),
        ("ann", "to the end", Range(range_to("y", "\0"))),
        ("ann", "from before", Range(range_to("x", "\0"))),
        ("ann", "all", Range(range_to("\0", "\0"))),
        ("ann", "deletes", Delete(delete("w"))),
        ("ann", "a range", Delete(delete_to("b", "d"))),
        ("ann", "not all", Delete(delete_to("\0", "\0"))),
        ("ann", "an empty key is none to ask for", Put(put("", "1"))),
        ("ann", "compares", Txn(keep("r"))),
        ("ann", "what it may read", Txn(keep("w"))),
        (
            "ann",
            "the branch not taken",
            Txn(txn(vec![], vec![Step::RequestPut(put("r", "1"))])),
        ),
        (
            "ann",
            "is allowed or not",
            Txn(txn(
                vec![Step::RequestPut(put("w", "1"))],
                vec![Step::RequestRange(range("r"))],
            )),
        ),
        ("root", "a lease", LeaseGrant(7)),
        ("root", "with a key of root's", Put(on_lease("x", 7))),
        ("ann", "is not for others' keys", Put(on_lease("w", 7))),
        ("ann", "nor theirs to revoke", LeaseRevoke(7)),
        ("ann", "nor are its keys told", LeaseKeys(7)),
        ("ann", "a lease of its own", LeaseGrant(8)),
        ("ann", "with its key", Put(on_lease("w", 8))),
        ("ann", "revoked", LeaseRevoke(8)),
        ("ann", "a lease that is not", Put(on_lease("w", 9))),
        ("root", "may all", Range(range_to("\0", "\0"))),
        ("root", "root stays", UserDelete("root")),
        ("root", "so does its role", RoleDelete("root")),
        ("root", "and the two together", RevokeRole("root", "root")),
        ("root", "nobody", UserDelete("zoe")),
        ("root", "nothing", RoleDelete("zoe")),
        ("root", "a permission less", Revoke("r", "w", "")),
        ("ann", "at once", Put(put("w", "1"))),
        ("root", "another user", UserAdd("bob", "b")),
        ("ann", "is no matter", Range(range("r"))),
        ("root", "a new password", Password("ann", "n")),
        ("ann", "a token that was the old one's", Range(range("r"))),
        ("ann", "the old password", Login("a")),
        ("ann", "the new password", Login("n")),
        ("ann", "works", Range(range("r"))),
        ("root", "a user less", UserDelete("ann")),
        ("ann", "at once", Range(range("r"))),
        ("root", "a role less", RoleDelete("r")),
        ("root", "none left", RoleList),
        ("root", "off", Disable),
        ("", "and counted", Status),
        ("", "everybody may all", Range(range("r"))),
        ("stranger", "whatever its token", Range(range("r"))),
        ("", "off already", Disable),
        ("", "which did not count", Status),
    ]
}

async fn check(subject: &Subject) {
    let cluster = Cluster::builder(subject, 1).start().await;
    let mut users = Users::of(cluster.endpoint(0));
    let mut transcript = Transcript::default();
    for (who, rule, ask) in rows() {
        let answer = users
            .ask(who, ask)
            .await
            .unwrap_or_else(|refused| show::status(&refused));
        let who = if who.is_empty() { "anyone" } else { who };
        transcript.push(&format!("{who}: {rule}"), &answer);
    }
    transcript.check(subject.name(), "semantics/auth.txt", subject.is_etcd());
}

tests::on_both!(check);
