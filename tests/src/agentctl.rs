//! One run of `agentctl`: with nothing of the environment of whoever runs the tests, to its end, in bounded time.

use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::tools;
use crate::wait::PATIENCE;

/// More than the longest `--wait` that a test asks for.
const LIMIT: Duration = PATIENCE.saturating_mul(3);

/// `endpoints` are separated by commas, as on the command line. Killed when it is dropped.
#[must_use]
pub fn command(endpoints: &str, args: &[&str]) -> Command {
    let mut command = Command::new(tools::agentctl());
    command
        .env_clear()
        .env("AGENTCTL_ENDPOINTS", endpoints)
        .args(args)
        .kill_on_drop(true);
    command
}

/// Runs it to its end, with this on its standard input.
///
/// # Panics
/// When it does not start, or does not end.
pub async fn run(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start agentctl");
    let mut stdin = child.stdin.take().expect("its input");
    let writing = async {
        // A command that ends before it has read all is judged by what it says.
        let _ = stdin.write_all(input).await;
        drop(stdin);
    };
    let ended = async { tokio::join!(writing, child.wait_with_output()).1 };
    let ended = tokio::time::timeout(LIMIT, ended).await;
    ended.expect("an end of agentctl").expect("agentctl's output")
}

/// All that it says, first what it prints and then what it complains of.
#[must_use]
pub fn says(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

#[must_use]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
