//! The layout of the store in its key-value backend: every key prefix and the format version.
//!
//! Owns names and their encoding, nothing else: what the values hold is said where they are written. All numbers
//! in keys are big-endian, so that a scan visits them in order.
//!
//! | key | value |
//! |---|---|
//! | `r` revision(8) sub(8) | a record: [`crate::mvcc::record`] |
//! | `r` revision(8) sub(8) number(4) | a piece of that record's value |
//! | `l` lease id(8) | `etcdserverpb.LeaseTimeToLiveResponse`: its id, its granted and its remaining TTL |
//! | `p` member id(8) | `replicated.PublishMember` |
//! | `a` member id(8) alarm(4) | nothing, or `c`: a client raised it |
//! | `u` name | `replicated.AuthUser` |
//! | `o` name | `authpb.Role` |
//! | `m|auth` | `replicated.AuthSettings` |
//! | `j` token id(8) | `replicated.JoinToken` |
//! | `v` kind and name | `replicated.Revocation` |
//! | `x` member id(8) | nothing: a member that was removed, whose id never comes back |
//! | `m|format` | [`FORMAT`] |
//! | `m|applied` | `replicated.LogId` of the last applied entry |
//! | `m|membership` | `replicated.StoredMembership` |
//! | `m|revision`, `m|compacted` | a revision(8) |
//!
//! Which keys hang on a lease is not stored: the live record of a key says it, and what is stored once cannot
//! contradict itself.

use std::ops::Range;

use crate::mvcc::Revision;

/// The format of everything below a state folder. Raised by a change that older members cannot read, with a
/// step in `migrate.rs`.
pub(crate) const FORMAT: u32 = 1;

pub(crate) const META_FORMAT: &[u8] = b"m|format";
pub(crate) const META_APPLIED: &[u8] = b"m|applied";
pub(crate) const META_MEMBERSHIP: &[u8] = b"m|membership";
pub(crate) const META_REVISION: &[u8] = b"m|revision";
pub(crate) const META_COMPACTED: &[u8] = b"m|compacted";

pub(crate) const META_AUTH: &[u8] = b"m|auth";

const RECORD: u8 = b'r';
const LEASE: u8 = b'l';
const MEMBER: u8 = b'p';
const ALARM: u8 = b'a';
const USER: u8 = b'u';
const ROLE: u8 = b'o';
const REMOVED: u8 = b'x';
const JOIN_TOKEN: u8 = b'j';
const REVOCATION: u8 = b'v';

const RECORD_KEY_BYTES: usize = 17;
const CHUNK_KEY_BYTES: usize = 21;

/// A key of the records' part, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordKey {
    Head(Revision),
    Chunk(Revision, u32),
}

pub(crate) fn record(revision: Revision) -> Vec<u8> {
    let mut key = Vec::with_capacity(CHUNK_KEY_BYTES);
    key.push(RECORD);
    key.extend_from_slice(&revision.main.to_be_bytes());
    key.extend_from_slice(&u64::from(revision.sub).to_be_bytes());
    key
}

pub(crate) fn chunk(revision: Revision, number: u32) -> Vec<u8> {
    let mut key = record(revision);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Whether a key speaks of the cluster itself rather than of what it stores: of no meaning in another.
pub(crate) fn is_of_the_cluster(key: &[u8]) -> bool {
    matches!(key.first(), Some(&(MEMBER | ALARM | REMOVED | JOIN_TOKEN)))
}

/// The keys of all records of the revisions `from..=to`.
pub(crate) fn records(from: i64, to: i64) -> Range<Vec<u8>> {
    record(Revision { main: from, sub: 0 })..record(Revision {
        main: to.saturating_add(1),
        sub: 0,
    })
}

/// `None` for a key that is no record's.
pub(crate) fn parse_record(key: &[u8]) -> Option<RecordKey> {
    let (&prefix, rest) = key.split_first()?;
    let (main, rest) = rest.split_first_chunk::<8>()?;
    let (sub, rest) = rest.split_first_chunk::<8>()?;
    if prefix != RECORD {
        return None;
    }
    let revision = Revision {
        main: i64::from_be_bytes(*main),
        sub: u32::try_from(u64::from_be_bytes(*sub)).ok()?,
    };
    match rest {
        [] => Some(RecordKey::Head(revision)),
        _ => Some(RecordKey::Chunk(
            revision,
            u32::from_be_bytes(rest.try_into().ok()?),
        )),
    }
}

pub(crate) fn lease(id: i64) -> Vec<u8> {
    numbered(LEASE, id.cast_unsigned())
}

/// `None` for a key that is no lease's.
pub(crate) fn parse_lease(key: &[u8]) -> Option<i64> {
    let (&prefix, id) = key.split_first()?;
    (prefix == LEASE).then_some(i64::from_be_bytes(id.try_into().ok()?))
}

pub(crate) fn leases() -> Range<Vec<u8>> {
    whole(LEASE)
}

pub(crate) fn member(id: u64) -> Vec<u8> {
    numbered(MEMBER, id)
}

pub(crate) fn members() -> Range<Vec<u8>> {
    whole(MEMBER)
}

pub(crate) fn alarm(member_id: u64, alarm: i32) -> Vec<u8> {
    let mut key = numbered(ALARM, member_id);
    key.extend_from_slice(&alarm.to_be_bytes());
    key
}

pub(crate) fn alarms() -> Range<Vec<u8>> {
    whole(ALARM)
}

/// `None` for a key that is no alarm's.
pub(crate) fn parse_alarm(key: &[u8]) -> Option<(u64, i32)> {
    let (&prefix, rest) = key.split_first()?;
    let (member_id, rest) = rest.split_first_chunk::<8>()?;
    (prefix == ALARM).then_some((
        u64::from_be_bytes(*member_id),
        i32::from_be_bytes(rest.try_into().ok()?),
    ))
}

pub(crate) fn user(name: &str) -> Vec<u8> {
    named(USER, name)
}

pub(crate) fn users() -> Range<Vec<u8>> {
    whole(USER)
}

pub(crate) fn role(name: &str) -> Vec<u8> {
    named(ROLE, name)
}

pub(crate) fn roles() -> Range<Vec<u8>> {
    whole(ROLE)
}

fn named(prefix: u8, name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + name.len());
    key.push(prefix);
    key.extend_from_slice(name.as_bytes());
    key
}

pub(crate) fn removed(member_id: u64) -> Vec<u8> {
    numbered(REMOVED, member_id)
}

pub(crate) fn all_removed() -> Range<Vec<u8>> {
    whole(REMOVED)
}

/// `None` for a key that is no removed member's.
pub(crate) fn parse_removed(key: &[u8]) -> Option<u64> {
    let (&prefix, id) = key.split_first()?;
    (prefix == REMOVED).then_some(u64::from_be_bytes(id.try_into().ok()?))
}

pub(crate) fn join_token(id: u64) -> Vec<u8> {
    numbered(JOIN_TOKEN, id)
}

pub(crate) fn join_tokens() -> Range<Vec<u8>> {
    whole(JOIN_TOKEN)
}

pub(crate) fn revocation(what: &[u8]) -> Vec<u8> {
    [&[REVOCATION], what].concat()
}

pub(crate) fn revocations() -> Range<Vec<u8>> {
    whole(REVOCATION)
}

fn numbered(prefix: u8, number: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(RECORD_KEY_BYTES);
    key.push(prefix);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn whole(prefix: u8) -> Range<Vec<u8>> {
    vec![prefix]..vec![prefix + 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_numbers_and_parse_back() {
        let head = |main, sub| record(Revision { main, sub });
        let mut keys = [
            head(2, 0),
            head(2, 1),
            head(256, 0),
            chunk(Revision { main: 2, sub: 0 }, 0),
        ];
        keys.sort();
        assert_eq!(
            keys.iter()
                .filter_map(|key| parse_record(key))
                .collect::<Vec<_>>(),
            [
                RecordKey::Head(Revision { main: 2, sub: 0 }),
                RecordKey::Chunk(Revision { main: 2, sub: 0 }, 0),
                RecordKey::Head(Revision { main: 2, sub: 1 }),
                RecordKey::Head(Revision { main: 256, sub: 0 }),
            ]
        );
        assert!(records(2, 2).contains(&chunk(Revision { main: 2, sub: 1 }, 9)));
        assert!(!records(2, 2).contains(&head(3, 0)));
        assert_eq!(parse_alarm(&alarm(7, 1)), Some((7, 1)));
    }

    #[test]
    fn foreign_keys_are_not_taken_for_ours() {
        for key in [
            &b""[..],
            b"r",
            b"m|format",
            b"r12345678",
            b"r1234567812345678abc",
            b"a12",
        ] {
            assert_eq!(parse_record(key), None, "{key:?}");
            assert_eq!(parse_alarm(key), None, "{key:?}");
        }
    }
}
