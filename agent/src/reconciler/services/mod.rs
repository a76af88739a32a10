//! Services and files: on this host, and inside of its instances.
//!
//! Documents of the kinds `service`, `file` and `os-service` have no object in Incus. What they come to on a machine is
//! a [`footprint`] of files and perhaps a unit; what we made is in the ledger ([`record`]); [`observe`] looks, [`plan`]
//! compares (pure), [`execute`] does. The pass, the workers, the backoff, the brake and the status are those of every
//! other document.
//!
//! What it must not do:
//! - write over a file, or a unit, that is not in the ledger and has no mark of ours;
//! - reach the host itself for any tenant but the default one: the documents' rules see to that;
//! - touch an instance that is not ours, or one that does not run;
//! - remove anything but what the ledger says, or a file whose contents we never wrote.

mod act;
mod execute;
mod footprint;
mod guest;
mod observe;
mod os_services;
mod plan;
mod record;
mod words;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::desired::Desired;
use super::observe::Observed;
use super::plan::{Context, Plan};
use super::secrets::Secrets;
use crate::attended::Attended;
use crate::backup::Board;
use crate::document::{DesiredKey, Kind};
use crate::incus::Incus;
use crate::secrets::KeyFile;
use crate::service::{HostMachine, Manager};
use crate::tunnel::Tunnels;
pub(crate) use act::{Act, Action, Content};
#[cfg(test)]
pub(crate) use act::{FileWanted, Place, Replaces};
pub(crate) use execute::{ActError, act};
pub(crate) use plan::{Seen, owned, plan};
use record::Ledger;
pub(crate) use words::{fingerprint, meaning};

/// A service that dies right after its start is seen so soon, for a while.
const LOOK_WHILE_FRESH: Duration = Duration::from_secs(2);
const FRESH: Duration = Duration::from_secs(10);
/// Nothing tells when a unit or a file changes.
const LOOK_ALWAYS: Duration = Duration::from_secs(20);

/// What acts are done with. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Hands {
    pub(crate) incus: Incus,
    pub(crate) host: HostMachine,
    /// What keeps the host's own services. `None`: the host itself is left alone.
    pub(crate) manager: Option<Manager>,
    pub(crate) ledger: Ledger,
    pub(crate) tunnels: Tunnels,
    /// What is said of backups.
    pub(crate) board: Board,
    /// Who is at work on what: people's commands, and the reconciler's workers.
    pub(crate) attended: Attended,
    pub(crate) secrets: Secrets,
}

impl Hands {
    /// The ledger is in `ledger`, a folder that need not be there yet; `secrets` opens what documents refer to.
    pub(crate) fn new(
        incus: Incus,
        host: HostMachine,
        manager: Option<Manager>,
        ledger: &Path,
        tunnels: Tunnels,
        secrets: Option<KeyFile>,
    ) -> Hands {
        Hands {
            incus,
            host,
            manager,
            ledger: Ledger::open(ledger),
            tunnels,
            board: Board::default(),
            attended: Attended::default(),
            secrets: Secrets::new(secrets),
        }
    }
}

/// Whether documents of this kind are seen to here.
pub(crate) const fn is_ours(kind: Kind) -> bool {
    matches!(kind, Kind::OsService | Kind::File | Kind::Service)
}

/// Looks at services and files, and remembers what need not be looked at again.
#[derive(Debug)]
pub(crate) struct Services {
    hands: Hands,
    glances: observe::Glances,
    /// When something was last to be done for a document.
    fresh: BTreeMap<DesiredKey, Instant>,
}

impl Services {
    pub(crate) fn new(hands: Hands) -> Services {
        Services {
            hands,
            glances: BTreeMap::new(),
            fresh: BTreeMap::new(),
        }
    }

    /// What is there of every document of ours. `incus`: `None` while it does not answer.
    pub(crate) async fn observe(
        &mut self,
        desired: &Desired,
        incus: Option<&Observed>,
        context: Context<'_>,
    ) -> Seen {
        let seen = observe::observe(&self.hands, &mut self.glances, desired, incus, context).await;
        Seen {
            tunnels: self.hands.tunnels.open(),
            ..seen
        }
    }

    /// Takes note of what is to be done; when to look again at the latest, though nothing tells.
    pub(crate) fn planned(&mut self, plan: &Plan, now: Instant) -> Option<Instant> {
        let ours = || plan.objects.iter().filter(|(key, _)| is_ours(key.kind));
        for (key, _) in ours().filter(|(_, object)| !object.steps.is_empty()) {
            self.fresh.insert(key.clone(), now);
            self.glances.remove(key);
        }
        self.fresh.retain(|_, at| now.duration_since(*at) < FRESH);
        for key in self.fresh.keys() {
            self.glances.remove(key);
        }
        ours().next()?;
        let wait = if self.fresh.is_empty() {
            LOOK_ALWAYS
        } else {
            LOOK_WHILE_FRESH
        };
        Some(now + wait)
    }
}
