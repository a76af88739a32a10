//! The file of `--config` for a host with certificates: written for the first hosts by `agentctl cluster init`, and by
//! `agent join` on every later one. Pure.

/// Where a host keeps its part.
pub const HOST_FOLDER: &str = "/etc/agent";
const DATA_DIR: &str = "/var/lib/agent";

/// What the settings follow from.
#[derive(Clone, Debug)]
pub struct HostSettings<'a> {
    pub name: &'a str,
    /// Who wrote them, for whoever reads them.
    pub written_by: &'a str,
    /// Where the certificates are, and the file itself.
    pub folder: &'a str,
    /// `--initial-cluster-token`.
    pub cluster_token: &'a str,
    /// Name and peer URL of each.
    pub members: &'a [(String, String)],
    /// The cluster is there already.
    pub joins: bool,
    pub peer_url: &'a str,
    pub client_url: &'a str,
    /// Heartbeat and election, in milliseconds; `None`: as `agent run` has them.
    pub timeouts_ms: Option<(u64, u64)>,
}

impl HostSettings<'_> {
    /// As YAML.
    #[must_use]
    pub fn text(&self) -> String {
        let file = |name: &str| format!("{}/{name}", self.folder);
        let members: Vec<String> = self
            .members
            .iter()
            .map(|(name, url)| format!("{name}={url}"))
            .collect();
        let state = if self.joins { "existing" } else { "new" };
        let settings = [
            ("name", self.name.to_owned()),
            ("data-dir", DATA_DIR.to_owned()),
            ("initial-cluster", members.join(",")),
            ("initial-cluster-state", state.to_owned()),
            ("initial-cluster-token", self.cluster_token.to_owned()),
            ("listen-peer-urls", every_address(self.peer_url)),
            ("initial-advertise-peer-urls", self.peer_url.to_owned()),
            ("peer-cert-file", file("peer.pem")),
            ("peer-key-file", file("peer.key")),
            ("peer-trusted-ca-file", file("ca.pem")),
            ("peer-issuer-file", file("issuer.pem")),
            ("secrets-key-file", file("secrets.key")),
            ("listen-client-urls", every_address(self.client_url)),
            ("advertise-client-urls", self.client_url.to_owned()),
            ("cert-file", file("server.pem")),
            ("key-file", file("server.key")),
            ("trusted-ca-file", file("ca.pem")),
        ];
        let mut text = format!("# Host {}. Written by {}.\n", self.name, self.written_by);
        for (key, value) in settings {
            text.push_str(&format!("{key}: \"{value}\"\n"));
        }
        text.push_str("client-cert-auth: true\n");
        if let Some((heartbeat, election)) = self.timeouts_ms {
            text.push_str(&format!(
                "heartbeat-interval: {heartbeat}\nelection-timeout: {election}\n"
            ));
        }
        text
    }
}

/// All addresses of a host, of the family by which it is reached.
fn every_address(url: &str) -> String {
    let port = url.rsplit(':').next().unwrap_or_default();
    match url.contains('[') {
        true => format!("https://[::]:{port}"),
        false => format!("https://0.0.0.0:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_listens_on_all_its_addresses() {
        assert_eq!(every_address("https://51.0.0.10:2380"), "https://0.0.0.0:2380");
        assert_eq!(every_address("https://a.example.org:1"), "https://0.0.0.0:1");
        assert_eq!(every_address("https://[fd00::1]:2380"), "https://[::]:2380");
    }
}
