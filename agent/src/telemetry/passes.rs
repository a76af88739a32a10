//! How the reconciler gets on.

use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The passes of this member's reconciler. Cloneable; all clones count together.
#[derive(Clone, Debug)]
pub struct Passes {
    took: Histogram,
}

impl Passes {
    pub(super) fn new() -> Passes {
        // From one millisecond to half a minute.
        Passes {
            took: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
        }
    }

    /// A pass is over: documents read, Incus looked at, work planned and begun.
    pub fn passed(&self, took: Duration) {
        self.took.observe(took.as_secs_f64());
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "agent_reconciler_pass_duration_seconds",
            "How long it took to look at everything on this host and to begin what is to be done",
            self.took.clone(),
        );
    }
}
