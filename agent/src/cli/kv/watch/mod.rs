//! `kv watch`: follows keys over any number of lost endpoints, without a gap and without a repetition.

mod hook;
mod interactive;

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use proto::etcdserverpb as pb;
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::{Code, Status};

use crate::cli::Session;
use crate::cli::error::CliError;
use crate::cli::format::{fields, json, simple};
use crate::cli::range::{KeyRange, RangeArgs};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl kv watch greeting\n  agentctl kv watch /tenants/ --prefix --rev 1\n  \
                        agentctl kv watch greeting -- sh -c 'echo \"$ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_VALUE\"'\n\n\
                        COMMAND finds ETCD_WATCH_REVISION, ETCD_WATCH_EVENT_TYPE, ETCD_WATCH_KEY and ETCD_WATCH_VALUE \
                        in its environment, the last three in double quotes.\n\
                        Goes on until Ctrl-C. When its member is lost it resumes at another, where it stopped."
)]
pub(in crate::cli) struct WatchArgs {
    /// The key; with --prefix or --from-key "" stands for all keys
    #[arg(value_name = "KEY", required_unless_present = "interactive")]
    key: Option<OsString>,
    /// End of the range, itself left out
    #[arg(value_name = "RANGE_END", conflicts_with_all = ["prefix", "from_key"])]
    range_end: Option<OsString>,
    /// All keys that begin with KEY
    #[arg(long, conflicts_with = "from_key")]
    prefix: bool,
    /// All keys from KEY on
    #[arg(long)]
    from_key: bool,
    /// Read watches from standard input, line by line
    #[arg(short, long, conflicts_with_all = ["key", "command"])]
    interactive: bool,
    /// From this revision on, history included; 0 for from now on
    #[arg(long, value_name = "REVISION", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    rev: i64,
    /// Show the value from before, too
    #[arg(long)]
    prev_kv: bool,
    /// Show a sign of life now and then when nothing changes
    #[arg(long)]
    progress_notify: bool,
    /// Run this for every change
    #[arg(value_name = "COMMAND", last = true)]
    command: Vec<OsString>,
}

/// Where the watch stands: what to ask for when the stream breaks.
#[derive(Debug)]
struct Position {
    /// 0 until the cluster said where "now" is.
    next_revision: i64,
}

impl Position {
    /// Follows the stream. Events carry the revision they end at; the rest says how far the member is.
    fn advance(&mut self, response: &pb::WatchResponse) {
        let revision = match response.events.last().and_then(|event| event.kv.as_ref()) {
            Some(kv) => kv.mod_revision,
            // A progress report, or the answer to the creation of a watch that starts now.
            None if !response.created || self.next_revision == 0 => {
                response.header.map_or(0, |header| header.revision)
            }
            None => return,
        };
        self.next_revision = self.next_revision.max(revision + 1);
    }
}

impl WatchArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        if self.interactive {
            return interactive::run(session).await;
        }
        // Nobody ever asks for progress.
        let (_never, ticks) = watch::channel(());
        self.follow_forever(session, &ticks).await
    }

    /// Follows until something is wrong; each of `ticks` asks the member how far it is.
    async fn follow_forever(self, session: &Session, ticks: &watch::Receiver<()>) -> Result<(), CliError> {
        let range = RangeArgs::new(
            self.key.clone().unwrap_or_default(),
            self.range_end.clone(),
            self.prefix,
            self.from_key,
        )
        .range()?;
        let mut position = Position {
            next_revision: self.rev,
        };
        let mut pause = FIRST_PAUSE;
        let mut opened_once = false;
        loop {
            let request = self.request(&range, &position);
            match session.client.watch_with_progress(request, ticks).await {
                Ok((endpoint, stream)) => {
                    opened_once = true;
                    let before = position.next_revision;
                    self.follow(session, stream, &mut position).await?;
                    session.client.prefer_next();
                    let next = position.next_revision;
                    eprintln!("{endpoint} is lost: resuming at revision {next}");
                    if next > before {
                        pause = FIRST_PAUSE;
                    }
                }
                // Nobody there from the start is the user's mistake; later it is an outage, and it passes.
                Err(error) if !opened_once => return Err(error),
                Err(_still_nobody) => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn request(&self, range: &KeyRange, position: &Position) -> pb::WatchCreateRequest {
        pb::WatchCreateRequest {
            key: range.key.clone(),
            range_end: range.range_end.clone(),
            start_revision: position.next_revision,
            prev_kv: self.prev_kv,
            progress_notify: self.progress_notify,
            ..Default::default()
        }
    }

    /// Shows what comes until the stream breaks. A refusal is an error.
    async fn follow(
        &self,
        session: &Session,
        mut stream: tonic::Streaming<pb::WatchResponse>,
        position: &mut Position,
    ) -> Result<(), CliError> {
        loop {
            let response = match stream.message().await {
                Ok(Some(response)) => response,
                Ok(None) => return Ok(()),
                Err(status) if is_refusal(&status) => return Err(status.into()),
                Err(_lost) => return Ok(()),
            };
            if response.canceled {
                return canceled(&response);
            }
            position.advance(&response);
            if response.created {
                continue;
            }
            session.show(&response, json::watch, fields::watch, |out, response, style| {
                if response.events.is_empty() {
                    let revision = response.header.map_or(0, |header| header.revision);
                    out.extend_from_slice(format!("progress notify: {revision}\n").as_bytes());
                }
                for event in &response.events {
                    simple::event(out, event, style);
                }
            })?;
            hook::run(&self.command, &response).await?;
        }
    }
}

/// What another endpoint would answer too.
fn is_refusal(status: &Status) -> bool {
    let codes = [
        Code::InvalidArgument,
        Code::PermissionDenied,
        Code::Unauthenticated,
        Code::Unimplemented,
        Code::OutOfRange,
        Code::FailedPrecondition,
    ];
    std::error::Error::source(status).is_none() && codes.contains(&status.code())
}

/// An error, unless another member may do better.
fn canceled(response: &pb::WatchResponse) -> Result<(), CliError> {
    let oldest = response.compact_revision;
    if oldest > 0 {
        return Err(
            CliError::failed(format!("history before revision {oldest} has been compacted")).hint(format!(
                "watch from there: --rev {oldest}; or from now on: leave --rev out"
            )),
        );
    }
    // A member that lost its leader ends its watches; another may have one.
    if response.cancel_reason.contains("no leader") {
        return Ok(());
    }
    Err(CliError::watch_ended(&response.cancel_reason))
}

#[cfg(test)]
mod tests {
    use proto::mvccpb::{Event, KeyValue};

    use super::*;

    fn response(created: bool, revision: i64, events: &[i64]) -> pb::WatchResponse {
        let event = |mod_revision| Event {
            kv: Some(KeyValue {
                mod_revision,
                ..Default::default()
            }),
            ..Default::default()
        };
        pb::WatchResponse {
            header: Some(pb::ResponseHeader {
                revision,
                ..Default::default()
            }),
            created,
            events: events.iter().copied().map(event).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn a_watch_from_now_resumes_after_the_now_it_began_at() {
        let mut position = Position { next_revision: 0 };
        position.advance(&response(true, 7, &[]));
        assert_eq!(position.next_revision, 8);
        position.advance(&response(false, 20, &[9, 10]));
        assert_eq!(
            position.next_revision, 11,
            "20 is where the member is, 10 what was delivered"
        );
        position.advance(&response(false, 30, &[]));
        assert_eq!(
            position.next_revision, 31,
            "a progress report covers all before it"
        );
    }

    #[test]
    fn a_watch_from_a_revision_does_not_jump_over_history() {
        let mut position = Position { next_revision: 3 };
        position.advance(&response(true, 100, &[]));
        assert_eq!(position.next_revision, 3);
        position.advance(&response(false, 100, &[5]));
        assert_eq!(position.next_revision, 6);
    }

    #[test]
    fn compacted_history_is_explained() {
        let gone = pb::WatchResponse {
            canceled: true,
            compact_revision: 9,
            ..Default::default()
        };
        expect_test::expect![[r#"
            error: history before revision 9 has been compacted
            watch from there: --rev 9; or from now on: leave --rev out
        "#]]
        .assert_eq(&canceled(&gone).unwrap_err().text());
    }
}
