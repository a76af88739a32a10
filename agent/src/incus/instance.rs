//! What a person asks of one instance: how it is, and its snapshots.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::client::shown;
use super::operation::Outcome;
use super::{Incus, IncusError, path};

impl Incus {
    /// How an instance is now, addresses included, in Incus' own fields. `None` where there is none.
    pub async fn state(&self, project: &str, name: &str) -> Result<Option<Value>, IncusError> {
        found(self.read(&path::below_instance(project, name, "state")?).await)
    }

    /// An instance's snapshots, the oldest first, in Incus' own fields.
    pub async fn snapshots(&self, project: &str, name: &str) -> Result<Vec<Value>, IncusError> {
        let path = path::below_instance(project, name, "snapshots")?;
        self.read_list(&format!("{path}&recursion=1")).await
    }

    /// One snapshot, with the config and devices that the instance had. `None` where there is none.
    pub async fn snapshot(
        &self,
        project: &str,
        name: &str,
        snapshot: &str,
    ) -> Result<Option<Value>, IncusError> {
        found(self.read(&path::snapshot(project, name, snapshot)?).await)
    }

    /// Makes a snapshot of the instance's disks and config; its memory is not in it. One of that name is refused.
    pub async fn create_snapshot(&self, project: &str, name: &str, snapshot: &str) -> Result<(), IncusError> {
        path::snapshot(project, name, snapshot)?;
        let body = json!({"name": snapshot, "stateful": false});
        let path = path::below_instance(project, name, "snapshots")?;
        let answer = self.write(Method::POST, &path, Some(&body), None).await?;
        match self.finish(answer, Duration::ZERO).await? {
            Outcome::Success => Ok(()),
            Outcome::Forgotten => shown(self.snapshot(project, name, snapshot).await?.is_some()),
        }
    }

    /// Makes the instance what it was at the snapshot: disks, config, devices and profiles. What runs is stopped for
    /// that and started again by Incus.
    pub async fn restore_snapshot(
        &self,
        project: &str,
        name: &str,
        snapshot: &str,
    ) -> Result<(), IncusError> {
        path::snapshot(project, name, snapshot)?;
        let path = path::object(super::Kind::Instance, project, name)?;
        let body = json!({"restore": snapshot});
        let answer = self.write(Method::PUT, &path, Some(&body), None).await?;
        match self.finish(answer, Duration::ZERO).await? {
            Outcome::Success => Ok(()),
            // An instance does not show where its disks come from.
            Outcome::Forgotten => Err(IncusError::OperationLost),
        }
    }
}

fn found(answer: Result<(Value, String), IncusError>) -> Result<Option<Value>, IncusError> {
    match answer {
        Ok((object, _)) => Ok(Some(object)),
        Err(IncusError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
