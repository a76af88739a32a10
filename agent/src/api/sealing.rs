//! Secrets are sealed here, before they are proposed: from then on nobody who reads the log, the store or an answer reads
//! a value. What a client puts already sealed, as when it copies a key or a whole cluster, stays what it is, and is sealed
//! anew where it opens and the first key is another one by now.

use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest};
use proto::replicated::request::Op;

use super::status::ApiError;
use crate::document::{is_among_secrets, parse_secret_key};
use crate::secrets::{KeyFile, Keys, OpenError, SECRET_BYTES_MAX, Sealed};

/// Of what comes sealed already.
const SEALED_BYTES_MAX: usize = 2 * SECRET_BYTES_MAX;

/// Seals what is put among secrets.
#[derive(Debug)]
pub(super) struct Sealing(Option<KeyFile>);

impl Sealing {
    /// `None`: no secret is taken here.
    pub(super) fn new(keys: Option<KeyFile>) -> Sealing {
        Sealing(keys)
    }

    /// The request as it is proposed.
    ///
    /// # Errors
    /// Where a secret cannot be sealed, or cannot be one. Nothing of the request is done then.
    pub(super) fn sealed(&self, op: Op) -> Result<Op, ApiError> {
        Ok(match op {
            Op::Put(mut put) => {
                if is_among_secrets(&put.key) {
                    self.seal(&mut put)?;
                }
                Op::Put(put)
            }
            Op::Txn(mut txn) => {
                if puts_secrets(&txn) {
                    self.seal_txn(&mut txn)?;
                }
                Op::Txn(txn)
            }
            other => other,
        })
    }

    fn seal_txn(&self, txn: &mut TxnRequest) -> Result<(), ApiError> {
        for op in txn.success.iter_mut().chain(&mut txn.failure) {
            match &mut op.request {
                Some(Request::RequestPut(put)) if is_among_secrets(&put.key) => self.seal(put)?,
                Some(Request::RequestTxn(txn)) => self.seal_txn(txn)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn seal(&self, put: &mut PutRequest) -> Result<(), ApiError> {
        let key = std::str::from_utf8(&put.key).ok().and_then(parse_secret_key);
        let key = key.ok_or(ApiError::SecretName)?;
        if put.ignore_value {
            return Ok(());
        }
        if put.value.len() > SEALED_BYTES_MAX {
            return Err(ApiError::SecretTooLarge);
        }
        let keys = self.keys()?;
        let opened = match Sealed::read(&put.value) {
            Err(OpenError::NotSealed) => None,
            Err(_) => return Ok(()),
            Ok(sealed) if sealed.key == keys.id() => return Ok(()),
            Ok(sealed) => match sealed.open(&keys, &key.key()) {
                Ok(value) => Some(value),
                // Hosts say what is wrong with it; sealed once more it would be a wrong value that nobody notices.
                Err(_) => return Ok(()),
            },
        };
        let value = opened.as_deref().unwrap_or(&put.value);
        if value.len() > SECRET_BYTES_MAX {
            return Err(ApiError::SecretTooLarge);
        }
        let sealed = Sealed::seal(&keys, &key.key(), value).map_err(|error| {
            tracing::error!(%error, "a secret cannot be sealed");
            ApiError::SecretsNeedKey
        })?;
        put.value = sealed.to_string().into();
        Ok(())
    }

    fn keys(&self) -> Result<Keys, ApiError> {
        let file = self.0.as_ref().ok_or(ApiError::SecretsNeedKey)?;
        file.keys().map_err(|error| {
            tracing::warn!(%error, "a secret is refused");
            ApiError::SecretsNeedKey
        })
    }
}

fn puts_secrets(txn: &TxnRequest) -> bool {
    let puts = |op: &RequestOp| match &op.request {
        Some(Request::RequestPut(put)) => is_among_secrets(&put.key),
        Some(Request::RequestTxn(txn)) => puts_secrets(txn),
        _ => false,
    };
    txn.success.iter().chain(&txn.failure).any(puts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::generate;

    const AT: &str = "/tenants/default/secrets/db";

    fn put(key: &str, value: &str) -> PutRequest {
        PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..PutRequest::default()
        }
    }

    fn sealing(dir: &tempfile::TempDir, keys: &str) -> Sealing {
        let path = dir.path().join("secrets.key");
        std::fs::write(&path, keys).unwrap();
        Sealing::new(Some(KeyFile::new(path)))
    }

    fn sealed(sealing: &Sealing, put: PutRequest) -> String {
        match sealing.sealed(Op::Put(put)).unwrap() {
            Op::Put(put) => String::from_utf8(put.value.to_vec()).unwrap(),
            _ => panic!("another request"),
        }
    }

    #[test]
    fn secrets_are_sealed_wherever_they_stand_in_a_request() {
        let dir = tempfile::tempdir().unwrap();
        let sealing = sealing(&dir, &generate().unwrap());
        let op = |put: PutRequest| RequestOp {
            request: Some(Request::RequestPut(put)),
        };
        let nested = TxnRequest {
            failure: vec![
                op(put(AT, "hunter2")),
                op(put("/tenants/default/desired/x/y", "seen")),
            ],
            ..TxnRequest::default()
        };
        let txn = TxnRequest {
            success: vec![RequestOp {
                request: Some(Request::RequestTxn(nested)),
            }],
            ..TxnRequest::default()
        };
        let shown = format!("{:?}", sealing.sealed(Op::Txn(txn)).unwrap());
        assert!(
            !shown.contains("hunter2") && shown.contains("seen") && shown.contains("chacha20"),
            "{shown}"
        );
        assert_eq!(sealed(&sealing, put("greeting", "hello")), "hello");
        assert!(!sealed(&sealing, put(AT, "hunter2")).contains("hunter2"));
    }

    #[test]
    fn what_is_sealed_stays_until_the_key_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (generate().unwrap(), generate().unwrap());
        let first = sealed(&sealing(&dir, &old), put(AT, "hunter2"));
        assert_eq!(sealed(&sealing(&dir, &old), put(AT, &first)), first);
        let again = sealed(&sealing(&dir, &format!("{new}{old}")), put(AT, &first));
        let keys = Keys::parse(&new, dir.path()).unwrap();
        assert_eq!(
            Sealed::read(again.as_bytes()).unwrap().open(&keys, AT).unwrap(),
            b"hunter2"
        );
        // Another cluster's, or for another name: not opened, and no value of its own either.
        let unknown = sealing(&dir, &new);
        assert_eq!(sealed(&unknown, put(AT, &first)), first);
        let elsewhere = "/tenants/shop/secrets/db";
        assert_eq!(sealed(&unknown, put(elsewhere, &again)), again);
    }

    #[test]
    fn what_cannot_be_a_secret_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let with_key = sealing(&dir, &generate().unwrap());
        let refused = |sealing: &Sealing, put: PutRequest| sealing.sealed(Op::Put(put)).unwrap_err();
        for key in ["/tenants/default/secrets/a/b", "/tenants/default/secrets/"] {
            assert_eq!(refused(&with_key, put(key, "x")), ApiError::SecretName, "{key}");
        }
        let large = "x".repeat(SECRET_BYTES_MAX + 1);
        assert_eq!(refused(&with_key, put(AT, &large)), ApiError::SecretTooLarge);
        for without in [Sealing::new(None), sealing(&dir, "no key\n")] {
            assert_eq!(refused(&without, put(AT, "x")), ApiError::SecretsNeedKey);
        }
    }
}
