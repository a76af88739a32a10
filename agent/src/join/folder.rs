//! What joining leaves on a machine: keys, certificates, authorities, and last the settings, by which it is known to be
//! complete.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use proto::peer::JoinAnswer;
use raft_store::LogStore;
use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::config::{HostSettings, arguments_from_file};
use crate::tls::files::write_private;
use crate::tls::holder::Holder;
use crate::tls::issuer;

const SETTINGS: &str = "config.yaml";

#[derive(Debug)]
pub(super) struct Folder(PathBuf);

/// Requests for certificates, DER: the keys stay here.
pub(super) struct Keys {
    pub(super) peer_csr: Vec<u8>,
    pub(super) server_csr: Vec<u8>,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Folder> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.with_context(|| format!("--dir {}", path.display()))?;
        Ok(Folder(fs::canonicalize(path)?))
    }

    /// Everything is there.
    pub(super) fn has_joined(&self) -> bool {
        self.path(SETTINGS).exists()
    }

    /// Whether the member has run here.
    pub(super) fn has_data(&self, data_dir: Option<&Path>) -> Result<bool> {
        let data_dir = match data_dir {
            Some(data_dir) => data_dir.to_owned(),
            None => {
                let arguments = arguments_from_file(&self.path(SETTINGS), |_| false)?;
                let mut given = arguments
                    .iter()
                    .filter_map(|word| word.strip_prefix("--data-dir="));
                given
                    .next()
                    .map(PathBuf::from)
                    .ok_or_else(|| anyhow!("{}: no data-dir", self.path(SETTINGS).display()))?
            }
        };
        Ok(LogStore::identity(&data_dir.join("wal"))?.is_some())
    }

    /// Whoever this host is already, it stays.
    pub(super) fn check_host(&self, host: &str) -> Result<()> {
        let Ok(certificate) = CertificateDer::from_pem_file(self.path("peer.pem")) else {
            return Ok(());
        };
        match Holder::of(&certificate).member {
            Some(member) if !member.eq_ignore_ascii_case(host) => bail!(
                "the join token is for host {host}, and {} holds the certificate of {member}: another --dir, or a token \
                 for {member}",
                self.0.display()
            ),
            _ => Ok(()),
        }
    }

    /// This host's keys, made when they are first asked for.
    pub(super) fn keys(&self) -> Result<Keys> {
        let request = |file: &str| -> Result<Vec<u8>> { Ok(issuer::request(&self.key(file)?)?) };
        Ok(Keys {
            peer_csr: request("peer.key")?,
            server_csr: request("server.key")?,
        })
    }

    fn key(&self, file: &str) -> Result<KeyPair> {
        let path = self.path(file);
        let failed = || format!("{}", path.display());
        match fs::read(&path) {
            Ok(text) => {
                let key = PrivatePkcs8KeyDer::from_pem_slice(&text)
                    .map_err(|_| anyhow!("{}: no private key in it", path.display()))?;
                KeyPair::try_from(&key).with_context(failed)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = KeyPair::generate()?;
                write_private(&path, &key.serialize_pem()).with_context(failed)?;
                Ok(key)
            }
            Err(error) => Err(error).with_context(failed),
        }
    }

    /// What the cluster has answered: the settings last.
    pub(super) fn write(&self, host: &str, answer: &JoinAnswer) -> Result<()> {
        let named = answer.members.iter();
        let named = named.filter_map(|member| Some((member.name.clone(), member.peer_urls.first()?.clone())));
        let own = (host.to_owned(), answer.peer_url.clone());
        // A member of the same name is the one that this host replaces.
        let others = named.filter(|(name, _)| !name.eq_ignore_ascii_case(host));
        let members: Vec<(String, String)> = others.chain([own]).collect();
        let settings = HostSettings {
            name: host,
            written_by: "agent join",
            folder: &self.0.display().to_string(),
            cluster_token: &answer.cluster_token,
            members: &members,
            joins: true,
            peer_url: &answer.peer_url,
            client_url: &answer.client_url,
            timeouts_ms: Some((answer.heartbeat_interval_ms, answer.election_timeout_ms)),
        };
        let files = [
            ("ca.pem", &answer.authorities),
            ("peer.pem", &answer.peer_certificate),
            ("server.pem", &answer.server_certificate),
            (SETTINGS, &settings.text()),
        ];
        for (file, text) in files {
            let path = self.path(file);
            write_private(&path, text).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }
}
