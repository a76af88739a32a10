//! A guest without systemd: one script for each service, which uses nothing but a shell.
//!
//! `/etc/agent/services/NAME` takes one word: `start`, `status`, `term` or `kill`. It remembers the process it began in
//! `/run/agent-NAME`, with the moment of its birth, so that a number that has become somebody else's is never
//! signalled. Nothing restarts the service inside the guest: the agent does, when it looks. Its output is not kept.

use std::time::Duration;

use super::machine::Machine;
use super::{Activity, Definition, Found, Loaded, ServiceError, UnitSeen};

pub(super) const SHELL: &str = "/bin/sh";
const SCRIPTS: &str = "/etc/agent/services";

/// How long a service may take to end before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);
const STOP_POLL: Duration = Duration::from_millis(200);

pub(super) fn path(name: &str) -> String {
    format!("{SCRIPTS}/{name}")
}

/// Only what every shell has built in: a guest may have nothing else.
const BODY: &str = r#"
# Sets born and group of a process that is there and no zombie. The name before the last parenthesis may hold anything.
look() {
    [ -r "/proc/$1/stat" ] && read -r stat <"/proc/$1/stat" || return 1
    set -- ${stat##*) }
    [ "$1" != Z ] || return 1
    group=$3
    shift 10
    born=${10}
}
# Sets pid, where the process that was begun is still the same.
running() {
    [ -r "$state" ] && read -r pid begun <"$state" && look "$pid" && [ "$born" = "$begun" ]
}
# Its whole group, where it leads one.
signal() {
    running || return 0
    if [ "$group" = "$pid" ]; then kill "-$1" "-$group"; else kill "-$1" "$pid"; fi
}
case "$1" in
start)
    running && exit 0
    [ -x "$exec" ] || { echo "$exec: not there, or not executable" >&2; exit 127; }
    cd "$directory" || exit 1
    # A group of its own, where the guest can make one.
    group=
    command -v setsid >/dev/null && group=setsid
    begin
    pid=$!
    look "$pid" || { echo "$exec: ended at once" >&2; exit 1; }
    echo "$pid $born" >"$state"
    ;;
status) if running; then echo active; else echo inactive; fi ;;
term) signal TERM ;;
kill) signal KILL ;;
*) echo "start, status, term or kill" >&2; exit 2 ;;
esac
"#;

pub(super) fn text(definition: &Definition, mark: &str) -> String {
    use std::fmt::Write as _;
    let mut text = format!("#!{SHELL}\n{mark}\n");
    let directory = definition.working_directory.as_deref().unwrap_or("/");
    for (name, value) in [
        ("state", format!("/run/agent-{}", definition.name)),
        ("exec", definition.exec.clone()),
        ("directory", directory.to_owned()),
    ] {
        let _ = writeln!(text, "{name}={}", quoted(&value));
    }
    let words: Vec<String> = definition.args.iter().map(|word| quoted(word)).collect();
    text.push_str("begin() {\n");
    for (name, value) in &definition.environment {
        let _ = writeln!(text, "    export {name}={}", quoted(value));
    }
    let line = ["    $group \"$exec\"".to_owned()]
        .into_iter()
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ");
    let _ = writeln!(text, "{line} </dev/null >/dev/null 2>&1 &\n}}");
    text.push_str(BODY);
    text
}

/// As the shell reads it back unchanged.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

async fn verb<M: Machine>(machine: &M, name: &str, verb: &str) -> Result<String, ServiceError> {
    let path = path(name);
    let ran = machine.run(&[SHELL, &path, verb]).await?;
    if ran.code == 0 {
        return Ok(ran.stdout.trim().to_owned());
    }
    Err(ServiceError::Command {
        command: format!("{path} {verb}"),
        code: ran.code,
        reason: ran.last_line().to_owned(),
    })
}

pub(super) async fn look<M: Machine>(machine: &M, name: &str) -> Result<UnitSeen, ServiceError> {
    if machine.look(&path(name)).await? == Found::Nothing {
        return Ok(UnitSeen::missing());
    }
    let is_active = verb(machine, name, "status").await? == "active";
    Ok(UnitSeen {
        loaded: Loaded::From(path(name)),
        enabled: None,
        activity: if is_active {
            Activity::Active
        } else {
            Activity::Inactive
        },
        detail: if is_active {
            String::new()
        } else {
            "does not run".to_owned()
        },
    })
}

pub(super) async fn restart<M: Machine>(machine: &M, name: &str) -> Result<(), ServiceError> {
    stop(machine, name).await?;
    verb(machine, name, "start").await.map(drop)
}

/// Asks first. What does not listen is killed.
pub(super) async fn stop<M: Machine>(machine: &M, name: &str) -> Result<(), ServiceError> {
    if machine.look(&path(name)).await? == Found::Nothing {
        return Ok(());
    }
    verb(machine, name, "term").await?;
    let ended = async {
        while verb(machine, name, "status").await? == "active" {
            tokio::time::sleep(STOP_POLL).await;
        }
        Ok(())
    };
    match tokio::time::timeout(STOP_LIMIT, ended).await {
        Ok(ended) => ended,
        Err(_) => verb(machine, name, "kill").await.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn group_runs(group: i32) -> bool {
        let of_group = |entry: std::fs::DirEntry| {
            let text = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let fields: Vec<String> = text
                .rsplit_once(')')?
                .1
                .split_whitespace()
                .map(str::to_owned)
                .collect();
            (fields.first()? != "Z" && *fields.get(2)? == group.to_string()).then_some(())
        };
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .any(|entry| of_group(entry).is_some())
    }

    /// The script itself, run by this machine's own shell.
    #[test]
    fn a_script_starts_and_stops_what_it_began_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let out = dir.path().join("out");
        let definition = Definition {
            name: "web".into(),
            exec: SHELL.into(),
            args: vec![
                "-c".into(),
                format!("echo \"$GREETING\" $PWD >{}; sleep 1000 & wait", out.display()),
            ],
            environment: [("GREETING".to_owned(), "it's \"me\" $HOME".to_owned())].into(),
            working_directory: Some("/proc".into()),
            ..Definition::default()
        };
        let script = dir.path().join("web");
        let text = text(&definition, "# mine").replace("/run/agent-web", &state.to_string_lossy());
        assert!(text.starts_with("#!/bin/sh\n# mine\n"), "{text}");
        std::fs::write(&script, text).unwrap();
        let verb = |verb: &str| {
            let output = Command::new(SHELL).arg(&script).arg(verb).output().unwrap();
            (output.status.code(), String::from_utf8(output.stdout).unwrap())
        };
        let says = |word: &str| (Some(0), format!("{word}\n"));
        let done = (Some(0), String::new());
        assert_eq!(verb("status"), says("inactive"));
        assert_eq!(verb("term"), done);
        assert_eq!(verb("start"), done);
        assert_eq!(verb("status"), says("active"));
        let began = std::fs::read_to_string(&state).unwrap();
        assert_eq!(verb("start"), done);
        assert_eq!(std::fs::read_to_string(&state).unwrap(), began, "started once");
        let pid: i32 = began.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(verb("kill"), done);
        assert_eq!(verb("status"), says("inactive"));
        let gone = std::iter::repeat_with(|| !group_runs(pid)).take(10_000);
        assert!(gone.into_iter().any(|gone| gone), "its children went with it");
        // A number that is somebody else's now.
        std::fs::write(&state, format!("{} 1\n", std::process::id())).unwrap();
        assert_eq!(verb("status"), says("inactive"));
        assert_eq!(verb("kill"), done);
        assert_eq!(verb("levitate").0, Some(2));
    }
}
