//! The options every command has, and where each comes from: the flag, `AGENTCTL_*`, `ETCDCTL_*`, the default.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use super::client::{Client, ClientOptions, Credentials, Secret, Tls, TlsFiles};
use super::duration;
use super::error::CliError;
use super::format::Format;
use super::password;
use super::session::Session;

const DEFAULT_ENDPOINT: &str = "127.0.0.1:2379";
const DEFAULT_COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_DIAL_TIMEOUT: Duration = Duration::from_secs(2);
const DEFAULT_KEEP_ALIVE_TIME: Duration = Duration::from_secs(2);
const DEFAULT_KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(6);

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub(super) struct GlobalOptions {
    /// Members to ask [default: 127.0.0.1:2379]
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT,...",
        env = "AGENTCTL_ENDPOINTS",
        hide_env = true
    )]
    endpoints: Option<String>,
    /// User to act as; the password is asked for when it is not given
    #[arg(
        long,
        global = true,
        value_name = "NAME[:PASSWORD]",
        env = "AGENTCTL_USER",
        hide_env = true
    )]
    user: Option<String>,
    /// The user's password, which others on this machine may see: better in AGENTCTL_PASSWORD
    #[arg(
        long,
        global = true,
        value_name = "PASSWORD",
        env = "AGENTCTL_PASSWORD",
        hide_env = true
    )]
    password: Option<String>,
    /// Certificate authority that signed the members' certificates [default: those of this machine]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "AGENTCTL_CACERT",
        hide_env = true
    )]
    cacert: Option<PathBuf>,
    /// Client certificate that says who you are
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "AGENTCTL_CERT",
        hide_env = true
    )]
    cert: Option<PathBuf>,
    /// Key of the client certificate
    // Commands have a KEY of their own: ids are one name space.
    #[arg(
        id = "tls_key",
        long = "key",
        global = true,
        value_name = "FILE",
        env = "AGENTCTL_KEY",
        hide_env = true
    )]
    tls_key: Option<PathBuf>,
    /// Accept any certificate: for tests only
    #[arg(
        long,
        global = true,
        env = "AGENTCTL_INSECURE_SKIP_TLS_VERIFY",
        hide_env = true
    )]
    insecure_skip_tls_verify: bool,
    /// Plain text where an endpoint does not say http:// or https://; here because etcdctl has it
    #[arg(
        long,
        global = true,
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true,
        hide = true
    )]
    insecure_transport: Option<bool>,
    /// Plain lines, etcdctl's JSON, columns, ...; by default what suits the command
    #[arg(
        short = 'w',
        long = "write-out",
        global = true,
        value_name = "FORMAT",
        value_enum,
        env = "AGENTCTL_WRITE_OUT",
        hide_env = true
    )]
    format: Option<Format>,
    /// Show keys and values as hexadecimal bytes
    #[arg(long, global = true, env = "AGENTCTL_HEX", hide_env = true)]
    hex: bool,
    /// How long a command may take [default: 5s]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration::parse,
        env = "AGENTCTL_COMMAND_TIMEOUT", hide_env = true)]
    command_timeout: Option<Duration>,
    /// How long to wait for a connection to one member [default: 2s]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration::parse,
        env = "AGENTCTL_DIAL_TIMEOUT", hide_env = true)]
    dial_timeout: Option<Duration>,
    /// How often to ask a silent member whether it is still there [default: 2s]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration::parse,
        env = "AGENTCTL_KEEPALIVE_TIME", hide_env = true)]
    keepalive_time: Option<Duration>,
    /// How long it may take to answer that [default: 6s]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration::parse,
        env = "AGENTCTL_KEEPALIVE_TIMEOUT", hide_env = true)]
    keepalive_timeout: Option<Duration>,
    /// Say on standard error which member was asked, and what came of it
    #[arg(long, global = true, env = "AGENTCTL_DEBUG", hide_env = true)]
    debug: bool,
    /// Say what a command does and takes
    #[arg(short, long, global = true, action = ArgAction::HelpShort)]
    help: Option<bool>,
}

impl GlobalOptions {
    /// Settles every option, and asks for the password if one is missing. Nothing is sent yet.
    pub(super) fn session(self) -> Result<Session, CliError> {
        self.settle(&|name| std::env::var(name).ok())
    }

    fn settle(self, environment: &dyn Fn(&str) -> Option<String>) -> Result<Session, CliError> {
        let etcdctl = Etcdctl { environment };
        if self.debug || etcdctl.flag("DEBUG")? {
            show_debug();
        }
        let endpoints = endpoints(self.endpoints.as_deref(), etcdctl.text("ENDPOINTS").as_deref());
        let in_clear = self.insecure_transport.unwrap_or(true);
        let files = TlsFiles {
            cacert: self.cacert.or_else(|| etcdctl.text("CACERT").map(PathBuf::from)),
            cert: self.cert.or_else(|| etcdctl.text("CERT").map(PathBuf::from)),
            key: self.tls_key.or_else(|| etcdctl.text("KEY").map(PathBuf::from)),
            insecure_skip_verify: self.insecure_skip_tls_verify
                || etcdctl.flag("INSECURE_SKIP_TLS_VERIFY")?,
            required: !in_clear,
        };
        // Members that are found later, by `endpoint status`, may want TLS only if one that was named does.
        let needed = endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
        let dial = etcdctl.duration(self.dial_timeout, "DIAL_TIMEOUT", DEFAULT_DIAL_TIMEOUT)?;
        let command = etcdctl.duration(self.command_timeout, "COMMAND_TIMEOUT", DEFAULT_COMMAND_TIMEOUT)?;
        let time = etcdctl.duration(self.keepalive_time, "KEEPALIVE_TIME", DEFAULT_KEEP_ALIVE_TIME)?;
        let timeout = etcdctl.duration(
            self.keepalive_timeout,
            "KEEPALIVE_TIMEOUT",
            DEFAULT_KEEP_ALIVE_TIMEOUT,
        )?;
        let user = self.user.or_else(|| etcdctl.text("USER"));
        let password = self.password.or_else(|| etcdctl.text("PASSWORD"));
        let client = Client::new(ClientOptions {
            endpoints,
            dial_timeout: dial,
            command_timeout: command,
            keep_alive_time: time,
            keep_alive_timeout: timeout,
            tls: Tls::read(&files, needed)?,
            credentials: credentials(user, password)?,
        })?;
        Ok(Session {
            client,
            format: match self.format {
                None => etcdctl.format()?,
                given => given,
            },
            hex: self.hex || etcdctl.flag("HEX")?,
        })
    }
}

/// What etcdctl's own variables say, for those who have them set already.
struct Etcdctl<'a> {
    environment: &'a dyn Fn(&str) -> Option<String>,
}

impl Etcdctl<'_> {
    fn text(&self, name: &str) -> Option<String> {
        (self.environment)(&format!("ETCDCTL_{name}")).filter(|value| !value.is_empty())
    }

    fn flag(&self, name: &str) -> Result<bool, CliError> {
        match self.text(name).as_deref() {
            None | Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(false),
            Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(true),
            Some(other) => Err(CliError::usage(format!(
                "ETCDCTL_{name}: `{other}` is neither true nor false"
            ))),
        }
    }

    fn duration(&self, given: Option<Duration>, name: &str, default: Duration) -> Result<Duration, CliError> {
        match (given, self.text(name)) {
            (Some(given), _) => Ok(given),
            (None, Some(text)) => {
                duration::parse(&text).map_err(|why| CliError::usage(format!("ETCDCTL_{name}: {why}")))
            }
            (None, None) => Ok(default),
        }
    }

    fn format(&self) -> Result<Option<Format>, CliError> {
        let parse = |text: String| {
            Format::from_str(&text, true).map_err(|_| {
                CliError::usage(format!("ETCDCTL_WRITE_OUT: there is no format `{text}`"))
                    .hint("simple, json, table, fields or protobuf")
            })
        };
        self.text("WRITE_OUT").map(parse).transpose()
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

/// `NAME:PASSWORD`, or NAME with the password beside it, or NAME alone: then a person is asked.
pub(super) fn credentials(
    user: Option<String>,
    password: Option<String>,
) -> Result<Option<Credentials>, CliError> {
    let Some(user) = user.filter(|user| !user.is_empty()) else {
        return match password {
            Some(_) => Err(CliError::usage("a password, but whose?").hint("--user NAME")),
            None => Ok(None),
        };
    };
    let (name, password) = match (user.split_once(':'), password) {
        (_, Some(password)) => (user.as_str(), Secret::new(password)),
        (Some((name, password)), None) => (name, Secret::new(password)),
        (None, None) => (user.as_str(), password::ask(&format!("Password of {user}: "))?),
    };
    if name.is_empty() {
        return Err(CliError::usage("the user's name is empty").hint("--user NAME[:PASSWORD]"));
    }
    Ok(Some(Credentials {
        name: name.to_owned(),
        password,
    }))
}

/// Our own events only: those of the transport would show headers, and with them the token.
fn show_debug() {
    let subscriber = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter("off,agent::cli=debug")
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .finish();
    // It is set already only in tests, which run many sessions in one process.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    #[command(disable_help_flag = true)]
    struct Line {
        #[command(flatten)]
        options: GlobalOptions,
    }

    fn settle(args: &[&str], etcdctl: &[(&str, &str)]) -> Result<Session, CliError> {
        let line = Line::try_parse_from(["agentctl"].iter().chain(args)).unwrap();
        line.options.settle(&|name| {
            let found = etcdctl.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn endpoints_come_from_the_nearest_place() {
        assert_eq!(endpoints(None, None), ["127.0.0.1:2379"]);
        assert_eq!(endpoints(None, Some("a:1, b:2,")), ["a:1", "b:2"]);
        assert_eq!(endpoints(Some("c:3"), Some("a:1")), ["c:3"]);
        assert_eq!(endpoints(Some(" "), Some("a:1")), ["a:1"]);
    }

    #[test]
    fn etcdctls_variables_stand_behind_the_flags() {
        let variables = [
            ("ETCDCTL_ENDPOINTS", "a:1"),
            ("ETCDCTL_COMMAND_TIMEOUT", "1m0s"),
            ("ETCDCTL_WRITE_OUT", "fields"),
            ("ETCDCTL_HEX", "true"),
        ];
        let session = settle(&[], &variables).unwrap();
        assert_eq!(session.client.endpoints(), ["a:1"]);
        assert_eq!(session.client.command_timeout(), Duration::from_secs(60));
        assert_eq!((session.format, session.hex), (Some(Format::Fields), true));
        let session = settle(&["--command-timeout", "3s", "-w", "json"], &variables).unwrap();
        assert_eq!(session.client.command_timeout(), Duration::from_secs(3));
        assert_eq!(session.format, Some(Format::Json));
        let wrong = settle(&[], &[("ETCDCTL_HEX", "maybe")]).unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "ETCDCTL_HEX: `maybe` is neither true nor false"
        );
    }

    #[test]
    fn a_password_stands_beside_the_name_or_behind_it() {
        let parts = |user: &str, password: Option<&str>| {
            let found = credentials(Some(user.to_owned()), password.map(str::to_owned)).unwrap();
            found.map(|found| (found.name, found.password.expose().to_owned()))
        };
        let expected = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
        assert_eq!(parts("root:a:b", None), expected("root", "a:b"));
        assert_eq!(parts("root:", None), expected("root", ""));
        assert_eq!(parts("root", Some("pw")), expected("root", "pw"));
        assert_eq!(parts("", None), None);
        assert!(credentials(None, Some("pw".into())).is_err());
        assert!(credentials(Some(":pw".into()), None).is_err());
    }
}
