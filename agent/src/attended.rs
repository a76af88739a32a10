//! Which objects a person's command is at work on, and which the reconciler is: never both on one at once.
//!
//! A command takes a while (Incus stops an instance for a restore, and starts it again), and what it looks like meanwhile
//! is not what the document says. The reconciler leaves alone what is attended: it is busy, not wrong. The other way
//! round a command waits, for so long, until the reconciler's worker has finished with the object.
//!
//! What it must not do: decide anything, or outlive the process. Who lets go wakes the reconciler, which looks then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use crate::document::DesiredKey;

/// A worker may be waiting for a guest that shuts down.
const PATIENCE: Duration = Duration::from_secs(60);

/// Shared by those who act on objects. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Attended {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    at_work: watch::Sender<BTreeMap<DesiredKey, Who>>,
    let_go: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// What is done to it, as in "is being restored".
    Person(&'static str),
    Reconciler,
}

/// Why a command may not begin.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AttendError {
    #[error("{key} is being {what} already: wait for the end of that")]
    Person { key: DesiredKey, what: &'static str },
    #[error(
        "{key} has been under the reconciler's work for {} s: `agentctl status` says what it does; try again",
        PATIENCE.as_secs()
    )]
    Reconciler { key: DesiredKey },
}

/// While it lives nobody else touches the object.
#[derive(Debug)]
pub(crate) struct Attendance {
    shared: Arc<Shared>,
    key: DesiredKey,
    who: Who,
}

impl Attended {
    /// Takes an object out of the reconciler's hands, for a person's command.
    ///
    /// # Errors
    /// When another command has it, or the reconciler does not finish with it in time.
    pub(crate) async fn attend(
        &self,
        key: &DesiredKey,
        what: &'static str,
    ) -> Result<Attendance, AttendError> {
        let deadline = Instant::now() + PATIENCE;
        let mut changes = self.shared.at_work.subscribe();
        loop {
            match self.take(key, Who::Person(what)) {
                Ok(attendance) => return Ok(attendance),
                Err(Who::Person(what)) => {
                    let key = key.clone();
                    return Err(AttendError::Person { key, what });
                }
                Err(Who::Reconciler) => {}
            }
            // The sender is ours: only the time can run out.
            if timeout_at(deadline, changes.changed()).await.is_err() {
                return Err(AttendError::Reconciler { key: key.clone() });
            }
        }
    }

    /// Takes an object for one of the reconciler's workers; `None`: a person's command has it.
    pub(crate) fn work_on(&self, key: &DesiredKey) -> Option<Attendance> {
        self.take(key, Who::Reconciler).ok()
    }

    /// What people's commands are at work on.
    pub(crate) fn by_people(&self) -> BTreeSet<DesiredKey> {
        let at_work = self.shared.at_work.borrow();
        let people = at_work.iter().filter(|(_, who)| **who != Who::Reconciler);
        people.map(|(key, _)| key.clone()).collect()
    }

    /// Completes after a person's command has let go of something.
    pub(crate) async fn let_go(&self) {
        self.shared.let_go.notified().await;
    }

    fn take(&self, key: &DesiredKey, who: Who) -> Result<Attendance, Who> {
        let mut other = None;
        self.shared.at_work.send_if_modified(|at_work| {
            other = at_work.get(key).copied();
            if other.is_none() {
                at_work.insert(key.clone(), who);
            }
            other.is_none()
        });
        match other {
            Some(other) => Err(other),
            None => Ok(Attendance {
                shared: self.shared.clone(),
                key: key.clone(),
                who,
            }),
        }
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.shared.at_work.send_modify(|at_work| {
            at_work.remove(&self.key);
        });
        if self.who != Who::Reconciler {
            self.shared.let_go.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Kind;

    fn key(name: &str) -> DesiredKey {
        DesiredKey {
            kind: Kind::Instance,
            tenant: "default".into(),
            name: name.into(),
        }
    }

    #[tokio::test]
    async fn a_person_and_the_reconciler_take_turns() {
        let attended = Attended::default();
        let person = attended.attend(&key("db"), "restored").await.unwrap();
        assert!(attended.work_on(&key("db")).is_none());
        assert!(attended.work_on(&key("web")).is_some(), "each object for itself");
        assert_eq!(attended.by_people(), BTreeSet::from([key("db")]));
        let second = attended.attend(&key("db"), "stopped").await.unwrap_err();
        assert_eq!(
            second.to_string(),
            "instance db is being restored already: wait for the end of that"
        );
        drop(person);
        attended.let_go().await;
        assert_eq!(attended.by_people(), BTreeSet::new());

        let worker = attended.work_on(&key("db")).expect("nobody has it");
        assert_eq!(attended.by_people(), BTreeSet::new());
        let db = key("db");
        let (waited, ()) = tokio::join!(attended.attend(&db, "stopped"), async { drop(worker) });
        waited.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_does_not_finish_is_not_waited_for_forever() {
        let attended = Attended::default();
        let _worker = attended.work_on(&key("db"));
        let refused = attended.attend(&key("db"), "stopped").await.unwrap_err();
        assert_eq!(refused, AttendError::Reconciler { key: key("db") });
    }
}
