//! `agentctl ssh`: OpenSSH, through a tunnel to the instance.

use std::ffi::OsString;

use clap::Args;
use tokio::process::Command;

use super::error::CliError;
use super::instance::Which;
use super::session::Session;
use super::tunnel::Listening;

const SSH_PORT: u16 = 22;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl ssh web\n  agentctl ssh web --login debian -- uptime\n  \
                        agentctl ssh web -- -L 8080:localhost:80\n\n\
                        What comes after -- is ssh's. The instance runs an SSH server and knows your key; \
                        `agentctl instance exec` needs neither. It ends with ssh's exit code."
)]
pub(super) struct SshArgs {
    #[command(flatten)]
    which: Which,
    /// The user in the instance [default: ssh's own]
    #[arg(long, value_name = "NAME")]
    login: Option<String>,
    /// The instance's SSH port
    #[arg(long, value_name = "PORT", default_value_t = SSH_PORT)]
    port: u16,
    /// For ssh: its options, and a command
    #[arg(value_name = "SSH ARGUMENTS", last = true)]
    arguments: Vec<OsString>,
}

impl SshArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let tunnel = Listening::start(session, self.which.instance(), 0, self.port).await?;
        let mut command = Command::new("ssh");
        command
            .args(["-p", &tunnel.port.to_string()])
            // The port here is another each time: the instance's key is known by its name.
            .args([
                "-o",
                &format!("HostKeyAlias={}.{}.agent", self.which.name, self.which.tenant),
            ]);
        if let Some(login) = &self.login {
            command.args(["-l", login]);
        }
        // ssh takes options after the destination, too, and the rest is its command.
        command.arg("127.0.0.1").args(&self.arguments).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| {
            CliError::io("ssh", &error)
                .hint("it is OpenSSH's client: install that, or use `agentctl instance exec`")
        })?;
        let ended = tokio::select! {
            ended = child.wait() => ended,
            () = tunnel.serve() => child.wait().await,
        };
        let ended = ended.map_err(|error| CliError::io("ssh", &error))?;
        match ended.code() {
            Some(0) => Ok(()),
            code => Err(CliError::ended(
                code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
            )),
        }
    }
}
