//! The task that binds instances to hosts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{Compare, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};
use proto::replicated::{Refusal, reply, request::Op};
use raft_store::ReadError;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info};

use super::choose::{Decision, Hosts, State, decide};
use super::failover::{self, Notes};
use super::hosts;
use crate::document::{Binding, DesiredKey, binding_key, binding_prefix, rfc3339_utc};
use crate::node::{Node, NodeError};
use crate::reconciler::desired::{Bound, Desired, Parser, Text};
use crate::reconciler::execute::in_full;
use crate::reconciler::stored;
use crate::reconciler::trigger::{follow_alive, follow_documents};
use crate::shutdown::Shutdown;

/// After a change of leader, hosts that start with it are given so long to say that they are there.
const LET_HOSTS_ARRIVE: Duration = Duration::from_secs(10);
/// Everything is looked at so often, whatever happens.
const RESCAN: Duration = Duration::from_secs(30);
/// Things that happen together are looked at together.
const COALESCE: Duration = Duration::from_millis(20);
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Decisions written at once: well within what a transaction holds.
const WRITES_AT_ONCE: usize = 32;

/// Puts instances on hosts, where this member leads.
#[derive(Debug)]
pub struct Scheduler {
    node: Node,
    /// Since this member leads; `None` while it does not.
    leads_since: Option<Instant>,
    parser: Parser,
    /// Which hosts are said to be silent, and since when this member knows that.
    notes: Notes,
}

#[derive(Debug, Error)]
enum ScheduleError {
    #[error("no quorum")]
    Node(#[from] NodeError),
    #[error("the documents cannot be read")]
    Read(#[from] ReadError),
    #[error("refused by the store: {}", .0.as_str_name())]
    Refused(Refusal),
    /// Somebody was quicker: it is looked at again.
    #[error("something was changed meanwhile")]
    Changed,
}

/// One key to write, for an instance whose document stood at this revision; 0: there is none.
#[derive(Debug, PartialEq)]
struct Write {
    key: DesiredKey,
    document_revision: i64,
    /// `None` deletes it.
    binding: Option<Binding>,
}

impl Scheduler {
    #[must_use]
    pub fn new(node: Node) -> Scheduler {
        Scheduler {
            node,
            leads_since: None,
            parser: new_parser(),
            notes: Notes::default(),
        }
    }

    /// Runs until shutdown.
    pub async fn run(mut self, shutdown: Shutdown) {
        let wake = Arc::new(Notify::new());
        let node = self.node.clone();
        let followers = async { tokio::join!(follow_documents(&node, &wake), follow_alive(&node, &wake)) };
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = followers => {}
            () = self.work(&wake) => {}
        }
    }

    async fn work(&mut self, wake: &Notify) {
        let mut view = self.node.raft_view();
        loop {
            let next = if view.borrow_and_update().leader == self.node.member_id() {
                match self.pass().await {
                    Ok(next) => next,
                    Err(error) => {
                        debug!(error = in_full(&error), "instances are not put on hosts now");
                        Instant::now() + RETRY_AFTER
                    }
                }
            } else {
                // The next leader parses for itself: what is here would only age.
                self.leads_since = None;
                self.notes = Notes::default();
                self.parser = new_parser();
                Instant::now() + RESCAN
            };
            tokio::select! {
                () = wake.notified() => {}
                () = sleep_until(next) => {}
                changed = view.changed() => if changed.is_err() { return },
            }
            sleep(COALESCE).await;
        }
    }

    /// Decides what is to be decided; when to look again at the latest.
    async fn pass(&mut self) -> Result<Instant, ScheduleError> {
        let now = Instant::now();
        let arrival = *self.leads_since.get_or_insert(now) + LET_HOSTS_ARRIVE;
        // Also that this member leads: another leader's decisions would be missing here.
        self.node.read_index().await?;
        let (desired, _) = stored::read(self.node.store(), &mut self.parser, "")?;
        let hosts = hosts::read(&self.node, &desired, now < arrival)?;
        let decisions = decide(&desired, &hosts);
        let waits = decisions.iter().any(|(_, decision)| *decision == Decision::Later);
        let time = SystemTime::now();
        let (failing_over, look_again) = failover::bindings(&desired, &hosts, &mut self.notes, (now, time));
        let mut writes = writes(&desired, decisions, &hosts, time);
        writes.extend(failing_over.into_iter().map(|(key, binding)| Write {
            document_revision: desired.documents.get(&key).map_or(0, |wanted| wanted.revision),
            binding: Some(binding),
            key,
        }));
        writes.sort_by(|left, right| left.key.cmp(&right.key));
        writes.dedup_by(|later, first| later.key == first.key);
        let mut some: &[Write] = &writes;
        // Those of one tenant at a time: they are what a transaction compares.
        while let Some(first) = some.first() {
            let tenant = &first.key.tenant;
            let of_it = some
                .iter()
                .take_while(|write| write.key.tenant == *tenant)
                .count();
            let (these, others) = some.split_at(of_it.min(WRITES_AT_ONCE));
            self.commit(tenant, these, desired.revision).await?;
            if these.len() < of_it {
                // The rest is decided by what stands there now.
                return Ok(Instant::now());
            }
            some = others;
        }
        let rescan = if waits { arrival } else { now + RESCAN };
        Ok(look_again.map_or(rescan, |at| at.min(rescan)))
    }

    /// Writes decisions, if nothing was decided or edited since `revision`.
    async fn commit(&self, tenant: &str, writes: &[Write], revision: i64) -> Result<(), ScheduleError> {
        let prefix = binding_prefix(tenant);
        let mut compare = vec![Compare {
            result: CompareResult::Less.into(),
            target: CompareTarget::Mod.into(),
            key: Bytes::copy_from_slice(prefix.as_bytes()),
            range_end: stored::prefix_end(&prefix),
            target_union: Some(TargetUnion::ModRevision(revision + 1)),
        }];
        compare.extend(writes.iter().map(|write| Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: write.key.key().into(),
            target_union: Some(TargetUnion::ModRevision(write.document_revision)),
            ..Compare::default()
        }));
        let txn = TxnRequest {
            compare,
            success: writes.iter().map(Write::operation).collect(),
            failure: Vec::new(),
        };
        let reply = self.node.propose(Op::Txn(txn)).await?;
        match reply.result {
            Some(reply::Result::Txn(answer)) if answer.succeeded => {}
            Some(reply::Result::Refused(refusal)) => {
                return Err(ScheduleError::Refused(
                    Refusal::try_from(refusal).unwrap_or_default(),
                ));
            }
            _ => return Err(ScheduleError::Changed),
        }
        for write in writes {
            if let Some(binding) = &write.binding {
                info!(
                    instance = write.key.to_string(),
                    host = binding.host,
                    reason = binding.reason,
                    "put on a host"
                );
            }
        }
        Ok(())
    }
}

impl Write {
    fn operation(&self) -> RequestOp {
        let key = Bytes::from(binding_key(&self.key));
        let request = match &self.binding {
            Some(binding) => Request::RequestPut(PutRequest {
                key,
                value: serde_json::to_vec(binding).unwrap_or_default().into(),
                ..PutRequest::default()
            }),
            None => Request::RequestDeleteRange(DeleteRangeRequest {
                key,
                ..DeleteRangeRequest::default()
            }),
        };
        RequestOp {
            request: Some(request),
        }
    }
}

/// No host: documents as they were written.
fn new_parser() -> Parser {
    Parser::new("")
}

/// A move to a host that is gone: the instance starts again where it was.
fn called_off(binding: &Binding, hosts: &Hosts) -> Option<Binding> {
    let to = binding.moving_to.as_ref()?;
    let is_gone = matches!(hosts.known.get(to), None | Some(State::Silent));
    is_gone.then(|| Binding {
        moving_to: None,
        reason: format!("the move to {to} was called off: {to} is not alive"),
        ..binding.clone()
    })
}

/// What is to be written so that decisions stand: those that do not yet, and none for what is gone. In the order of
/// tenants.
fn writes(
    desired: &Desired,
    decisions: Vec<(DesiredKey, Decision)>,
    hosts: &Hosts,
    now: SystemTime,
) -> Vec<Write> {
    let before = |key: &DesiredKey| desired.bindings.get(key).map(|bound| &bound.binding);
    let document_revision = |key: &DesiredKey| desired.documents.get(key).map_or(0, |wanted| wanted.revision);
    let decided = decisions.into_iter().filter_map(|(key, decision)| {
        let epoch = before(&key).map_or(0, |binding| binding.epoch);
        let (host, epoch, reason) = match decision {
            Decision::Host { host, reason } => (host, epoch + 1, reason),
            Decision::Nowhere(reason) => (String::new(), epoch, reason),
            Decision::Later => return None,
        };
        let says_so = before(&key).is_some_and(|binding| binding.host == host && binding.reason == reason);
        let binding = Binding {
            host,
            epoch,
            since: rfc3339_utc(now),
            reason,
            ..Binding::default()
        };
        (!says_so).then(|| Write {
            document_revision: document_revision(&key),
            binding: Some(binding),
            key,
        })
    });
    let mut writes: Vec<Write> = decided.collect();
    writes.extend(desired.bindings.iter().filter_map(|(key, bound)| {
        let binding = called_off(&bound.binding, hosts)?;
        Some(Write {
            document_revision: document_revision(key),
            binding: Some(binding),
            key: key.clone(),
        })
    }));
    let is_over =
        |(key, _): &(&DesiredKey, &Bound)| match desired.documents.get(*key).map(|wanted| &wanted.text) {
            None => true,
            Some(Text::Good(document)) => document.placement.is_none(),
            Some(Text::Invalid { .. }) => false,
        };
    writes.extend(desired.bindings.iter().filter(is_over).map(|(key, _)| Write {
        document_revision: document_revision(key),
        binding: None,
        key: key.clone(),
    }));
    writes.sort_by(|left, right| left.key.cmp(&right.key));
    writes
}
