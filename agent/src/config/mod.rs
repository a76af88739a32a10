//! `agent run`'s settings: etcd's flag names where the meaning is etcd's, the same names in a YAML file and, as
//! `AGENT_*`, in the environment. A flag beats the environment, which beats the file.

mod file;
mod host_settings;
mod limits;
mod retention;
mod urls;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use thiserror::Error;

use crate::api::{JwtOptions, JwtOptionsError, TokenOptions};
use crate::node::Retention;
use crate::node::identity::{InitialCluster, InitialClusterError};
use crate::reconciler::OnRestart;
use crate::secrets::KeyFile;
use crate::service::ManagerChoice;
use crate::tls::files::PemFile;
use crate::tls::peer::PeerTlsFiles;
use crate::tls::server::ServerTlsFiles;

pub use file::{ConfigFileError, arguments_from_file};
pub use host_settings::{HOST_FOLDER, HostSettings};
pub use limits::LimitArgs;
pub use retention::AutoCompactionMode;
pub use urls::{ListenUrl, UrlError};

/// Runs one member of the cluster, and keeps this host's Incus as the cluster's documents say.
#[derive(Args, Clone, Debug)]
#[command(args_override_self = true)]
pub struct RunArgs {
    /// YAML file with these settings, by their long names
    #[arg(long, env = "AGENT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// This member's name, which is its host's
    #[arg(long, env = "AGENT_NAME", default_value = "default", help_heading = "Member")]
    pub name: String,
    /// Where this member keeps its log and store [default: ./NAME.agent]
    #[arg(long, env = "AGENT_DATA_DIR", value_name = "DIR", help_heading = "Member")]
    pub data_dir: Option<PathBuf>,
    /// Whose machine this is: OVH, IONOS, ...; shown, and used to spread instances
    #[arg(
        long,
        env = "AGENT_PROVIDER",
        value_name = "NAME",
        default_value = "",
        help_heading = "Member"
    )]
    pub provider: String,
    /// The local Incus, or "none" for a store only
    #[arg(
        long,
        env = "AGENT_INCUS_SOCKET",
        value_name = "PATH|none",
        default_value = "/var/lib/incus/unix.socket",
        help_heading = "Member"
    )]
    pub incus_socket: PathBuf,
    /// What keeps the host's own services running
    #[arg(
        long,
        env = "AGENT_SERVICE_MANAGER",
        value_enum,
        default_value_t,
        help_heading = "Member"
    )]
    pub service_manager: ManagerChoice,
    /// What becomes of this host's instances when the host itself, not only the agent, was restarted
    #[arg(
        long,
        env = "AGENT_ON_RESTART",
        value_enum,
        default_value_t,
        help_heading = "Member"
    )]
    pub on_restart: OnRestart,
    /// The directory that documents for the host itself see as /
    #[arg(
        long,
        env = "AGENT_HOST_ROOT",
        value_name = "DIR",
        default_value = "/",
        help_heading = "Member"
    )]
    pub host_root: PathBuf,

    /// Where clients are served
    #[arg(
        long,
        env = "AGENT_LISTEN_CLIENT_URLS",
        value_name = "URLS",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:2379",
        help_heading = "Clients"
    )]
    pub listen_client_urls: Vec<String>,
    /// Where clients are told to go [default: --listen-client-urls]
    #[arg(
        long,
        env = "AGENT_ADVERTISE_CLIENT_URLS",
        value_name = "URLS",
        value_delimiter = ',',
        help_heading = "Clients"
    )]
    pub advertise_client_urls: Vec<String>,
    /// The certificate served to clients at https URLs, as PEM; read again when it is renewed
    #[arg(
        long,
        env = "AGENT_CERT_FILE",
        value_name = "FILE",
        requires = "key_file",
        help_heading = "Clients"
    )]
    pub cert_file: Option<PathBuf>,
    /// The private key of --cert-file, as PEM
    #[arg(
        long,
        env = "AGENT_KEY_FILE",
        value_name = "FILE",
        requires = "cert_file",
        help_heading = "Clients"
    )]
    pub key_file: Option<PathBuf>,
    /// Clients must show a certificate of one of these authorities, as PEM
    #[arg(
        long,
        env = "AGENT_TRUSTED_CA_FILE",
        value_name = "FILE",
        requires = "cert_file",
        help_heading = "Clients"
    )]
    pub trusted_ca_file: Option<PathBuf>,
    /// The common name in a client's certificate is its user, where it sends no token; needs --trusted-ca-file
    #[arg(
        long,
        env = "AGENT_CLIENT_CERT_AUTH",
        requires = "trusted_ca_file",
        help_heading = "Clients"
    )]
    pub client_cert_auth: bool,
    /// Largest request a client may send, in bytes
    #[arg(
        long,
        env = "AGENT_MAX_REQUEST_BYTES",
        value_name = "BYTES",
        default_value_t = 1_572_864,
        help_heading = "Clients"
    )]
    pub max_request_bytes: usize,
    /// Most operations in one transaction
    #[arg(
        long,
        env = "AGENT_MAX_TXN_OPS",
        value_name = "N",
        default_value_t = 128,
        help_heading = "Clients"
    )]
    pub max_txn_ops: usize,
    /// How often the leader writes down what leases have left that last longer than this, so that a change of
    /// leader does not start them anew; 0: never
    #[arg(
        long,
        env = "AGENT_LEASE_CHECKPOINT_INTERVAL",
        value_name = "SECONDS",
        default_value_t = 300,
        help_heading = "Clients"
    )]
    pub lease_checkpoint_interval: u64,
    /// How often an idle watch that asked for it is told how far it has come
    #[arg(long, env = "AGENT_WATCH_PROGRESS_NOTIFY_INTERVAL", value_name = "SECONDS", default_value_t = 600,
          value_parser = clap::value_parser!(u64).range(1..), help_heading = "Clients")]
    pub watch_progress_notify_interval: u64,

    #[command(flatten)]
    pub limits: LimitArgs,

    /// The tokens that a login gives, the same on all members: "simple", signed with a key of the cluster's own, or
    /// JSON web tokens with your keys: "jwt,pub-key=FILE,priv-key=FILE,sign-method=RS256,ttl=10m"; for HS256 priv-key
    /// holds the secret, and without priv-key tokens are only read
    #[arg(
        long,
        env = "AGENT_AUTH_TOKEN",
        value_name = "KIND",
        default_value = "simple",
        help_heading = "Auth"
    )]
    pub auth_token: String,
    /// How long a simple token lives after it was last seen; jwt has its own ttl
    #[arg(long, env = "AGENT_AUTH_TOKEN_TTL", value_name = "SECONDS", default_value_t = 300,
          value_parser = clap::value_parser!(u64).range(1..), help_heading = "Auth")]
    pub auth_token_ttl: u64,
    /// How much work it is to try a password, 4 to 31: each step doubles it
    #[arg(long, env = "AGENT_BCRYPT_COST", value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(4..=31), help_heading = "Auth")]
    pub bcrypt_cost: u32,

    /// Where the other members reach this one
    #[arg(
        long,
        env = "AGENT_LISTEN_PEER_URLS",
        value_name = "URLS",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:2380",
        help_heading = "Cluster"
    )]
    pub listen_peer_urls: Vec<String>,
    /// Where the other members are told to go; must equal this member's part of --initial-cluster
    /// [default: that part]
    #[arg(
        long,
        env = "AGENT_INITIAL_ADVERTISE_PEER_URLS",
        value_name = "URLS",
        value_delimiter = ',',
        help_heading = "Cluster"
    )]
    pub initial_advertise_peer_urls: Vec<String>,
    /// All first members: NAME=PEER_URL,NAME=PEER_URL,... [default: this member alone]
    #[arg(
        long,
        env = "AGENT_INITIAL_CLUSTER",
        value_name = "MEMBERS",
        help_heading = "Cluster"
    )]
    pub initial_cluster: Option<String>,
    /// "new": an empty data directory becomes a member; "existing": it is refused
    #[arg(
        long,
        env = "AGENT_INITIAL_CLUSTER_STATE",
        value_enum,
        default_value = "new",
        help_heading = "Cluster"
    )]
    pub initial_cluster_state: ClusterState,
    /// Tells clusters apart that have the same peer URLs
    #[arg(
        long,
        env = "AGENT_INITIAL_CLUSTER_TOKEN",
        value_name = "TOKEN",
        default_value = "etcd-cluster",
        help_heading = "Cluster"
    )]
    pub initial_cluster_token: String,
    /// The certificate that members know this one by, as PEM, for --listen-peer-urls and for calls to the others; read
    /// again when it is renewed. Its DNS name is NAME.peer.agent.internal
    #[arg(
        long,
        env = "AGENT_PEER_CERT_FILE",
        value_name = "FILE",
        requires_all = ["peer_key_file", "peer_trusted_ca_file"],
        help_heading = "Cluster"
    )]
    pub peer_cert_file: Option<PathBuf>,
    /// The private key of --peer-cert-file, as PEM
    #[arg(
        long,
        env = "AGENT_PEER_KEY_FILE",
        value_name = "FILE",
        requires = "peer_cert_file",
        help_heading = "Cluster"
    )]
    pub peer_key_file: Option<PathBuf>,
    /// The authorities of the members' certificates, as PEM
    #[arg(
        long,
        env = "AGENT_PEER_TRUSTED_CA_FILE",
        value_name = "FILE",
        requires = "peer_cert_file",
        help_heading = "Cluster"
    )]
    pub peer_trusted_ca_file: Option<PathBuf>,
    /// What members issue certificates with, for hosts that join and for themselves: the issuer's certificate and its key,
    /// as PEM, readable by nobody else. Where it is missing, the other members are asked for it
    #[arg(
        long,
        env = "AGENT_PEER_ISSUER_FILE",
        value_name = "FILE",
        requires = "peer_cert_file",
        help_heading = "Cluster"
    )]
    pub peer_issuer_file: Option<PathBuf>,
    /// What secrets are sealed with: keys in base64, one on a line, of which the first seals and every one opens; the same
    /// on every member, readable by nobody else. Where the file is missing, the other members are asked for it, if they have
    /// certificates
    #[arg(
        long,
        env = "AGENT_SECRETS_KEY_FILE",
        value_name = "FILE",
        help_heading = "Cluster"
    )]
    pub secrets_key_file: Option<PathBuf>,
    /// Between two heartbeats of the leader, in milliseconds
    #[arg(
        long,
        env = "AGENT_HEARTBEAT_INTERVAL",
        value_name = "MS",
        default_value_t = 100,
        help_heading = "Cluster"
    )]
    pub heartbeat_interval: u64,
    /// Without a leader for about this long, another is elected; in milliseconds
    #[arg(
        long,
        env = "AGENT_ELECTION_TIMEOUT",
        value_name = "MS",
        default_value_t = 1000,
        help_heading = "Cluster"
    )]
    pub election_timeout: u64,
    /// Serve without TLS beyond loopback too
    #[arg(long, env = "AGENT_ALLOW_PLAINTEXT", help_heading = "Cluster")]
    pub allow_plaintext: bool,

    /// Applied requests between two snapshots
    #[arg(long, env = "AGENT_SNAPSHOT_COUNT", value_name = "N", default_value_t = 10_000,
          value_parser = clap::value_parser!(u64).range(1..), help_heading = "Storage")]
    pub snapshot_count: u64,
    /// Puts are refused while the keys and values take more than this; 0 for etcd's 2 GiB, below 0 for no
    /// quota. The same on all members
    #[arg(
        long,
        env = "AGENT_QUOTA_BACKEND_BYTES",
        value_name = "BYTES",
        default_value_t = 0,
        allow_negative_numbers = true,
        help_heading = "Storage"
    )]
    pub quota_backend_bytes: i64,
    /// What --auto-compaction-retention counts: time, or revisions
    #[arg(
        long,
        env = "AGENT_AUTO_COMPACTION_MODE",
        value_enum,
        default_value = "periodic",
        help_heading = "Storage"
    )]
    pub auto_compaction_mode: AutoCompactionMode,
    /// How much history is kept: "1h", "10m", "5" (hours), or a number of revisions; 0 for all
    #[arg(
        long,
        env = "AGENT_AUTO_COMPACTION_RETENTION",
        value_name = "RETENTION",
        default_value = "0",
        help_heading = "Storage"
    )]
    pub auto_compaction_retention: String,
    /// How often the members compare their stores; 0 for never
    #[arg(
        long,
        alias = "experimental-corrupt-check-time",
        env = "AGENT_CORRUPT_CHECK_TIME",
        value_name = "TIME",
        default_value = "5m",
        help_heading = "Storage"
    )]
    pub corrupt_check_time: String,

    /// What is logged: error, warn, info, debug, or a filter like "info,agent::peer=debug"
    #[arg(
        long,
        env = "AGENT_LOG",
        value_name = "LEVEL",
        default_value = "info",
        help_heading = "Logging"
    )]
    pub log_level: String,
    /// How it is logged
    #[arg(
        long,
        env = "AGENT_LOG_FORMAT",
        value_enum,
        default_value = "text",
        help_heading = "Logging"
    )]
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClusterState {
    New,
    Existing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Settings that are each fine, and wrong together or in this place.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error(transparent)]
    InitialCluster(#[from] InitialClusterError),
    #[error("{flag}: {source}")]
    Url { flag: &'static str, source: UrlError },
    #[error(
        "{flag}: {url} is reachable from other machines without TLS; listen on a loopback address, or say --allow-plaintext where the network itself is private"
    )]
    Plaintext { flag: &'static str, url: String },
    #[error("{flag}: {url} asks for TLS: say --cert-file and --key-file")]
    NoCertificate { flag: &'static str, url: String },
    #[error("{flag}: {url} asks for TLS: say --peer-cert-file, --peer-key-file and --peer-trusted-ca-file")]
    NoPeerCertificate { flag: &'static str, url: String },
    #[error(
        "--name {0:?} must be 1 to 63 letters, digits, dots or hyphens: it is the host's name in documents and keys"
    )]
    Name(String),
    #[error("--auth-token {0:?}: say \"simple\", or \"jwt,pub-key=FILE,priv-key=FILE,sign-method=RS256\"")]
    AuthToken(String),
    #[error("--auth-token jwt: {0}")]
    Jwt(JwtOptionsError),
    #[error("{flag}: {reason}")]
    Value { flag: &'static str, reason: String },
}

/// etcd's, where the flag says 0.
const DEFAULT_QUOTA_BYTES: u64 = 2 << 30;

impl RunArgs {
    /// Checks the settings against each other.
    ///
    /// # Errors
    /// [`ConfigError`] names the flag and the way out.
    pub fn check(&self) -> Result<RunConfig, ConfigError> {
        let name_fits = (1..=63).contains(&self.name.len())
            && self
                .name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
        if !name_fits {
            return Err(ConfigError::Name(self.name.clone()));
        }
        let listen_client = self.listeners("--listen-client-urls", &self.listen_client_urls)?;
        let listen_peer = self.listeners("--listen-peer-urls", &self.listen_peer_urls)?;
        let initial_cluster = match &self.initial_cluster {
            Some(members) => InitialCluster::parse(members, &self.initial_cluster_token)?,
            None => {
                let urls = if self.initial_advertise_peer_urls.is_empty() {
                    &self.listen_peer_urls
                } else {
                    &self.initial_advertise_peer_urls
                };
                let members: Vec<String> = urls.iter().map(|url| format!("{}={url}", self.name)).collect();
                InitialCluster::parse(&members.join(","), &self.initial_cluster_token)?
            }
        };
        let advertise_peer_urls = if self.initial_advertise_peer_urls.is_empty() {
            let own = initial_cluster
                .members
                .values()
                .find(|member| member.name == self.name);
            own.map(|member| member.peer_urls.clone()).unwrap_or_default()
        } else {
            self.initial_advertise_peer_urls.clone()
        };
        initial_cluster.identity(&self.name, &advertise_peer_urls)?;
        let advertise_client_urls = if self.advertise_client_urls.is_empty() {
            self.listen_client_urls.clone()
        } else {
            for url in &self.advertise_client_urls {
                ListenUrl::parse(url).map_err(|source| ConfigError::Url {
                    flag: "--advertise-client-urls",
                    source,
                })?;
            }
            self.advertise_client_urls.clone()
        };
        let value = |flag| move |reason| ConfigError::Value { flag, reason };
        let auto_compaction =
            retention::retention(self.auto_compaction_mode, &self.auto_compaction_retention)
                .map_err(value("--auto-compaction-retention"))?;
        let corrupt_check_time =
            retention::duration(&self.corrupt_check_time).map_err(value("--corrupt-check-time"))?;
        Ok(RunConfig {
            listen_client,
            listen_peer,
            initial_cluster,
            advertise_peer_urls,
            advertise_client_urls,
            data_dir: self
                .data_dir
                .clone()
                .unwrap_or_else(|| PathBuf::from(format!("{}.agent", self.name))),
            incus_socket: (self.incus_socket.as_os_str() != "none").then(|| self.incus_socket.clone()),
            client_tls: self.client_tls(),
            peer_tls: self.peer_tls(),
            quota_bytes: match self.quota_backend_bytes {
                0 => DEFAULT_QUOTA_BYTES,
                given => u64::try_from(given).unwrap_or(0),
            },
            auto_compaction,
            corrupt_check_time: (!corrupt_check_time.is_zero()).then_some(corrupt_check_time),
            heartbeat_interval: Duration::from_millis(self.heartbeat_interval),
            election_timeout: Duration::from_millis(self.election_timeout),
            tokens: self.tokens()?,
            args: self.clone(),
        })
    }

    fn tokens(&self) -> Result<TokenOptions, ConfigError> {
        let mut parts = self.auth_token.split(',');
        match parts.next() {
            Some("simple") if parts.next().is_none() => Ok(TokenOptions::Simple {
                ttl: Duration::from_secs(self.auth_token_ttl),
            }),
            Some("jwt") => JwtOptions::parse(parts)
                .map(TokenOptions::Jwt)
                .map_err(ConfigError::Jwt),
            _ => Err(ConfigError::AuthToken(self.auth_token.clone())),
        }
    }

    fn client_tls(&self) -> Option<ServerTlsFiles> {
        Some(ServerTlsFiles {
            cert: self.cert_file.clone()?,
            key: self.key_file.clone()?,
            trusted_ca: self.trusted_ca_file.clone(),
            names_users: self.client_cert_auth,
        })
    }

    fn peer_tls(&self) -> Option<PeerTlsFiles> {
        let file = |flag, path: &Option<PathBuf>| {
            Some(PemFile {
                flag,
                path: path.clone()?,
            })
        };
        Some(PeerTlsFiles {
            cert: file("--peer-cert-file", &self.peer_cert_file)?,
            key: file("--peer-key-file", &self.peer_key_file)?,
            trusted_ca: file("--peer-trusted-ca-file", &self.peer_trusted_ca_file)?,
            issuer: file("--peer-issuer-file", &self.peer_issuer_file),
        })
    }

    fn listeners(&self, flag: &'static str, urls: &[String]) -> Result<Vec<ListenUrl>, ConfigError> {
        urls.iter()
            .map(|url| {
                let parsed = ListenUrl::parse(url).map_err(|source| ConfigError::Url { flag, source })?;
                let url = url.clone();
                if parsed.is_tls() {
                    return match flag {
                        "--listen-client-urls" if self.cert_file.is_some() => Ok(parsed),
                        "--listen-client-urls" => Err(ConfigError::NoCertificate { flag, url }),
                        _ if self.peer_cert_file.is_some() => Ok(parsed),
                        _ => Err(ConfigError::NoPeerCertificate { flag, url }),
                    };
                }
                if parsed.is_loopback() || self.allow_plaintext {
                    Ok(parsed)
                } else {
                    Err(ConfigError::Plaintext { flag, url })
                }
            })
            .collect()
    }
}

/// Settings that fit together.
#[derive(Clone, Debug)]
pub struct RunConfig {
    pub listen_client: Vec<ListenUrl>,
    pub listen_peer: Vec<ListenUrl>,
    pub initial_cluster: InitialCluster,
    pub advertise_peer_urls: Vec<String>,
    pub advertise_client_urls: Vec<String>,
    pub data_dir: PathBuf,
    /// `None`: a store only.
    pub incus_socket: Option<PathBuf>,
    /// For the client URLs that say https.
    pub client_tls: Option<ServerTlsFiles>,
    /// For the peer URLs that say https, this member's and the others'.
    pub peer_tls: Option<PeerTlsFiles>,
    /// 0: none.
    pub quota_bytes: u64,
    /// `None`: off.
    pub auto_compaction: Option<Retention>,
    /// `None`: off.
    pub corrupt_check_time: Option<Duration>,
    pub heartbeat_interval: Duration,
    pub election_timeout: Duration,
    pub tokens: TokenOptions,
    /// The rest, as given.
    pub args: RunArgs,
}

impl RunConfig {
    /// What secrets are sealed with; `None`: none is taken, and none opened.
    #[must_use]
    pub fn secrets(&self) -> Option<KeyFile> {
        self.args.secrets_key_file.clone().map(KeyFile::new)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        run: RunArgs,
    }

    fn check(flags: &[&str]) -> Result<RunConfig, String> {
        let arguments = std::iter::once("agent").chain(flags.iter().copied());
        let command = Command::try_parse_from(arguments).map_err(|error| error.to_string())?;
        command.run.check().map_err(|error| error.to_string())
    }

    #[test]
    fn a_member_alone_needs_no_flags() {
        let config = check(&[]).unwrap();
        assert_eq!(config.initial_cluster.members.len(), 1);
        assert_eq!(config.advertise_client_urls, ["http://127.0.0.1:2379"]);
        assert_eq!(config.data_dir, PathBuf::from("default.agent"));
    }

    #[test]
    fn the_wrong_setting_is_named_with_the_way_out() {
        let error = |flags: &[&str]| check(flags).unwrap_err();
        assert!(error(&["--listen-client-urls", "http://0.0.0.0:2379"]).contains("--allow-plaintext"));
        assert!(error(&["--listen-peer-urls", "127.0.0.1:2380"]).starts_with("--listen-peer-urls:"));
        assert!(error(&["--auth-token", "magic"]).starts_with("--auth-token \"magic\""));
        assert!(error(&["--auth-token", "jwt,sign-method=x"]).starts_with("--auth-token jwt: sign-method=x"));
        assert!(error(&["--listen-client-urls", "https://127.0.0.1:1"]).contains("say --cert-file"));
        assert!(error(&["--cert-file", "/x"]).contains("--key-file"));
        assert!(error(&["--listen-peer-urls", "https://127.0.0.1:1"]).contains("say --peer-cert-file"));
        assert!(error(&["--peer-cert-file", "/x"]).contains("--peer-trusted-ca-file"));
        assert!(error(&["--name", "a/b"]).starts_with("--name \"a/b\""));
        assert!(
            error(&["--name", "x", "--initial-cluster", "ovh=http://127.0.0.1:1"])
                .contains("does not name this member")
        );
    }

    #[test]
    fn quotas_are_etcds() {
        let quota = |bytes: &str| check(&["--quota-backend-bytes", bytes]).unwrap().quota_bytes;
        assert_eq!((quota("0"), quota("-1"), quota("5000")), (2 << 30, 0, 5000));
    }

    #[test]
    fn no_incus_is_a_choice() {
        assert_eq!(check(&["--incus-socket", "none"]).unwrap().incus_socket, None);
    }
}
