//! The options every command has, and where each comes from: the flag, `AGENTCTL_*`, `ETCDCTL_*`, the default.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
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
    #[arg(long, global = true, value_name = "HOST:PORT,...")]
    endpoints: Option<String>,
    /// User to act as; the password is asked for when it is not given
    #[arg(long, global = true, value_name = "NAME[:PASSWORD]")]
    user: Option<String>,
    /// The user's password, which others on this machine may see: better in AGENTCTL_PASSWORD
    #[arg(long, global = true, value_name = "PASSWORD")]
    password: Option<String>,
    /// Certificate authority that signed the members' certificates [default: those of this machine]
    #[arg(long, global = true, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Client certificate that says who you are
    #[arg(long, global = true, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Key of the client certificate
    // Commands have a KEY of their own: ids are one name space.
    #[arg(id = "tls_key", long = "key", global = true, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Accept any certificate: for tests only
    #[arg(long, global = true)]
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
        value_enum
    )]
    format: Option<Format>,
    /// Show keys and values as hexadecimal bytes
    #[arg(long, global = true)]
    hex: bool,
    /// How long a command may take [default: 5s]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration::parse)]
    command_timeout: Option<Duration>,
    /// How long to wait for a connection to one member [default: 2s]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration::parse)]
    dial_timeout: Option<Duration>,
    /// How often to ask a silent member whether it is still there [default: 2s]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration::parse)]
    keepalive_time: Option<Duration>,
    /// How long it may take to answer that [default: 6s]
    #[arg(long, global = true, value_name = "TIME", value_parser = duration::parse)]
    keepalive_timeout: Option<Duration>,
    /// Say on standard error which member was asked, and what came of it
    #[arg(long, global = true)]
    debug: bool,
    /// Say what a command does and takes
    #[arg(short, long, global = true, action = ArgAction::HelpShort)]
    help: Option<bool>,
}

impl GlobalOptions {
    /// For a command about a cluster whose folder is here: what the command line does not say is taken from there.
    pub(super) fn of_cluster(mut self, endpoints: &[String], folder: &Path) -> GlobalOptions {
        self.endpoints.get_or_insert_with(|| endpoints.join(","));
        self.cacert.get_or_insert_with(|| folder.join("ca.pem"));
        if self.cert.is_none() && self.tls_key.is_none() {
            self.cert = Some(folder.join("admin.pem"));
            self.tls_key = Some(folder.join("admin.key"));
        }
        self
    }

    /// Settles every option, and asks for the password if one is missing. Nothing is sent yet.
    pub(super) fn session(self) -> Result<Session, CliError> {
        self.settle(&|name| std::env::var(name).ok())
    }

    fn settle(self, environment: &dyn Fn(&str) -> Option<String>) -> Result<Session, CliError> {
        let variables = Variables { environment };
        if variables.flag("DEBUG", self.debug.then_some(true), false)? {
            show_debug();
        }
        let endpoints = endpoints(variables.text("ENDPOINTS", self.endpoints).as_deref());
        let path =
            |name, given: Option<PathBuf>| given.or_else(|| variables.text(name, None).map(PathBuf::from));
        let files = TlsFiles {
            cacert: path("CACERT", self.cacert),
            cert: path("CERT", self.cert),
            key: path("KEY", self.tls_key),
            insecure_skip_verify: variables.flag(
                "INSECURE_SKIP_TLS_VERIFY",
                self.insecure_skip_tls_verify.then_some(true),
                false,
            )?,
            required: !variables.flag("INSECURE_TRANSPORT", self.insecure_transport, true)?,
        };
        // Members that are found later, by `endpoint status`, may want TLS only if one that was named does.
        let needed = endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
        let dial = variables.duration("DIAL_TIMEOUT", self.dial_timeout, DEFAULT_DIAL_TIMEOUT)?;
        let command = variables.duration("COMMAND_TIMEOUT", self.command_timeout, DEFAULT_COMMAND_TIMEOUT)?;
        let time = variables.duration("KEEPALIVE_TIME", self.keepalive_time, DEFAULT_KEEP_ALIVE_TIME)?;
        let timeout = variables.duration(
            "KEEPALIVE_TIMEOUT",
            self.keepalive_timeout,
            DEFAULT_KEEP_ALIVE_TIMEOUT,
        )?;
        let user = variables.text("USER", self.user);
        let password = variables.text("PASSWORD", self.password);
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
            format: variables.format(self.format)?,
            hex: variables.flag("HEX", self.hex.then_some(true), false)?,
        })
    }
}

/// What the environment says where the command line does not: our own variables, and behind each etcdctl's, for
/// those who have them set already. An empty one says nothing.
struct Variables<'a> {
    environment: &'a dyn Fn(&str) -> Option<String>,
}

impl Variables<'_> {
    /// The variable that is set, with its value.
    fn find(&self, name: &str) -> Option<(String, String)> {
        ["AGENTCTL", "ETCDCTL"].into_iter().find_map(|program| {
            let variable = format!("{program}_{name}");
            let value = (self.environment)(&variable).filter(|value| !value.trim().is_empty())?;
            Some((variable, value))
        })
    }

    fn text(&self, name: &str, given: Option<String>) -> Option<String> {
        given.or_else(|| self.find(name).map(|(_, value)| value))
    }

    fn flag(&self, name: &str, given: Option<bool>, default: bool) -> Result<bool, CliError> {
        if let Some(given) = given {
            return Ok(given);
        }
        let Some((variable, value)) = self.find(name) else {
            return Ok(default);
        };
        match value.as_str() {
            "false" | "0" | "f" | "F" | "FALSE" | "False" => Ok(false),
            "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(true),
            other => Err(CliError::usage(format!(
                "{variable}: `{other}` is neither true nor false"
            ))),
        }
    }

    fn duration(&self, name: &str, given: Option<Duration>, default: Duration) -> Result<Duration, CliError> {
        match (given, self.find(name)) {
            (Some(given), _) => Ok(given),
            (None, Some((variable, value))) => {
                duration::parse(&value).map_err(|why| CliError::usage(format!("{variable}: {why}")))
            }
            (None, None) => Ok(default),
        }
    }

    fn format(&self, given: Option<Format>) -> Result<Option<Format>, CliError> {
        let (None, Some((variable, value))) = (given, self.find("WRITE_OUT")) else {
            return Ok(given);
        };
        Format::from_str(&value, true).map(Some).map_err(|_| {
            CliError::usage(format!("{variable}: there is no format `{value}`"))
                .hint("simple, json, table, fields or protobuf")
        })
    }
}

/// The members named, else this machine's.
fn endpoints(given: Option<&str>) -> Vec<String> {
    let given = given.filter(|list| !list.trim().is_empty());
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

    fn settle(args: &[&str], variables: &[(&str, &str)]) -> Result<Session, CliError> {
        let line = Line::try_parse_from(["agentctl"].iter().chain(args)).unwrap();
        line.options.settle(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn endpoints_come_from_the_nearest_place() {
        let found = |args: &[&str], variables: &[(&str, &str)]| {
            settle(args, variables).unwrap().client.endpoints().to_vec()
        };
        let both = [("ETCDCTL_ENDPOINTS", "a:1, b:2,"), ("AGENTCTL_ENDPOINTS", "c:3")];
        assert_eq!(found(&[], &[]), ["127.0.0.1:2379"]);
        assert_eq!(found(&[], &both[..1]), ["a:1", "b:2"]);
        assert_eq!(found(&[], &both), ["c:3"]);
        assert_eq!(found(&["--endpoints", "d:4"], &both), ["d:4"]);
        assert_eq!(
            found(&[], &[both[0], ("AGENTCTL_ENDPOINTS", " ")]),
            ["a:1", "b:2"]
        );
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
