//! What is known of a host before it exists, checked.

use std::net::IpAddr;

use thiserror::Error;

/// A cluster has a handful of members; Raft does not want many.
const PEERS_LIMIT: usize = 15;
const URL_LIMIT_BYTES: usize = 2_000;
const TOKEN_LIMIT_BYTES: usize = 8_000;

/// What a host's user-data is made from, as given.
#[derive(Clone, Debug)]
pub struct Seed {
    /// The host's name: one of the cluster's.
    pub name: String,
    /// The company whose machine it is; may be empty.
    pub provider: String,
    /// Where it listens for its peers. None: on every address it has.
    pub address: Option<IpAddr>,
    /// All members, this host among them.
    pub cluster: Vec<Peer>,
    pub binary: Binary,
    /// Peers may talk over the network without TLS: the network itself must be private.
    pub allow_plaintext: bool,
    /// A restart of the host makes its instances anew.
    pub rebuilds: bool,
}

/// What a host's agent is told beside the settings that its cluster gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The company whose machine it is; may be empty.
    pub provider: String,
    /// A restart of the host makes its instances anew.
    pub rebuilds: bool,
}

/// A member, and where the others reach it: `http://10.0.0.1:2380`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub name: String,
    pub url: String,
}

/// How the host comes by the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binary {
    /// Downloaded, and refused unless its SHA-256 (in hexadecimal) is this one.
    Fetch { url: String, sha256: String },
    /// In the machine's image already, at `/usr/local/bin/agent`.
    Present,
}

/// A host that joins a cluster by a token. Whoever may read its user-data reads the token, too, which is good for this one
/// host, once, and for some minutes: no key is in there.
#[derive(Clone, Debug)]
pub struct Joiner {
    pub(crate) name: String,
    pub(crate) flags: Flags,
    pub(crate) token: String,
    pub(crate) binary: Binary,
}

impl Joiner {
    /// Checks everything that the text is made from.
    ///
    /// # Errors
    /// [`HostError`]: the first thing that is wrong.
    pub fn new(name: &str, flags: Flags, token: &str, binary: Binary) -> Result<Self, HostError> {
        check_name(name)?;
        check_provider(&flags.provider)?;
        check_binary(&binary)?;
        let token = token.trim();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if token.is_empty() || token.len() > TOKEN_LIMIT_BYTES || !token.bytes().all(plain) {
            return Err(HostError::Token);
        }
        Ok(Self {
            name: name.to_owned(),
            flags,
            token: token.to_owned(),
            binary,
        })
    }
}

/// The first host of a cluster with certificates. Its keys come to it by the operator's own hand, never by user-data: until
/// they are there its agent waits.
#[derive(Clone, Debug)]
pub struct First {
    pub(crate) name: String,
    pub(crate) flags: Flags,
    pub(crate) binary: Binary,
}

impl First {
    /// Checks everything that the text is made from.
    ///
    /// # Errors
    /// [`HostError`]: the first thing that is wrong.
    pub fn new(name: &str, flags: Flags, binary: Binary) -> Result<Self, HostError> {
        check_name(name)?;
        check_provider(&flags.provider)?;
        check_binary(&binary)?;
        Ok(Self {
            name: name.to_owned(),
            flags,
            binary,
        })
    }
}

/// A host that can be rendered.
#[derive(Clone, Debug)]
pub struct Host {
    pub(crate) seed: Seed,
    /// Of this host's own URL.
    pub(crate) peer_url: String,
    pub(crate) peer_port: u16,
    /// Peers reach it by an IPv6 address.
    pub(crate) peer_is_ipv6: bool,
}

/// What is wrong with a host, and what would be right.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum HostError {
    #[error("`{0}` is no host name; it has 1 to 63 letters, digits or hyphens, none at its ends")]
    Name(String),
    #[error("`{0}` is no provider; it has at most 63 letters, digits, blanks, dots or hyphens")]
    Provider(String),
    #[error("the cluster is empty; name its members: ovh=http://10.0.0.1:2380,...")]
    NoPeers,
    #[error("{0} members are too many; a cluster has at most {PEERS_LIMIT}")]
    TooManyPeers(usize),
    #[error("`{0}` is in the cluster twice")]
    Twice(String),
    #[error("`{name}` is not in the cluster; its members are {members}")]
    NotAMember { name: String, members: String },
    #[error("`{0}` is no member; write NAME=http://ADDRESS:PORT")]
    Peer(String),
    #[error("`{0}` is no URL of a peer; write http://ADDRESS:PORT")]
    PeerUrl(String),
    #[error(
        "`{0}`: members with TLS are made by `agentctl cluster init`, and the others join by a token: give --join-token-file"
    )]
    Tls(String),
    #[error("this is no join token; `agentctl token create` prints one")]
    Token,
    #[error("`{0}` would be spoken to without TLS; allow it only where the network itself is private")]
    Plaintext(String),
    #[error("`{0}` is no URL of a file; write https://HOST/PATH")]
    BinaryUrl(String),
    #[error(
        "`{0}` is no public key of SSH; it begins with ssh-ed25519, ssh-rsa or ecdsa-, as in authorized_keys"
    )]
    SshKey(String),
    #[error("{0} keys of SSH are too many; a host has at most 32")]
    TooManyKeys(usize),
    #[error("this is no preseed of Incus: {0}; `incus admin init --dump` prints one")]
    Preseed(String),
    #[error("`{0}` is no SHA-256; it has 64 hexadecimal digits, as `sha256sum` prints them")]
    Sha256(String),
}

impl Peer {
    /// Reads `ovh=http://10.0.0.1:2380,ionos=...`.
    ///
    /// # Errors
    /// [`HostError::Peer`] names the part that is none.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, HostError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let peer = |part: &str| match part.split_once('=') {
            Some((name, url)) => Ok(Self {
                name: name.trim().to_owned(),
                url: url.trim().to_owned(),
            }),
            None => Err(HostError::Peer(part.to_owned())),
        };
        parts.map(peer).collect()
    }
}

impl Host {
    /// Checks everything that the text is made from.
    ///
    /// # Errors
    /// [`HostError`]: the first thing that is wrong.
    pub fn new(seed: Seed) -> Result<Self, HostError> {
        check_name(&seed.name)?;
        check_provider(&seed.provider)?;
        check_binary(&seed.binary)?;
        check_peers(&seed)?;
        let Some(own) = seed.cluster.iter().find(|peer| peer.name == seed.name) else {
            let members: Vec<&str> = seed.cluster.iter().map(|peer| peer.name.as_str()).collect();
            return Err(HostError::NotAMember {
                name: seed.name,
                members: members.join(", "),
            });
        };
        let peer_url = own.url.trim_end_matches('/').to_owned();
        let (peer_host, peer_port) = peer_address(&own.url)?;
        let peer_is_ipv6 = peer_host.parse::<std::net::Ipv6Addr>().is_ok();
        Ok(Self {
            peer_url,
            peer_port,
            peer_is_ipv6,
            seed,
        })
    }
}

fn check_peers(seed: &Seed) -> Result<(), HostError> {
    match seed.cluster.len() {
        0 => return Err(HostError::NoPeers),
        count if count > PEERS_LIMIT => return Err(HostError::TooManyPeers(count)),
        _ => {}
    }
    for (index, peer) in seed.cluster.iter().enumerate() {
        check_name(&peer.name)?;
        let (host, _) = peer_address(&peer.url)?;
        let before = seed.cluster.iter().take(index);
        if before.clone().any(|other| other.name == peer.name) {
            return Err(HostError::Twice(peer.name.clone()));
        }
        if before
            .clone()
            .any(|other| other.url.trim_end_matches('/') == peer.url.trim_end_matches('/'))
        {
            return Err(HostError::Twice(peer.url.clone()));
        }
        let loopback =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if !loopback && !seed.allow_plaintext {
            return Err(HostError::Plaintext(peer.url.clone()));
        }
    }
    Ok(())
}

pub(crate) fn check_provider(provider: &str) -> Result<(), HostError> {
    let blank_or_dot = |c: char| matches!(c, ' ' | '.' | '-');
    let fits = provider
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || blank_or_dot(c));
    if provider.len() > 63 || !fits || provider.starts_with(blank_or_dot) {
        return Err(HostError::Provider(provider.to_owned()));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), HostError> {
    let fits = (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if fits {
        Ok(())
    } else {
        Err(HostError::Name(name.to_owned()))
    }
}

/// Host and port of `http://HOST:PORT`; the host without the brackets of an IPv6 address.
fn peer_address(url: &str) -> Result<(String, u16), HostError> {
    if url.starts_with("https://") {
        return Err(HostError::Tls(url.to_owned()));
    }
    let wrong = || HostError::PeerUrl(url.to_owned());
    let authority = url.strip_prefix("http://").ok_or_else(wrong)?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
    let port = port
        .parse::<u16>()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(wrong)?;
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) if address.parse::<std::net::Ipv6Addr>().is_ok() => address,
        Some(_) => return Err(wrong()),
        None => host,
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    let is_address = host.parse::<IpAddr>().is_ok();
    if host.is_empty() || host.len() > 253 || !(is_address || host.chars().all(is_name)) {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

fn check_binary(binary: &Binary) -> Result<(), HostError> {
    let Binary::Fetch { url, sha256 } = binary else {
        return Ok(());
    };
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    // No quote, blank or backslash: it stands between single quotes in a script.
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&()*+,;=%".contains(c);
    let fits = rest.is_some_and(|rest| {
        rest.split_once('/')
            .is_some_and(|(host, path)| !host.is_empty() && !path.is_empty())
    });
    if !fits || url.len() > URL_LIMIT_BYTES || !url.chars().all(plain) {
        return Err(HostError::BinaryUrl(url.clone()));
    }
    if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(HostError::Sha256(sha256.clone()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> Seed {
        Seed {
            name: "ovh".into(),
            provider: "OVH".into(),
            address: None,
            cluster: Peer::parse_list("ovh=http://10.0.0.1:2380, ionos=http://[fd00::2]:2380").unwrap(),
            binary: Binary::Fetch {
                url: "https://example.org/agent".into(),
                sha256: "a".repeat(64),
            },
            allow_plaintext: true,
            rebuilds: false,
        }
    }

    fn error(change: impl FnOnce(&mut Seed)) -> HostError {
        let mut seed = seed();
        change(&mut seed);
        Host::new(seed).unwrap_err()
    }

    #[test]
    fn a_good_seed_is_a_host() {
        let host = Host::new(seed()).unwrap();
        assert_eq!(
            (host.peer_url.as_str(), host.peer_port),
            ("http://10.0.0.1:2380", 2380)
        );
    }

    #[test]
    fn names_cannot_break_out() {
        for name in ["", "-a", "a-", "a b", "a'b", "a\nb", "a/b", "ä", &"a".repeat(64)] {
            assert_eq!(
                error(|seed| seed.name = name.into()),
                HostError::Name(name.into())
            );
        }
        for provider in ["a'b", "a\nb", " a", "a: b", &"a".repeat(64)] {
            assert_eq!(
                error(|seed| seed.provider = provider.into()),
                HostError::Provider(provider.into())
            );
        }
    }

    #[test]
    fn peers_are_checked() {
        assert!(matches!(Peer::parse_list("ovh"), Err(HostError::Peer(_))));
        let urls = [
            "",
            "10.0.0.1:2380",
            "http://10.0.0.1",
            "http://:1",
            "http://a:0",
            "http://a:99999",
            "http://a b:1",
            "http://a:1/x",
            "http://[fd00]:1",
            "http://a'b:1",
        ];
        for url in urls {
            assert_eq!(
                error(|seed| seed.cluster[1].url = url.into()),
                HostError::PeerUrl(url.into())
            );
        }
        assert!(matches!(
            error(|seed| seed.cluster[1].url = "https://a:1".into()),
            HostError::Tls(_)
        ));
        assert!(matches!(
            error(|seed| seed.allow_plaintext = false),
            HostError::Plaintext(_)
        ));
        assert_eq!(
            error(|seed| seed.cluster[1].name = "ovh".into()),
            HostError::Twice("ovh".into())
        );
        assert!(matches!(
            error(|seed| seed.cluster[1].url = "http://10.0.0.1:2380/".into()),
            HostError::Twice(_)
        ));
        assert_eq!(error(|seed| seed.cluster.clear()), HostError::NoPeers);
        assert_eq!(
            error(|seed| seed.name = "liquidweb".into()).to_string(),
            "`liquidweb` is not in the cluster; its members are ovh, ionos"
        );
        let many = (0..16)
            .map(|n| Peer {
                name: format!("h{n}"),
                url: format!("http://10.0.0.{n}:1"),
            })
            .collect();
        assert_eq!(error(|seed| seed.cluster = many), HostError::TooManyPeers(16));
    }

    #[test]
    fn the_binary_is_checked() {
        let fetch = |url: &str, sha256: &str| Binary::Fetch {
            url: url.into(),
            sha256: sha256.into(),
        };
        let sum = "0".repeat(64);
        for url in [
            "",
            "ftp://a/b",
            "https://",
            "https://a",
            "https:///b",
            "https://a/'b",
            "https://a/b c",
            "https://a/b\n",
        ] {
            assert!(
                matches!(
                    error(|seed| seed.binary = fetch(url, &sum)),
                    HostError::BinaryUrl(_)
                ),
                "{url}"
            );
        }
        for sum in ["", "abc", &"g".repeat(64), &"a".repeat(65)] {
            assert!(
                matches!(
                    error(|seed| seed.binary = fetch("https://a/b", sum)),
                    HostError::Sha256(_)
                ),
                "{sum}"
            );
        }
    }
}
