//! Scripts of commands as in a shell, and the processes that they start.
//!
//! A script has one command on each line; `#` begins a comment. A command is written as in a shell, of which
//! this is understood: single and double quotes, `<<< 'input'` with `\n` for line ends, and `| head -n N` for
//! commands that never end. ` & N` at the end leaves a command running once it has printed N lines; `stop N`
//! asks the oldest such command to end once it has printed N lines, `wait` waits until it does by itself. `etcd:`
//! before a command runs it on etcd only: what it shows there is no promise of ours.

mod job;
mod line;

pub(crate) use job::Job;
pub(crate) use line::{Command, Line};

/// The commands of a script: its lines but comments and empty ones.
pub fn commands(script: &str) -> impl Iterator<Item = &str> {
    script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The lines of a script that are for a subject, and the command of each: `etcd: ...` is for etcd only.
pub(crate) fn steps(script: &str, is_etcd: bool) -> impl Iterator<Item = (&str, &str)> {
    commands(script).filter_map(move |line| match line.strip_prefix("etcd: ") {
        Some(command) => is_etcd.then_some((line, command)),
        None => Some((line, line)),
    })
}
