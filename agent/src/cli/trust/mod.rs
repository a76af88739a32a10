//! `agentctl cluster init` and `agentctl cert`: the authority of a cluster, on the machine of whoever runs it.
//!
//! [`folder`] keeps what was made, [`site`] is what a cluster's certificates and its hosts' settings follow from: pure.
//! [`rotation`] puts another authority in the place of the first, by what [`members`] are asked and handed; [`in_force`] is
//! what they show, and [`revocation`] what is accepted no more.
//! The authority's key stays in that folder: no host has it.

mod folder;
mod in_force;
mod members;
mod revocation;
mod rotation;
mod site;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};

use self::folder::{Entry, Folder};
use self::members::Members;
use self::revocation::RevokeArgs;
use self::rotation::RotateArgs;
use self::site::Site;
pub(super) use self::site::SiteHost;
use super::config_dir::{VARIABLE, config_dir};
use super::context;
use super::error::CliError;
use super::format;
use super::format::columns::columns;
use super::options::GlobalOptions;
use crate::config::HOST_FOLDER;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Args, Debug)]
#[command(
    after_help = "Makes the cluster's authority, a certificate for you, and for each host a folder with its \
                  certificates and settings: copy it to /etc/agent there, and start \
                  `agent run --config /etc/agent/config.yaml`. Here the cluster is a context of its name, which \
                  commands use at once where there was none (`agentctl context`).\n\n\
                  ca.key stays here, and is all that others need to be any host: back it up, and keep it to \
                  yourself.\n\n\
                  Example:\n  agentctl cluster init prod --host ovh=51.0.0.10 --host ionos=82.0.0.20 --host liquidweb=67.0.0.30"
)]
pub(super) struct InitArgs {
    /// The cluster's name
    #[arg(value_name = "NAME")]
    cluster: String,
    /// A host, and the address by which the others and clients reach it; give every one
    #[arg(long = "host", value_name = "HOST=ADDRESS", required = true, value_parser = SiteHost::parse)]
    hosts: Vec<SiteHost>,
    /// Where members are reached by each other
    #[arg(long, value_name = "PORT", default_value_t = 2380)]
    peer_port: u16,
    /// Where they are reached by clients
    #[arg(long, value_name = "PORT", default_value_t = 2379)]
    client_port: u16,
    #[command(flatten)]
    place: Place,
}

/// Where clusters are kept.
#[derive(Args, Clone, Debug)]
pub(super) struct Place {
    /// The folder of clusters and contexts [default: AGENTCTL_CONFIG_DIR, else ~/.config/agentctl]
    #[arg(long, value_name = "DIR")]
    config_dir: Option<PathBuf>,
}

impl Place {
    fn folder(&self, cluster: &str) -> Result<Folder, CliError> {
        Folder::of(self.config_dir.as_deref(), cluster)
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum CertCommand {
    /// Show a cluster's certificates, and how long they last
    List(ListArgs),
    /// Make new certificates before the old ones end
    Renew(RenewArgs),
    /// Put another authority in the place of a cluster's, while it runs
    Rotate(RotateArgs),
    /// Have certificates be accepted no more
    Revoke(RevokeArgs),
}

#[derive(Args, Debug)]
#[command(
    after_help = "Beside what is in the cluster's folder its members are asked what they show: they renew their own. FROM says where \
                  each came from: a file of the folder, or its member.\n\n\
                  Examples:\n  agentctl cert list prod\n  agentctl cert list prod --offline"
)]
pub(super) struct ListArgs {
    /// The cluster's name
    #[arg(value_name = "NAME")]
    cluster: String,
    /// Ask no member: only what is in the folder
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Those that have passed two thirds of their life are renewed, or those of the hosts that are named. Copy them to \
                  their hosts as before: members take them up without a restart.\n\n\
                  Examples:\n  agentctl cert renew prod\n  agentctl cert renew prod --host ovh"
)]
pub(super) struct RenewArgs {
    /// The cluster's name
    #[arg(value_name = "NAME")]
    cluster: String,
    /// This host's, however long they last; may be given several times
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Your own, however long it lasts; the former is kept as former-admin.pem
    #[arg(long)]
    admin: bool,
    #[command(flatten)]
    place: Place,
}

impl InitArgs {
    pub(super) fn run(self) -> Result<(), CliError> {
        let site = Site::new(&self.cluster, self.hosts, self.peer_port, self.client_port)?;
        let settings = config_dir(self.place.config_dir.as_deref())?;
        let folder = self.place.folder(&self.cluster)?;
        folder.refuse_existing()?;
        context::refuse_taken(&settings, &self.cluster)?;
        folder.found(&site, SystemTime::now())?;
        let is_current = context::add(&settings, &self.cluster, site.context(folder.path()))?;
        let path = folder.path().display().to_string();
        let mut text = format!("CA made (kept in {path}, back it up)\n\n");
        for host in &site.hosts {
            text.push_str(&format!(
                "on {name:<12} copy {path}/hosts/{name} to {root}, readable by root only\n",
                name = host.name,
                root = HOST_FOLDER
            ));
        }
        text.push_str(&format!(
            "then, on each:  agent run --config {HOST_FOLDER}/config.yaml\n\nand here, where this is context `{name}`:\n",
            name = self.cluster
        ));
        if config_dir(None).ok().as_deref() != Some(settings.as_path()) {
            text.push_str(&format!("  export {}={}\n", VARIABLE, settings.display()));
        }
        if !is_current {
            text.push_str(&format!("  agentctl context use {}\n", self.cluster));
        }
        text.push_str("  agentctl endpoint status --cluster\n");
        format::write(text.as_bytes())
    }
}

impl CertCommand {
    pub(super) async fn run(self, options: GlobalOptions) -> Result<(), CliError> {
        match self {
            Self::List(args) => args.run(options).await,
            Self::Renew(args) => args.run(),
            Self::Rotate(args) => args.run(options).await,
            Self::Revoke(args) => args.run(options).await,
        }
    }
}

impl ListArgs {
    async fn run(self, options: GlobalOptions) -> Result<(), CliError> {
        let folder = self.place.folder(&self.cluster)?;
        let (entries, now) = (folder.entries()?, SystemTime::now());
        let mut text = table(&entries, now);
        if !self.offline {
            let endpoints = folder.site()?.endpoints();
            let session = options.of_cluster(&endpoints, folder.path()).session()?;
            match Members::of(&session).await {
                Ok(members) => text.push_str(&in_force::text(&members.look().await, &entries, now)),
                Err(error) => text.push_str(&format!(
                    "only what the folder has: what members show is not known ({error})\n"
                )),
            }
        }
        format::write(text.as_bytes())
    }
}

impl RenewArgs {
    fn run(self) -> Result<(), CliError> {
        let folder = self.place.folder(&self.cluster)?;
        let now = SystemTime::now();
        let named = self.admin || !self.hosts.is_empty();
        let due = |entry: &Entry| match (&entry.host, named) {
            (Some(host), true) => self.hosts.contains(host),
            (None, true) => self.admin && entry.file == folder::ADMIN,
            (_, false) => entry.validity.is_due(now),
        };
        let site = folder.site()?;
        if let Some(unknown) = self.hosts.iter().find(|name| site.host(name).is_none()) {
            let names: Vec<&str> = site.hosts.iter().map(|host| host.name.as_str()).collect();
            return Err(
                CliError::failed(format!("no host `{unknown}` in {}", self.cluster))
                    .hint(format!("its hosts are {}", names.join(", "))),
            );
        }
        let mut text = String::new();
        for entry in folder.entries()?.iter().filter(|entry| due(entry)) {
            if entry.file == folder::CA {
                text.push_str(&format!(
                    "the authority itself ends soon: agentctl cert rotate {} trust\n",
                    self.cluster
                ));
                continue;
            }
            if entry.file == folder::ADMIN {
                folder.keep_former(folder::ADMIN)?;
            }
            folder.renew(&site, entry, now)?;
            text.push_str(&format!("renewed {}\n", entry.file));
        }
        if text.is_empty() {
            text.push_str("nothing is due\n");
        }
        format::write(text.as_bytes())
    }
}

fn table(entries: &[Entry], now: SystemTime) -> String {
    let row = |entry: &Entry| {
        let note = if entry.validity.is_due(now) {
            "renew it"
        } else {
            ""
        };
        [
            entry.file.clone(),
            entry.role.to_owned(),
            entry.holder.clone(),
            lasts(entry.validity.ends, now),
            note.to_owned(),
        ]
    };
    let rows: Vec<_> = entries.iter().map(row).collect();
    columns(["FILE", "ROLE", "HOLDER", "LASTS", ""], &rows)
}

fn lasts(ends: SystemTime, now: SystemTime) -> String {
    match ends.duration_since(now) {
        Ok(left) => format!("{} days", left.as_secs() / DAY.as_secs()),
        Err(_) => "has ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;
    use expect_test::expect;

    use super::*;
    use crate::config::{RunArgs, arguments_from_file};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn made(root: &tempfile::TempDir, now: SystemTime) -> (Folder, Site) {
        let hosts = ["ovh=51.0.0.10", "ionos=fd00::2"].map(|host| SiteHost::parse(host).unwrap());
        let site = Site::new("prod", hosts.to_vec(), 2380, 2379).unwrap();
        let folder = Folder::of(Some(root.path()), "prod").unwrap();
        folder.found(&site, now).unwrap();
        (folder, site)
    }

    #[test]
    fn a_cluster_is_made_once_and_keys_are_ones_own() {
        let root = tempfile::tempdir().unwrap();
        let (folder, site) = made(&root, SystemTime::now());
        let mode = |file: &str| {
            let metadata = std::fs::metadata(folder.path().join(file)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        for key in [
            "ca.key",
            "admin.key",
            "hosts/ovh/peer.key",
            "hosts/ionos/server.key",
        ] {
            assert_eq!(mode(key), 0o600, "{key}");
        }
        assert_eq!(mode(""), 0o700);
        // No host's folder has the authority's key.
        assert!(!folder.path().join("hosts/ovh/ca.key").exists());
        let before = std::fs::read(folder.path().join("ca.pem")).unwrap();
        let again = folder.found(&site, SystemTime::now()).unwrap_err();
        assert!(again.to_string().contains("exists already"), "{again}");
        assert_eq!(std::fs::read(folder.path().join("ca.pem")).unwrap(), before);
    }

    #[test]
    fn agent_run_takes_the_settings() {
        let root = tempfile::tempdir().unwrap();
        let (folder, _) = made(&root, SystemTime::now());
        for host in ["ovh", "ionos"] {
            let path = folder.path().join("hosts").join(host).join("config.yaml");
            let arguments = arguments_from_file(&path, |_| false).unwrap();
            let line = Line::try_parse_from(std::iter::once("run".to_owned()).chain(arguments)).unwrap();
            let config = line.run.check().unwrap();
            assert!(config.peer_tls.is_some() && config.client_tls.is_some());
            assert_eq!(config.initial_cluster.members.len(), 2);
        }
    }

    #[test]
    fn what_is_due_is_renewed() {
        let root = tempfile::tempdir().unwrap();
        let made_at = SystemTime::now();
        let (folder, site) = made(&root, made_at);
        expect![[r#"
            FILE                    ROLE       HOLDER        LASTS
            ca.pem                  authority  prod          3649 days
            issuer.pem              issuer     prod members  3649 days
            admin.pem               client     root          364 days
            hosts/ionos/peer.pem    member     ionos         364 days
            hosts/ionos/server.pem  server     ionos         364 days
            hosts/ovh/peer.pem      member     ovh           364 days
            hosts/ovh/server.pem    server     ovh           364 days
        "#]]
        .assert_eq(&table(&folder.entries().unwrap(), made_at + DAY / 2));
        let due = |now| {
            let entries = folder.entries().unwrap();
            entries
                .into_iter()
                .filter(|entry| entry.validity.is_due(now))
                .collect::<Vec<_>>()
        };
        assert!(due(made_at + 240 * DAY).is_empty());
        let later = made_at + 250 * DAY;
        let all = due(later);
        assert_eq!(all.len(), 5);
        for entry in &all {
            folder.renew(&site, entry, later).unwrap();
        }
        assert!(due(later).is_empty());
    }
}
