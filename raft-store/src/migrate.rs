//! Formats of the store: checking the one found, and bringing an older one up to date.
//!
//! There is one format so far. A new one raises [`schema::FORMAT`], adds its step to [`migrate`], and leaves a
//! fixture of the old one behind.

use std::io;

use thiserror::Error;

use crate::backend::{Backend, BackendError, Batch};
use crate::schema;

#[derive(Debug, Error)]
pub(crate) enum MigrateError {
    /// Not damage: an older member must leave it alone.
    #[error("the store has format {found}, this version knows up to {}", schema::FORMAT)]
    Newer { found: u32 },
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl From<MigrateError> for io::Error {
    fn from(error: MigrateError) -> io::Error {
        match error {
            newer @ MigrateError::Newer { .. } => io::Error::new(io::ErrorKind::InvalidData, newer),
            MigrateError::Backend(error) => error.into(),
        }
    }
}

/// Leaves `backend` in the current format.
pub(crate) fn migrate(backend: &Backend) -> Result<(), MigrateError> {
    let Some(found) = backend.get(schema::META_FORMAT)? else {
        if !backend.is_empty() {
            return Err(backend.damaged("it has entries but no format").into());
        }
        let mut batch = Batch::default();
        batch.put(schema::META_FORMAT, schema::FORMAT.to_be_bytes());
        return Ok(backend.write(batch)?);
    };
    let found = found.as_ref().try_into().map(u32::from_be_bytes);
    match found.map_err(|_| backend.damaged("its format is unreadable"))? {
        schema::FORMAT => Ok(()),
        0 => Err(backend.damaged("it has format 0, which never was").into()),
        found => Err(MigrateError::Newer { found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens a store whose format entry holds `format`.
    #[track_caller]
    fn check(format: &[u8], expect: &str) {
        let dir = tempfile::tempdir().unwrap();
        let backend = Backend::open(dir.path(), 1 << 20).unwrap();
        let mut batch = Batch::default();
        batch.put(schema::META_FORMAT, format);
        backend.write(batch).unwrap();
        let outcome = match migrate(&backend) {
            Ok(()) => "ok".to_owned(),
            Err(MigrateError::Newer { found }) => format!("newer {found}"),
            Err(MigrateError::Backend(_)) => "damaged".to_owned(),
        };
        assert_eq!(outcome, expect, "{format:?}");
    }

    #[test]
    fn formats() {
        check(&schema::FORMAT.to_be_bytes(), "ok");
        check(&9_u32.to_be_bytes(), "newer 9");
        check(&0_u32.to_be_bytes(), "damaged");
        check(b"xx", "damaged");
    }

    #[test]
    fn entries_without_a_format_are_damage() {
        let dir = tempfile::tempdir().unwrap();
        let backend = Backend::open(dir.path(), 1 << 20).unwrap();
        let mut batch = Batch::default();
        batch.put(b"x", b"");
        backend.write(batch).unwrap();
        assert!(matches!(migrate(&backend), Err(MigrateError::Backend(_))));
    }
}
