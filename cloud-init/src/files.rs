//! The files a host gets: the agent's configuration, its unit, and the script that fetches it.

use std::net::IpAddr;

use serde::Serialize;

use crate::host::{Binary, Flags, Host};

pub(crate) const CONFIG_PATH: &str = "/etc/agent/config.yaml";
pub(crate) const TOKEN_PATH: &str = "/etc/agent/token";
/// Of a host of a cluster with certificates.
const SERVER_PATH: &str = "/etc/agent/server.pem";
pub(crate) const UNIT_PATH: &str = "/etc/systemd/system/agent.service";
pub(crate) const FETCH_PATH: &str = "/usr/local/sbin/agent-fetch";
pub(crate) const BINARY_PATH: &str = "/usr/local/bin/agent";
pub(crate) const CTL_PATH: &str = "/usr/local/bin/agentctl";
pub(crate) const PRESEED_PATH: &str = "/etc/agent/incus-preseed.yaml";
pub(crate) const DATA_DIR: &str = "/var/lib/agent";
const CLIENT_URL: &str = "http://127.0.0.1:2379";

/// The keys are the flags of `agent run`. Clients are served on loopback only: who is on the host may ask, nobody
/// else, until there is TLS.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Config<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    provider: &'a str,
    data_dir: &'a str,
    listen_client_urls: &'a str,
    advertise_client_urls: &'a str,
    listen_peer_urls: String,
    initial_advertise_peer_urls: &'a str,
    initial_cluster: Vec<String>,
    initial_cluster_state: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    allow_plaintext: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_restart: Option<&'a str>,
}

/// `/etc/agent/config.yaml`.
pub(crate) fn config(host: &Host) -> Result<String, serde_saphyr::SerializeError> {
    let seed = &host.seed;
    let listen = match seed.address {
        Some(IpAddr::V6(address)) => format!("[{address}]"),
        Some(IpAddr::V4(address)) => address.to_string(),
        None if host.peer_is_ipv6 => "[::]".to_owned(),
        None => "0.0.0.0".to_owned(),
    };
    let cluster: Vec<String> = seed
        .cluster
        .iter()
        .map(|peer| format!("{}={}", peer.name, peer.url.trim_end_matches('/')))
        .collect();
    serde_saphyr::to_string(&Config {
        name: &seed.name,
        provider: &seed.provider,
        data_dir: DATA_DIR,
        listen_client_urls: CLIENT_URL,
        advertise_client_urls: CLIENT_URL,
        listen_peer_urls: format!("http://{listen}:{}", host.peer_port),
        initial_advertise_peer_urls: &host.peer_url,
        initial_cluster: cluster,
        initial_cluster_state: "new",
        allow_plaintext: seed.allow_plaintext,
        on_restart: seed.rebuilds.then_some("rebuild"),
    })
}

/// How a host's member is started, once its settings are there.
pub(crate) fn run_line(flags: &Flags) -> String {
    format!("{BINARY_PATH} run --config {CONFIG_PATH}{}", words(flags))
}

/// How a host that joins is started: the same command at every start, which joins only once. Certificates that are renewed
/// are written beside the settings.
pub(crate) fn join_line(flags: &Flags) -> String {
    let words = match words(flags) {
        words if words.is_empty() => words,
        words => format!(" --{words}"),
    };
    format!("{BINARY_PATH} join --token-file {TOKEN_PATH} --keep-trying{words}")
}

/// The flags, each after a blank.
fn words(flags: &Flags) -> String {
    let provider = match flags.provider.as_str() {
        "" => String::new(),
        provider => format!(" \"--provider={provider}\""),
    };
    let on_restart = if flags.rebuilds {
        " --on-restart=rebuild"
    } else {
        ""
    };
    format!("{provider}{on_restart}")
}

/// The unit of a cluster's first host. It waits, however long, for what the operator copies there; the last file of a copy in
/// alphabetical order is the server's certificate.
pub(crate) fn first_unit(flags: &Flags) -> String {
    let wait = format!(
        "TimeoutStartSec=infinity\nExecStartPre=/bin/sh -c 'until [ -e {CONFIG_PATH} ] && [ -e {SERVER_PATH} ]; do sleep 1; done'\n"
    );
    unit(&run_line(flags)).replace("ExecStart=", &format!("{wait}ExecStart="))
}

/// The unit. The agent runs as root, whose socket Incus' is. Of root's capabilities it has those that put a document's
/// file where and whose it should be, and of the disk those folders writable that such files, units and the certificates
/// go to.
pub(crate) fn unit(start: &str) -> String {
    format!(
        "\
[Unit]
Description=Agent: this host's member of the cluster
Wants=network-online.target
After=network-online.target incus.service incus.socket
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={start}
Restart=always
RestartSec=2
# Leadership is handed over and requests are finished first.
TimeoutStopSec=30
KillMode=mixed
LimitNOFILE=65536
StateDirectory=agent
StateDirectoryMode=0700
UMask=0077
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER
LockPersonality=yes
MemoryDenyWriteExecute=yes
NoNewPrivileges=yes
PrivateDevices=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
# Where documents of kind file and service may put something.
ReadWritePaths=/etc /opt /srv /usr/local /var
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"
    )
}

/// Fetches the agent unless it is there; nothing is put in its place that is not what was promised.
pub(crate) fn fetch(binary: &Binary) -> Option<String> {
    let Binary::Fetch { url, sha256 } = binary else {
        return None;
    };
    let sha256 = sha256.to_ascii_lowercase();
    Some(format!(
        "\
#!/bin/sh
set -eu
target=/usr/local/bin/agent
holds() {{ echo '{sha256} '\" $1\" | sha256sum --check --status; }}
if [ -f \"$target\" ] && holds \"$target\"; then exit 0; fi
part=$(mktemp --tmpdir=\"${{target%/*}}\")
trap 'rm -f \"$part\"' EXIT
curl --fail --silent --show-error --location --proto '=http,https' --connect-timeout 10 --max-time 600 \\
  --retry 10 --retry-delay 3 --retry-connrefused --output \"$part\" '{url}'
if ! holds \"$part\"; then
  echo 'agent: what was fetched is not what was promised (SHA-256 differs)' >&2
  exit 1
fi
chmod 0755 \"$part\"
mv \"$part\" \"$target\"
"
    ))
}

/// `agentctl` on the host is the same binary.
pub const CTL: &str = "#!/bin/sh\nexec /usr/local/bin/agent ctl \"$@\"\n";
