//! Certificates that are accepted no more: pure data, and the rules by which a replicated change is taken or refused.
//!
//! One is named by its hash, or all of a member or of a client by the holder's name, whoever issues them: until that is
//! taken back. What it must not do: look at a clock, or be reached by any key of a client.

use std::collections::BTreeMap;

use prost::Message;
use proto::replicated::revocation::What;
use proto::replicated::revocation_change::Change;
use proto::replicated::{Refusal, Revocation, RevocationChange};

use crate::backend::{Backend, BackendError};
use crate::schema;

/// Revocations there may be.
const REVOCATIONS: usize = 1_000;
const NAME_BYTES: usize = 255;
const SHA256_BYTES: usize = 32;

/// One version of all revocations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Revocations(BTreeMap<Vec<u8>, Revocation>);

impl Revocations {
    /// In a lasting order.
    pub fn iter(&self) -> impl Iterator<Item = &Revocation> {
        self.0.values()
    }

    /// Whether this very certificate is accepted no more.
    #[must_use]
    pub fn has_certificate(&self, sha256: &[u8; SHA256_BYTES]) -> bool {
        self.has(&What::Sha256(sha256.to_vec().into()))
    }

    /// Whether no certificate of this member is accepted.
    #[must_use]
    pub fn has_member(&self, name: &str) -> bool {
        self.has(&What::Member(name.to_owned()))
    }

    /// Whether no certificate of this client is accepted.
    #[must_use]
    pub fn has_client(&self, name: &str) -> bool {
        self.has(&What::Client(name.to_owned()))
    }

    fn has(&self, what: &What) -> bool {
        !self.0.is_empty() && key(what).is_some_and(|key| self.0.contains_key(&key))
    }

    /// Makes a change: again, it changes nothing. What was put, or what is gone, by its key in the backend.
    pub(crate) fn change(&mut self, change: RevocationChange) -> Result<Changed, Refusal> {
        match change.change.ok_or(Refusal::UnknownRequest)? {
            Change::Revoke(revocation) => {
                let what = revocation.what.as_ref().ok_or(Refusal::UnknownRequest)?;
                let key = key(what).ok_or(Refusal::UnknownRequest)?;
                if let Some(known) = self.0.get(&key) {
                    return Ok(Changed::Put(Revocations::entry(&key, known)));
                }
                if self.0.len() >= REVOCATIONS {
                    return Err(Refusal::RevocationsTooMany);
                }
                let entry = Revocations::entry(&key, &revocation);
                self.0.insert(key, revocation);
                Ok(Changed::Put(entry))
            }
            Change::Restore(revocation) => {
                let what = revocation.what.as_ref().ok_or(Refusal::UnknownRequest)?;
                let key = key(what).ok_or(Refusal::UnknownRequest)?;
                self.0.remove(&key);
                Ok(Changed::Gone(schema::revocation(&key)))
            }
        }
    }

    /// Everything, as the backend holds it.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        self.0
            .iter()
            .map(|(key, revocation)| Revocations::entry(key, revocation))
    }

    fn entry(key: &[u8], revocation: &Revocation) -> (Vec<u8>, Vec<u8>) {
        (schema::revocation(key), revocation.encode_to_vec())
    }

    pub(crate) fn load(backend: &Backend) -> Result<Revocations, BackendError> {
        let mut revocations = BTreeMap::new();
        for entry in backend.scan(schema::revocations()) {
            let (_, value) = entry?;
            let unreadable = || backend.damaged("a revocation is unreadable");
            let revocation = Revocation::decode(value).map_err(|_| unreadable())?;
            let key = revocation.what.as_ref().and_then(key).ok_or_else(unreadable)?;
            revocations.insert(key, revocation);
        }
        Ok(Revocations(revocations))
    }
}

/// What a change has done, as the backend is to hold it.
#[derive(Debug, PartialEq)]
pub(crate) enum Changed {
    Put((Vec<u8>, Vec<u8>)),
    Gone(Vec<u8>),
}

/// What tells revocations apart; `None` for what can be none. Names are the same in any case of letters.
fn key(what: &What) -> Option<Vec<u8>> {
    let (kind, rest) = match what {
        What::Sha256(sha256) if sha256.len() == SHA256_BYTES => (b'c', sha256.to_vec()),
        What::Member(name) if fits(name) => (b'm', name.to_ascii_lowercase().into_bytes()),
        What::Client(name) if fits(name) => (b'u', name.clone().into_bytes()),
        _ => return None,
    };
    Some([vec![kind], rest].concat())
}

fn fits(name: &str) -> bool {
    (1..=NAME_BYTES).contains(&name.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revocation(what: What) -> Revocation {
        Revocation {
            what: Some(what),
            ..Revocation::default()
        }
    }

    fn change(revocations: &mut Revocations, change: Change) -> Result<Changed, Refusal> {
        revocations.change(RevocationChange { change: Some(change) })
    }

    #[test]
    fn what_is_revoked_is_named_by_hash_or_by_holder() {
        let all = &mut Revocations::default();
        let sha256 = [7; SHA256_BYTES];
        for what in [
            What::Sha256(sha256.to_vec().into()),
            What::Member("OVH".into()),
            What::Client("Eva".into()),
        ] {
            // Again, and nothing changes.
            let once = change(all, Change::Revoke(revocation(what.clone()))).unwrap();
            assert_eq!(change(all, Change::Revoke(revocation(what))), Ok(once));
        }
        assert_eq!(all.iter().count(), 3);
        assert!(all.has_certificate(&sha256) && !all.has_certificate(&[8; SHA256_BYTES]));
        // Hosts are the same in any case of letters, users are not.
        assert!(all.has_member("ovh") && !all.has_client("ovh"));
        assert!(all.has_client("Eva") && !all.has_client("eva"));
        let back = Change::Restore(revocation(What::Member("ovh".into())));
        for _ in 0..2 {
            change(all, back.clone()).unwrap();
            assert!(!all.has_member("ovh"));
        }
        for wrong in [
            What::Sha256(vec![1].into()),
            What::Member(String::new()),
            What::Client("a".repeat(256)),
        ] {
            let refused = change(all, Change::Revoke(revocation(wrong)));
            assert_eq!(refused, Err(Refusal::UnknownRequest));
        }
    }

    #[test]
    fn revocations_are_bounded() {
        let all = &mut Revocations::default();
        for i in 0..REVOCATIONS {
            change(all, Change::Revoke(revocation(What::Client(i.to_string())))).unwrap();
        }
        let more = Change::Revoke(revocation(What::Client("more".into())));
        assert_eq!(change(all, more), Err(Refusal::RevocationsTooMany));
    }
}
