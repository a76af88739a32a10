//! The hash of the store's history, for members to compare.
//!
//! It covers what is logically kept: records that are compacted and not yet swept are left out, so that members
//! agree however far their sweepers are.

use proto::mvccpb::KeyValue;

use super::{Index, Revision, record};
use crate::backend::{Backend, BackendError};

/// CRC-32C over the compacted revision and every record up to `revision`. The caller holds the history with a pin
/// that is not past `compacted`.
pub(crate) fn hash(
    backend: &Backend,
    index: &Index,
    compacted: i64,
    revision: i64,
) -> Result<u32, BackendError> {
    let mut crc = crc32c::crc32c(&compacted.to_be_bytes());
    for entry in record::scan(backend, 0, revision) {
        let (at, record) = entry?;
        let kept = if record.tombstone {
            at.main >= compacted
        } else {
            index.retains(compacted, &record.kv.key, at)
        };
        if kept {
            crc = append(crc, at, record.tombstone, &record.kv);
        }
    }
    Ok(crc)
}

/// Field by field, each variable one behind its length: no two different records read the same.
fn append(crc: u32, at: Revision, tombstone: bool, kv: &KeyValue) -> u32 {
    let mut fixed = Vec::with_capacity(64);
    for number in [at.main, i64::from(at.sub), i64::from(tombstone)] {
        fixed.extend_from_slice(&number.to_be_bytes());
    }
    for number in [kv.create_revision, kv.mod_revision, kv.version, kv.lease] {
        fixed.extend_from_slice(&number.to_be_bytes());
    }
    let mut crc = crc32c::crc32c_append(crc, &fixed);
    for bytes in [&kv.key, &kv.value] {
        crc = crc32c::crc32c_append(crc, &(bytes.len() as u64).to_be_bytes());
        crc = crc32c::crc32c_append(crc, bytes);
    }
    crc
}
