//! From any host, for any host: what `agentctl instance`, `tunnel` and a tenant's role reach, with real Incus daemons.

mod instances;
mod maintenance;
mod plans;
mod restarts;
mod tenants;
mod tunnels;

use tests::hosts::Hosts;

/// Three members; the first two have an Incus each. Every command is given to the third, which has none.
async fn start() -> Option<Hosts> {
    Some(Hosts::among(3, 2).start().await?.asking(2))
}

/// Host m1's instance.
fn web(memory: &str) -> String {
    format!(
        "kind: instance
name: web
host: m1
running: true # by hand
spec:
  type: container
  profiles: [default]
  config: {{limits.memory: {memory}}}
  source: {{type: image, alias: busybox}}
"
    )
}
