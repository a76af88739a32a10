//! The options every command has.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};

use super::Session;
use super::client::{Client, ClientOptions};
use super::duration;
use super::error::CliError;
use super::format::Format;

const DEFAULT_ENDPOINT: &str = "127.0.0.1:2379";

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub(super) struct GlobalOptions {
    /// Members to ask [default: 127.0.0.1:2379] [env: AGENTCTL_ENDPOINTS, ETCDCTL_ENDPOINTS]
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT,...",
        env = "AGENTCTL_ENDPOINTS",
        hide_env = true
    )]
    endpoints: Option<String>,
    /// Certificate authority that signed the members' certificates
    #[arg(long, global = true, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Client certificate that says who you are
    #[arg(long, global = true, value_name = "FILE", requires = "tls_key")]
    cert: Option<PathBuf>,
    /// Key of the client certificate
    // Commands have a KEY of their own: ids are one name space.
    #[arg(
        id = "tls_key",
        long = "key",
        global = true,
        value_name = "FILE",
        requires = "cert"
    )]
    tls_key: Option<PathBuf>,
    /// User to act as
    #[arg(long, global = true, value_name = "NAME[:PASSWORD]")]
    user: Option<String>,
    /// Plain lines, etcdctl's JSON, or columns; by default what suits the command
    #[arg(
        short = 'w',
        long = "write-out",
        global = true,
        value_name = "FORMAT",
        value_enum
    )]
    format: Option<Format>,
    /// Show keys and values as hexadecimal bytes
    #[arg(long, global = true)]
    hex: bool,
    /// How long a command may take
    #[arg(long, global = true, value_name = "TIME", default_value = "5s", value_parser = duration::parse)]
    command_timeout: Duration,
    /// How long to wait for a connection to one member
    #[arg(long, global = true, value_name = "TIME", default_value = "2s", value_parser = duration::parse)]
    dial_timeout: Duration,
    /// Say what a command does and takes
    #[arg(short, long, global = true, action = ArgAction::HelpShort)]
    help: Option<bool>,
}

impl GlobalOptions {
    pub(super) fn session(self) -> Result<Session, CliError> {
        if self.cacert.is_some() || self.cert.is_some() || self.tls_key.is_some() {
            return Err(CliError::usage("agentctl does not speak TLS yet").hint(
                "leave out --cacert, --cert and --key, and use a plaintext endpoint on the host itself",
            ));
        }
        if self.user.is_some() {
            return Err(CliError::usage("this cluster knows no users yet").hint("leave out --user"));
        }
        let etcdctl = std::env::var("ETCDCTL_ENDPOINTS").ok();
        let client = Client::new(ClientOptions {
            endpoints: endpoints(self.endpoints.as_deref(), etcdctl.as_deref()),
            dial_timeout: self.dial_timeout,
            command_timeout: self.command_timeout,
        })?;
        Ok(Session {
            client,
            format: self.format,
            hex: self.hex,
        })
    }
}

/// The flag or our own variable, else etcdctl's variable, else this machine.
fn endpoints(ours: Option<&str>, etcdctl: Option<&str>) -> Vec<String> {
    let given = [ours, etcdctl]
        .into_iter()
        .flatten()
        .find(|list| !list.trim().is_empty());
    let list = given.unwrap_or(DEFAULT_ENDPOINT).split(',').map(str::trim);
    list.filter(|endpoint| !endpoint.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_come_from_the_nearest_place() {
        assert_eq!(endpoints(None, None), ["127.0.0.1:2379"]);
        assert_eq!(endpoints(None, Some("a:1, b:2,")), ["a:1", "b:2"]);
        assert_eq!(endpoints(Some("c:3"), Some("a:1")), ["c:3"]);
        assert_eq!(endpoints(Some(" "), Some("a:1")), ["a:1"]);
    }
}
