//! `agentctl cloud-init`: user-data for a host that does not exist yet. Asks nobody, and needs no cluster.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use cloud_init::{Binary, Extras, First, Flags, Host, HostError, Joiner, Peer, Seed, UserData};

use super::error::CliError;
use super::format;
use crate::join::ticket;
use crate::reconciler::OnRestart;

#[derive(Debug, Subcommand)]
pub(super) enum CloudInitCommand {
    /// Print the user-data that makes a bare machine a host
    Render(RenderArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  agentctl cloud-init render --host ovh \\\n    \
                        --cluster ovh=http://10.0.0.1:2380,ionos=http://10.0.0.2:2380,liquidweb=http://10.0.0.3:2380 \\\n    \
                        --allow-plaintext --provider OVH \\\n    \
                        --binary-url https://example.org/agent --binary-sha256 $(sha256sum agent | cut -c1-64) \\\n    > ovh.yaml\n\n\
                        A host that joins a cluster with certificates:\n  agentctl token create --host ionos --address 82.0.0.20 > token\n  \
                        agentctl cloud-init render --host ionos --join-token-file token --provider IONOS > ionos.yaml\n\n\
                        The first host of such a cluster, whose agent waits until its folder of `agentctl cluster init` is\n\
                        copied to /etc/agent, so that no key is ever in user-data:\n  \
                        agentctl cloud-init render --host ovh --first --provider OVH > ovh.yaml\n\n\
                        A machine that runs already, reached by SSH:\n  agentctl cloud-init render --host ionos --join-token-file token \\\n    \
                        --format script | ssh root@82.0.0.20 sh -s\n\n\
                        Paste it where the provider asks for user-data, before the token ends. With --cluster members speak\n\
                        plaintext: give addresses of a private network (WireGuard, for one).")]
pub(super) struct RenderArgs {
    /// The host's name, one of --cluster, or the token's
    #[arg(long, value_name = "NAME")]
    host: String,
    /// All members, and where the others reach each
    #[arg(
        long,
        value_name = "NAME=URL,...",
        required_unless_present_any = ["join_token_file", "first"]
    )]
    cluster: Option<String>,
    /// The first host of a cluster with certificates: they come by your own hand
    #[arg(long, conflicts_with_all = ["cluster", "join_token_file", "address", "allow_plaintext"])]
    first: bool,
    /// The host joins by this token, which `agentctl token create` has printed
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["cluster", "address", "allow_plaintext"]
    )]
    join_token_file: Option<PathBuf>,
    /// The company whose machine it is
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    provider: String,
    /// What becomes of its instances when the host, not only its agent, was restarted
    #[arg(long, value_enum, value_name = "WHAT", default_value_t)]
    on_restart: OnRestart,
    /// Listen for peers on this address only [default: every address]
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Where the host fetches the agent [default: it is in the machine's image]
    #[arg(long, value_name = "URL", requires = "binary_sha256")]
    binary_url: Option<String>,
    /// What the fetched file must be, as `sha256sum` prints it
    #[arg(long, value_name = "HEX", requires = "binary_url")]
    binary_sha256: Option<String>,
    /// The network between the members is private: they may talk without TLS
    #[arg(long)]
    allow_plaintext: bool,
    /// What the host's Incus is to have at once, as `incus admin init --preseed` reads it
    #[arg(long, value_name = "FILE")]
    incus_preseed: Option<PathBuf>,
    /// Who may log in: a public key, or a file with some; may be given several times
    #[arg(long = "ssh-key", value_name = "KEY|FILE")]
    ssh_keys: Vec<String>,
    /// For cloud-init, or for a machine that runs already
    // Every command has a format of its own: ids are one name space.
    #[arg(id = "output_format", long = "format", value_enum, value_name = "FORMAT", default_value_t = OutputFormat::CloudConfig)]
    format: OutputFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// User-data
    CloudConfig,
    /// A script: ssh root@ADDRESS sh -s < FILE
    Script,
}

impl CloudInitCommand {
    pub(super) fn run(self) -> Result<(), CliError> {
        let Self::Render(args) = self;
        let text = args.text()?.map_err(|error| {
            let hint = match &error {
                HostError::Plaintext(_) => Some("--allow-plaintext"),
                HostError::NoPeers | HostError::Peer(_) | HostError::NotAMember { .. } => Some("--cluster"),
                _ => None,
            };
            let usage = CliError::usage(error.to_string());
            match hint {
                Some(flag) => usage.hint(format!(
                    "the flag is {flag}; `agentctl cloud-init render --help` has an example"
                )),
                None => usage,
            }
        })?;
        format::write(text.as_bytes())
    }
}

impl RenderArgs {
    fn text(self) -> Result<Result<String, HostError>, CliError> {
        let extras = match self.extras()? {
            Ok(extras) => extras,
            Err(error) => return Ok(Err(error)),
        };
        let format = self.format;
        let data = self.user_data()?.map(|data| data.with(&extras));
        Ok(data.map(|data| match format {
            OutputFormat::CloudConfig => data.cloud_config(),
            OutputFormat::Script => data.script(),
        }))
    }

    fn extras(&self) -> Result<Result<Extras, HostError>, CliError> {
        let read =
            |path: &Path| std::fs::read_to_string(path).map_err(|error| CliError::io(path.display(), &error));
        let preseed = self.incus_preseed.as_deref().map(read).transpose()?;
        let key = |given: &String| match given.split_whitespace().count() {
            // A key has a kind before it, and a file is seldom called like that.
            0 | 1 => read(Path::new(given)),
            _ => Ok(given.clone()),
        };
        let keys: Vec<String> = self.ssh_keys.iter().map(key).collect::<Result<_, _>>()?;
        Ok(Extras::new(preseed.as_deref(), &keys))
    }

    fn user_data(self) -> Result<Result<UserData, HostError>, CliError> {
        if self.first {
            let first = First::new(&self.host, self.flags(), self.binary());
            return Ok(first.map(|first| UserData::from(&first)));
        }
        let Some(path) = &self.join_token_file else {
            return Ok(self.host().map(|host| UserData::from(&host)));
        };
        let token = std::fs::read_to_string(path).map_err(|error| CliError::io(path.display(), &error))?;
        let ticket = ticket::read(&token).map_err(|error| CliError::usage(error.to_string()))?;
        if ticket.host != self.host {
            return Err(CliError::usage(format!(
                "the token is for host {}, and --host is {}",
                ticket.host, self.host
            )));
        }
        let joiner = Joiner::new(&self.host, self.flags(), &token, self.binary());
        Ok(joiner.map(|joiner| UserData::from(&joiner)))
    }

    fn flags(&self) -> Flags {
        Flags {
            provider: self.provider.clone(),
            rebuilds: self.on_restart == OnRestart::Rebuild,
        }
    }

    fn binary(&self) -> Binary {
        match (self.binary_url.clone(), self.binary_sha256.clone()) {
            (Some(url), Some(sha256)) => Binary::Fetch { url, sha256 },
            _ => Binary::Present,
        }
    }

    fn host(self) -> Result<Host, HostError> {
        let (binary, rebuilds) = (self.binary(), self.on_restart == OnRestart::Rebuild);
        Host::new(Seed {
            name: self.host,
            provider: self.provider,
            address: self.address,
            cluster: Peer::parse_list(self.cluster.as_deref().unwrap_or_default())?,
            binary,
            allow_plaintext: self.allow_plaintext,
            rebuilds,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::{RunArgs, arguments_from_file};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn host(cluster: &str) -> Host {
        let args = RenderArgs {
            host: "ovh".into(),
            cluster: Some(cluster.into()),
            first: false,
            join_token_file: None,
            provider: "OVH".into(),
            on_restart: OnRestart::Rebuild,
            address: None,
            binary_url: None,
            binary_sha256: None,
            allow_plaintext: true,
            incus_preseed: None,
            ssh_keys: Vec::new(),
            format: OutputFormat::CloudConfig,
        };
        args.host().unwrap()
    }

    /// The two sides of the configuration file, held together: what is rendered, `agent run` takes.
    #[test]
    fn agent_run_takes_the_rendered_configuration() {
        for cluster in [
            "ovh=http://10.0.0.1:2380,ionos=http://10.0.0.2:2380",
            "ovh=http://[fd00::1]:2380",
        ] {
            let text = cloud_init::render(&host(cluster));
            let document: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("config.yaml");
            std::fs::write(&path, document["write_files"][0]["content"].as_str().unwrap()).unwrap();
            let arguments = arguments_from_file(&path, |_| false).unwrap();
            let line = Line::try_parse_from(std::iter::once("run".to_owned()).chain(arguments)).unwrap();
            assert_eq!(line.run.on_restart, OnRestart::Rebuild);
            line.run.check().unwrap();
        }
    }
}
