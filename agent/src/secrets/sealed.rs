//! A sealed secret: JSON with what it was sealed by, good for its own key of the store only.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{Aad, NONCE_LEN, Nonce};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Keys;

/// The format written now. An older one is opened by code of its own here; there is none yet.
const FORMAT: u32 = 1;
const CIPHER: &str = "chacha20-poly1305";

/// Why a secret is not opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    #[error("is not sealed: set it again")]
    NotSealed,
    #[error("is sealed in a way that this version does not know")]
    Format,
    #[error("is sealed with key {0}, which is not in this host's --secrets-key-file")]
    UnknownKey(String),
    #[error("is damaged, or was sealed for another name: set it again")]
    Damaged,
}

/// The value at a secret's key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    v: u32,
    cipher: String,
    /// By what the key is known that it was sealed with.
    pub key: String,
    nonce: String,
    data: String,
}

impl Sealed {
    /// Seals what is to stand at `at`, a key of the store.
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub fn seal(keys: &Keys, at: &str, value: &[u8]) -> std::io::Result<Sealed> {
        let broken = |_| std::io::Error::other("the system has no random numbers, or the cipher refuses");
        let key = keys.first();
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(broken)?;
        let mut data = value.to_vec();
        key.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(at.as_bytes()),
                &mut data,
            )
            .map_err(broken)?;
        Ok(Sealed {
            v: FORMAT,
            cipher: CIPHER.to_owned(),
            key: key.id.clone(),
            nonce: STANDARD.encode(nonce),
            data: STANDARD.encode(data),
        })
    }

    /// Reads what stands at a secret's key.
    ///
    /// # Errors
    /// [`OpenError::NotSealed`], [`OpenError::Format`].
    pub fn read(value: &[u8]) -> Result<Sealed, OpenError> {
        let sealed: Sealed = serde_json::from_slice(value).map_err(|_| OpenError::NotSealed)?;
        match (sealed.v, sealed.cipher.as_str()) {
            (FORMAT, CIPHER) => Ok(sealed),
            _ => Err(OpenError::Format),
        }
    }

    /// What was sealed for `at`.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&self, keys: &Keys, at: &str) -> Result<Vec<u8>, OpenError> {
        let key = keys
            .by_id(&self.key)
            .ok_or_else(|| OpenError::UnknownKey(self.key.clone()))?;
        let decoded = |text: &str| STANDARD.decode(text).map_err(|_| OpenError::Damaged);
        let nonce =
            Nonce::try_assume_unique_for_key(&decoded(&self.nonce)?).map_err(|_| OpenError::Damaged)?;
        let mut data = decoded(&self.data)?;
        let opened = key
            .key
            .open_in_place(nonce, Aad::from(at.as_bytes()), &mut data)
            .map_err(|_| OpenError::Damaged)?
            .len();
        data.truncate(opened);
        Ok(data)
    }

    /// The bytes of the value that was sealed.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        const TAG: usize = 16;
        STANDARD
            .decode(&self.data)
            .map_or(0, |data| data.len().saturating_sub(TAG))
    }
}

impl fmt::Display for Sealed {
    /// As it is stored.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::secrets::generate;

    const AT: &str = "/tenants/default/secrets/db";

    fn keys(texts: &[&String]) -> Keys {
        let text: String = texts.iter().map(|text| text.as_str()).collect();
        Keys::parse(&text, Path::new("/k")).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_at_its_own_place_with_its_own_key() {
        let (old, new) = (generate().unwrap(), generate().unwrap());
        let sealed = Sealed::seal(&keys(&[&old]), AT, b"hunter2").unwrap().to_string();
        assert!(!sealed.contains("hunter2") && !sealed.contains(&STANDARD.encode("hunter2")));
        let sealed = Sealed::read(sealed.as_bytes()).unwrap();
        assert_eq!(sealed.open(&keys(&[&new, &old]), AT).unwrap(), b"hunter2");
        assert_eq!(sealed.value_bytes(), 7);
        let unknown = OpenError::UnknownKey(keys(&[&old]).id().to_owned());
        assert_eq!(sealed.open(&keys(&[&new]), AT), Err(unknown));
        let elsewhere = sealed.open(&keys(&[&old]), "/tenants/shop/secrets/db");
        assert_eq!(elsewhere, Err(OpenError::Damaged));
        let twice = Sealed::seal(&keys(&[&old]), AT, b"hunter2").unwrap();
        assert_ne!(twice.to_string(), sealed.to_string());
    }

    #[test]
    fn what_is_no_sealed_secret_is_not_opened() {
        let key = generate().unwrap();
        let good = Sealed::seal(&keys(&[&key]), AT, b"x").unwrap();
        assert_eq!(Sealed::read(b"hunter2").unwrap_err(), OpenError::NotSealed);
        let newer = good.to_string().replace(r#""v":1"#, r#""v":2"#);
        assert_eq!(Sealed::read(newer.as_bytes()).unwrap_err(), OpenError::Format);
        let damaged = |field: &str| {
            let mut value: serde_json::Value = serde_json::from_str(&good.to_string()).unwrap();
            value[field] = STANDARD.encode("other").into();
            let read = Sealed::read(value.to_string().as_bytes()).unwrap();
            read.open(&keys(&[&key]), AT).unwrap_err()
        };
        assert_eq!(
            [damaged("data"), damaged("nonce")],
            [OpenError::Damaged, OpenError::Damaged]
        );
    }
}
