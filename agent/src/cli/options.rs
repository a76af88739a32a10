//! The options every command has, and where each comes from: the flag, `AGENTCTL_*`, `ETCDCTL_*`, a context, the default.
//!
//! What a context says ranks as it was chosen: by `--context` before variables, else behind them. The current context is
//! about one cluster: where endpoints are named otherwise, it is left out as a whole, so that nobody shows one cluster's
//! certificate to another.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use super::client::{Client, ClientOptions, Credentials, Secret, Tls, TlsFiles};
use super::config_dir::config_dir_of;
use super::context::{Context, Contexts};
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
    /// Which cluster, by the name that `agentctl context` knows it by [default: the current one]
    #[arg(id = "chosen_context", long = "context", global = true, value_name = "NAME")]
    context: Option<String>,
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

/// What the command line says of the way to a cluster: flags alone.
#[derive(Debug, Default)]
pub(super) struct Way {
    pub(super) context: Option<String>,
    pub(super) endpoints: Option<Vec<String>>,
    pub(super) cacert: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) user: Option<String>,
    pub(super) has_password: bool,
}

impl GlobalOptions {
    /// For a command about a cluster whose folder is here: what the command line does not say is taken from there.
    pub(super) fn of_cluster(mut self, endpoints: &[String], folder: &Path) -> GlobalOptions {
        if self.context.is_some() {
            return self;
        }
        self.endpoints.get_or_insert_with(|| endpoints.join(","));
        self.cacert.get_or_insert_with(|| folder.join("ca.pem"));
        if self.cert.is_none() && self.tls_key.is_none() {
            self.cert = Some(folder.join("admin.pem"));
            self.tls_key = Some(folder.join("admin.key"));
        }
        self
    }

    /// For commands that ask no cluster.
    pub(super) fn way(self) -> (Way, Option<Format>) {
        let way = Way {
            context: self.context,
            endpoints: self.endpoints.map(|list| endpoints_of(Some(&list))),
            cacert: self.cacert,
            cert: self.cert,
            key: self.tls_key,
            user: self.user,
            has_password: self.password.is_some(),
        };
        (way, self.format)
    }

    /// Settles every option, and asks for the password if one is missing. Nothing is sent yet.
    pub(super) fn session(self) -> Result<Session, CliError> {
        self.settle(&|name| std::env::var(name).ok())
    }

    fn settle(self, environment: &dyn Fn(&str) -> Option<String>) -> Result<Session, CliError> {
        let variables = Variables {
            environment,
            chosen: None,
        };
        if variables.flag("DEBUG", self.debug.then_some(true), false)? {
            show_debug();
        }
        let variables = variables.with_context(self.context, self.endpoints.as_deref())?;
        let endpoints = variables.from("ENDPOINTS", self.endpoints, |context| {
            Some(context.endpoints.join(","))
        });
        let endpoints = endpoints_of(endpoints.as_deref());
        let path = |name, given: Option<PathBuf>, kept: fn(&Context) -> Option<PathBuf>| {
            variables.path(name, given, kept)
        };
        let files = TlsFiles {
            cacert: path("CACERT", self.cacert, |context| context.cacert.clone()),
            cert: path("CERT", self.cert, |context| context.cert.clone()),
            key: path("KEY", self.tls_key, |context| context.key.clone()),
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
        let user = variables.from("USER", self.user, |context| context.user.clone());
        let password = variables.text("PASSWORD", self.password);
        let client = Client::new(ClientOptions {
            endpoints,
            dial_timeout: dial,
            command_timeout: command,
            keep_alive_time: time,
            keep_alive_timeout: timeout,
            tls: Tls::read(&files, needed).map_err(|error| variables.name_context(error))?,
            credentials: credentials(user, password)?,
            context: variables.context_name(),
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
    chosen: Option<Chosen>,
}

/// The context that a command uses.
struct Chosen {
    name: String,
    context: Context,
    /// By `--context`: what it says comes before variables.
    by_flag: bool,
}

impl Variables<'_> {
    /// With the context that is named or, where nothing else says where the cluster is, the current one.
    fn with_context(mut self, flag: Option<String>, endpoints: Option<&str>) -> Result<Self, CliError> {
        let by_flag = flag.is_some();
        let named = flag.or_else(|| self.find("CONTEXT").map(|(_, name)| name));
        if named.is_none() && (endpoints.is_some() || self.find("ENDPOINTS").is_some()) {
            return Ok(self);
        }
        let folder = config_dir_of(&|name| (self.environment)(name).map(PathBuf::from));
        let contexts = match folder {
            Some(folder) => Contexts::read(&folder)?,
            None => Contexts::default(),
        };
        if let Some(name) = named.as_deref().or(contexts.current()) {
            self.chosen = Some(Chosen {
                name: name.to_owned(),
                context: contexts.find(name)?.clone(),
                by_flag,
            });
        }
        Ok(self)
    }

    /// The flag, else the variable, else what the context keeps; in the order of the ranks.
    fn from(
        &self,
        name: &str,
        given: Option<String>,
        kept: impl Fn(&Context) -> Option<String>,
    ) -> Option<String> {
        let of_context = |by_flag| {
            let chosen = self.chosen.as_ref().filter(|chosen| chosen.by_flag == by_flag)?;
            kept(&chosen.context)
        };
        given
            .or_else(|| of_context(true))
            .or_else(|| self.text(name, None))
            .or_else(|| of_context(false))
    }

    fn path(
        &self,
        name: &str,
        given: Option<PathBuf>,
        kept: impl Fn(&Context) -> Option<PathBuf>,
    ) -> Option<PathBuf> {
        let of_context = |by_flag| {
            let chosen = self.chosen.as_ref().filter(|chosen| chosen.by_flag == by_flag)?;
            kept(&chosen.context)
        };
        given
            .or_else(|| of_context(true))
            .or_else(|| self.text(name, None).map(PathBuf::from))
            .or_else(|| of_context(false))
    }

    fn context_name(&self) -> Option<String> {
        self.chosen.as_ref().map(|chosen| chosen.name.clone())
    }

    /// Whoever did not name a file sees where it stands.
    fn name_context(&self, error: CliError) -> CliError {
        match &self.chosen {
            Some(chosen) if !error.has_hint() => error.hint(format!(
                "context `{name}` names it: agentctl context set {name} --cacert|--cert|--key FILE",
                name = chosen.name
            )),
            _ => error,
        }
    }

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
fn endpoints_of(given: Option<&str>) -> Vec<String> {
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
    fn a_context_ranks_as_it_was_chosen() {
        let folder = tempfile::tempdir().unwrap();
        let text =
            "current: prod\ncontexts:\n  prod: {endpoints: ['p:1', 'p:2']}\n  lab: {endpoints: ['l:1']}\n";
        std::fs::write(folder.path().join("config.yaml"), text).unwrap();
        let place = ("AGENTCTL_CONFIG_DIR", folder.path().to_str().unwrap());
        let found = |args: &[&str], variables: &[(&str, &str)]| {
            let variables: Vec<_> = variables.iter().copied().chain([place]).collect();
            let session = settle(args, &variables);
            session.map(|session| session.client.endpoints().join(","))
        };
        let said = |args: &[&str], variables: &[(&str, &str)]| found(args, variables).unwrap();
        let (elsewhere, lab) = (("ETCDCTL_ENDPOINTS", "e:1"), ("AGENTCTL_CONTEXT", "lab"));
        assert_eq!(said(&[], &[]), "p:1,p:2");
        assert_eq!(said(&[], &[lab]), "l:1");
        assert_eq!(said(&[], &[elsewhere]), "e:1");
        assert_eq!(said(&[], &[elsewhere, lab]), "e:1");
        // Whoever names a cluster means that one, whatever was exported once.
        assert_eq!(said(&["--context", "lab"], &[elsewhere]), "l:1");
        assert_eq!(
            said(&["--context", "lab", "--endpoints", "f:1"], &[elsewhere]),
            "f:1"
        );
        let unknown = found(&["--context", "x"], &[]).unwrap_err().text();
        assert!(
            unknown.contains("no context `x`") && unknown.contains("lab, prod"),
            "{unknown}"
        );
    }

    #[test]
    fn the_current_context_is_not_mixed_with_other_endpoints() {
        let folder = tempfile::tempdir().unwrap();
        let text =
            "current: prod\ncontexts: {prod: {endpoints: ['p:1'], cacert: /nowhere/ca.pem, user: eva}}\n";
        std::fs::write(folder.path().join("config.yaml"), text).unwrap();
        let place = ("AGENTCTL_CONFIG_DIR", folder.path().to_str().unwrap());
        settle(&["--endpoints", "e:1"], &[place]).unwrap();
        let missing = settle(&[], &[place, ("AGENTCTL_PASSWORD", "pw")])
            .unwrap_err()
            .text();
        assert!(missing.contains("/nowhere/ca.pem"), "{missing}");
        assert!(
            missing.contains("agentctl context set prod --cacert"),
            "{missing}"
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
