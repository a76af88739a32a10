//! Certificates and keys out of PEM files, and whether the files have changed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

/// At most this often files are looked at again: whether they have changed costs next to nothing.
pub const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Why files cannot be used. The text names the flag, the file and the way out.
#[derive(Debug, Error)]
pub enum TlsFileError {
    #[error("{flag} {path}: {source}")]
    Unreadable {
        flag: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{flag} {path}: no PEM {what} in it")]
    Missing {
        flag: &'static str,
        path: PathBuf,
        what: &'static str,
    },
    #[error("{flag} {cert} and its key {key} cannot be served: {reason}")]
    Pair {
        flag: &'static str,
        cert: PathBuf,
        key: PathBuf,
        reason: String,
    },
    #[error("{flag} {path}: {reason}")]
    Unfit {
        flag: &'static str,
        path: PathBuf,
        reason: String,
    },
}

/// One file, and the flag that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PemFile {
    pub flag: &'static str,
    pub path: PathBuf,
}

impl PemFile {
    /// Every certificate of the file, in order; at least one.
    ///
    /// # Errors
    /// See [`TlsFileError`].
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_reader_iter(self.open()?).collect();
        found
            .ok()
            .filter(|found| !found.is_empty())
            .ok_or_else(|| self.missing("certificate"))
    }

    /// The first private key of the file.
    ///
    /// # Errors
    /// See [`TlsFileError`].
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsFileError> {
        PrivateKeyDer::from_pem_reader(self.open()?).map_err(|_| self.missing("private key"))
    }

    /// Authorities: every certificate of the file is trusted.
    ///
    /// # Errors
    /// See [`TlsFileError`].
    pub fn roots(&self) -> Result<RootCertStore, TlsFileError> {
        let mut roots = RootCertStore::empty();
        for root in self.certificates()? {
            roots.add(root).map_err(|error| self.unfit(error.to_string()))?;
        }
        Ok(roots)
    }

    /// `None`: there is no such file.
    ///
    /// # Errors
    /// See [`TlsFileError`].
    pub fn text_if_there(&self) -> Result<Option<String>, TlsFileError> {
        match fs::read_to_string(&self.path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(TlsFileError::Unreadable {
                flag: self.flag,
                path: self.path.clone(),
                source,
            }),
        }
    }

    pub(crate) fn unfit(&self, reason: String) -> TlsFileError {
        TlsFileError::Unfit {
            flag: self.flag,
            path: self.path.clone(),
            reason,
        }
    }

    fn missing(&self, what: &'static str) -> TlsFileError {
        TlsFileError::Missing {
            flag: self.flag,
            path: self.path.clone(),
            what,
        }
    }

    fn open(&self) -> Result<BufReader<File>, TlsFileError> {
        File::open(&self.path)
            .map(BufReader::new)
            .map_err(|source| TlsFileError::Unreadable {
                flag: self.flag,
                path: self.path.clone(),
                source,
            })
    }
}

/// When each of some files was last written, and its size. `None`: it is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamps(Vec<Option<(SystemTime, u64)>>);

impl Stamps {
    /// As they are now.
    #[must_use]
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Stamps {
        let stamp = |path: &Path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        Stamps(paths.into_iter().map(stamp).collect())
    }
}

/// Writes a file in one step, readable by its owner only: nobody sees half of it, also after a crash.
///
/// # Errors
/// As the file system says.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut open = options.open(&beside)?;
    open.write_all(text.as_bytes())?;
    open.sync_all()?;
    fs::rename(&beside, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
