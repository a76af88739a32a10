//! Carries out acts. No decisions: what an act says is done, or the reason why not comes back.

use std::io;

use thiserror::Error;

use super::Hands;
use super::act::{Act, Action, Content, Place, Replaces};
use crate::document::DesiredKey;
use crate::service::{FileToWrite, Found, Machine, MachineError, ServiceError};

/// Why an act was not done.
#[derive(Debug, Error)]
pub(crate) enum ActError {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error("the secret in it is not to be had")]
    Secret,
    #[error("cannot remember it")]
    Ledger(#[source] io::Error),
}

/// Does one thing for a document.
pub(crate) async fn act(hands: &Hands, key: &DesiredKey, act: &Act) -> Result<(), ActError> {
    match (&act.action, &act.place) {
        (Action::Remember(record), _) => hands.ledger.put(key, record).map_err(ActError::Ledger),
        (Action::Release | Action::Forget, _) => hands.ledger.remove(key).map_err(ActError::Ledger),
        (_, Place::Host) => on(&hands.host, act).await,
        (_, Place::Instance { project, name }) => on(&hands.incus.guest(project, name), act).await,
    }
}

async fn on<M: Machine>(machine: &M, act: &Act) -> Result<(), ActError> {
    match &act.action {
        Action::Remember(_) | Action::Release | Action::Forget => {}
        Action::MakeFolder { path } => machine.make_folder(path).await?,
        Action::RemoveFolder { path } => machine.remove_folder(path).await?,
        Action::Write(file, replaces) => {
            let Content::Plain(content) = &file.content else {
                return Err(ActError::Secret);
            };
            let file = FileToWrite {
                path: &file.path,
                content,
                mode: file.mode,
                uid: file.uid,
                gid: file.gid,
                is_new: *replaces == Replaces::Nothing,
            };
            machine.write(&file).await?;
        }
        Action::Remove { path, digests } => {
            if let Found::File(found) = machine.look(path).await?
                && digests.contains(&found.digest)
            {
                machine.remove_file(path).await?;
            }
        }
        Action::Reload | Action::Enable { .. } | Action::Restart { .. } | Action::Stop { .. } => {
            return service(machine, act).await;
        }
    }
    Ok(())
}

async fn service<M: Machine>(machine: &M, act: &Act) -> Result<(), ActError> {
    let Some(manager) = &act.manager else {
        return Ok(());
    };
    match &act.action {
        Action::Reload => manager.reload(machine).await?,
        Action::Enable { name, on } => manager.enable(machine, name, *on).await?,
        Action::Restart { name, definition } => {
            manager.restart(machine, name, definition.as_deref()).await?;
        }
        Action::Stop { name } => manager.stop(machine, name).await?,
        _ => {}
    }
    Ok(())
}
