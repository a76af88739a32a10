//! The seam: one vocabulary for everything that can keep a service running.

use clap::ValueEnum;
use thiserror::Error;

use super::machine::{Found, Machine, MachineError};
use super::{Definition, Supervised, script, systemd};

/// What keeps the services of one machine.
#[derive(Clone, Debug)]
pub enum Manager {
    Systemd,
    /// This agent, for a host without systemd.
    Supervised(Supervised),
    /// A script for each service, in a guest without systemd: started by us, and started again when we look and it
    /// does not run.
    Script,
}

/// What `--service-manager` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ManagerChoice {
    /// systemd where the host was booted with it, the agent itself elsewhere
    #[default]
    Auto,
    Systemd,
    /// The agent starts the host's services and keeps them running
    Supervised,
    /// No services and no files on this host
    None,
}

impl ManagerChoice {
    /// The same, decided.
    #[must_use]
    pub fn on_this_host(self) -> ManagerChoice {
        match self {
            // The directory that systemd itself documents as the sign of its running.
            ManagerChoice::Auto if std::path::Path::new(systemd::RUNNING).is_dir() => ManagerChoice::Systemd,
            ManagerChoice::Auto => ManagerChoice::Supervised,
            chosen => chosen,
        }
    }
}

/// A service as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitSeen {
    pub loaded: Loaded,
    /// Whether it is started at boot. `None`: it cannot be said of this one.
    pub enabled: Option<bool>,
    pub activity: Activity,
    /// What it said last, or why it is as it is. For people.
    pub detail: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// There is none of this name.
    Missing,
    /// From the file at this path; empty where there is no file.
    From(String),
    /// The file changed since it was read.
    Outdated(String),
    /// Not usable, in the manager's words.
    Broken(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    Active,
    /// On its way up.
    Starting,
    /// It ended, and its manager will start it again.
    Restarting,
    Stopping,
    /// Does not run, and nothing is wrong with that.
    Inactive,
    Failed,
}

/// Why a manager did not do as asked.
#[derive(Debug, Error)]
pub enum ServiceError {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error("{command} ended with {code}: {reason}")]
    Command {
        command: String,
        code: i32,
        reason: String,
    },
    /// Nothing is started beside it.
    #[error("service {service} is still there {waited_seconds} s after it was killed")]
    StillThere { service: String, waited_seconds: u64 },
    #[error("{0}")]
    Supervised(String),
}

impl UnitSeen {
    #[must_use]
    pub fn missing() -> Self {
        UnitSeen {
            loaded: Loaded::Missing,
            enabled: None,
            activity: Activity::Inactive,
            detail: String::new(),
        }
    }
}

/// The same one: there is one of each for a machine.
impl PartialEq for Manager {
    fn eq(&self, other: &Manager) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl Manager {
    /// What can keep services inside a guest; `None` where nothing can.
    ///
    /// # Errors
    /// When the guest cannot be looked at.
    pub async fn of_guest<M: Machine>(machine: &M) -> Result<Option<Manager>, MachineError> {
        if machine.look(systemd::RUNNING).await? == Found::Folder {
            return Ok(Some(Manager::Systemd));
        }
        Ok((machine.look(script::SHELL).await? != Found::Nothing).then_some(Manager::Script))
    }

    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Manager::Systemd => "systemd",
            Manager::Supervised(_) => "the agent",
            Manager::Script => "a script",
        }
    }

    /// The file that makes a service known, with its mode; `None` where the definition itself is handed over.
    #[must_use]
    pub fn unit_file(&self, name: &str) -> Option<(String, u32)> {
        match self {
            Manager::Systemd => Some((systemd::unit_path(name), 0o644)),
            Manager::Script => Some((script::path(name), 0o755)),
            Manager::Supervised(_) => None,
        }
    }

    /// What stands in that file. `mark` says whose it is.
    #[must_use]
    pub fn unit_text(&self, definition: &Definition, mark: &str) -> String {
        match self {
            Manager::Systemd => definition.unit_text(mark),
            Manager::Script => script::text(definition, mark),
            Manager::Supervised(_) => String::new(),
        }
    }

    /// # Errors
    /// When the manager cannot be asked.
    pub async fn look<M: Machine>(&self, machine: &M, name: &str) -> Result<UnitSeen, ServiceError> {
        match self {
            Manager::Systemd => systemd::look(machine, name).await,
            Manager::Script => script::look(machine, name).await,
            Manager::Supervised(supervised) => Ok(supervised.look(name)),
        }
    }

    /// Makes a changed unit file known.
    ///
    /// # Errors
    /// The manager's own words.
    pub async fn reload<M: Machine>(&self, machine: &M) -> Result<(), ServiceError> {
        match self {
            Manager::Systemd => systemd::command(machine, &["daemon-reload"]).await,
            Manager::Script | Manager::Supervised(_) => Ok(()),
        }
    }

    /// Says whether the service is started at boot.
    ///
    /// # Errors
    /// The manager's own words.
    pub async fn enable<M: Machine>(&self, machine: &M, name: &str, on: bool) -> Result<(), ServiceError> {
        match self {
            Manager::Systemd => {
                let verb = if on { "enable" } else { "disable" };
                systemd::command(machine, &[verb, &systemd::unit(name)]).await
            }
            // Whatever is wanted is started by whoever wants it.
            Manager::Script | Manager::Supervised(_) => Ok(()),
        }
    }

    /// Starts the service, or starts it anew if it runs. That it was begun is all this says: look afterwards.
    ///
    /// # Errors
    /// The manager's own words.
    pub async fn restart<M: Machine>(
        &self,
        machine: &M,
        name: &str,
        definition: Option<&Definition>,
    ) -> Result<(), ServiceError> {
        match (self, definition) {
            (Manager::Systemd, _) => systemd::restart(machine, name).await,
            (Manager::Script, _) => script::restart(machine, name).await,
            (Manager::Supervised(supervised), Some(definition)) => supervised.start(definition.clone()).await,
            (Manager::Supervised(_), None) => Err(ServiceError::Supervised(
                "only what a document defines can be run by the agent".to_owned(),
            )),
        }
    }

    /// Stops the service and waits for its end. One that does not run is fine, as is one that nobody knows.
    ///
    /// # Errors
    /// The manager's own words.
    pub async fn stop<M: Machine>(&self, machine: &M, name: &str) -> Result<(), ServiceError> {
        match self {
            Manager::Systemd => systemd::stop(machine, name).await,
            Manager::Script => script::stop(machine, name).await,
            Manager::Supervised(supervised) => supervised.stop(name).await,
        }
    }
}
