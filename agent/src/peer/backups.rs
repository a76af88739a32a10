//! Files of backups on their way from one host to another: in pieces, read only as fast as they are written.

use std::io;

use futures::StreamExt;
use proto::agent::v1::{FetchBackupRequest, FetchBackupResponse};
use proto::peer::{BackupChunk, BackupFile};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::hosts::{HostServer, Hosts, failed};
use crate::backup::Backup;
use crate::operator::{Failure, OperatorError};

/// Read at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Pieces under way.
const QUEUE: usize = 4;

pub(super) type BackupChunks =
    std::pin::Pin<Box<dyn futures::Stream<Item = Result<BackupChunk, Status>> + Send>>;

impl Hosts {
    /// Copies a backup from another host to this one. One that is here already is left as it is.
    ///
    /// # Errors
    /// As for [`Hosts::perform`]; and when what came has another checksum.
    pub(super) async fn fetch_backup(
        &self,
        request: FetchBackupRequest,
    ) -> Result<FetchBackupResponse, OperatorError> {
        let keeper = self.operator().keeper()?;
        let wanted = request.backup.unwrap_or_default();
        let done = FetchBackupResponse {
            host: keeper.host().to_owned(),
        };
        if self
            .operator()
            .backup(&wanted.tenant, &wanted.kind, &wanted.name, &wanted.id)
            .is_ok()
        {
            return Ok(done);
        }
        let file = BackupFile {
            tenant: wanted.tenant,
            kind: wanted.kind,
            name: wanted.name,
            id: wanted.id,
        };
        let from = request.from.as_str();
        let opened = self
            .peer(from)?
            .fetch_backup(file.clone())
            .await
            .map_err(|status| failed(from, &status))?;
        let mut chunks = opened.into_inner();
        let broken =
            |reason: &str| OperatorError::new(Failure::Unreachable, format!("host {from}: {reason}"));
        let first = chunks.message().await.map_err(|status| failed(from, &status))?;
        let first = first.ok_or_else(|| broken("an empty backup"))?;
        let backup: Backup =
            serde_json::from_slice(&first.description).map_err(|_| broken("a backup that cannot be read"))?;
        if !is_it(&backup, &file) {
            return Err(broken("another backup than was asked for"));
        }
        let mut incoming = keeper.store().begin(backup).await?;
        incoming.write(&first.data).await?;
        while let Some(chunk) = chunks.message().await.map_err(|status| failed(from, &status))? {
            incoming.write(&chunk.data).await?;
        }
        incoming.finish().await?;
        Ok(done)
    }
}

fn is_it(backup: &Backup, wanted: &BackupFile) -> bool {
    backup.tenant == wanted.tenant
        && backup.kind.singular() == wanted.kind
        && backup.name == wanted.name
        && backup.id() == wanted.id
        && !backup.sha256.is_empty()
}

impl HostServer {
    pub(super) async fn send_backup(
        &self,
        request: Request<BackupFile>,
    ) -> Result<Response<BackupChunks>, Status> {
        let HostServer(hosts) = self;
        let BackupFile {
            tenant,
            kind,
            name,
            id,
        } = request.into_inner();
        let backup = hosts.operator().backup(&tenant, &kind, &name, &id)?;
        let keeper = hosts.operator().keeper()?;
        let path = keeper.store().path(&backup).map_err(OperatorError::from)?;
        let unreadable = |error: io::Error| Status::internal(format!("{}: {error}", path.display()));
        let mut file = tokio::fs::File::open(&path).await.map_err(unreadable)?;
        let description = serde_json::to_vec(&backup).map_err(|error| Status::internal(error.to_string()))?;
        let (to_caller, chunks) = mpsc::channel(QUEUE);
        // Lives as long as the call: a caller that is gone is noticed at the next piece.
        tokio::spawn(async move {
            let mut description = Some(description);
            loop {
                let mut data = vec![0; CHUNK_BYTES];
                let read = file.read(&mut data).await;
                let chunk = match read {
                    Ok(0) if description.is_none() => return,
                    Ok(count) => {
                        data.truncate(count);
                        Ok(BackupChunk {
                            description: description.take().unwrap_or_default().into(),
                            data: data.into(),
                        })
                    }
                    Err(error) => Err(Status::internal(error.to_string())),
                };
                let is_over = chunk.is_err();
                if to_caller.send(chunk).await.is_err() || is_over {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(chunks).boxed()))
    }
}
