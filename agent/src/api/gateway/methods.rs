//! Which path is which call.

use std::collections::HashMap;

use http::uri::PathAndQuery;
use prost_reflect::{DescriptorPool, MessageDescriptor};

/// One gRPC method, and what its messages look like.
#[derive(Clone, Debug)]
pub(super) struct Method {
    /// Its gRPC path, `/package.Service/Method`.
    pub(super) path: PathAndQuery,
    pub(super) input: MessageDescriptor,
    pub(super) output: MessageDescriptor,
    /// The client sends any number of messages.
    pub(super) client_streams: bool,
    server_streams: bool,
}

impl Method {
    pub(super) fn is_streaming(&self) -> bool {
        self.client_streams || self.server_streams
    }
}

/// Every method by its path below the prefix.
#[derive(Debug)]
pub(super) struct Methods {
    by_path: HashMap<&'static str, Method>,
}

impl Methods {
    pub(super) fn new() -> Methods {
        // The descriptors are compiled in: that they are whole, and hold every name below, is tested.
        let pool = DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).unwrap_or_default();
        let by_path = PATHS
            .iter()
            .flat_map(|&(service, methods)| {
                let service = pool.get_service_by_name(service);
                methods.iter().filter_map(move |&(path, name)| {
                    let service = service.as_ref()?;
                    let method = service.methods().find(|method| method.name() == name)?;
                    let grpc_path = format!("/{}/{name}", service.full_name());
                    let method = Method {
                        path: PathAndQuery::try_from(grpc_path).ok()?,
                        input: method.input(),
                        output: method.output(),
                        client_streams: method.is_client_streaming(),
                        server_streams: method.is_server_streaming(),
                    };
                    Some((path, method))
                })
            })
            .collect();
        Methods { by_path }
    }

    /// `path` begins after the prefix: `/kv/range`.
    pub(super) fn find(&self, path: &str) -> Option<&Method> {
        self.by_path.get(path)
    }
}

/// By service: path and method.
const PATHS: [(&str, &[(&str, &str)]); 8] = [
    (
        "etcdserverpb.KV",
        &[
            ("/kv/range", "Range"),
            ("/kv/put", "Put"),
            ("/kv/deleterange", "DeleteRange"),
            ("/kv/txn", "Txn"),
            ("/kv/compaction", "Compact"),
        ],
    ),
    ("etcdserverpb.Watch", &[("/watch", "Watch")]),
    (
        "etcdserverpb.Lease",
        &[
            ("/lease/grant", "LeaseGrant"),
            ("/lease/revoke", "LeaseRevoke"),
            ("/kv/lease/revoke", "LeaseRevoke"),
            ("/lease/keepalive", "LeaseKeepAlive"),
            ("/lease/timetolive", "LeaseTimeToLive"),
            ("/kv/lease/timetolive", "LeaseTimeToLive"),
            ("/lease/leases", "LeaseLeases"),
            ("/kv/lease/leases", "LeaseLeases"),
        ],
    ),
    (
        "etcdserverpb.Cluster",
        &[
            ("/cluster/member/add", "MemberAdd"),
            ("/cluster/member/remove", "MemberRemove"),
            ("/cluster/member/update", "MemberUpdate"),
            ("/cluster/member/list", "MemberList"),
            ("/cluster/member/promote", "MemberPromote"),
        ],
    ),
    (
        "etcdserverpb.Maintenance",
        &[
            ("/maintenance/alarm", "Alarm"),
            ("/maintenance/status", "Status"),
            ("/maintenance/defragment", "Defragment"),
            ("/maintenance/hash", "Hash"),
            ("/maintenance/hashkv", "HashKV"),
            ("/maintenance/snapshot", "Snapshot"),
            ("/maintenance/transfer-leadership", "MoveLeader"),
            ("/maintenance/downgrade", "Downgrade"),
        ],
    ),
    (
        "etcdserverpb.Auth",
        &[
            ("/auth/enable", "AuthEnable"),
            ("/auth/disable", "AuthDisable"),
            ("/auth/status", "AuthStatus"),
            ("/auth/authenticate", "Authenticate"),
            ("/auth/user/add", "UserAdd"),
            ("/auth/user/get", "UserGet"),
            ("/auth/user/list", "UserList"),
            ("/auth/user/delete", "UserDelete"),
            ("/auth/user/changepw", "UserChangePassword"),
            ("/auth/user/grant", "UserGrantRole"),
            ("/auth/user/revoke", "UserRevokeRole"),
            ("/auth/role/add", "RoleAdd"),
            ("/auth/role/get", "RoleGet"),
            ("/auth/role/list", "RoleList"),
            ("/auth/role/delete", "RoleDelete"),
            ("/auth/role/grant", "RoleGrantPermission"),
            ("/auth/role/revoke", "RoleRevokePermission"),
        ],
    ),
    (
        "v3lockpb.Lock",
        &[("/lock/lock", "Lock"), ("/lock/unlock", "Unlock")],
    ),
    (
        "v3electionpb.Election",
        &[
            ("/election/campaign", "Campaign"),
            ("/election/proclaim", "Proclaim"),
            ("/election/leader", "Leader"),
            ("/election/observe", "Observe"),
            ("/election/resign", "Resign"),
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_every_service_has_its_path() {
        let methods = Methods::new();
        for (_, paths) in PATHS {
            for (path, name) in paths {
                let method = methods
                    .find(path)
                    .unwrap_or_else(|| panic!("{path} is not there"));
                assert!(
                    method.path.as_str().ends_with(&format!("/{name}")),
                    "{path}: {}",
                    method.path
                );
            }
        }
        let reached: Vec<&str> = methods
            .by_path
            .values()
            .map(|method| method.path.as_str())
            .collect();
        let pool = DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
        let ours = ["peer", "agent.v1"];
        for service in pool
            .services()
            .filter(|service| !ours.contains(&service.package_name()))
        {
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                assert!(reached.contains(&path.as_str()), "{path} cannot be reached");
            }
        }
        assert!(methods.find("/kv/nothing").is_none());
        assert!(methods.find("/kv/range/").is_none());
    }
}
