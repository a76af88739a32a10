//! One signal for every task to stop, in order: clients first, Raft last.

use tokio_util::sync::CancellationToken;

/// Cloneable; cancelled once, when the member is asked to stop or must.
pub type Shutdown = CancellationToken;
