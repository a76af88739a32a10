//! A cluster's folder: its authority, the operator's certificate, and a folder for each host.
//!
//! Keys are readable by their owner only. The folder is made as a whole or not at all, and never over another.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::site::{Site, SiteHost};
use crate::cli::config_dir::config_dir;
use crate::cli::error::{CliError, os_text};
use crate::secrets::generate;
use crate::tls::about::About;
use crate::tls::authority::{Authority, AuthorityError, Issued, Role};
use crate::tls::files::write_private;
use crate::tls::holder::Holder;
use crate::tls::issuer::Validity;

/// The authority's certificate, which everybody has.
pub(super) const CA: &str = "ca.pem";
pub(super) const CA_KEY: &str = "ca.key";
/// What members issue certificates with: its certificate and its key.
pub(super) const ISSUER: &str = "issuer.pem";
/// What members seal secrets with.
const SECRETS_KEY: &str = "secrets.key";
pub(super) const ADMIN: &str = "admin.pem";
const SITE: &str = "cluster.json";
/// The user who may do everything, once users are made.
const ADMIN_USER: &str = "root";

pub(super) const CA_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    name: String,
}

/// One certificate.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Below the folder.
    pub(super) file: String,
    pub(super) role: &'static str,
    pub(super) holder: String,
    /// Whose folder it is in.
    pub(super) host: Option<String>,
    pub(super) validity: Validity,
    pub(super) sha256: [u8; 32],
}

impl Folder {
    /// A cluster's, below `root` or where the person keeps such things.
    pub(super) fn of(root: Option<&Path>, cluster: &str) -> Result<Folder, CliError> {
        Ok(Folder {
            path: config_dir(root)?.join(cluster),
            name: cluster.to_owned(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The cluster's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A cluster's authority is made once.
    pub(super) fn refuse_existing(&self) -> Result<(), CliError> {
        if self.path.exists() {
            return Err(
                CliError::failed(format!("{} exists already", self.path.display())).hint(
                    "a cluster's authority is made once; `agentctl cert list` shows what it has issued",
                ),
            );
        }
        Ok(())
    }

    /// Makes everything of a new cluster.
    pub(super) fn found(&self, site: &Site, now: SystemTime) -> Result<(), CliError> {
        self.refuse_existing()?;
        let root = Authority::found(&self.name, now, CA_LIFETIME).map_err(failed)?;
        let authority = Authority::open(&root.certificate, &root.key).map_err(failed)?;
        // Beside its place, and then there in one step.
        let making = Folder {
            path: self.path.with_extension("new"),
            name: self.name.clone(),
        };
        match fs::remove_dir_all(&making.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(making.failed("", &error)),
            _ => making.make_dir("")?,
        }
        making.write_pair(CA, &root)?;
        let text = serde_json::to_string_pretty(site).map_err(|error| CliError::failed(error.to_string()))?;
        making.write(SITE, &text)?;
        let issuer = authority
            .found_issuer(&self.name, now, CA_LIFETIME)
            .map_err(failed)?;
        let issuer = format!("{}{}", issuer.certificate, issuer.key);
        making.write(ISSUER, &issuer)?;
        let secrets = generate().map_err(|error| making.failed(SECRETS_KEY, &error))?;
        making.write(SECRETS_KEY, &secrets)?;
        making.issue(&authority, ADMIN, Role::Client { user: ADMIN_USER }, now)?;
        making.make_dir("hosts")?;
        for host in &site.hosts {
            let below = |file: &str| format!("hosts/{}/{file}", host.name);
            making.make_dir(&format!("hosts/{}", host.name))?;
            making.write(&below(CA), &root.certificate)?;
            making.write(&below(ISSUER), &issuer)?;
            making.write(&below(SECRETS_KEY), &secrets)?;
            making.write(&below("config.yaml"), &site.settings(host))?;
            for file in ["peer.pem", "server.pem"] {
                making.issue_to(&authority, site, &host.name, &below(file), now)?;
            }
        }
        fs::rename(&making.path, &self.path).map_err(|error| self.failed("", &error))
    }

    /// What the cluster was described as.
    pub(super) fn site(&self) -> Result<Site, CliError> {
        let text = self.read(SITE)?;
        serde_json::from_str(&text)
            .map_err(|error| CliError::failed(format!("{}: {error}", self.path.join(SITE).display())))
    }

    /// All certificates: the authority's, the operator's, then by host.
    pub(super) fn entries(&self) -> Result<Vec<Entry>, CliError> {
        let mut files = vec![
            (CA.to_owned(), "authority", None),
            (ISSUER.to_owned(), "issuer", None),
            (ADMIN.to_owned(), "client", None),
        ];
        let mut hosts: Vec<String> = self.site()?.hosts.into_iter().map(|host| host.name).collect();
        hosts.sort_unstable();
        for host in hosts {
            files.push((format!("hosts/{host}/peer.pem"), "member", Some(host.clone())));
            files.push((format!("hosts/{host}/server.pem"), "server", Some(host)));
        }
        files
            .into_iter()
            .map(|(file, role, host)| self.entry(file, role, host))
            .collect()
    }

    fn entry(&self, file: String, role: &'static str, host: Option<String>) -> Result<Entry, CliError> {
        let text = self.read(&file)?;
        let unreadable = || self.unreadable(&file);
        let der = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| unreadable())?;
        let about = About::of(&der).ok_or_else(unreadable)?;
        Ok(Entry {
            holder: about.holder,
            sha256: about.sha256,
            file,
            role,
            host,
            validity: about.validity,
        })
    }

    /// Issues one certificate anew.
    pub(super) fn renew(&self, site: &Site, entry: &Entry, now: SystemTime) -> Result<(), CliError> {
        let text = self.read(CA)?;
        let authority = Authority::open(&text, &self.read(CA_KEY)?).map_err(failed)?;
        if entry.role == "issuer" {
            let der = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| self.unreadable(CA))?;
            let issuer = authority
                .found_issuer(Holder::of(&der).shown(), now, CA_LIFETIME)
                .map_err(failed)?;
            let issuer = format!("{}{}", issuer.certificate, issuer.key);
            for host in &site.hosts {
                self.write(&format!("hosts/{}/{ISSUER}", host.name), &issuer)?;
            }
            return self.write(ISSUER, &issuer);
        }
        match &entry.host {
            Some(host) => self.issue_to(&authority, site, host, &entry.file, now),
            None => self.issue(&authority, &entry.file, Role::Client { user: ADMIN_USER }, now),
        }
    }

    /// Keeps a certificate that is replaced, for whoever wants to revoke it.
    pub(super) fn keep_former(&self, file: &str) -> Result<(), CliError> {
        self.write(&format!("former-{file}"), &self.read(file)?)
    }

    /// Issues everything anew, but the authority itself.
    pub(super) fn issue_all(&self, now: SystemTime) -> Result<(), CliError> {
        let site = self.site()?;
        let mut entries = self.entries()?;
        entries.retain(|entry| entry.file != CA);
        entries.iter().try_for_each(|entry| self.renew(&site, entry, now))
    }

    /// A host's certificate, by the name of its file.
    fn issue_to(
        &self,
        authority: &Authority,
        site: &Site,
        host: &str,
        file: &str,
        now: SystemTime,
    ) -> Result<(), CliError> {
        let names = site.host(host).map(SiteHost::server_names).unwrap_or_default();
        let role = if file.ends_with("/peer.pem") {
            Role::Member { name: host }
        } else {
            Role::Server { host, names: &names }
        };
        self.issue(authority, file, role, now)
    }

    fn issue(
        &self,
        authority: &Authority,
        file: &str,
        role: Role<'_>,
        now: SystemTime,
    ) -> Result<(), CliError> {
        let issued = authority.issue(role, now, LIFETIME).map_err(failed)?;
        self.write_pair(file, &issued)
    }

    /// The key first: who sees the new certificate finds the key that belongs to it.
    fn write_pair(&self, file: &str, issued: &Issued) -> Result<(), CliError> {
        self.write(&file.replace(".pem", ".key"), &issued.key)?;
        self.write(file, &issued.certificate)
    }

    /// In one step: nobody sees half a file.
    pub(super) fn write(&self, file: &str, text: &str) -> Result<(), CliError> {
        write_private(&self.path.join(file), text).map_err(|error| self.failed(file, &error))
    }

    /// It may be gone already.
    pub(super) fn remove(&self, file: &str) -> Result<(), CliError> {
        match fs::remove_file(self.path.join(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed(file, &error)),
            _ => Ok(()),
        }
    }

    pub(super) fn read_if_there(&self, file: &str) -> Result<Option<String>, CliError> {
        match fs::read_to_string(self.path.join(file)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(file, &error)),
        }
    }

    pub(super) fn read(&self, file: &str) -> Result<String, CliError> {
        fs::read_to_string(self.path.join(file)).map_err(|error| {
            let failed = self.failed(file, &error);
            match error.kind() {
                io::ErrorKind::NotFound => {
                    failed.hint("`agentctl cluster init` makes a cluster's certificates")
                }
                _ => failed,
            }
        })
    }

    fn make_dir(&self, below: &str) -> Result<(), CliError> {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(self.path.join(below));
        made.map_err(|error| self.failed(below, &error))
    }

    fn unreadable(&self, file: &str) -> CliError {
        CliError::failed(format!(
            "{}: holds no certificate",
            self.path.join(file).display()
        ))
    }

    fn failed(&self, file: &str, error: &io::Error) -> CliError {
        CliError::failed(format!("{}: {}", self.path.join(file).display(), os_text(error)))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
pub(super) fn failed(error: AuthorityError) -> CliError {
    CliError::failed(error.to_string())
}
