//! `agentctl elect`: one leader among those who want to be.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use bytes::Bytes;
use clap::Args;
use proto::etcdserverpb as pb;
use proto::mvccpb::KeyValue;
use proto::mvccpb::event::EventType;

use super::client::Client;
use super::concurrency::{Ending, KeptLease, Place, follow, holder, prefix};
use super::error::CliError;
use super::format::{fields, json, simple};
use super::range::KeyRange;
use super::session::Session;

#[derive(Args, Debug)]
#[command(
    after_help = "Stands for election, prints its key and VALUE once it leads, and leads until Ctrl-C or SIGTERM; then \
                  the next takes over.\n\n\
                  Examples:\n  agentctl elect writer host-a\n  agentctl elect writer --listen"
)]
pub(super) struct ElectArgs {
    /// The election's name
    #[arg(value_name = "NAME")]
    name: OsString,
    /// What others learn of the leader: its address, say
    #[arg(
        value_name = "VALUE",
        required_unless_present = "listen",
        conflicts_with = "listen"
    )]
    value: Option<OsString>,
    /// Only show who leads, now and after each change
    #[arg(short, long)]
    listen: bool,
    /// Seconds after which another leads if this program dies or is cut off
    #[arg(long, value_name = "SECONDS", default_value_t = 10, conflicts_with = "listen",
        value_parser = clap::value_parser!(i64).range(1..))]
    ttl: i64,
}

impl ElectArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let name = self.name.into_vec();
        if name.is_empty() {
            return Err(CliError::usage("the election's name is empty"));
        }
        let mut ending = Ending::new()?;
        let Some(value) = self.value else {
            // Until somebody presses Ctrl-C.
            return tokio::select! {
                failed = follow_leaders(session, &name) => failed,
                _ = ending.asked() => Ok(()),
            };
        };
        let lease = KeptLease::grant(&session.client, self.ttl).await?;
        let led = lead(session, &lease, &mut ending, (&name, value.into_vec().into())).await;
        let released = lease.release().await;
        led.and(released)
    }
}

async fn lead(
    session: &Session,
    lease: &KeptLease<'_>,
    ending: &mut Ending,
    (name, value): (&[u8], Bytes),
) -> Result<(), CliError> {
    let elected = async { Place::take(lease, name, value).await?.wait().await };
    let own = tokio::select! {
        elected = lease.during(elected) => elected?,
        _ = ending.asked() => return Err(CliError::interrupted()),
    };
    session.show(&own, json::range, fields::range, simple::range)?;
    tokio::select! {
        lost = lease.during(std::future::pending()) => lost,
        _ = ending.asked() => Ok(()),
    }
}

/// Shows the leader, and each after it, without end.
async fn follow_leaders(session: &Session, name: &[u8]) -> Result<(), CliError> {
    let client = &session.client;
    loop {
        let (leader, revision) = holder(client, name).await?;
        let Some(leader) = leader else {
            let candidates = KeyRange::prefix(&prefix(name));
            follow(client, candidates, revision + 1, |event| {
                event.r#type() == EventType::Put
            })
            .await?;
            continue;
        };
        show(session, &leader)?;
        reign(session, client, &leader, revision).await?;
    }
}

/// Follows one leader to its end; it may proclaim another value meanwhile.
async fn reign(session: &Session, client: &Client, leader: &KeyValue, seen: i64) -> Result<(), CliError> {
    let mut shown = Ok(());
    follow(client, KeyRange::one(leader.key.clone()), seen + 1, |event| {
        if event.r#type() == EventType::Delete {
            return true;
        }
        if let Some(kv) = &event.kv {
            shown = show(session, kv);
        }
        shown.is_err()
    })
    .await?;
    shown
}

fn show(session: &Session, leader: &KeyValue) -> Result<(), CliError> {
    let answer = pb::RangeResponse {
        header: Some(pb::ResponseHeader {
            revision: leader.mod_revision,
            ..Default::default()
        }),
        kvs: vec![leader.clone()],
        count: 1,
        ..Default::default()
    };
    session.show(&answer, json::range, fields::range, simple::range)
}
