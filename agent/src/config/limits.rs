//! What one client may have of this member, and what there may be of what is kept for all.

use clap::Args;

/// The bounds that an operator may want to be others. What has no flag stands in README's table of limits.
#[derive(Args, Clone, Debug)]
pub struct LimitArgs {
    /// Bytes that one client may have under way: requests on their way in, proposals, answers that it has not taken;
    /// four times as much for all together
    #[arg(long, env = "AGENT_MAX_CLIENT_BYTES", value_name = "BYTES", default_value_t = 256 << 20,
          value_parser = at_least(8 << 20), help_heading = "Limits")]
    pub max_client_bytes: u64,
    /// Watches that one client may have at this member
    #[arg(long, env = "AGENT_MAX_CLIENT_WATCHES", value_name = "N", default_value_t = 262_144,
          value_parser = at_least(1), help_heading = "Limits")]
    pub max_client_watches: u64,
    /// Leases there may be before this member grants no more
    #[arg(long, env = "AGENT_MAX_LEASES", value_name = "N", default_value_t = 1_000_000,
          value_parser = at_least(1), help_heading = "Limits")]
    pub max_leases: u64,
}

/// Up to what a count in memory can be.
fn at_least(least: u64) -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(least..=u64::from(u32::MAX))
}
