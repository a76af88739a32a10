//! `instance start|stop|restart`: in the document where that decides, else in Incus.

use std::time::Duration;

use clap::Args;
use proto::agent::v1::SwitchInstanceRequest;
use proto::agent::v1::switch_instance_request::Action;
use proto::etcdserverpb as pb;
use tokio::time::{Instant, timeout_at};

use super::{Which, edit, replace};
use crate::cli::documents::Stored;
use crate::cli::duration;
use crate::cli::error::CliError;
use crate::cli::format::{self, Format};
use crate::cli::session::Session;
use crate::document::{Document, Managed, Phase, Status, status_key};

/// What Incus may take beside what the guest takes.
const MARGIN: Duration = Duration::from_secs(60);
/// A watch that is lost is opened again after this, while there is time.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  agentctl instance start web\n\n\
                        Of an instance that a document keeps, the document is changed (`running: true`), and the host \
                        waited for.")]
pub(in crate::cli) struct StartArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    wait: WaitArg,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl instance stop web\n  agentctl instance stop byhand --force\n\n\
                        Of an instance that a document keeps, the document is changed (`running: false`), and the host \
                        waited for: it asks the guest for 30s and then forces it."
)]
pub(in crate::cli) struct StopArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    guest: GuestArgs,
    #[command(flatten)]
    wait: WaitArg,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  agentctl instance restart web")]
pub(in crate::cli) struct RestartArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    guest: GuestArgs,
}

#[derive(Args, Clone, Copy, Debug)]
struct WaitArg {
    /// How long to wait for the host
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "60s")]
    wait: Duration,
}

#[derive(Args, Clone, Copy, Debug)]
struct GuestArgs {
    /// Do not ask the guest to shut down
    #[arg(long)]
    force: bool,
    /// How long the guest may take to shut down
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "30s")]
    timeout: Duration,
}

impl StartArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let guest = GuestArgs {
            force: false,
            timeout: Duration::ZERO,
        };
        switch(session, &self.which, Action::Start, guest, self.wait.wait).await
    }
}

impl StopArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        switch(session, &self.which, Action::Stop, self.guest, self.wait.wait).await
    }
}

impl RestartArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let stored = self.which.document(session).await?;
        if let Some((_, document)) = stored.as_ref().and_then(decides)
            && !document.running
        {
            return Err(CliError::failed(format!(
                "the document of {} says `running: false`",
                self.which.name
            ))
            .hint("`agentctl instance start` changes that"));
        }
        directly(session, &self.which, Action::Restart, self.guest).await
    }
}

/// The document, if it decides whether the instance runs.
fn decides(stored: &Stored) -> Option<(&Stored, &Document)> {
    let document = stored.document.as_ref()?;
    (document.lifecycle.managed == Managed::Full).then_some((stored, document))
}

async fn switch(
    session: &Session,
    which: &Which,
    action: Action,
    guest: GuestArgs,
    wait: Duration,
) -> Result<(), CliError> {
    let stored = which.document(session).await?;
    if let Some(stored) = &stored
        && stored.document.is_none()
    {
        return Err(
            CliError::failed(format!("the document of {} is wrong", stored.key))
                .hint("`agentctl status` says what is; mend it first, or the host undoes what is done here"),
        );
    }
    let Some((stored, document)) = stored.as_ref().and_then(decides) else {
        return directly(session, which, action, guest).await;
    };
    let running = action == Action::Start;
    let host = document.hosts.first().cloned().unwrap_or_default();
    let deadline = Instant::now() + wait;
    let revision = if document.running == running {
        stored.revision
    } else {
        let text = edit::with_running(&stored.text, document, running);
        let revision = replace(session, stored, text).await?;
        if session.format != Some(Format::Json) {
            format::write(
                format!("~ {}  {host}  running: {} -> {running}\n", stored.key, !running).as_bytes(),
            )?;
        }
        revision
    };
    until_said(session, stored, &host, revision, deadline).await?;
    say(session, which, &host, action, document.running == running)
}

async fn directly(
    session: &Session,
    which: &Which,
    action: Action,
    guest: GuestArgs,
) -> Result<(), CliError> {
    let seconds = u32::try_from(guest.timeout.as_secs()).unwrap_or(u32::MAX);
    let request = SwitchInstanceRequest {
        instance: Some(which.instance()),
        action: action.into(),
        force: guest.force,
        timeout_seconds: seconds,
    };
    let client = session.client.patient(guest.timeout.saturating_add(MARGIN))?;
    let answer = client.switch_instance(request).await?;
    say(session, which, &answer.host, action, answer.unchanged)
}

fn say(
    session: &Session,
    which: &Which,
    host: &str,
    action: Action,
    unchanged: bool,
) -> Result<(), CliError> {
    let word = match action {
        Action::Stop => "stopped",
        _ => "running",
    };
    if session.format == Some(Format::Json) {
        return format::write_json(
            &serde_json::json!({"name": which.name, "tenant": which.tenant, "host": host,
            "state": word, "unchanged": unchanged}),
        );
    }
    let already = if unchanged { " already" } else { "" };
    format::write(format!("{} is {word} on {host}{already}\n", which.name).as_bytes())
}

/// Waits until the host has done what the document says since `revision`.
async fn until_said(
    session: &Session,
    stored: &Stored,
    host: &str,
    revision: i64,
    deadline: Instant,
) -> Result<(), CliError> {
    let key = bytes::Bytes::from(status_key(&stored.key, host));
    loop {
        let request = pb::RangeRequest {
            key: key.clone(),
            ..Default::default()
        };
        let read = session.client.range(request).await?;
        let status = read
            .kvs
            .first()
            .and_then(|kv| serde_json::from_slice::<Status>(&kv.value).ok())
            .filter(|status| status.revision >= revision);
        let phase = status.as_ref().map(|status| status.phase);
        if matches!(phase, Some(Phase::Ready | Phase::Stopped)) {
            return Ok(());
        }
        let is_stuck = matches!(phase, Some(Phase::Invalid | Phase::Conflict));
        if is_stuck || Instant::now() >= deadline {
            let why = match status {
                Some(status) => format!("{host} says {}: {}", status.phase, status.message),
                None => format!("{host} has not said anything about it"),
            };
            return Err(CliError::failed(why).hint(
                "the document is changed, and the host goes on trying: `agentctl status instance NAME`",
            ));
        }
        let next = read.header.map_or(0, |header| header.revision) + 1;
        changed(session, &key, next, deadline).await;
    }
}

/// Returns when the key may have changed, or the time is up.
async fn changed(session: &Session, key: &bytes::Bytes, start_revision: i64, deadline: Instant) {
    let request = pb::WatchCreateRequest {
        key: key.clone(),
        start_revision,
        ..Default::default()
    };
    let seen = timeout_at(deadline, async {
        let mut stream = session.client.watch(request).await.ok()?.1;
        loop {
            match stream.message().await {
                Ok(Some(response)) if response.events.is_empty() => {}
                Ok(Some(_)) => return Some(()),
                _ => return None,
            }
        }
    });
    if seen.await.ok().flatten().is_none() {
        session.client.prefer_next();
        let _ = timeout_at(deadline, tokio::time::sleep(PAUSE)).await;
    }
}
