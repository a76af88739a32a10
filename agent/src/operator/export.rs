//! An instance that moves away: its bytes, for the host that it moves to.

use std::time::{Duration, SystemTime};

use proto::peer::export_chunk::Chunk;
use proto::peer::{ExportEnd, ExportRequest, ExportStart};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::Operator;
use super::error::{Failure, OperatorError};
use super::instances::named;
use super::planner::key;
use crate::document::{Kind, rfc3339_utc};
use crate::incus::{self, AttachedVolume, ExportOptions, Incus, Live};

/// Where the pieces of an export go.
pub type Exported = mpsc::Sender<Chunk>;

/// What is made for the way. One that an agent left behind is replaced by the next, or forgotten by Incus.
const EXPORT: &str = "agent-move";
const EXPORT_LIFE: Duration = Duration::from_secs(86_400);

impl Operator {
    /// Hands out an instance that its binding sends to the host that asks. It must have been stopped, and stay so.
    ///
    /// # Errors
    /// See [`OperatorError`]; [`Failure::Busy`] while it still runs.
    pub async fn export(&self, request: &ExportRequest, chunks: Exported) -> Result<(), OperatorError> {
        let incus = self.incus()?;
        let (tenant, name) = named(request.instance.as_ref())?;
        let planner = self.planner.as_ref().ok_or_else(|| {
            OperatorError::new(
                Failure::Unsupported,
                format!("nothing is reconciled on {}", self.host),
            )
        })?;
        planner.may_leave(&key(Kind::Instance.singular(), tenant, name)?, &request.to)?;
        let live = self.live(incus, tenant, name).await?;
        if let Some(volume) = live.volumes().first() {
            return Err(volume_stays(name, volume, &request.to));
        }
        let daemon = incus.server().await?.fingerprint;
        let same_daemon = !daemon.is_empty() && daemon == request.daemon;
        say(&chunks, Chunk::Start(ExportStart { same_daemon })).await?;
        let before = self.stopped(incus, tenant, name).await?;
        if same_daemon {
            return Ok(());
        }
        let options = ExportOptions {
            with_snapshots: true,
            compressed: false,
            expires_at: Some(rfc3339_utc(SystemTime::now() + EXPORT_LIFE)),
        };
        incus
            .delete_export(incus::Kind::Instance, tenant, name, EXPORT)
            .await?;
        incus
            .create_export(incus::Kind::Instance, tenant, name, EXPORT, &options)
            .await?;
        let sent = send(incus, tenant, name, &chunks).await;
        let deleted = incus
            .delete_export(incus::Kind::Instance, tenant, name, EXPORT)
            .await;
        if let Err(error) = deleted {
            tracing::debug!(%error, name, "the export that was made for a move stays until it expires");
        }
        let end = sent?;
        let after = self.stopped(incus, tenant, name).await?;
        if last_used(&before) != last_used(&after) {
            let message = format!("instance {name} was started on {} while it was copied", self.host);
            return Err(OperatorError::new(Failure::Refused, message));
        }
        say(&chunks, Chunk::End(end)).await
    }

    async fn stopped(&self, incus: &Incus, tenant: &str, name: &str) -> Result<Live, OperatorError> {
        let live = self.live(incus, tenant, name).await?;
        if live.status() == "Stopped" {
            return Ok(live);
        }
        let message = format!("instance {name} on {} is not stopped yet", self.host);
        Err(OperatorError::new(Failure::Busy, message))
    }
}

/// A volume may be another instance's, too, and its document names its host: a person takes it along.
fn volume_stays(name: &str, volume: &AttachedVolume, to: &str) -> OperatorError {
    let AttachedVolume { device, pool, volume } = volume;
    OperatorError::new(
        Failure::Refused,
        format!(
            "instance {name} has volume {volume} of pool {pool} as its device {device}, and volumes do not move with \
             instances; take the device out of its document, move it, bring the volume to {to} (incus storage volume \
             export, and import there), and put the device back"
        ),
    )
}

async fn send(
    incus: &Incus,
    tenant: &str,
    name: &str,
    chunks: &Exported,
) -> Result<ExportEnd, OperatorError> {
    let mut export = incus
        .download_export(incus::Kind::Instance, tenant, name, EXPORT)
        .await?;
    let mut hash = Sha256::new();
    let mut size_bytes = 0_u64;
    while let Some(data) = export.chunk().await? {
        hash.update(&data);
        size_bytes += data.len() as u64;
        say(chunks, Chunk::Data(data)).await?;
    }
    Ok(ExportEnd {
        size_bytes,
        sha256: hash.finalize().to_vec().into(),
    })
}

async fn say(chunks: &Exported, chunk: Chunk) -> Result<(), OperatorError> {
    let gone = |_| OperatorError::new(Failure::Unreachable, "whoever asked for it is gone");
    chunks.send(chunk).await.map_err(gone)
}

/// Incus notes when an instance was started last.
fn last_used(live: &Live) -> Option<&str> {
    live.object.get("last_used_at")?.as_str()
}
