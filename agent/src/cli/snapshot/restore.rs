//! `agentctl snapshot restore`: a member of a new cluster from a saved file. Works offline, and writes over nothing.

use std::path::PathBuf;

use clap::Args;
use raft_store::Membership;
use raft_store::restore::{RestoreOptions, restore};

use super::refused;
use super::status::to_json;
use crate::cli::error::CliError;
use crate::cli::format::{self, Format};
use crate::node::identity::InitialCluster;

#[derive(Args, Debug)]
#[command(
    after_help = "Restore on every host from the same file, with the same --initial-cluster, --initial-cluster-token, \
                  --bump-revision;\nonly --name and --data-dir differ. Then start each with `agent run` and the same \
                  flags.\nKeys, leases and users come back. Members and alarms are the new cluster's own.\n\n\
                  Examples:\n  agentctl snapshot restore backup.snap --data-dir /var/lib/agent\n  \
                  agentctl snapshot restore backup.snap --name ovh --data-dir /var/lib/agent \\\n    \
                  --initial-cluster ovh=http://10.0.0.1:2380,ionos=http://10.0.0.2:2380"
)]
pub(in crate::cli) struct RestoreArgs {
    /// The saved file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The data directory to make; it must not exist yet [default: ./NAME.agent]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The member's name, which is its host's
    #[arg(long, default_value = "default")]
    name: String,
    /// All members of the new cluster: NAME=PEER_URL,... [default: this member alone]
    #[arg(long, value_name = "MEMBERS")]
    initial_cluster: Option<String>,
    /// Tells the new cluster from others with the same peer URLs
    #[arg(long, value_name = "TOKEN", default_value = "etcd-cluster")]
    initial_cluster_token: String,
    /// This member's part of --initial-cluster [default: as there]
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    initial_advertise_peer_urls: Vec<String>,
    /// How far revisions go up, so that clients of the old cluster notice; 0 leaves them
    #[arg(long, value_name = "N", default_value_t = 1_000_000_000)]
    bump_revision: u64,
    /// Give up the history before the new revision: done with every --bump-revision but 0
    #[arg(long)]
    mark_compacted: bool,
}

impl RestoreArgs {
    pub(super) fn run(self, format: Option<Format>) -> Result<(), CliError> {
        if self.mark_compacted && self.bump_revision == 0 {
            return Err(CliError::usage(
                "--mark-compacted needs a --bump-revision: watchers notice only together",
            ));
        }
        let (options, members) = self.options()?;
        let dir = self
            .data_dir
            .clone()
            .unwrap_or_else(|| PathBuf::from(format!("{}.agent", self.name)));
        let summary = restore(&self.file, &dir, &options).map_err(|error| refused(&error))?;
        if format == Some(Format::Json) {
            return format::write_json(&to_json(&summary));
        }
        let text = format!(
            "Restored {} to {}: member {:x} of the new cluster {:x} ({members} members), revision {}\n",
            self.file.display(),
            dir.display(),
            options.identity.member_id,
            options.identity.cluster_id,
            summary.revision
        );
        format::write(text.as_bytes())
    }

    fn options(&self) -> Result<(RestoreOptions, usize), CliError> {
        const DEFAULT_PEER_URL: &str = "http://127.0.0.1:2380";
        let wrong = |error: &dyn std::fmt::Display| CliError::usage(format!("--{error}"));
        let own_urls = match self.initial_advertise_peer_urls.as_slice() {
            [] => vec![DEFAULT_PEER_URL.to_owned()],
            given => given.to_vec(),
        };
        let alone = || {
            let members: Vec<String> = own_urls
                .iter()
                .map(|url| format!("{}={url}", self.name))
                .collect();
            members.join(",")
        };
        let members = self.initial_cluster.clone().unwrap_or_else(alone);
        let cluster =
            InitialCluster::parse(&members, &self.initial_cluster_token).map_err(|error| wrong(&error))?;
        let listed = cluster.members.values().find(|member| member.name == self.name);
        let advertised = match self.initial_advertise_peer_urls.as_slice() {
            [] => listed.map(|member| member.peer_urls.clone()).unwrap_or_default(),
            given => given.to_vec(),
        };
        let identity = cluster
            .identity(&self.name, &advertised)
            .map_err(|error| wrong(&error))?;
        let voters = cluster.members.keys().copied().collect();
        let membership =
            Membership::new(vec![voters], cluster.members.clone()).map_err(|error| wrong(&error))?;
        let options = RestoreOptions {
            identity,
            membership,
            bump_revision: self.bump_revision,
            mark_compacted: self.bump_revision > 0,
        };
        Ok((options, cluster.members.len()))
    }
}
