//! One PostgreSQL server, asked through `psql` as its users do.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::deployment::{environment, postgresql_programs};

/// After this the outcome of a statement is unknown to whoever sent it.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a server is.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    hosts: Vec<(Ipv4Addr, u16)>,
    session: &'static str,
}

impl Database {
    pub(crate) fn new(address: Ipv4Addr, port: u16) -> Database {
        Database {
            hosts: vec![(address, port)],
            session: "any",
        }
    }

    /// Whichever of these takes writes.
    pub(crate) fn primary_of(databases: &[&Database]) -> Database {
        Database {
            hosts: databases
                .iter()
                .flat_map(|database| database.hosts.clone())
                .collect(),
            session: "read-write",
        }
    }

    /// What a statement answers, columns parted by `|`; `None` when it failed or its outcome is unknown.
    pub(crate) async fn query(&self, statement: &str) -> Option<String> {
        let hosts: Vec<String> = self.hosts.iter().map(|(host, _)| host.to_string()).collect();
        let ports: Vec<String> = self.hosts.iter().map(|(_, port)| port.to_string()).collect();
        let server = format!(
            "host={} port={} user=postgres dbname=postgres connect_timeout=2 target_session_attrs={}",
            hosts.join(","),
            ports.join(","),
            self.session
        );
        let psql = Command::new(postgresql_programs().join("psql"))
            .args(["--no-psqlrc", "--no-align", "--tuples-only", "--quiet"])
            .args(["--dbname", &server, "--command", statement])
            .env_clear()
            .envs(environment())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(STATEMENT_TIMEOUT, psql).await.ok()?.ok()?;
        let answer = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| answer.trim_end().to_owned())
    }
}
