//! `instance move`: to another host of its placement, with its data where both hosts are there, without where one is gone.
//!
//! It writes the instance's binding and waits: everything else is done by the hosts.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use proto::etcdserverpb as pb;
use tokio::time::{Instant, sleep};

use super::Which;
use crate::cli::atomic::{self, Step, Write};
use crate::cli::cluster;
use crate::cli::documents::Stored;
use crate::cli::duration;
use crate::cli::error::CliError;
use crate::cli::format::{self, Format};
use crate::cli::session::Session;
use crate::document::{
    Binding, Failover, InventoryKey, InventoryKind, Phase, Placement, Status, binding_key, rfc3339_utc,
    status_key,
};

const LOOK_AGAIN: Duration = Duration::from_millis(300);

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl instance move web ionos\n  agentctl instance move api ionos --yes\n\n\
                        It is stopped, copied with its snapshots, started there, and then deleted here; if anything fails, it \
                        starts again where it was.\nOf a host that is gone nothing can be copied: what its document says is made \
                        anew, where `failover: manual` allows that.\nNeeds WRITE on /tenants/TENANT/bindings/instances/NAME."
)]
pub(in crate::cli) struct MoveArgs {
    #[command(flatten)]
    which: Which,
    /// Where to
    #[arg(value_name = "HOST")]
    to: String,
    /// Although data are lost: its host is gone
    #[arg(long)]
    yes: bool,
    /// How long to wait until it is there
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "10m")]
    wait: Duration,
}

/// A move that makes sense.
struct Plan {
    stored: Stored,
    binding_revision: i64,
    binding: Binding,
    from: String,
    /// Its host is there, and hands it over.
    with_data: bool,
}

impl MoveArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let deadline = Instant::now() + self.wait;
        let plan = self.plan(session).await?;
        if !plan.with_data {
            let loss = self.loss(session, &plan).await;
            if !self.yes {
                return Err(CliError::failed(loss).hint("nothing was changed; --yes does it"));
            }
            eprintln!("{loss}");
        }
        let binding = if plan.with_data {
            Binding {
                moving_to: Some(self.to.clone()),
                moved_from: None,
                arrived: false,
                ..plan.binding.clone()
            }
        } else {
            Binding {
                host: self.to.clone(),
                epoch: plan.binding.epoch + 1,
                since: rfc3339_utc(std::time::SystemTime::now()),
                reason: format!("made anew by hand: {} was gone", plan.from),
                ..Binding::default()
            }
        };
        self.record(session, &plan, &binding).await?;
        self.until_there(session, &plan, deadline).await?;
        self.say(session, &plan)
    }

    async fn plan(&self, session: &Session) -> Result<Plan, CliError> {
        let name = &self.which.name;
        let stored = self.which.document(session).await?;
        let Some(stored) = stored else {
            return Err(CliError::failed(format!("instance {name} has no document"))
                .hint("`agentctl adopt instance NAME --host HOST` makes one"));
        };
        let placement = placement(&stored)?;
        let key = binding_key(&stored.key);
        let request = pb::RangeRequest {
            key: key.into(),
            ..Default::default()
        };
        let found = session.client.range(request).await?.kvs.into_iter().next();
        let binding_revision = found.as_ref().map_or(0, |kv| kv.mod_revision);
        let binding: Binding = found
            .and_then(|kv| serde_json::from_slice(&kv.value).ok())
            .unwrap_or_default();
        let Some(from) = binding.bound_host().map(str::to_owned) else {
            return Err(CliError::failed(format!("instance {name} is on no host yet"))
                .hint("`agentctl status` says what it waits for"));
        };
        if from == self.to {
            return Err(CliError::failed(format!("instance {name} is on {from} already")));
        }
        if !placement.allows(&self.to) {
            return Err(CliError::failed(format!(
                "placement.hosts of instance {name} names {}",
                placement.hosts.join(", ")
            ))
            .hint(format!("add {} to it, and apply the document first", self.to)));
        }
        if let Some(other) = binding.moving_to.as_ref().filter(|other| **other != self.to) {
            return Err(
                CliError::failed(format!("instance {name} is moving to {other} now"))
                    .hint("wait for the end of that: `agentctl status`"),
            );
        }
        let alive = cluster::hosts_alive(session).await;
        if !alive.contains(&self.to) {
            return Err(CliError::failed(format!("host {} is not there", self.to))
                .hint(format!("there are {}", alive.join(", "))));
        }
        let with_data = alive.contains(&from);
        if !with_data && placement.failover == Failover::Never {
            return Err(CliError::failed(format!(
                "{from} is gone, and the document of {name} says failover: never: it waits for its host"
            ))
            .hint("`placement.failover: manual` in its document allows to make it anew elsewhere"));
        }
        Ok(Plan {
            stored,
            binding_revision,
            binding,
            from,
            with_data,
        })
    }

    /// What it costs to give up the copy of a host that is gone.
    async fn loss(&self, session: &Session, plan: &Plan) -> String {
        let (name, from, to) = (&self.which.name, &plan.from, &self.to);
        let at = InventoryKey {
            host: to.clone(),
            kind: InventoryKind::Instance,
            project: plan.stored.key.tenant.clone(),
            name: name.clone(),
        };
        let request = pb::RangeRequest {
            key: at.key().into(),
            count_only: true,
            ..Default::default()
        };
        let has_one = matches!(session.client.range(request).await, Ok(found) if found.count > 0);
        let what = if has_one {
            format!(
                "{to} has an older copy of {name}, from when it was there: that one runs again, and what was written \
                 since then stays on {from}"
            )
        } else {
            format!(
                "{from} is gone, and there is no replica: {name} is made anew on {to} from its document and image, and \
                 all its data stay on {from}"
            )
        };
        format!(
            "{what}\nif {from} still runs and is only cut off, there are two of {name} until it hears of this; then \
             it stops its copy, and keeps it"
        )
    }

    async fn record(&self, session: &Session, plan: &Plan, binding: &Binding) -> Result<(), CliError> {
        let text = serde_json::to_string(binding)
            .map_err(|error| CliError::failed(format!("the binding cannot be written: {error}")))?;
        let steps = [
            Step {
                key: plan.stored.key.key(),
                expected: Some(plan.stored.revision),
                write: Write::Nothing,
            },
            Step {
                key: binding_key(&plan.stored.key),
                expected: Some(plan.binding_revision),
                write: Write::Put(text),
            },
        ];
        let read_at = plan.stored.revision.max(plan.binding_revision);
        match atomic::commit(&session.client, &steps, read_at).await? {
            Some(_) => Ok(()),
            None => Err(CliError::failed(format!(
                "the document of {}, or where it is, was changed just now",
                self.which.name
            ))
            .hint("nothing was changed; try again")),
        }
    }

    /// Waits until it is on the new host as its document says.
    async fn until_there(&self, session: &Session, plan: &Plan, deadline: Instant) -> Result<(), CliError> {
        let (name, from, to) = (&self.which.name, &plan.from, &self.to);
        let mut said = String::new();
        loop {
            let (binding, bound_at) = read::<Binding>(session, binding_key(&plan.stored.key)).await?;
            let binding = binding.unwrap_or_default();
            let (status, said_at) = read::<Status>(session, status_key(&plan.stored.key, to)).await?;
            let is_there = binding.host == *to;
            let phase = status.as_ref().map(|status| status.phase);
            let is_new = said_at > bound_at || binding.arrived;
            if is_there && is_new && matches!(phase, Some(Phase::Ready | Phase::Stopped)) {
                return Ok(());
            }
            if !is_there && binding.moving_to.is_none() {
                return Err(CliError::failed(binding.reason).hint(format!("{name} stays on {from}")));
            }
            let now = match (is_there, status) {
                (true, Some(status)) => format!("{to}: {} {}", status.phase, status.message),
                (true, None) => format!("{name} is bound to {to}"),
                (false, _) => format!("{name} is stopped on {from} and copied to {to}"),
            };
            if Instant::now() >= deadline {
                return Err(CliError::failed(format!("not done in time: {now}"))
                    .hint("it goes on by itself: `agentctl status` says how far it is"));
            }
            if now != said && std::io::stderr().is_terminal() {
                eprintln!("{now}");
            }
            said = now;
            sleep(LOOK_AGAIN).await;
        }
    }

    fn say(&self, session: &Session, plan: &Plan) -> Result<(), CliError> {
        let (name, from, to) = (&self.which.name, &plan.from, &self.to);
        if session.format == Some(Format::Json) {
            return format::write_json(&serde_json::json!({"name": name, "tenant": self.which.tenant,
                "from": from, "host": to, "with_data": plan.with_data}));
        }
        let done = if plan.with_data {
            format!("{name} moved from {from} to {to}\n")
        } else {
            format!("{name} was made anew on {to}; its data stay on {from}\n")
        };
        format::write(done.as_bytes())
    }
}

fn placement(stored: &Stored) -> Result<&Placement, CliError> {
    let Some(document) = &stored.document else {
        return Err(
            CliError::failed(format!("the document of {} is wrong", stored.key))
                .hint("`agentctl status` says what is; mend it first"),
        );
    };
    let host = document.hosts.first().map_or("HOST", String::as_str);
    document.placement.as_ref().ok_or_else(|| {
        CliError::failed(format!("the document of {} says host: {host}", stored.key)).hint(format!(
            "write placement: {{hosts: [{host}, ...]}} instead, with the hosts that it may be on, and apply it: it stays \
             where it is, and can be moved then"
        ))
    })
}

/// A value, and the revision that put it.
async fn read<T: serde::de::DeserializeOwned>(
    session: &Session,
    key: String,
) -> Result<(Option<T>, i64), CliError> {
    let request = pb::RangeRequest {
        key: key.into(),
        ..Default::default()
    };
    let found = session.client.range(request).await?.kvs.into_iter().next();
    let revision = found.as_ref().map_or(0, |kv| kv.mod_revision);
    Ok((
        found.and_then(|kv| serde_json::from_slice(&kv.value).ok()),
        revision,
    ))
}
