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

const STOP_POLL: Duration = Duration::from_millis(200);
const PATIENCE: Patience = Patience {
    asked: Duration::from_secs(10),
    killed: Duration::from_secs(5),
};

/// How long a service may take to end.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Before it is killed.
    asked: Duration,
    /// After that. A killed process ends as soon as the kernel comes to it, which on a busy machine is not at once.
    killed: Duration,
}

pub(super) fn path(name: &str) -> String {
    format!("{SCRIPTS}/{name}")
}

/// Only what every shell has built in: a guest may have nothing else.
const BODY: &str = r#"
# Sets born and group of a process that is there and no zombie. The name before the last parenthesis may hold anything.
look() {
    [ -r "/proc/$1/stat" ] && read -r stat <"/proc/$1/stat" || return 1
    set -- ${stat##*) }
    case "$1" in Z | X) return 1 ;; esac
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

pub(super) async fn stop<M: Machine>(machine: &M, name: &str) -> Result<(), ServiceError> {
    stop_within(machine, name, PATIENCE).await
}

/// Asks first. What does not listen is killed. Returns once it is gone: `start` takes one that is still dying for one that runs.
async fn stop_within<M: Machine>(machine: &M, name: &str, patience: Patience) -> Result<(), ServiceError> {
    if machine.look(&path(name)).await? == Found::Nothing {
        return Ok(());
    }
    for (word, limit) in [("term", patience.asked), ("kill", patience.killed)] {
        verb(machine, name, word).await?;
        if has_ended(machine, name, limit).await? {
            return Ok(());
        }
    }
    Err(ServiceError::StillThere {
        service: name.to_owned(),
        waited_seconds: patience.killed.as_secs(),
    })
}

/// Waits for its end, for so long.
async fn has_ended<M: Machine>(machine: &M, name: &str, limit: Duration) -> Result<bool, ServiceError> {
    let ended = async {
        while verb(machine, name, "status").await? == "active" {
            tokio::time::sleep(STOP_POLL).await;
        }
        Ok(())
    };
    match tokio::time::timeout(limit, ended).await {
        Ok(ended) => ended.map(|()| true),
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufRead, BufReader};
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use parking_lot::Mutex;

    use super::*;
    use crate::service::machine::{FileFound, FileToWrite, MachineError, Ran};

    /// A guest as far as a script is concerned: there it is, and that is what it says to each word.
    struct Guest<F>(F);

    impl<F: Fn(&str) -> Ran + Send + Sync> Machine for Guest<F> {
        async fn look(&self, _: &str) -> Result<Found, MachineError> {
            Ok(Found::File(FileFound::new(b"", 0o755, 0, 0)))
        }

        async fn run(&self, words: &[&str]) -> Result<Ran, MachineError> {
            Ok((self.0)(words[2]))
        }

        async fn write(&self, _: &FileToWrite<'_>) -> Result<(), MachineError> {
            unreachable!("nothing is written")
        }

        async fn make_folder(&self, _: &str) -> Result<(), MachineError> {
            unreachable!("nothing is made")
        }

        async fn remove_file(&self, _: &str) -> Result<(), MachineError> {
            unreachable!("nothing is removed")
        }

        async fn remove_folder(&self, _: &str) -> Result<(), MachineError> {
            unreachable!("nothing is removed")
        }
    }

    fn said(line: &str) -> Ran {
        Ran {
            stdout: format!("{line}\n"),
            ..Ran::default()
        }
    }

    /// A service that is deaf, and is still there at so many looks after it was killed. What it was told, looks left out.
    async fn restarted(looks_while_dying: usize) -> (Result<(), ServiceError>, Vec<String>) {
        let told = Mutex::new(Vec::new());
        let left = Mutex::new(looks_while_dying);
        let guest = Guest(|word: &str| {
            let mut told = told.lock();
            if word != "status" {
                told.push(word.to_owned());
                return said("");
            }
            let mut left = left.lock();
            if !told.iter().any(|word| word == "kill") {
                return said("active");
            }
            let is_there = *left > 0;
            *left = left.saturating_sub(1);
            said(if is_there { "active" } else { "inactive" })
        });
        let ended = restart(&guest, "web").await;
        (ended, told.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_killed_is_gone_before_it_is_started_again() {
        let (ended, told) = restarted(5).await;
        ended.unwrap();
        assert_eq!(told, ["term", "kill", "start"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_killed_is_not_started_beside_itself() {
        let (ended, told) = restarted(usize::MAX).await;
        assert_eq!(
            ended.unwrap_err().to_string(),
            "service web is still there 5 s after it was killed"
        );
        assert_eq!(told, ["term", "kill"]);
    }

    /// A script in a folder of its own, run by this machine's own shell.
    struct Script {
        dir: tempfile::TempDir,
    }

    impl Script {
        fn new(definition: &Definition) -> Script {
            let dir = tempfile::tempdir().unwrap();
            let script = Script { dir };
            let state = script.at("state");
            let text = text(definition, "# mine").replace("/run/agent-web", &state.to_string_lossy());
            assert!(text.starts_with("#!/bin/sh\n# mine\n"), "{text}");
            std::fs::write(script.at("web"), text).unwrap();
            script
        }

        fn at(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn run(&self, verb: &str) -> Ran {
            let output = Command::new(SHELL)
                .arg(self.at("web"))
                .arg(verb)
                .output()
                .unwrap();
            Ran {
                code: output.status.code().unwrap(),
                stdout: String::from_utf8(output.stdout).unwrap(),
                stderr: String::from_utf8(output.stderr).unwrap(),
            }
        }

        async fn stop(&self, asked: Duration) {
            // Only a machine that has come to a stop makes a killed process take so long.
            let killed = Duration::from_secs(600);
            let guest = Guest(|word: &str| self.run(word));
            stop_within(&guest, "web", Patience { asked, killed })
                .await
                .unwrap();
        }
    }

    /// A service that says this to a pipe, which it and its child hold for as long as they are there.
    fn speaks(pipe: &Path, before: &str, line: &str) -> Definition {
        Definition {
            name: "web".into(),
            exec: SHELL.into(),
            args: vec![
                "-c".into(),
                format!(
                    "{before} exec >{}; echo {line}; sleep 1000 & wait",
                    pipe.display()
                ),
            ],
            environment: [("GREETING".to_owned(), "it's \"me\" $HOME".to_owned())].into(),
            working_directory: Some("/proc".into()),
            ..Definition::default()
        }
    }

    /// The other end of that pipe.
    struct Speaker(BufReader<File>);

    impl Speaker {
        /// Waits until somebody has the pipe.
        fn listen(pipe: &Path) -> Speaker {
            Speaker(BufReader::new(File::open(pipe).unwrap()))
        }

        /// Waits for a line, or until nobody is left who could say one.
        fn line(&mut self) -> String {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            line
        }
    }

    #[tokio::test]
    async fn a_script_starts_and_stops_what_it_began_and_nothing_else() {
        let pipes = tempfile::tempdir().unwrap();
        let pipe = pipes.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let script = Script::new(&speaks(&pipe, "", "\"$GREETING\" $PWD"));
        assert_eq!(script.run("status"), said("inactive"));
        assert_eq!(script.run("term"), Ran::default());
        assert_eq!(script.run("start"), Ran::default());
        assert_eq!(script.run("status"), said("active"));
        let began = std::fs::read_to_string(script.at("state")).unwrap();
        assert_eq!(script.run("start"), Ran::default());
        assert_eq!(
            std::fs::read_to_string(script.at("state")).unwrap(),
            began,
            "started once"
        );

        let mut speaker = Speaker::listen(&pipe);
        assert_eq!(speaker.line(), "it's \"me\" $HOME /proc\n");
        script.stop(Duration::from_secs(600)).await;
        assert_eq!(script.run("status"), said("inactive"));
        assert_eq!(speaker.line(), "", "its child is gone, too: the pipe has ended");

        // A number that is somebody else's now.
        std::fs::write(script.at("state"), format!("{} 1\n", std::process::id())).unwrap();
        assert_eq!(script.run("status"), said("inactive"));
        assert_eq!(script.run("kill"), Ran::default());
        assert_eq!(script.run("levitate").code, 2);
    }

    /// Failed on busy machines: right after the kill the process was still there, and was taken for one that runs.
    #[tokio::test]
    async fn a_deaf_service_is_gone_when_stop_returns() {
        let pipes = tempfile::tempdir().unwrap();
        let pipe = pipes.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let script = Script::new(&speaks(&pipe, "trap '' TERM;", "deaf"));
        assert_eq!(script.run("start"), Ran::default());
        let mut speaker = Speaker::listen(&pipe);
        assert_eq!(speaker.line(), "deaf\n");
        script.stop(Duration::ZERO).await;
        assert_eq!(script.run("status"), said("inactive"));
        assert_eq!(speaker.line(), "", "the pipe has ended");
    }
}
