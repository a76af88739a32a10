//! Snapshots and exports of what holds data: an instance, or a custom volume, which is named `pool/volume`.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::client::shown;
use super::operation::Outcome;
use super::transport::Download;
use super::{Incus, IncusError, Kind, path};

/// Disks are large.
const EXPORT_LIMIT: Duration = Duration::from_secs(6 * 3_600);

/// Incus waits half a minute, within the request, for an instance that was asked to shut down and was then stopped by
/// force, before it lets go of that instance's disks.
const RENAME_LIMIT: Duration = Duration::from_secs(180);

impl Incus {
    /// The names of its snapshots.
    pub async fn snapshot_names(
        &self,
        kind: Kind,
        project: &str,
        name: &str,
    ) -> Result<Vec<String>, IncusError> {
        self.names_below(kind, project, name, "snapshots").await
    }

    /// Makes a snapshot of the disks; of an instance the config is in it, its memory is not.
    pub async fn take_snapshot(
        &self,
        kind: Kind,
        project: &str,
        name: &str,
        snapshot: &str,
    ) -> Result<(), IncusError> {
        path::below(kind, project, name, &["snapshots", snapshot])?;
        let path = path::below(kind, project, name, &["snapshots"])?;
        let answer = self
            .write(Method::POST, &path, Some(&json!({"name": snapshot})), None)
            .await?;
        match self.finish(answer, Duration::ZERO).await? {
            Outcome::Success => Ok(()),
            Outcome::Forgotten => {
                let names = self.snapshot_names(kind, project, name).await?;
                shown(names.iter().any(|name| name == snapshot))
            }
        }
    }

    /// Deletes a snapshot. One that is not there is gone already.
    pub async fn delete_snapshot(
        &self,
        kind: Kind,
        project: &str,
        name: &str,
        snapshot: &str,
    ) -> Result<(), IncusError> {
        self.delete_below(&path::below(kind, project, name, &["snapshots", snapshot])?)
            .await
    }

    /// The names of the exports that Incus itself still has.
    pub async fn export_names(
        &self,
        kind: Kind,
        project: &str,
        name: &str,
    ) -> Result<Vec<String>, IncusError> {
        self.names_below(kind, project, name, "backups").await
    }

    /// Makes an export within Incus; to be downloaded, and deleted.
    pub async fn create_export(
        &self,
        kind: Kind,
        project: &str,
        name: &str,
        export: &str,
        options: &ExportOptions,
    ) -> Result<(), IncusError> {
        path::below(kind, project, name, &["backups", export])?;
        let path = path::below(kind, project, name, &["backups"])?;
        let alone = match kind {
            Kind::Volume => "volume_only",
            _ => "instance_only",
        };
        let mut body = json!({"name": export, alone: !options.with_snapshots, "optimized_storage": false});
        if !options.compressed {
            body["compression_algorithm"] = json!("none");
        }
        if let Some(expires_at) = &options.expires_at {
            body["expires_at"] = json!(expires_at);
        }
        let slow = self.clone().with_operation_limit(EXPORT_LIMIT);
        let answer = slow.write(Method::POST, &path, Some(&body), None).await?;
        match slow.finish(answer, Duration::ZERO).await? {
            Outcome::Success => Ok(()),
            Outcome::Forgotten => {
                let names = self.export_names(kind, project, name).await?;
                shown(names.iter().any(|name| name == export))
            }
        }
    }

    /// An export's bytes, as they come.
    pub async fn download_export(
        &self,
        kind: Kind,
        project: &str,
        name: &str,
        export: &str,
    ) -> Result<Export, IncusError> {
        let path = path::below(kind, project, name, &["backups", export, "export"])?;
        Ok(Export(self.transport.download(&path, EXPORT_LIMIT).await?))
    }

    /// Deletes an export. One that is not there is gone already.
    pub async fn delete_export(
        &self,
        kind: Kind,
        project: &str,
        name: &str,
        export: &str,
    ) -> Result<(), IncusError> {
        self.delete_below(&path::below(kind, project, name, &["backups", export])?)
            .await
    }

    /// Makes an instance out of an export's file. It does not run, and its config is what it was.
    pub async fn import_instance(&self, project: &str, name: &str, file: &Path) -> Result<(), IncusError> {
        self.import((Kind::Instance, project, ""), name, name, file).await
    }

    /// Makes a custom volume out of an export's file.
    pub async fn import_volume(
        &self,
        project: &str,
        pool: &str,
        name: &str,
        file: &Path,
    ) -> Result<(), IncusError> {
        let whole = format!("{pool}/{name}");
        self.import((Kind::Volume, project, pool), name, &whole, file)
            .await
    }

    /// `whole` is the name with what it lives in.
    async fn import(
        &self,
        (kind, project, container): (Kind, &str, &str),
        name: &str,
        whole: &str,
        file: &Path,
    ) -> Result<(), IncusError> {
        path::object(kind, project, whole)?;
        let opened = tokio::fs::File::open(file).await;
        let opened = opened.map_err(|source| IncusError::Unreadable {
            path: file.to_owned(),
            source,
        })?;
        let headers = [("X-Incus-name", name.to_owned())];
        let path = path::collection(kind, project, container)?;
        let slow = self.clone().with_operation_limit(EXPORT_LIMIT);
        let answer = self
            .transport
            .upload(&path, &headers, opened, EXPORT_LIMIT)
            .await?;
        match slow.finish(answer, Duration::ZERO).await? {
            Outcome::Success => Ok(()),
            Outcome::Forgotten => shown(self.get(kind, project, whole).await?.is_some()),
        }
    }

    /// Gives an instance that does not run another name.
    pub async fn rename_instance(&self, project: &str, name: &str, to: &str) -> Result<(), IncusError> {
        self.rename((Kind::Instance, project), name, to, to).await
    }

    /// Gives a custom volume another name. The disks of instances follow it; none of them may run.
    pub async fn rename_volume(
        &self,
        project: &str,
        pool: &str,
        name: &str,
        to: &str,
    ) -> Result<(), IncusError> {
        let (before, after) = (format!("{pool}/{name}"), format!("{pool}/{to}"));
        self.rename((Kind::Volume, project), &before, to, &after).await
    }

    /// `before` and `after` are names with what it lives in.
    async fn rename(
        &self,
        (kind, project): (Kind, &str),
        before: &str,
        to: &str,
        after: &str,
    ) -> Result<(), IncusError> {
        path::object(kind, project, after)?;
        let path = path::object(kind, project, before)?;
        let body = json!({"name": to});
        let answer = self
            .transport
            .send(Method::POST, &path, Some(&body), None, RENAME_LIMIT)
            .await?;
        match self.finish(answer, Duration::ZERO).await? {
            Outcome::Success => Ok(()),
            Outcome::Forgotten => shown(self.get(kind, project, after).await?.is_some()),
        }
    }

    async fn names_below(
        &self,
        kind: Kind,
        project: &str,
        name: &str,
        what: &str,
    ) -> Result<Vec<String>, IncusError> {
        let path = path::below(kind, project, name, &[what])?;
        let joint = if path.contains('?') { '&' } else { '?' };
        let (Value::Array(list), _) = self.read(&format!("{path}{joint}recursion=1")).await? else {
            return Err(IncusError::bad_answer("a list that is no array"));
        };
        // Incus says `web/s0` or `s0`, by where it is asked.
        let names = list
            .iter()
            .filter_map(|object| object.get("name")?.as_str()?.rsplit('/').next());
        Ok(names.map(str::to_owned).collect())
    }

    async fn delete_below(&self, path: &str) -> Result<(), IncusError> {
        let answer = match self.write(Method::DELETE, path, None, None).await {
            Err(IncusError::NotFound { .. }) => return Ok(()),
            answer => answer?,
        };
        // A forgotten one is gone, or will be found again by the next look.
        self.finish(answer, Duration::ZERO).await.map(|_| ())
    }
}

/// What an export holds, and how long Incus keeps it.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    pub with_snapshots: bool,
    /// As Incus compresses by default.
    pub compressed: bool,
    /// RFC 3339; `None`: until it is deleted.
    pub expires_at: Option<String>,
}

/// An export on its way out of Incus.
#[derive(Debug)]
pub struct Export(Download);

impl Export {
    /// The next bytes; `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, IncusError> {
        self.0.chunk().await
    }
}
