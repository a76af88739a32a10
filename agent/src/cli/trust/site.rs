//! A cluster's hosts and addresses, and what follows from them: names in certificates, settings of members. Pure.

use std::net::IpAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cli::context::Context;
use crate::cli::error::CliError;
use crate::config::{HOST_FOLDER, HostSettings};
use crate::tls::holder::server_names;

/// Heartbeat and election of members at different providers, whose answers may take a tenth of a second.
const WAN_TIMEOUTS_MS: (u64, u64) = (300, 2000);

/// One host.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct SiteHost {
    pub(super) name: String,
    /// A name or an address, without a port.
    pub(super) address: String,
}

/// A cluster as it was described when it was made.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Site {
    pub(super) cluster: String,
    pub(super) hosts: Vec<SiteHost>,
    pub(super) peer_port: u16,
    pub(super) client_port: u16,
}

impl SiteHost {
    /// Reads `HOST=ADDRESS`.
    pub(in crate::cli) fn parse(text: &str) -> Result<SiteHost, String> {
        let (name, address) = text
            .split_once('=')
            .ok_or("write HOST=ADDRESS, for example ovh=51.0.0.10")?;
        if !is_label(name) {
            return Err(format!(
                "`{name}` is no host's name: 1 to 63 letters, digits or hyphens"
            ));
        }
        let is_name = address.split('.').all(is_label);
        if address.parse::<IpAddr>().is_err() && !is_name {
            return Err(format!(
                "`{address}` is no address: give an IP address or a DNS name, without a port"
            ));
        }
        Ok(SiteHost {
            name: name.to_owned(),
            address: address.to_owned(),
        })
    }

    pub(in crate::cli) fn url(&self, port: u16) -> String {
        match self.address.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("https://[{ip}]:{port}"),
            _ => format!("https://{}:{port}", self.address),
        }
    }

    /// What clients may call it: from elsewhere, and on the host itself.
    pub(super) fn server_names(&self) -> Vec<String> {
        server_names(&self.address)
    }
}

/// A label of a DNS name.
pub(super) fn is_label(text: &str) -> bool {
    let letters = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (1..=63).contains(&text.len()) && letters && !text.starts_with('-') && !text.ends_with('-')
}

impl Site {
    pub(super) fn new(
        cluster: &str,
        hosts: Vec<SiteHost>,
        peer_port: u16,
        client_port: u16,
    ) -> Result<Site, CliError> {
        if !is_label(cluster) {
            return Err(CliError::usage(format!("`{cluster}` is no cluster's name"))
                .hint("it is 1 to 63 letters, digits or hyphens"));
        }
        let mut names: Vec<String> = hosts.iter().map(|host| host.name.to_ascii_lowercase()).collect();
        let mut addresses: Vec<&str> = hosts.iter().map(|host| host.address.as_str()).collect();
        names.sort_unstable();
        addresses.sort_unstable();
        let twice = |same: bool, what: &str| match same {
            true => Err(CliError::usage(format!("two hosts have the same {what}"))),
            false => Ok(()),
        };
        twice(names.windows(2).any(|pair| pair[0] == pair[1]), "name")?;
        twice(addresses.windows(2).any(|pair| pair[0] == pair[1]), "address")?;
        Ok(Site {
            cluster: cluster.to_owned(),
            hosts,
            peer_port,
            client_port,
        })
    }

    pub(super) fn host(&self, name: &str) -> Option<&SiteHost> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// `agent run --config` of a host.
    pub(super) fn settings(&self, host: &SiteHost) -> String {
        let members = self.hosts.iter();
        let members: Vec<(String, String)> = members
            .map(|host| (host.name.clone(), host.url(self.peer_port)))
            .collect();
        HostSettings {
            name: &host.name,
            written_by: "agentctl cluster init",
            folder: HOST_FOLDER,
            cluster_token: &self.cluster,
            members: &members,
            joins: false,
            peer_url: &host.url(self.peer_port),
            client_url: &host.url(self.client_port),
            timeouts_ms: Some(WAN_TIMEOUTS_MS),
        }
        .text()
    }

    /// Where clients reach it.
    pub(super) fn endpoints(&self) -> Vec<String> {
        self.hosts.iter().map(|host| host.url(self.client_port)).collect()
    }

    /// What `agentctl` needs to know of the cluster, whose files are in this folder.
    pub(super) fn context(&self, folder: &Path) -> Context {
        Context {
            endpoints: self.endpoints(),
            cacert: Some(folder.join("ca.pem")),
            cert: Some(folder.join("admin.pem")),
            key: Some(folder.join("admin.key")),
            user: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read() {
        let url = |text: &str| SiteHost::parse(text).unwrap().url(2380);
        assert_eq!(url("ovh=51.0.0.10"), "https://51.0.0.10:2380");
        assert_eq!(url("ovh=fd00::1"), "https://[fd00::1]:2380");
        assert_eq!(url("ovh=a.example.org"), "https://a.example.org:2380");
        for wrong in [
            "ovh",
            "=1.2.3.4",
            "o/h=1.2.3.4",
            "ovh=",
            "ovh=1.2.3.4:2380",
            "ovh=a\"b",
            "-a=b",
        ] {
            assert!(SiteHost::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hosts_differ() {
        let failed = |hosts: &[&str]| {
            let hosts = hosts.iter().map(|host| SiteHost::parse(host).unwrap());
            Site::new("prod", hosts.collect(), 1, 2).unwrap_err().to_string()
        };
        assert!(failed(&["a=1.1.1.1", "A=1.1.1.2"]).contains("same name"));
        assert!(failed(&["a=1.1.1.1", "b=1.1.1.1"]).contains("same address"));
        assert!(Site::new("../x", Vec::new(), 1, 2).is_err());
    }
}
