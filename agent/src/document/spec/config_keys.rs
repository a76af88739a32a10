//! The config keys of Incus 6.0 (and those that newer ones added): what is offered to someone who mistyped one,
//! and which of them only a restart makes effective.
//!
//! Instances', projects' and the server's are from Incus' own metadata (`GET /1.0/metadata/configuration`), which knows
//! neither networks nor storage in 6.0: of those only what looks like a slip of a common key is refused here.

use crate::document::Kind;
use crate::document::suggest::nearest;

/// The keys that one kind of object takes.
#[derive(Debug)]
pub(super) struct Table {
    keys: &'static [&'static str],
    /// Under these, every key is somebody's own.
    free: &'static [&'static str],
    /// Whether there are no others.
    complete: bool,
}

/// The keys of a kind's config.
pub(super) const fn table(kind: Kind) -> &'static Table {
    match kind {
        Kind::Incus => &SERVER,
        Kind::Project => &PROJECT,
        Kind::Network => &NETWORK,
        Kind::Host
        | Kind::StoragePool
        | Kind::NetworkAcl
        | Kind::NetworkForward
        | Kind::Volume
        | Kind::Image
        | Kind::OsService
        | Kind::File
        | Kind::Service
        | Kind::Tunnel
        | Kind::Backup
        | Kind::Tenant
        | Kind::Template => &ANY,
        Kind::Profile | Kind::Instance => &INSTANCE,
    }
}

impl Table {
    pub(super) fn refuses(&self, key: &str) -> bool {
        !self.knows(key) && (self.complete || nearest(key, self.keys.iter().copied()).is_some())
    }

    fn knows(&self, key: &str) -> bool {
        self.keys.contains(&key)
            || self
                .free
                .iter()
                .any(|prefix| key.len() > prefix.len() && key.starts_with(prefix))
    }

    /// `; did you mean KEY?`, or what may stand here at all.
    pub(super) fn suggestion(&self, key: &str) -> String {
        if let Some(near) = nearest(key, self.keys.iter().copied()) {
            return format!("; did you mean {near}?");
        }
        // `enviroment.PATH`: the namespace is mistyped, and the rest is the user's own.
        let namespace = key.split_inclusive('.').next().unwrap_or(key);
        if let Some(near) = nearest(namespace, self.free.iter().copied()) {
            return format!("; did you mean {near}{}?", &key[namespace.len()..]);
        }
        "; a key of your own begins with user.".to_owned()
    }
}

const INSTANCE: Table = Table {
    keys: INSTANCE_KEYS,
    free: INSTANCE_FREE,
    complete: true,
};
const PROJECT: Table = Table {
    keys: PROJECT_KEYS,
    free: &["user.", "limits.disk.pool."],
    complete: true,
};
const SERVER: Table = Table {
    keys: SERVER_KEYS,
    free: &["user.", "loki.", "logging."],
    complete: true,
};
const NETWORK: Table = Table {
    keys: NETWORK_KEYS,
    free: &["user.", "tunnel.", "bgp.", "security.acls"],
    complete: false,
};
/// What each driver takes is Incus' to say.
const ANY: Table = Table {
    keys: &[],
    free: &[],
    complete: false,
};

const INSTANCE_FREE: &[&str] = &[
    "user.",
    "environment.",
    "image.",
    "linux.sysctl.",
    "limits.kernel.",
    "smbios11.",
    "systemd.credential.",
    "systemd.credential-binary.",
];

const INSTANCE_KEYS: &[&str] = &[
    "agent.nic_config",
    "boot.autorestart",
    "boot.autostart",
    "boot.autostart.delay",
    "boot.autostart.priority",
    "boot.host_shutdown_action",
    "boot.host_shutdown_timeout",
    "boot.stop.priority",
    "cloud-init.network-config",
    "cloud-init.user-data",
    "cloud-init.vendor-data",
    "cluster.evacuate",
    "limits.cpu",
    "limits.cpu.allowance",
    "limits.cpu.nodes",
    "limits.cpu.priority",
    "limits.disk.priority",
    "limits.hugepages.1GB",
    "limits.hugepages.1MB",
    "limits.hugepages.2MB",
    "limits.hugepages.64KB",
    "limits.memory",
    "limits.memory.enforce",
    "limits.memory.hotplug",
    "limits.memory.hugepages",
    "limits.memory.oom_priority",
    "limits.memory.swap",
    "limits.memory.swap.priority",
    "limits.network.priority",
    "limits.processes",
    "linux.kernel_modules",
    "migration.incremental.memory",
    "migration.incremental.memory.goal",
    "migration.incremental.memory.iterations",
    "migration.stateful",
    "nvidia.driver.capabilities",
    "nvidia.require.cuda",
    "nvidia.require.driver",
    "nvidia.runtime",
    "oci.cwd",
    "oci.dns.domain",
    "oci.dns.nameservers",
    "oci.dns.search",
    "oci.entrypoint",
    "oci.gid",
    "oci.uid",
    "raw.apparmor",
    "raw.idmap",
    "raw.lxc",
    "raw.qemu",
    "raw.qemu.conf",
    "raw.qemu.qmp.early",
    "raw.qemu.qmp.post-start",
    "raw.qemu.qmp.pre-start",
    "raw.qemu.scriptlet",
    "raw.seccomp",
    "security.agent.metrics",
    "security.bpffs.delegate_attachs",
    "security.bpffs.delegate_cmds",
    "security.bpffs.delegate_maps",
    "security.bpffs.delegate_progs",
    "security.bpffs.path",
    "security.csm",
    "security.guestapi",
    "security.guestapi.images",
    "security.idmap.base",
    "security.idmap.isolated",
    "security.idmap.size",
    "security.iommu",
    "security.nesting",
    "security.privileged",
    "security.protection.delete",
    "security.protection.shift",
    "security.secureboot",
    "security.selinux.domain",
    "security.selinux.label_rootfs",
    "security.selinux.level",
    "security.selinux.type",
    "security.sev",
    "security.sev.policy.es",
    "security.sev.session.data",
    "security.sev.session.dh",
    "security.syscalls.allow",
    "security.syscalls.deny",
    "security.syscalls.deny_compat",
    "security.syscalls.deny_default",
    "security.syscalls.intercept.bpf",
    "security.syscalls.intercept.bpf.devices",
    "security.syscalls.intercept.mknod",
    "security.syscalls.intercept.mount",
    "security.syscalls.intercept.mount.allowed",
    "security.syscalls.intercept.mount.fuse",
    "security.syscalls.intercept.mount.shift",
    "security.syscalls.intercept.sched_setscheduler",
    "security.syscalls.intercept.setxattr",
    "security.syscalls.intercept.sysinfo",
    "snapshots.expiry",
    "snapshots.expiry.manual",
    "snapshots.pattern",
    "snapshots.schedule",
    "snapshots.schedule.stopped",
];

const PROJECT_KEYS: &[&str] = &[
    "backups.compression_algorithm",
    "features.images",
    "features.networks",
    "features.networks.zones",
    "features.profiles",
    "features.storage.buckets",
    "features.storage.volumes",
    "images.auto_update_cached",
    "images.auto_update_interval",
    "images.compression_algorithm",
    "images.default_architecture",
    "images.remote_cache_expiry",
    "limits.containers",
    "limits.cpu",
    "limits.disk",
    "limits.instances",
    "limits.memory",
    "limits.networks",
    "limits.processes",
    "limits.virtual-machines",
    "network.hwaddr_pattern",
    "restricted",
    "restricted.backups",
    "restricted.cluster.groups",
    "restricted.cluster.target",
    "restricted.containers.interception",
    "restricted.containers.lowlevel",
    "restricted.containers.nesting",
    "restricted.containers.privilege",
    "restricted.devices.disk",
    "restricted.devices.disk.paths",
    "restricted.devices.gpu",
    "restricted.devices.infiniband",
    "restricted.devices.nic",
    "restricted.devices.pci",
    "restricted.devices.proxy",
    "restricted.devices.unix-block",
    "restricted.devices.unix-char",
    "restricted.devices.unix-hotplug",
    "restricted.devices.usb",
    "restricted.idmap.gid",
    "restricted.idmap.uid",
    "restricted.images.servers",
    "restricted.networks.access",
    "restricted.networks.integrations",
    "restricted.networks.subnets",
    "restricted.networks.uplinks",
    "restricted.networks.zones",
    "restricted.snapshots",
    "restricted.storage-pools.access",
    "restricted.virtual-machines.lowlevel",
    "restricted.virtual-machines.nesting",
];

const SERVER_KEYS: &[&str] = &[
    "acme.agree_tos",
    "acme.ca_url",
    "acme.challenge",
    "acme.domain",
    "acme.email",
    "acme.http.port",
    "acme.provider",
    "acme.provider.environment",
    "acme.provider.resolvers",
    "authorization.scriptlet",
    "backups.compression_algorithm",
    "cluster.healing_threshold",
    "cluster.https_address",
    "cluster.images_minimal_replica",
    "cluster.join_token_expiry",
    "cluster.max_standby",
    "cluster.max_voters",
    "cluster.offline_threshold",
    "cluster.rebalance.batch",
    "cluster.rebalance.cooldown",
    "cluster.rebalance.interval",
    "cluster.rebalance.threshold",
    "core.bgp_address",
    "core.bgp_asn",
    "core.bgp_routerid",
    "core.debug_address",
    "core.dns_address",
    "core.https_address",
    "core.https_allowed_credentials",
    "core.https_allowed_headers",
    "core.https_allowed_methods",
    "core.https_allowed_origin",
    "core.https_trusted_proxy",
    "core.metrics_address",
    "core.metrics_authentication",
    "core.proxy_http",
    "core.proxy_https",
    "core.proxy_ignore_hosts",
    "core.remote_token_expiry",
    "core.shutdown_timeout",
    "core.storage_buckets_address",
    "core.syslog_socket",
    "core.trust_ca_certificates",
    "images.auto_update_cached",
    "images.auto_update_interval",
    "images.compression_algorithm",
    "images.default_architecture",
    "images.remote_cache_expiry",
    "instances.lxcfs.per_instance",
    "instances.nic.host_name",
    "instances.placement.scriptlet",
    "network.ovn.ca_cert",
    "network.ovn.client_cert",
    "network.ovn.client_key",
    "network.ovn.integration_bridge",
    "network.ovn.northbound_connection",
    "network.ovs.connection",
    "oidc.audience",
    "oidc.claim",
    "oidc.client.id",
    "oidc.issuer",
    "oidc.scopes",
    "openfga.api.token",
    "openfga.api.url",
    "openfga.store.id",
    "storage.backups_volume",
    "storage.images_volume",
];

const NETWORK_KEYS: &[&str] = &[
    "bridge.driver",
    "bridge.external_interfaces",
    "bridge.hwaddr",
    "bridge.mtu",
    "dns.domain",
    "dns.mode",
    "dns.nameservers",
    "dns.search",
    "dns.zone.forward",
    "dns.zone.reverse.ipv4",
    "dns.zone.reverse.ipv6",
    "gvrp",
    "ipv4.address",
    "ipv4.dhcp",
    "ipv4.dhcp.expiry",
    "ipv4.dhcp.gateway",
    "ipv4.dhcp.ranges",
    "ipv4.dhcp.routes",
    "ipv4.firewall",
    "ipv4.gateway",
    "ipv4.l3only",
    "ipv4.nat",
    "ipv4.nat.address",
    "ipv4.nat.order",
    "ipv4.ovn.ranges",
    "ipv4.routes",
    "ipv4.routes.anycast",
    "ipv4.routing",
    "ipv6.address",
    "ipv6.dhcp",
    "ipv6.dhcp.expiry",
    "ipv6.dhcp.ranges",
    "ipv6.dhcp.stateful",
    "ipv6.firewall",
    "ipv6.gateway",
    "ipv6.l3only",
    "ipv6.nat",
    "ipv6.nat.address",
    "ipv6.nat.order",
    "ipv6.ovn.ranges",
    "ipv6.routes",
    "ipv6.routes.anycast",
    "ipv6.routing",
    "mtu",
    "network",
    "ovn.ingress_mode",
    "parent",
    "raw.dnsmasq",
    "vlan",
];

/// Whether a change of an instance's config key shows only after a restart.
///
/// Keys that Incus itself reads later (autostart, snapshot schedules) need none, though Incus lists them as not
/// updated live.
#[must_use]
pub fn needs_restart(key: &str, is_virtual_machine: bool) -> bool {
    match key {
        "security.nesting" => is_virtual_machine,
        "security.protection.delete"
        | "security.protection.shift"
        | "security.agent.metrics"
        | "security.syscalls.intercept.mount.allowed"
        | "security.syscalls.intercept.mount.fuse"
        | "security.syscalls.intercept.mount.shift"
        | "raw.apparmor" => false,
        "agent.nic_config" | "migration.stateful" | "limits.memory.hugepages" => true,
        _ => [
            "security.",
            "raw.",
            "nvidia.",
            "oci.",
            "cloud-init.",
            "linux.sysctl.",
            "limits.kernel.",
        ]
        .iter()
        .any(|prefix| key.starts_with(prefix)),
    }
}
