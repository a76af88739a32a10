//! `agentctl`, also `agent ctl`: the command line of the cluster.
//!
//! Every command is a client of the etcd API, so that it works from any machine and against any etcd v3; those about
//! hosts' instances speak our own service beside it. Texts are made by pure functions in [`format`] and beside the commands; the client sees to endpoints.
//! Only `snapshot restore` makes a data directory; none is ever changed.

mod adopt;
mod alarm;
mod application;
mod apply;
mod atomic;
mod auth;
mod backup;
mod change;
mod check;
mod client;
mod cloud_init;
mod cluster;
mod concurrency;
mod config_dir;
mod context;
mod defrag;
mod delete;
mod dev;
mod documents;
mod duration;
mod elect;
mod endpoint;
mod error;
mod format;
mod get;
mod instance;
mod inventory;
mod kv;
mod lease;
mod live;
mod lock;
mod make_mirror;
mod member;
mod options;
mod password;
mod people;
mod plan;
mod planfile;
mod prune;
mod range;
mod role;
mod secret;
mod session;
mod snapshot;
mod ssh;
mod status;
mod tenancy;
mod tenant;
mod token;
mod trust;
mod tunnel;
mod user;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use error::CliError;
use kv::KvCommand;
use options::GlobalOptions;
use session::Session;

/// The command line of the cluster: its keys, its documents, its members
#[derive(Debug, Parser)]
#[command(
    name = "agentctl",
    version,
    max_term_width = 100,
    disable_help_flag = true,
    after_help = "Every global option can be set by a variable: AGENTCTL_ENDPOINTS, AGENTCTL_USER, AGENTCTL_CACERT, \
                  ...; what is not set is taken from etcdctl's: ETCDCTL_ENDPOINTS, ...\n\
                  Where a cluster is: flags, then variables, then the context, then 127.0.0.1:2379. `--context` comes before \
                  variables; the current context only where no endpoints are named.\n\
                  TIME is written 500ms, 5s or 1m30s.\n\
                  Exit code 0: done, 1: failed, 2: wrong usage; `lock NAME COMMAND`, `instance exec` and `ssh` end \
                  with that of their command.\n\
                  `agentctl COMMAND --help` says more, with examples."
)]
struct Cli {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read, write and watch keys
    #[command(subcommand)]
    Kv(kv::KvCommand),
    /// Store documents: what the hosts shall make true
    Apply(apply::ApplyArgs),
    /// Show what documents would change, and where
    Plan(plan::PlanArgs),
    /// Show where hosts differ from their documents
    Diff(plan::DiffArgs),
    /// Put what was made by hand under a document
    Adopt(adopt::AdoptArgs),
    /// Show the documents the cluster holds
    Get(get::GetArgs),
    /// Show what the hosts have made of the documents
    Status(status::StatusArgs),
    /// Delete documents, and with them what they made
    Delete(delete::DeleteArgs),
    /// Values that documents refer to by name, and that nobody reads again
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// The instances of all hosts, and what is in them
    #[command(subcommand)]
    Instance(instance::InstanceCommand),
    /// Copies of instances and volumes that outlive them
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Reach a port of an instance as if it were here
    Tunnel(tunnel::TunnelArgs),
    /// Log in to an instance by SSH, wherever it is
    Ssh(ssh::SshArgs),
    /// Templates of documents
    #[command(subcommand)]
    Template(application::TemplateCommand),
    /// The cluster as a whole: applications on its hosts
    #[command(subcommand)]
    Cluster(application::ClusterCommand),
    /// What the hosts have, ours or not
    #[command(subcommand)]
    Inventory(inventory::InventoryCommand),
    /// Who belongs to the cluster
    #[command(subcommand)]
    Member(member::MemberCommand),
    /// How the members are
    #[command(subcommand)]
    Endpoint(endpoint::EndpointCommand),
    /// What the members have raised against themselves
    #[command(subcommand)]
    Alarm(alarm::AlarmCommand),
    /// Forget the history before a revision
    #[command(visible_alias = "compaction")]
    Compact(kv::compact::CompactArgs),
    /// Give free space of an etcd's members back to the file system
    Defrag(defrag::DefragArgs),
    /// Hand leadership to another member
    MoveLeader(member::MoveLeaderArgs),
    /// Leases: keys that go when nobody renews them
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// Hold a lock: one at a time, anywhere in the cluster
    Lock(lock::LockArgs),
    /// Stand for election, or watch who leads
    Elect(elect::ElectArgs),
    /// Who may log in
    #[command(subcommand)]
    User(user::UserCommand),
    /// What users may read and write
    #[command(subcommand)]
    Role(role::RoleCommand),
    /// Tenants, and who may do what with theirs
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// Must users log in?
    #[command(subcommand)]
    Auth(auth::AuthCommand),
    /// Is the cluster fast enough, and does it bear the amount?
    #[command(subcommand)]
    Check(check::CheckCommand),
    /// Keep the keys the same in another cluster
    MakeMirror(make_mirror::MakeMirrorArgs),
    /// Copies of the whole store
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Tokens by which hosts join
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// The certificates of your clusters
    #[command(subcommand)]
    Cert(trust::CertCommand),
    /// Your clusters, each by a name: where it is, and as whom
    #[command(subcommand)]
    Context(context::ContextCommand),
    /// User-data for hosts that do not exist yet
    #[command(subcommand)]
    CloudInit(cloud_init::CloudInitCommand),
    /// Take members of a running `agent dev` away, and bring them back
    #[command(subcommand)]
    Dev(dev::DevCommand),
    /// Print the completion script of a shell
    #[command(after_help = "bash: source <(agentctl completion bash)\n\
                            zsh:  agentctl completion zsh > \"${fpath[1]}/_agentctl\"\n\
                            fish: agentctl completion fish > ~/.config/fish/completions/agentctl.fish\n\n\
                            Example:\n  source <(agentctl completion bash)")]
    Completion {
        /// Your shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// The version of this program, and of the cluster if it answers
    #[command(after_help = "Example:\n  agentctl version")]
    Version,
}

/// Runs one command line, whose first argument is the program's name, on a runtime of its own; not to be called from
/// within one. Returns 0 when it is done, 1 when it failed, 2 when the command line is wrong.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match parse(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no failure.
            let code = if error.use_stderr() { 2 } else { 0 };
            return if error.print().is_ok() {
                ExitCode::from(code)
            } else {
                ExitCode::FAILURE
            };
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return finish(Err(CliError::io("cannot start", &error))),
    };
    let result = runtime.block_on(run(cli));
    runtime.shutdown_background();
    finish(result)
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches_from(args).map_err(name_the_group)?;
    Cli::from_arg_matches(&matches)
}

fn command() -> clap::Command {
    // `agentctl help kv put` does it for all of them.
    Cli::command().mut_subcommands(|command| command.disable_help_subcommand(true))
}

/// Etcdctl's own words for keys are not at the top here: whoever knows them is told where they are.
fn name_the_group(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else {
        return error;
    };
    if KvCommand::has_subcommand(word) {
        let tip = format!("keys are under `agentctl kv`: agentctl kv {word}");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        error.remove(ContextKind::SuggestedSubcommand);
    }
    error
}

fn finish(result: Result<(), CliError>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    // Nothing can be said any more when standard error is gone too.
    let _ = std::io::stderr().lock().write_all(error.text().as_bytes());
    error.exit_code()
}

async fn run(cli: Cli) -> Result<(), CliError> {
    let command = match cli.command {
        Command::Completion { shell } => return completion(shell),
        Command::Dev(command) => return command.run().await,
        Command::CloudInit(command) => return command.run(),
        Command::Cert(command) => return command.run(cli.global).await,
        Command::Context(command) => {
            let (way, format) = cli.global.way();
            return command.run(way, format);
        }
        Command::Cluster(application::ClusterCommand::Init(args)) => return args.run(),
        Command::Secret(secret::SecretCommand::Keygen) => return secret::keygen(),
        command => command,
    };
    let session = cli.global.session()?;
    match command {
        Command::Kv(command) => command.run(&session).await,
        Command::Apply(args) => args.run(&session).await,
        Command::Plan(args) => args.run(&session).await,
        Command::Diff(args) => args.run(&session).await,
        Command::Adopt(args) => args.run(&session).await,
        Command::Get(args) => args.run(&session).await,
        Command::Status(args) => args.run(&session).await,
        Command::Delete(args) => args.run(&session).await,
        Command::Secret(command) => command.run(&session).await,
        Command::Instance(command) => command.run(&session).await,
        Command::Backup(command) => command.run(&session).await,
        Command::Tunnel(args) => args.run(&session).await,
        Command::Ssh(args) => args.run(&session).await,
        Command::Template(command) => command.run(&session).await,
        Command::Cluster(command) => command.run(&session).await,
        Command::Inventory(command) => command.run(&session).await,
        Command::Member(command) => command.run(&session).await,
        Command::Endpoint(command) => command.run(&session).await,
        Command::Alarm(command) => command.run(&session).await,
        Command::Compact(args) => args.run(&session).await,
        Command::Defrag(args) => args.run(&session).await,
        Command::MoveLeader(args) => args.run(&session).await,
        Command::Lease(command) => command.run(&session).await,
        Command::Lock(args) => args.run(&session).await,
        Command::Elect(args) => args.run(&session).await,
        Command::User(command) => command.run(&session).await,
        Command::Role(command) => command.run(&session).await,
        Command::Tenant(command) => command.run(&session).await,
        Command::Auth(command) => command.run(&session).await,
        Command::Check(command) => command.run(&session).await,
        Command::MakeMirror(args) => args.run(&session).await,
        Command::Snapshot(command) => command.run(&session).await,
        Command::Token(command) => command.run(&session).await,
        Command::Version => version(&session).await,
        Command::Completion { .. }
        | Command::Dev(_)
        | Command::CloudInit(_)
        | Command::Cert(_)
        | Command::Context(_) => Ok(()),
    }
}

fn completion(shell: Shell) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "agentctl", &mut script);
    format::write(&script)
}

async fn version(session: &Session) -> Result<(), CliError> {
    let mut text = format!("agentctl {}\n", env!("CARGO_PKG_VERSION"));
    match session.client.status().await {
        Ok(status) => text.push_str(&format!(
            "etcd API {} at {}\n",
            status.version,
            session.client.answering()
        )),
        Err(error) => text.push_str(&format!("cluster: {error}\n")),
    }
    format::write(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// clap finds two arguments of one id and two types only when it meets them.
    #[test]
    fn command_lines_are_understood() {
        let lines = [
            "kv get a --key k --cert c -w json --endpoints a:1",
            "kv put a 1 --lease ff --prev-kv",
            "kv put a",
            "kv del a --prefix",
            "kv watch a b --rev 3",
            "kv watch -i",
            "kv watch a --prefix --progress-notify -- sh -c true",
            "kv txn -i",
            "kv compact 3 --physical",
            "kv compaction 3",
            "kv edit a",
            "apply -f a -f b --file -",
            "apply -f a --prune --yes",
            "apply a.plan",
            "plan -f a -o a.plan --prune",
            "diff --host ovh",
            "adopt instance web --host ovh --tenant shop",
            "get instance web --live",
            "get",
            "get instances",
            "get instance web --tenant shop -w json",
            "status",
            "status --wait instance web",
            "status profile web --wait=2m --tenant shop",
            "delete instance web",
            "delete instance web --tenant shop",
            "delete -f a -f b",
            "instance list --tenant shop --host ovh -w json",
            "instance start web --tenant shop",
            "instance stop web --force --timeout 5s --wait 10s",
            "instance restart web --host ovh",
            "instance snapshot web s0",
            "instance snapshots web",
            "instance restore web s0",
            "instance exec web -- sh -c true",
            "instance exec web --no-terminal --env A=1 --cwd /tmp --uid 1 --gid 1 -- ls -l",
            "instance console web",
            "tunnel web 5432",
            "tunnel web 0:5432 --host ovh",
            "ssh web",
            "ssh web --login root -- -v uptime",
            "template list",
            "template show web -w json",
            "template render web --variables v --set A=b --set B=c --hosts ovh,ionos",
            "cluster apply --services s --application a --hosts ovh,ionos --name shop --dry-run",
            "cluster apply --template web --variables v --prune",
            "cluster apply --template web --no-prune",
            "cluster init prod --host ovh=51.0.0.10 --host ionos=a.example.org --peer-port 1 --client-port 2",
            "cert list prod",
            "token create --host liquidweb --address 67.0.0.30 --ttl 30m --replace --peer-port 1 --client-port 2",
            "token list",
            "token revoke 9f2c",
            "cert renew prod --host ovh --config-dir d",
            "cert rotate prod issue --endpoints a:1",
            "cert revoke prod client:eva --undo",
            "cloud-init render --host a --first --format script -w json",
            "tenant create shop --host ovh --limit cpu=8 --allow containers.nesting --network n --admin eva --viewer max",
            "tenant create shop -f shop.yaml --operator eva --no-password",
            "tenant list -w json",
            "tenant show shop",
            "tenant grant shop eva operator",
            "tenant revoke shop eva",
            "tenant delete shop --confirm",
            "cluster grant eva viewer",
            "cluster revoke eva",
            "cluster people",
            "context list -w json",
            "context use prod",
            "context show",
            "context set prod --endpoints a:1,b:1 --cacert c --cert d --key e --user eva",
            "context delete prod",
            "get --context prod",
            "inventory query",
            "inventory query instances --host ovh --host ionos --tenant shop --where status=Running",
            "inventory query --where status=Running --where config.limits.memory!=1GiB -w json",
            "inventory warnings --host ovh",
            "member list -w simple",
            "member add ovh --peer-urls=http://a:1,http://b:1 --learner",
            "member promote ovh",
            "member remove a1",
            "member update ovh --peer-urls http://a:1",
            "member replace ovh",
            "endpoint status --cluster",
            "endpoint health",
            "endpoint hashkv --rev 7",
            "defrag --cluster",
            "move-leader ionos",
            "lease grant 60",
            "lease grant 60 --id ff",
            "lock a",
            "lock a --ttl 5 sh -c true",
            "lock a -- sh -c true",
            "elect a b",
            "elect a --listen",
            "user add eva:pw",
            "user add eva --interactive=false",
            "user add eva --no-password",
            "user add eva --new-user-password pw --user root:pw",
            "user get eva --detail",
            "user list",
            "user delete eva",
            "user passwd eva --interactive=false",
            "user grant-role eva shop",
            "user revoke-role eva shop",
            "role add shop",
            "role get shop",
            "role list",
            "role delete shop",
            "role grant-permission shop read a",
            "role grant-permission shop write a b",
            "role grant-permission shop readwrite a --prefix",
            "role revoke-permission shop a --from-key",
            "check perf --load m --duration 5s --auto-compact",
            "check datascale --load xl --prefix /x/ --auto-defrag",
            "make-mirror a:1,b:2 --prefix a --dest-prefix b",
            "make-mirror https://a:1 --no-dest-prefix --rev 7 --dest-user root --dest-password pw",
            "auth enable",
            "auth disable",
            "auth status --user root --password pw",
            "lease revoke ff",
            "lease timetolive ff --keys",
            "lease list",
            "lease keep-alive ff --once",
            "snapshot save file",
            "snapshot status file -w json",
            "snapshot restore file --data-dir d --name a --initial-cluster a=http://a:1,b=http://b:1 --initial-cluster-token t --initial-advertise-peer-urls http://a:1 --bump-revision 5 --mark-compacted",
            "alarm list",
            "alarm disarm",
            "compact 3 --physical",
            "compaction 3",
            "cloud-init render --host ovh --cluster ovh=http://a:1 --provider OVH --address 10.0.0.1 --allow-plaintext",
            "cloud-init render --host ovh --join-token-file f --provider OVH",
            "cloud-init render --host ovh --cluster ovh=http://a:1 --binary-url https://a/b --binary-sha256 00",
            "dev kill ovh",
            "dev start ovh --dir d",
            "dev list",
            "completion fish",
            "version",
        ];
        for line in lines {
            let args = ["agentctl"]
                .into_iter()
                .chain(line.split(' '))
                .map(OsString::from);
            parse(args).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    /// Ids are one name space: an argument with the id of a global option would be taken for it.
    #[test]
    fn no_argument_is_taken_for_a_global_option() {
        fn check(command: &clap::Command, global: &[&clap::Id]) {
            for subcommand in command.get_subcommands() {
                for argument in subcommand.get_arguments() {
                    let (id, name) = (argument.get_id(), subcommand.get_name());
                    assert!(!global.contains(&id), "{name}: {id}");
                }
                check(subcommand, global);
            }
        }
        let command = Cli::command();
        let global: Vec<_> = command.get_arguments().map(clap::Arg::get_id).collect();
        check(&command, &global);
    }

    #[test]
    fn etcdctls_words_for_keys_are_shown_the_way() {
        let said = |word: &str| {
            let line = ["agentctl", word, "a", "1"].map(OsString::from);
            parse(line).unwrap_err().to_string()
        };
        assert!(said("put").contains("tip: keys are under `agentctl kv`: agentctl kv put"));
        assert!(!said("frobnicate").contains("agentctl kv"));
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if command.has_subcommands() {
                for subcommand in command.get_subcommands() {
                    check(subcommand, &path);
                }
                return;
            }
            let after = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(after.contains("Example"), "{path} shows no example");
        }
        check(&Cli::command(), "");
    }

    #[test]
    fn every_command_and_argument_is_explained() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} says nothing about itself");
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{path}: {} says nothing",
                    argument.get_id()
                );
            }
            for subcommand in command.get_subcommands() {
                check(subcommand, &path);
            }
        }
        check(&Cli::command(), "");
    }
}
