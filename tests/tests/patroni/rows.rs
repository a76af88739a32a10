//! A program that writes row after row and remembers which were acknowledged.

use std::time::Duration;

use tests::wait;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::database::Database;
use crate::deployment::Deployment;

/// A failover of PostgreSQL (Patroni's ttl of 20 s) with the store's own election in it, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(100);
/// Between two attempts while nobody takes writes.
const RETRY: Duration = Duration::from_millis(200);

/// Writes until it is stopped.
#[derive(Debug)]
pub(crate) struct Writer {
    task: JoinHandle<()>,
    acknowledged: watch::Receiver<Vec<u64>>,
    stop: watch::Sender<bool>,
}

impl Writer {
    pub(crate) async fn start(deployment: &Deployment) -> Writer {
        let databases: Vec<&Database> = (0..deployment.len()).map(|i| deployment.database(i)).collect();
        let primary = Database::primary_of(&databases);
        wait::until("the table to be made", async || {
            primary
                .query("create table if not exists rows (id bigint primary key)")
                .await
        })
        .await;
        let (acknowledge, acknowledged) = watch::channel(Vec::new());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            for id in 0_u64.. {
                if *stopped.borrow() {
                    return;
                }
                // A row whose outcome is unknown is never written again: its number would be taken.
                match primary.query(&format!("insert into rows values ({id})")).await {
                    Some(_) => acknowledge.send_modify(|ids| ids.push(id)),
                    None => tokio::time::sleep(RETRY).await,
                }
            }
        });
        Writer {
            task,
            acknowledged,
            stop,
        }
    }

    /// Waits until so many more rows are acknowledged.
    pub(crate) async fn progress(&self, rows: usize) {
        let target = self.acknowledged.borrow().len() + rows;
        let mut acknowledged = self.acknowledged.clone();
        let reached = acknowledged.wait_for(|ids| ids.len() >= target);
        let reached = tokio::time::timeout(PATIENCE, reached)
            .await
            .map(|ids| ids.is_ok());
        assert_eq!(
            reached,
            Ok(true),
            "waited {PATIENCE:?} in vain for {rows} more rows"
        );
    }

    /// All that was acknowledged.
    pub(crate) async fn stop(self) -> Vec<u64> {
        self.stop.send_replace(true);
        self.task.await.expect("the writer's end");
        self.acknowledged.borrow().clone()
    }
}
