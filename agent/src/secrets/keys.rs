//! The file with the keys: one on a line, of which the first seals and every one opens.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

const KEY_BYTES: usize = 32;
/// More are not needed to let one key follow another.
const KEYS_MAX: usize = 16;

/// Why there are no keys. The text names the file and the way out.
#[derive(Debug, Error)]
pub enum KeyError {
    #[error("--secrets-key-file {path}: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "--secrets-key-file {path}: line {line} is no key: 32 bytes in base64, as `agentctl secret keygen` makes them"
    )]
    Shape { path: PathBuf, line: usize },
    #[error("--secrets-key-file {path}: there is no key in it; `agentctl secret keygen` makes one")]
    Empty { path: PathBuf },
}

/// Where a member has its keys. It is read whenever keys are needed, which is rare: what changes in it counts at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile(PathBuf);

impl KeyFile {
    #[must_use]
    pub fn new(path: PathBuf) -> KeyFile {
        KeyFile(path)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// # Errors
    /// See [`KeyError`].
    pub fn keys(&self) -> Result<Keys, KeyError> {
        self.text().and_then(|text| Keys::parse(&text, &self.0))
    }

    /// The file as it is, for another member.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn text(&self) -> Result<String, KeyError> {
        fs::read_to_string(&self.0).map_err(|source| KeyError::Unreadable {
            path: self.0.clone(),
            source,
        })
    }
}

/// The keys of a file.
pub struct Keys(Vec<Key>);

/// A key, and by what it is known: the beginning of its hash.
pub(super) struct Key {
    pub(super) id: String,
    pub(super) key: LessSafeKey,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

impl Keys {
    /// Reads the text of a file; empty lines, and those that begin with `#`, are passed over.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn parse(text: &str, path: &Path) -> Result<Keys, KeyError> {
        let lines = text.lines().enumerate();
        let lines = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        let keys = lines.enumerate().map(|(count, (at, line))| {
            let key = (count < KEYS_MAX).then(|| Key::parse(line)).flatten();
            key.ok_or_else(|| KeyError::Shape {
                path: path.to_owned(),
                line: at + 1,
            })
        });
        let keys: Vec<Key> = keys.collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err(KeyError::Empty {
                path: path.to_owned(),
            });
        }
        Ok(Keys(keys))
    }

    /// The one that seals.
    pub(super) fn first(&self) -> &Key {
        // `parse` lets no empty list through.
        &self.0[0]
    }

    pub(super) fn by_id(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }

    /// By what the one that seals is known.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.first().id
    }
}

impl Key {
    fn parse(line: &str) -> Option<Key> {
        let bytes = STANDARD.decode(line.trim()).ok()?;
        let bytes: [u8; KEY_BYTES] = bytes.try_into().ok()?;
        let id = Sha256::digest(bytes);
        let id = id.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes).ok()?;
        Some(Key {
            id,
            key: LessSafeKey::new(key),
        })
    }
}

/// The text of a file with a new key.
///
/// # Errors
/// Where the system has no random numbers.
pub fn generate() -> io::Result<String> {
    let mut key = [0; KEY_BYTES];
    let filled = SystemRandom::new().fill(&mut key);
    filled.map_err(|_| io::Error::other("the system has no random numbers"))?;
    Ok(format!("{}\n", STANDARD.encode(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Keys::parse(text, Path::new("/k")).unwrap_err().to_string()
    }

    #[test]
    fn a_file_of_keys() {
        let (new, old) = (generate().unwrap(), generate().unwrap());
        let keys = Keys::parse(&format!("# since May\n{new}\n{old}"), Path::new("/k")).unwrap();
        assert_eq!(keys.0.len(), 2);
        assert_eq!(keys.id(), Keys::parse(&new, Path::new("/k")).unwrap().id());
        let shown = format!("{keys:?}");
        assert!(
            shown.contains(keys.id()) && !shown.contains(new.trim()),
            "{shown}"
        );
        assert!(error("\n# none\n").contains("no key in it"));
        assert!(error(&format!("{new}secret\n")).contains("/k: line 2 is no key"));
        assert!(error("c2hvcnQ=\n").contains("line 1"));
        assert!(error(&new.repeat(17)).contains("line 17"));
    }
}
