//! Carries out steps. No decisions: what a step says is done, or the reason why not comes back, and the next pass
//! looks again.

use std::error::Error as StdError;

use serde_json::Value;
use thiserror::Error;

use super::observe::{birth, in_incus};
use super::ownership;
use super::services::{self, ActError, Hands};
use super::step::{Change, Step, TunnelStep, body_after};
use crate::document::{DesiredKey, Kind};
use crate::incus::{self, Incus, IncusError, StateAction};
use crate::tunnel::TunnelError;

/// How often a change is begun again because somebody else changed the object in between.
const CHANGE_ATTEMPTS: u32 = 5;

/// How long Incus itself may take to force an instance down.
const FORCED_STOP_SECONDS: u32 = 30;

/// Why the steps of an object stopped.
#[derive(Debug, Error)]
pub(crate) enum ExecuteError {
    #[error("{step}")]
    Incus {
        step: &'static str,
        #[source]
        source: IncusError,
    },
    #[error("{step}")]
    Service {
        step: &'static str,
        #[source]
        source: ActError,
    },
    #[error("{step}")]
    Tunnel {
        step: &'static str,
        #[source]
        source: TunnelError,
    },
    #[error("delete: the object of this name is not the one that was planned to go")]
    NotTheSame,
    #[error("change: the object was changed by somebody else at each of {CHANGE_ATTEMPTS} attempts")]
    Contended,
}

impl ExecuteError {
    /// The error with all its causes, for a status.
    pub(crate) fn in_full(&self) -> String {
        in_full(self)
    }
}

/// An error with all its causes, in one line.
pub(crate) fn in_full(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Carries out the steps of one object in order, and stops at the first that fails. `target` is what Incus calls the
/// object that is there.
pub(crate) async fn execute(
    hands: &Hands,
    key: &DesiredKey,
    target: &str,
    steps: &[Step],
) -> Result<(), ExecuteError> {
    let incus = &hands.incus;
    for step in steps {
        if let Step::Service(act) = step {
            let step = Some(act.action.word())
                .filter(|word| !word.is_empty())
                .unwrap_or("remember");
            let done = services::act(hands, key, act).await;
            done.map_err(|source| ExecuteError::Service { step, source })?;
            continue;
        }
        if let Step::Tunnel(tunnel) = step {
            let done = match tunnel {
                TunnelStep::Listen(spec) => hands.tunnels.listen(key, spec).await,
                TunnelStep::Close => hands.tunnels.close(key).await,
            };
            done.map_err(|source| ExecuteError::Tunnel {
                step: step.word(),
                source,
            })?;
            continue;
        }
        // A document that is no object of Incus has no other steps.
        let Some(kind) = in_incus(key.kind) else {
            return Ok(());
        };
        let done = match step {
            Step::Create { body } => create(incus, kind, key, body).await,
            Step::Change { changes } => change(incus, kind, key, (target, changes)).await?,
            Step::Start => start(incus, key).await,
            Step::Stop { timeout_seconds } => stop(incus, key, *timeout_seconds).await,
            Step::Delete { uid } => delete(incus, kind, key, (target, uid, None)).await?,
            Step::Discard { uid, birth } => delete(incus, kind, key, (target, uid, Some(birth))).await?,
            Step::Service(_) | Step::Tunnel(_) => Ok(()),
        };
        done.map_err(|source| ExecuteError::Incus {
            step: step.word(),
            source,
        })?;
    }
    Ok(())
}

async fn create(incus: &Incus, kind: incus::Kind, key: &DesiredKey, body: &Value) -> Result<(), IncusError> {
    if key.kind != Kind::Image {
        return incus.create(kind, &key.tenant, body).await;
    }
    incus.create_image(&key.tenant, body).await
}

/// Reads the object and writes it back changed. A start in between moves its ETag, and the same changes are then
/// made to what is there now.
async fn change(
    incus: &Incus,
    kind: incus::Kind,
    key: &DesiredKey,
    (target, changes): (&str, &[Change]),
) -> Result<Result<(), IncusError>, ExecuteError> {
    for change in changes {
        if let Err(error) = change_alias(incus, key, target, change).await {
            return Ok(Err(error));
        }
    }
    for _ in 0..CHANGE_ATTEMPTS {
        let live = match incus.get(kind, &key.tenant, target).await {
            Ok(Some(live)) => live,
            Ok(None) => {
                return Ok(Err(IncusError::NotFound {
                    message: format!("no {key}"),
                }));
            }
            Err(error) => return Ok(Err(error)),
        };
        let body = body_after(key.kind, &live.object, changes);
        match incus.replace(kind, &key.tenant, target, &body, &live.etag).await {
            Err(IncusError::PreconditionFailed) => {}
            done => return Ok(done),
        }
    }
    Err(ExecuteError::Contended)
}

/// Aliases are no part of an image: Incus keeps them beside it.
async fn change_alias(
    incus: &Incus,
    key: &DesiredKey,
    target: &str,
    change: &Change,
) -> Result<(), IncusError> {
    match change {
        Change::Alias { name, add: true } => incus.add_image_alias(&key.tenant, name, target).await,
        Change::Alias { name, add: false } => incus.remove_image_alias(&key.tenant, name).await,
        _ => Ok(()),
    }
}

async fn start(incus: &Incus, key: &DesiredKey) -> Result<(), IncusError> {
    match incus
        .set_state(
            &key.tenant,
            &key.name,
            StateAction::Start,
            false,
            FORCED_STOP_SECONDS,
        )
        .await
    {
        Err(error) if status(incus, key).await.as_deref() != Some("Running") => Err(error),
        _ => Ok(()),
    }
}

/// Asks the guest first. One that does not listen is forced.
async fn stop(incus: &Incus, key: &DesiredKey, timeout_seconds: u32) -> Result<(), IncusError> {
    let asked = incus
        .set_state(&key.tenant, &key.name, StateAction::Stop, false, timeout_seconds)
        .await;
    if asked.is_ok() || is_down(incus, key).await {
        return Ok(());
    }
    match incus
        .set_state(
            &key.tenant,
            &key.name,
            StateAction::Stop,
            true,
            FORCED_STOP_SECONDS,
        )
        .await
    {
        Err(error) if !is_down(incus, key).await => Err(error),
        _ => Ok(()),
    }
}

/// Stopped, or, being ephemeral, gone.
async fn is_down(incus: &Incus, key: &DesiredKey) -> bool {
    status(incus, key)
        .await
        .is_some_and(|status| matches!(status.as_str(), "Stopped" | ""))
}

/// The instance's status, empty where there is none of this name; `None` where Incus does not say.
async fn status(incus: &Incus, key: &DesiredKey) -> Option<String> {
    let live = incus
        .get(incus::Kind::Instance, &key.tenant, &key.name)
        .await
        .ok()?;
    Some(live.map(|live| live.status().to_owned()).unwrap_or_default())
}

async fn delete(
    incus: &Incus,
    kind: incus::Kind,
    key: &DesiredKey,
    (target, uid, born): (&str, &str, Option<&str>),
) -> Result<Result<(), IncusError>, ExecuteError> {
    match incus.get(kind, &key.tenant, target).await {
        Ok(None) => return Ok(Ok(())),
        Err(error) => return Ok(Err(error)),
        Ok(Some(live)) => {
            let has = live
                .object
                .get(kind.config_field())
                .and_then(|config| config.get(ownership::UID));
            let is_another = born.is_some_and(|born| birth(&live.object) != born);
            if is_another || has.and_then(Value::as_str) != Some(uid) {
                return Err(ExecuteError::NotTheSame);
            }
        }
    }
    Ok(match incus.delete(kind, &key.tenant, target).await {
        Err(IncusError::NotFound { .. }) => Ok(()),
        done => done,
    })
}
