//! A whole instance as one stream of bytes, out of one daemon and into another: Incus' own backup, made for the way
//! and deleted after it.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::json;

use super::operation::Outcome;
use super::{Incus, IncusError, Kind, path};

/// Disks are large.
const COPY_LIMIT: Duration = Duration::from_secs(3_600);

/// The bytes of an exported instance, read as they are wanted.
#[derive(Debug)]
pub struct ExportedInstance {
    response: reqwest::Response,
}

impl ExportedInstance {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When Incus breaks off.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, IncusError> {
        let chunk = self.response.chunk().await;
        chunk
            .map_err(|error| IncusError::bad_answer(format!("the export broke off: {}", error.without_url())))
    }
}

impl Incus {
    /// Makes a backup of the instance, with its snapshots. One of that name that was left behind goes first.
    /// `expires_at`, RFC 3339, is when Incus forgets it.
    pub async fn create_backup(
        &self,
        project: &str,
        name: &str,
        backup: &str,
        expires_at: &str,
    ) -> Result<(), IncusError> {
        self.delete_backup(project, name, backup).await?;
        let body = json!({"name": backup, "expires_at": expires_at, "instance_only": false, "optimized_storage": false,
            "compression_algorithm": "none"});
        let path = path::below_instance(project, name, "backups")?;
        let slow = self.clone().with_operation_limit(COPY_LIMIT);
        let answer = slow.write(Method::POST, &path, Some(&body), None).await?;
        match slow.finish(answer, Duration::ZERO).await? {
            Outcome::Success => Ok(()),
            Outcome::Forgotten => Err(IncusError::OperationLost),
        }
    }

    /// The bytes of a backup.
    pub async fn read_backup(
        &self,
        project: &str,
        name: &str,
        backup: &str,
    ) -> Result<ExportedInstance, IncusError> {
        let path = path::backup(project, name, backup, "/export")?;
        let response = self.transport.download(&path, COPY_LIMIT).await?;
        Ok(ExportedInstance { response })
    }

    /// Deletes a backup. One that is not there is gone already.
    pub async fn delete_backup(&self, project: &str, name: &str, backup: &str) -> Result<(), IncusError> {
        let path = path::backup(project, name, backup, "")?;
        let deleted = match self.write(Method::DELETE, &path, None, None).await {
            Ok(answer) => self.finish(answer, Duration::ZERO).await.map(drop),
            Err(error) => Err(error),
        };
        match deleted {
            Err(IncusError::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    /// Makes an instance of a backup's bytes, stopped. One of that name is refused.
    pub async fn import_instance(
        &self,
        project: &str,
        name: &str,
        file: tokio::fs::File,
    ) -> Result<(), IncusError> {
        let headers = [("X-Incus-name", name.to_owned())];
        let collection = path::collection(Kind::Instance, project, "")?;
        let slow = self.clone().with_operation_limit(COPY_LIMIT);
        let answer = slow
            .transport
            .upload(&collection, &headers, file, COPY_LIMIT)
            .await?;
        match slow.finish(answer, Duration::ZERO).await? {
            Outcome::Success => Ok(()),
            Outcome::Forgotten => Err(IncusError::OperationLost),
        }
    }
}
