//! `agentctl tunnel`: a port of an instance, on this machine. Each connection is a session of its own.

use std::net::Ipv4Addr;
use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use proto::agent::v1::attach_start::What;
use proto::agent::v1::{AttachStart, InstanceRef, ListSnapshotsRequest, Tunnel};
use tokio::net::{TcpListener, TcpStream};

use super::client::{Attached, Client};
use super::concurrency::Ending;
use super::error::CliError;
use super::format;
use super::instance::Which;
use super::session::Session;
use crate::tunnel::carry;

/// Connections at once; the next one waits.
const CONNECTIONS: usize = 64;
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl tunnel db 5432           # localhost:5432 -> the instance\n  \
                        agentctl tunnel db 15432:5432\n  agentctl tunnel db 0:5432         # any free port here\n\n\
                        The instance's host connects to its address; only this machine can use the tunnel. Ctrl-C ends \
                        it."
)]
pub(super) struct TunnelArgs {
    #[command(flatten)]
    which: Which,
    /// The instance's port, and the port here if it is another
    #[arg(value_name = "[LOCAL:]REMOTE", value_parser = Ports::parse)]
    ports: Ports,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ports {
    local: u16,
    remote: u16,
}

impl Ports {
    fn parse(text: &str) -> Result<Ports, String> {
        let (local, remote) = text.split_once(':').unwrap_or((text, text));
        match (local.parse(), remote.parse()) {
            (Ok(local), Ok(remote)) if remote > 0 => Ok(Ports { local, remote }),
            _ => Err("write 5432, or 15432:5432 for another port here".to_owned()),
        }
    }
}

impl TunnelArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let mut ending = Ending::new()?;
        let tunnel = Listening::start(
            session,
            self.which.instance(),
            self.ports.local,
            self.ports.remote,
        )
        .await?;
        let Ports { remote, .. } = self.ports;
        let name = &self.which.name;
        format::write(
            format!(
                "127.0.0.1:{} -> {name}:{remote} on {}\n",
                tunnel.port, tunnel.host
            )
            .as_bytes(),
        )?;
        tokio::select! {
            () = tunnel.serve() => Ok(()),
            _ = ending.asked() => Ok(()),
        }
    }
}

/// A tunnel that listens.
#[derive(Debug)]
pub(super) struct Listening {
    listener: TcpListener,
    pub(super) port: u16,
    pub(super) host: String,
    client: Client,
    instance: InstanceRef,
    remote: u16,
}

impl Listening {
    /// Listens on this machine only, once the instance is known to be there.
    pub(super) async fn start(
        session: &Session,
        instance: InstanceRef,
        local: u16,
        remote: u16,
    ) -> Result<Listening, CliError> {
        let request = ListSnapshotsRequest {
            instance: Some(instance.clone()),
        };
        let host = session.client.list_snapshots(request).await?.host;
        let failed = |error: std::io::Error| CliError::io(format!("127.0.0.1:{local}"), &error);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, local))
            .await
            .map_err(|error| {
                failed(error).hint("name another port here: LOCAL:REMOTE, or 0:REMOTE for any")
            })?;
        let port = listener.local_addr().map_err(failed)?.port();
        Ok(Listening {
            listener,
            port,
            host,
            client: session.client.another()?,
            instance,
            remote,
        })
    }

    /// Carries connections for as long as it is polled.
    pub(super) async fn serve(&self) {
        let mut carrying = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if carrying.len() < CONNECTIONS => match accepted {
                    Ok((stream, _)) => carrying.push(self.carry(stream)),
                    // Out of file descriptors, most often: the connections that end give some back.
                    Err(_) => tokio::time::sleep(PAUSE).await,
                },
                Some(ended) = carrying.next() => {
                    if let Err(error) = ended {
                        eprint!("{}", error.text());
                    }
                }
            }
        }
    }

    async fn carry(&self, mut stream: TcpStream) -> Result<(), CliError> {
        let start = AttachStart {
            instance: Some(self.instance.clone()),
            what: Some(What::Tunnel(Tunnel {
                port: self.remote.into(),
            })),
        };
        let Attached { requests, answers } = self.client.attach(start).await?;
        let answers = answers.filter_map(|answer| async move {
            match answer {
                Ok(answer) => answer.response.map(Ok),
                Err(status) => Some(Err(CliError::from(status))),
            }
        });
        let carried = carry(&mut stream, requests, answers).await;
        if carried.is_err() {
            // So that nobody takes what was cut for what had come to its end.
            let _ = stream.set_zero_linger();
        }
        carried
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        let ports = |local, remote| Ok(Ports { local, remote });
        assert_eq!(Ports::parse("5432"), ports(5432, 5432));
        assert_eq!(Ports::parse("0:22"), ports(0, 22));
        for text in ["", "a", "0", "1:0", "70000", "1:2:3", ":1"] {
            assert!(Ports::parse(text).is_err(), "{text}");
        }
    }
}
