//! `agent`: one binary for every host. `agent run` is the member, `agent join` makes a machine one, `agent install` has it
//! started with its host, `agent dev` three of them on this machine,
//! `agent ctl` is `agentctl`.

use std::ffi::OsString;
use std::process::ExitCode;

use agent::config::{LogFormat, RunArgs, arguments_from_file};
use agent::install;
use agent::join;
use agent::{cli, dev, fence, server, telemetry};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// Three hosts, one truth: a Raft member that speaks the etcd v3 API, and keeps the local Incus as the cluster's
/// documents say.
#[derive(Parser)]
#[command(name = "agent", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(Box<RunArgs>),
    Join(join::JoinArgs),
    /// Put this program on this host, and have it started with it
    Install(install::InstallArgs),
    /// Take it off again; what the host keeps stays
    Uninstall(install::UninstallArgs),
    Dev(dev::DevArgs),
    Fence(fence::GuardArgs),
    /// The command line to a cluster: the same as agentctl
    #[command(disable_help_flag = true, trailing_var_arg = true)]
    Ctl {
        #[arg(allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let arguments = match with_config_file(std::env::args_os().collect()) {
        Ok(arguments) => arguments,
        Err(error) => return fail(&error),
    };
    match Cli::parse_from(arguments).command {
        Command::Run(run) => run_member(&run),
        Command::Join(join) => join_cluster(&join),
        Command::Install(install) => ended(install.run()),
        Command::Uninstall(uninstall) => ended(uninstall.run()),
        Command::Dev(dev) => ended(dev::run(dev)),
        Command::Fence(guard) => ended(guard_instances(&guard)),
        Command::Ctl { arguments } => cli::main(std::iter::once(OsString::from("agentctl")).chain(arguments)),
    }
}

fn guard_instances(arguments: &fence::GuardArgs) -> anyhow::Result<()> {
    telemetry::init_logging("info", false)?;
    arguments.run()
}

/// Joins, and goes on as `agent run` with what joining has left.
fn join_cluster(arguments: &join::JoinArgs) -> ExitCode {
    if let Err(error) = telemetry::init_logging("info", false) {
        return fail(&error.into());
    }
    if let Err(error) = arguments.join() {
        return fail(&error);
    }
    let Some(run) = arguments.run_arguments() else {
        return ExitCode::SUCCESS;
    };
    let run = with_config_file(run.into_iter().map(OsString::from).collect());
    let run = run.and_then(|arguments| Ok(Cli::try_parse_from(arguments)?.command));
    match run {
        Ok(Command::Run(run)) => run_checked(&run),
        Ok(_) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

fn run_member(arguments: &RunArgs) -> ExitCode {
    if let Err(error) = telemetry::init_logging(&arguments.log_level, arguments.log_format == LogFormat::Json)
    {
        return fail(&error.into());
    }
    run_checked(arguments)
}

fn run_checked(arguments: &RunArgs) -> ExitCode {
    let config = match arguments.check() {
        Ok(config) => config,
        Err(error) => return fail(&error.into()),
    };
    match server::block_on(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// `agent run` with `--config`: the file's settings stand before the flags, and what those say is left out.
fn with_config_file(mut arguments: Vec<OsString>) -> anyhow::Result<Vec<OsString>> {
    if arguments.get(1).is_none_or(|command| command != "run") {
        return Ok(arguments);
    }
    // A first look, for this one flag; mistakes in the others are reported by the real parse.
    let command = Cli::command().ignore_errors(true);
    let Ok(matches) = command.try_get_matches_from(&arguments) else {
        return Ok(arguments);
    };
    let file = matches.subcommand_matches("run").and_then(|run| {
        let run = RunArgs::from_arg_matches(run).ok()?;
        run.config
    });
    if let Some(file) = file {
        // A list that is given twice would become one long list.
        let given = |flag: &str| {
            arguments.iter().any(|argument| {
                let rest = argument.to_str().and_then(|text| text.strip_prefix(flag));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
            })
        };
        let settings = arguments_from_file(&file, |name| {
            let flag = name.trim_start_matches("AGENT_").to_lowercase().replace('_', "-");
            std::env::var_os(name).is_some() || given(&format!("--{flag}"))
        })?;
        arguments.splice(2..2, settings.into_iter().map(OsString::from));
    }
    Ok(arguments)
}

fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
