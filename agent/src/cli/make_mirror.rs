//! `agentctl make-mirror`: the keys of one cluster kept the same in another.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::request_op::Request;
use proto::mvccpb::event::EventType;
use proto::mvccpb::{Event, KeyValue};
use tokio::time::{Instant, sleep};

use super::client::{Client, Tls, TlsFiles};
use super::concurrency::Ending;
use super::error::CliError;
use super::format;
use super::options;
use super::range::KeyRange;
use super::session::Session;

/// Keys read at once.
const PAGE: i64 = 1_000;
const COUNT_EVERY: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Args, Debug)]
#[command(
    after_help = "Copies every key, then every change, until Ctrl-C; prints how many every 30 seconds. When it ends it \
                  says how to go on from there. Leases are not mirrored, and keys that only DESTINATION has stay.\n\n\
                  Examples:\n  agentctl make-mirror 10.0.0.9:2379\n  \
                  agentctl make-mirror https://10.0.0.9:2379 --prefix /tenants/ --dest-prefix /copy/ \
                  --dest-cacert ca.pem"
)]
pub(super) struct MakeMirrorArgs {
    /// Members of the other cluster
    #[arg(value_name = "HOST:PORT,...")]
    destination: String,
    /// Only keys that begin with this
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    prefix: String,
    /// What the keys begin with there, instead of --prefix
    #[arg(long, value_name = "KEY", conflicts_with = "no_dest_prefix")]
    dest_prefix: Option<String>,
    /// Drop the prefix there
    #[arg(long)]
    no_dest_prefix: bool,
    /// Go on from this revision, where an earlier run has stopped; nothing is copied first
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(i64).range(1..), conflicts_with = "once")]
    rev: Option<i64>,
    /// Only copy what is there now
    #[arg(long)]
    once: bool,
    /// Changes sent in one transaction
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..))]
    max_txn_ops: u16,
    /// Certificate authority of the other cluster
    #[arg(long, value_name = "FILE")]
    dest_cacert: Option<PathBuf>,
    /// Client certificate for the other cluster
    #[arg(long, value_name = "FILE")]
    dest_cert: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE")]
    dest_key: Option<PathBuf>,
    /// User at the other cluster; the password is asked for when it is not given
    #[arg(long, value_name = "NAME[:PASSWORD]")]
    dest_user: Option<String>,
    /// That user's password
    #[arg(long, value_name = "PASSWORD", requires = "dest_user")]
    dest_password: Option<String>,
}

impl MakeMirrorArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let mut ending = Ending::new()?;
        let mut mirror = Mirror {
            from: &session.client,
            to: self.destination(session)?,
            source: self.prefix.clone().into_bytes(),
            target: self.target_prefix(),
            operations: usize::from(self.max_txn_ops),
            mirrored: 0,
            next_revision: self.rev.unwrap_or_default(),
            counted: Instant::now(),
        };
        let done = tokio::select! {
            done = mirror.run(self.once) => done,
            _ = ending.asked() => Ok(()),
        };
        format::write(format!("{}\n", mirror.mirrored).as_bytes())?;
        let way_on = mirror.way_on();
        match done {
            Ok(()) => {
                if !self.once {
                    eprintln!("{way_on}");
                }
                Ok(())
            }
            Err(error) if error.has_hint() => Err(error),
            Err(error) => Err(error.hint(way_on)),
        }
    }

    fn destination(&self, session: &Session) -> Result<Client, CliError> {
        let endpoints: Vec<String> = self.destination.split(',').map(|e| e.trim().to_owned()).collect();
        let needed = endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
        let files = TlsFiles {
            cacert: self.dest_cacert.clone(),
            cert: self.dest_cert.clone(),
            key: self.dest_key.clone(),
            ..Default::default()
        };
        let credentials = options::credentials(self.dest_user.clone(), self.dest_password.clone())?;
        session
            .client
            .elsewhere(endpoints, Tls::read(&files, needed)?, credentials)
    }

    /// What the source's prefix becomes.
    fn target_prefix(&self) -> Vec<u8> {
        match &self.dest_prefix {
            Some(prefix) => prefix.clone().into_bytes(),
            None if self.no_dest_prefix => Vec::new(),
            None => self.prefix.clone().into_bytes(),
        }
    }
}

/// A mirror on its way.
struct Mirror<'a> {
    from: &'a Client,
    to: Client,
    source: Vec<u8>,
    target: Vec<u8>,
    /// Most in one transaction.
    operations: usize,
    /// Keys and changes that the other cluster has confirmed.
    mirrored: u64,
    /// What is to be mirrored next; 0 while nothing was copied yet.
    next_revision: i64,
    counted: Instant,
}

impl Mirror<'_> {
    async fn run(&mut self, once: bool) -> Result<(), CliError> {
        // With nothing to copy yet, a destination that is not there would go unnoticed.
        self.to.status().await?;
        if self.next_revision == 0 {
            self.next_revision = self.copy().await? + 1;
        }
        if once {
            return Ok(());
        }
        loop {
            self.follow().await?;
            self.from.prefer_next();
            sleep(PAUSE).await;
        }
    }

    /// Copies all keys as they were at one revision, page by page; that revision.
    async fn copy(&mut self) -> Result<i64, CliError> {
        let range = KeyRange::prefix(&self.source);
        let mut request = pb::RangeRequest {
            key: range.key,
            range_end: range.range_end,
            limit: PAGE,
            ..Default::default()
        };
        loop {
            let page = self.from.range(request.clone()).await?;
            if request.revision == 0 {
                request.revision = page.header.map_or(0, |header| header.revision);
            }
            let puts = page.kvs.iter().map(|kv| self.put(kv));
            self.send(puts.collect()).await?;
            match page.kvs.last() {
                // The first key after the last one read.
                Some(last) if page.more => request.key = [last.key.as_ref(), b"\0"].concat().into(),
                _ => return Ok(request.revision),
            }
        }
    }

    /// Mirrors changes until the stream breaks.
    async fn follow(&mut self) -> Result<(), CliError> {
        let range = KeyRange::prefix(&self.source);
        let request = pb::WatchCreateRequest {
            key: range.key,
            range_end: range.range_end,
            start_revision: self.next_revision,
            ..Default::default()
        };
        let (_, mut stream) = self.from.watch(request).await?;
        while let Ok(Some(response)) = stream.message().await {
            if response.compact_revision > 0 {
                return Err(CliError::failed(format!(
                    "history before revision {} has been compacted",
                    response.compact_revision
                ))
                .hint("leave out --rev: everything is copied again, then followed"));
            }
            if response.canceled && !response.cancel_reason.contains("no leader") {
                return Err(CliError::watch_ended(&response.cancel_reason));
            }
            for events in revisions(&response.events) {
                let changes = events.iter().filter_map(|event| self.change(event));
                self.send(changes.collect()).await?;
                let last = events.last().and_then(|event| event.kv.as_ref());
                self.next_revision = last.map_or(self.next_revision, |kv| kv.mod_revision + 1);
            }
            self.count()?;
        }
        Ok(())
    }

    fn change(&self, event: &Event) -> Option<Request> {
        let kv = event.kv.as_ref()?;
        if event.r#type() == EventType::Delete {
            let request = pb::DeleteRangeRequest {
                key: self.target_key(&kv.key),
                ..Default::default()
            };
            return Some(Request::RequestDeleteRange(request));
        }
        Some(self.put(kv))
    }

    fn put(&self, kv: &KeyValue) -> Request {
        Request::RequestPut(pb::PutRequest {
            key: self.target_key(&kv.key),
            value: kv.value.clone(),
            ..Default::default()
        })
    }

    fn target_key(&self, key: &Bytes) -> Bytes {
        let rest = key.strip_prefix(self.source.as_slice()).unwrap_or(key);
        [self.target.as_slice(), rest].concat().into()
    }

    /// Sends operations, a transaction's worth at a time. Only this mirror writes there, in the order of the source:
    /// sending the same twice does no harm.
    async fn send(&mut self, operations: Vec<Request>) -> Result<(), CliError> {
        for some in operations.chunks(self.operations) {
            let op = |request: &Request| pb::RequestOp {
                request: Some(request.clone()),
            };
            let request = pb::TxnRequest {
                success: some.iter().map(op).collect(),
                ..Default::default()
            };
            self.to.repeatable_txn(request).await?;
            self.mirrored += some.len() as u64;
        }
        Ok(())
    }

    /// A sign of life for those who watch.
    fn count(&mut self) -> Result<(), CliError> {
        if self.counted.elapsed() < COUNT_EVERY {
            return Ok(());
        }
        self.counted = Instant::now();
        format::write(format!("{}\n", self.mirrored).as_bytes())
    }

    fn way_on(&self) -> String {
        if self.next_revision == 0 {
            return "the copy was not complete: run it again".to_owned();
        }
        format!(
            "all before revision {0} is mirrored: go on with --rev {0}",
            self.next_revision
        )
    }
}

/// Events in pieces of one revision each: what was one transaction stays one, as long as it fits.
fn revisions(events: &[Event]) -> impl Iterator<Item = &[Event]> {
    let revision = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
    events.chunk_by(move |one, next| revision(one) == revision(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: i64) -> Event {
        Event {
            kv: Some(KeyValue {
                mod_revision: revision,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn transactions_stay_whole() {
        let events = [2, 2, 3, 5, 5, 5].map(event);
        let lengths: Vec<usize> = revisions(&events).map(<[Event]>::len).collect();
        assert_eq!(lengths, [2, 1, 3]);
    }
}
