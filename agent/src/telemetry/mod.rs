//! What a person sees of a running member: its log lines, and its metrics.
//!
//! It owns the names of metrics. It must not know the API or the store: whoever serves a scrape hands in a
//! [`NodeSample`].

mod calls;
mod disk;
mod leader;
mod logging;
mod metrics;
mod passes;
mod process;

pub use calls::{CallKind, StartedCall};
pub use leader::LeaderWatch;
pub use logging::{LoggingError, init_logging};
pub use metrics::{Metrics, NodeSample, PendingProposal, StreamGauge};
pub use passes::Passes;
