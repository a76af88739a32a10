//! When is a member ready? When its client port says who leads.

use std::time::Duration;

use proto::etcdserverpb::StatusRequest;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tokio::time::{sleep, timeout};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Waits until the member knows a leader; is it the leader itself? The caller bounds the wait.
pub(super) async fn leads(url: &str) -> bool {
    loop {
        match timeout(ANSWER_LIMIT, ask(url)).await {
            Ok(Some((leader, member))) if leader != 0 => return leader == member,
            _ => sleep(PAUSE).await,
        }
    }
}

async fn ask(url: &str) -> Option<(u64, u64)> {
    let mut client = MaintenanceClient::connect(url.to_owned()).await.ok()?;
    let status = client.status(StatusRequest {}).await.ok()?.into_inner();
    Some((status.leader, status.header?.member_id))
}
