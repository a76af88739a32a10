//! `agentctl context`: several clusters, each by a name.
//!
//! [`book`] keeps them; which one a command uses is decided in `options.rs`, with everything else that is settled before
//! a command runs. No cluster is asked here.

mod book;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use self::book::check_name;
pub(super) use self::book::{Context, Contexts};
use super::config_dir::config_dir;
use super::error::{CliError, os_text};
use super::format::columns::columns;
use super::format::{self, Format};
use super::options::Way;

#[derive(Debug, Subcommand)]
pub(super) enum ContextCommand {
    /// Show your contexts, and which is the current one
    #[command(after_help = "Example:\n  agentctl context list")]
    List,
    /// Make a context the current one: commands use it that name no other
    #[command(after_help = "Example:\n  agentctl context use prod")]
    Use(NameArgs),
    /// Show what a context says; the current one, if none is named
    #[command(after_help = "Example:\n  agentctl context show prod")]
    Show(ShowArgs),
    /// Make a context, or change what is given of it: --endpoints, --cacert, --cert, --key, --user
    #[command(
        after_help = "The first becomes the current one. A password is never kept: it is asked for, or in\n\
                      AGENTCTL_PASSWORD.\n\n\
                      Examples:\n  agentctl context set prod --endpoints https://51.0.0.10:2379 --cacert ca.pem --user eva\n  \
                      agentctl context set prod --cert eva.pem --key eva.key --user ''"
    )]
    Set(NameArgs),
    /// Forget a context; its files stay
    #[command(after_help = "Example:\n  agentctl context delete prod")]
    Delete(NameArgs),
}

#[derive(Args, Debug)]
pub(super) struct NameArgs {
    /// The context
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    /// The context [default: the current one]
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

impl ContextCommand {
    /// `way` is what the command line says of the way to a cluster, without variables and defaults.
    pub(super) fn run(self, way: Way, format: Option<Format>) -> Result<(), CliError> {
        let folder = config_dir(None)?;
        let contexts = Contexts::read(&folder)?;
        match self {
            Self::List => list(&contexts, format),
            Self::Show(args) => {
                let named = args.name.or(way.context);
                show(&contexts, named.as_deref(), format)
            }
            Self::Use(args) => {
                contexts.find(&args.name)?;
                let line = format!("`{}` is the current context\n", args.name);
                let contexts = Contexts {
                    current: Some(args.name),
                    ..contexts
                };
                contexts.write(&folder)?;
                format::write(line.as_bytes())
            }
            Self::Set(args) => set(contexts, &folder, &args.name, way),
            Self::Delete(args) => delete(contexts, &folder, &args.name),
        }
    }
}

/// Makes a context for a cluster that was just made, and the current one where there is none. Returns whether it is.
pub(super) fn add(folder: &Path, name: &str, context: Context) -> Result<bool, CliError> {
    let mut contexts = Contexts::read(folder)?;
    contexts.put(name, context);
    contexts.write(folder)?;
    Ok(contexts.current() == Some(name))
}

/// Refuses a name that somebody gave to another cluster.
pub(super) fn refuse_taken(folder: &Path, name: &str) -> Result<(), CliError> {
    if !Contexts::read(folder)?.contexts.contains_key(name) {
        return Ok(());
    }
    Err(
        CliError::failed(format!("there is a context `{name}` already")).hint(format!(
            "choose another name, or forget that one: agentctl context delete {name}"
        )),
    )
}

fn list(contexts: &Contexts, format: Option<Format>) -> Result<(), CliError> {
    if format == Some(Format::Json) {
        let all = contexts.contexts.iter().map(|(name, context)| {
            let mut fields = serde_json::to_value(context).unwrap_or_default();
            fields["name"] = json!(name);
            fields["current"] = json!(contexts.current() == Some(name));
            fields
        });
        return format::write_json(&json!({"contexts": all.collect::<Vec<_>>()}));
    }
    if contexts.contexts.is_empty() {
        let text = "no contexts yet: `agentctl cluster init` makes one, and so does `agentctl context set`\n";
        return format::write(text.as_bytes());
    }
    let rows: Vec<_> = contexts
        .contexts
        .iter()
        .map(|(name, context)| {
            let is_current = contexts.current() == Some(name);
            [
                if is_current { "*" } else { "" }.to_owned(),
                name.clone(),
                context.endpoints.join(","),
                who(context),
            ]
        })
        .collect();
    format::write(columns(["", "NAME", "ENDPOINTS", "AS"], &rows).as_bytes())
}

/// As whom: a user by password, or whoever the certificate names.
fn who(context: &Context) -> String {
    match (&context.user, &context.cert) {
        (Some(user), _) => user.clone(),
        (None, Some(cert)) => format!("certificate {}", cert.display()),
        (None, None) => String::new(),
    }
}

fn show(contexts: &Contexts, named: Option<&str>, format: Option<Format>) -> Result<(), CliError> {
    let name = named.or(contexts.current()).ok_or_else(|| {
        CliError::failed("no context is current")
            .hint("agentctl context use NAME; `agentctl context list` shows them")
    })?;
    let context = contexts.find(name)?;
    if format == Some(Format::Json) {
        let mut fields = serde_json::to_value(context).unwrap_or_default();
        fields["name"] = json!(name);
        return format::write_json(&fields);
    }
    format::write(format!("name: {name}\n{}", context.yaml()?).as_bytes())
}

fn set(mut contexts: Contexts, folder: &Path, name: &str, way: Way) -> Result<(), CliError> {
    check_name(name)?;
    if way.has_password {
        return Err(CliError::usage("a password is never kept in a context")
            .hint("give it when you are asked for it, or in AGENTCTL_PASSWORD"));
    }
    let mut context = contexts.contexts.get(name).cloned().unwrap_or_default();
    if let Some(endpoints) = way.endpoints {
        context.endpoints = endpoints;
    }
    for (place, given) in [
        (&mut context.cacert, way.cacert),
        (&mut context.cert, way.cert),
        (&mut context.key, way.key),
    ] {
        if let Some(file) = given {
            *place = Some(found(&file)?);
        }
    }
    if let Some(user) = way.user {
        context.user = Some(user).filter(|user| !user.is_empty());
    }
    context.check()?;
    contexts.put(name, context);
    contexts.write(folder)?;
    let current = match contexts.current() {
        Some(current) if current == name => ", and is the current one".to_owned(),
        _ => format!(": agentctl --context {name} ..., or agentctl context use {name}"),
    };
    format::write(format!("context `{name}` is set{current}\n").as_bytes())
}

/// Wherever the command is run later: the whole path, of a file that is there.
fn found(file: &Path) -> Result<PathBuf, CliError> {
    let path = std::path::absolute(file).and_then(|path| std::fs::metadata(&path).map(|_| path));
    path.map_err(|error| CliError::failed(format!("{}: {}", file.display(), os_text(&error))))
}

fn delete(mut contexts: Contexts, folder: &Path, name: &str) -> Result<(), CliError> {
    contexts.find(name)?;
    contexts.contexts.remove(name);
    let was_current = contexts.current() == Some(name);
    if was_current {
        contexts.current = None;
    }
    contexts.write(folder)?;
    let then = if was_current {
        "; no context is current now: agentctl context use NAME"
    } else {
        ""
    };
    format::write(format!("context `{name}` is forgotten{then}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn way(endpoints: &str) -> Way {
        Way {
            endpoints: Some(endpoints.split(',').map(str::to_owned).collect()),
            ..Way::default()
        }
    }

    fn read(folder: &tempfile::TempDir) -> Contexts {
        Contexts::read(folder.path()).unwrap()
    }

    #[test]
    fn contexts_are_kept_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(&folder), Contexts::default());
        set(
            read(&folder),
            folder.path(),
            "prod",
            way("https://a:1,https://b:2"),
        )
        .unwrap();
        set(read(&folder), folder.path(), "lab", way("c:3")).unwrap();
        let user = Way {
            user: Some("eva".into()),
            ..Way::default()
        };
        set(read(&folder), folder.path(), "prod", user).unwrap();
        let known = read(&folder);
        assert_eq!(known.current(), Some("prod"));
        let prod = known.find("prod").unwrap();
        assert_eq!(prod.endpoints, ["https://a:1", "https://b:2"]);
        assert_eq!(prod.user.as_deref(), Some("eva"));
        let file = std::fs::metadata(folder.path().join("config.yaml")).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);

        delete(known, folder.path(), "prod").unwrap();
        let left = read(&folder);
        assert_eq!(left.current(), None);
        let gone = left.find("prod").unwrap_err();
        assert_eq!(gone.to_string(), "there is no context `prod`");
        assert!(gone.text().contains("there are: lab"));
    }

    #[test]
    fn what_would_not_work_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let said = |name: &str, way: Way| {
            let error = set(Contexts::default(), folder.path(), name, way).unwrap_err();
            error.to_string()
        };
        assert!(said("a b", way("a:1")).contains("no name of a context"));
        assert!(said("prod", Way::default()).contains("names no endpoint"));
        assert!(said("prod", way("ovh")).contains("not an endpoint"));
        let with_password = |user: &str, has_password| Way {
            user: Some(user.to_owned()),
            has_password,
            ..way("a:1")
        };
        assert!(said("prod", with_password("eva:pw", false)).contains("passwords are never kept"));
        assert!(said("prod", with_password("eva", true)).contains("never kept"));
        let cert = folder.path().join("cert.pem");
        let certified = || Way {
            cert: Some(cert.clone()),
            ..way("a:1")
        };
        assert!(said("prod", certified()).contains("no such file"));
        std::fs::write(&cert, "").unwrap();
        assert!(said("prod", certified()).contains("needs the key"));
        assert!(!folder.path().join("config.yaml").exists());
    }

    #[test]
    fn a_broken_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for (text, said) in [
            ("contexts: 1\n", "config.yaml"),
            ("contexts: {prod: {endpoint: [a:1]}}\n", "config.yaml"),
            ("contexts: {prod: {endpoints: [a]}}\n", "context `prod`"),
            (
                "contexts: {prod: {endpoints: ['a:1'], user: 'eva:pw'}}\n",
                "passwords are never kept",
            ),
        ] {
            std::fs::write(folder.path().join("config.yaml"), text).unwrap();
            let error = Contexts::read(folder.path()).unwrap_err().text();
            assert!(error.contains(said), "{text}: {error}");
            assert!(!error.contains("eva:pw"), "{error}");
        }
    }
}
