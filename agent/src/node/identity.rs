//! Who the members are: names and peer URLs from `--initial-cluster`, and the ids derived from them.
//!
//! Ids are derived as etcd derives them, so that every member computes the same ones without talking.

use std::collections::BTreeMap;

use raft_store::Node as RaftNode;
use raft_store::wal::Identity;
use sha1::{Digest, Sha1};
use thiserror::Error;

/// The members a new cluster starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialCluster {
    /// By member id.
    pub members: BTreeMap<u64, RaftNode>,
    /// The same on all members.
    pub cluster_id: u64,
    /// `--initial-cluster-token`.
    pub token: String,
}

/// What is wrong with `--initial-cluster`.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InitialClusterError {
    #[error(
        "initial-cluster: {0:?} is not NAME=URL; write for example ovh=http://10.0.0.1:2380,ionos=http://10.0.0.2:2380"
    )]
    NotAPair(String),
    #[error("initial-cluster: {url:?} of {name} is not a URL like http://10.0.0.1:2380")]
    BadUrl { name: String, url: String },
    #[error("initial-cluster: {0} is the peer URL of two members")]
    DuplicateUrl(String),
    #[error("initial-cluster does not name this member: --name is {name:?}, the cluster has {known}")]
    NotAMember { name: String, known: String },
    #[error(
        "initial-advertise-peer-urls {advertised} differ from what initial-cluster gives for {name}: {listed}"
    )]
    UrlsDiffer {
        name: String,
        advertised: String,
        listed: String,
    },
}

impl InitialCluster {
    /// Reads `NAME=URL,NAME=URL,...`; a name given twice has several URLs.
    ///
    /// # Errors
    /// [`InitialClusterError`] names the part that is wrong.
    pub fn parse(text: &str, token: &str) -> Result<Self, InitialClusterError> {
        let mut urls_by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut seen = std::collections::BTreeSet::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, url) = part
                .split_once('=')
                .filter(|(name, url)| !name.is_empty() && !url.is_empty())
                .ok_or_else(|| InitialClusterError::NotAPair(part.to_owned()))?;
            if !is_base_url(url) {
                return Err(InitialClusterError::BadUrl {
                    name: name.to_owned(),
                    url: url.to_owned(),
                });
            }
            if !seen.insert(url.to_owned()) {
                return Err(InitialClusterError::DuplicateUrl(url.to_owned()));
            }
            urls_by_name
                .entry(name.to_owned())
                .or_default()
                .push(url.to_owned());
        }
        let members: BTreeMap<u64, RaftNode> = urls_by_name
            .into_iter()
            .map(|(name, mut peer_urls)| {
                peer_urls.sort();
                (member_id(&peer_urls, token), node(name, peer_urls))
            })
            .collect();
        let cluster_id = cluster_id(members.keys().copied());
        Ok(InitialCluster {
            members,
            cluster_id,
            token: token.to_owned(),
        })
    }

    /// The identity of the member called `name`, which must advertise the URLs that the cluster knows it by.
    ///
    /// # Errors
    /// [`InitialClusterError::NotAMember`], [`InitialClusterError::UrlsDiffer`].
    pub fn identity(&self, name: &str, advertised: &[String]) -> Result<Identity, InitialClusterError> {
        let (id, node) = self
            .members
            .iter()
            .find(|(_, node)| node.name == name)
            .ok_or_else(|| {
                let known: Vec<&str> = self.members.values().map(|node| node.name.as_str()).collect();
                InitialClusterError::NotAMember {
                    name: name.to_owned(),
                    known: known.join(", "),
                }
            })?;
        let mut advertised = advertised.to_vec();
        advertised.sort();
        if advertised != node.peer_urls {
            return Err(InitialClusterError::UrlsDiffer {
                name: name.to_owned(),
                advertised: advertised.join(","),
                listed: node.peer_urls.join(","),
            });
        }
        Ok(Identity {
            cluster_id: self.cluster_id,
            member_id: *id,
        })
    }
}

fn node(name: String, peer_urls: Vec<String>) -> RaftNode {
    RaftNode {
        name,
        peer_urls,
        to_be_voter: false,
    }
}

/// The id of a member that is added: as etcd's, over its sorted peer URLs, the cluster's token and a time in
/// seconds, so that a host which comes back with the same URLs gets another one.
pub(super) fn added_member_id(sorted_peer_urls: &[String], token: &str, unix_seconds: u64) -> u64 {
    let mut hash = Sha1::new();
    for url in sorted_peer_urls {
        hash.update(url);
    }
    hash.update(token);
    hash.update(unix_seconds.to_string());
    first_u64(&hash.finalize())
}

/// The first 8 bytes, big-endian, of the SHA-1 over the sorted peer URLs and the cluster token.
fn member_id(sorted_peer_urls: &[String], token: &str) -> u64 {
    let mut hash = Sha1::new();
    for url in sorted_peer_urls {
        hash.update(url);
    }
    hash.update(token);
    first_u64(&hash.finalize())
}

/// The first 8 bytes, big-endian, of the SHA-1 over the sorted member ids.
fn cluster_id(sorted_member_ids: impl Iterator<Item = u64>) -> u64 {
    let mut hash = Sha1::new();
    for id in sorted_member_ids {
        hash.update(id.to_be_bytes());
    }
    first_u64(&hash.finalize())
}

fn first_u64(digest: &[u8]) -> u64 {
    digest
        .iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Whether a text is `scheme://host:port` without a path: what listeners and advertised URLs are.
pub(crate) fn is_base_url(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else {
        return false;
    };
    matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.host().is_some_and(|host| !host.is_empty())
        && uri.port_u16().is_some()
        && matches!(uri.path(), "" | "/")
        && uri.query().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str =
        "ovh=http://127.0.0.1:2380,ionos=http://127.0.0.1:12380,liquidweb=http://127.0.0.1:22380";

    #[test]
    fn ids_are_those_of_etcd() {
        // Read off an etcd 3.5.16 started with the default token and this cluster of one.
        let cluster = InitialCluster::parse("default=http://localhost:2380", "etcd-cluster").unwrap();
        let identity = cluster
            .identity("default", &["http://localhost:2380".to_owned()])
            .unwrap();
        assert_eq!(format!("{:x}", identity.member_id), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", identity.cluster_id), "cdf818194e3a8c32");
    }

    #[test]
    fn the_order_of_members_does_not_matter() {
        let mut parts: Vec<&str> = THREE.split(',').collect();
        let forwards = InitialCluster::parse(THREE, "token").unwrap();
        parts.reverse();
        assert_eq!(
            InitialCluster::parse(&parts.join(","), "token").unwrap(),
            forwards
        );
        assert_ne!(
            InitialCluster::parse(THREE, "other").unwrap().cluster_id,
            forwards.cluster_id
        );
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| InitialCluster::parse(text, "t").unwrap_err();
        assert_eq!(error("ovh"), InitialClusterError::NotAPair("ovh".into()));
        assert_eq!(
            error("ovh=10.0.0.1:2380"),
            InitialClusterError::BadUrl {
                name: "ovh".into(),
                url: "10.0.0.1:2380".into()
            }
        );
        assert_eq!(
            error("a=http://x:1,b=http://x:1"),
            InitialClusterError::DuplicateUrl("http://x:1".into())
        );
        let cluster = InitialCluster::parse(THREE, "t").unwrap();
        assert!(matches!(
            cluster.identity("ovhh", &[]),
            Err(InitialClusterError::NotAMember { .. })
        ));
        assert!(matches!(
            cluster.identity("ovh", &["http://127.0.0.1:1".into()]),
            Err(InitialClusterError::UrlsDiffer { .. })
        ));
    }
}
