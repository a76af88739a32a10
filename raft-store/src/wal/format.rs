//! What a segment file looks like: its name and its header.
//!
//! A segment is a header and then records, back to back, each at a multiple of four bytes. The rest of the
//! file is zeroes, preallocated. All numbers are little endian.
//!
//! ```text
//! offset  bytes  field
//!      0      8  magic, "agentwal"
//!      8      4  format version
//!     12      8  cluster id
//!     20      8  member id
//!     28      8  sequence of the segment's first record
//!     36      4  CRC-32C of the 36 bytes before it
//! ```

use std::fmt;

use crate::wal::Identity;

/// The header's length, and so the offset of the first record.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 40;

/// The format that this version writes, and the only one it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"agentwal";
const SUFFIX: &str = ".wal";
const SEQUENCE_DIGITS: usize = 16;

/// The position of a record in the whole log: 1 for the first one ever written, then without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sequence(pub(crate) u64);

impl Sequence {
    pub(crate) const FIRST: Sequence = Sequence(1);

    pub(crate) fn next(self) -> Sequence {
        Sequence(self.0.saturating_add(1))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of the segment that starts at `first`: sixteen hexadecimal digits, so that names sort as
/// sequences.
pub(crate) fn segment_name(first: Sequence) -> String {
    format!("{:0SEQUENCE_DIGITS$x}{SUFFIX}", first.0)
}

/// The first sequence a segment's name promises; `None` for the name of any other file.
pub(crate) fn parse_segment_name(name: &str) -> Option<Sequence> {
    let digits = name.strip_suffix(SUFFIX)?;
    let canonical = digits.len() == SEQUENCE_DIGITS
        && digits
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if !canonical {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().map(Sequence)
}

/// The start of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) identity: Identity,
    pub(crate) first: Sequence,
}

/// Bytes that are no header of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// Not a segment, or a damaged one.
    Damaged(&'static str),
    /// A whole header of another format version.
    Version(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.identity.cluster_id.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.identity.member_id.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.first.0.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..36]);
        bytes[36..40].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<SegmentHeader, HeaderError> {
        let (checked, _) = bytes.split_at(36);
        if !checked.starts_with(&MAGIC) {
            return Err(HeaderError::Damaged("no segment of a log starts like this"));
        }
        // The version first: another version may keep its checksum elsewhere.
        let version = u32_at(bytes, 8);
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version(version));
        }
        if crc32c::crc32c(checked) != u32_at(bytes, 36) {
            return Err(HeaderError::Damaged(
                "the segment header's checksum does not match",
            ));
        }
        Ok(SegmentHeader {
            identity: Identity {
                cluster_id: u64_at(bytes, 12),
                member_id: u64_at(bytes, 20),
            },
            first: Sequence(u64_at(bytes, 28)),
        })
    }

    /// What the checksum of every record in this segment starts from. It binds records to their segment:
    /// bytes of another segment, or of another member's log inside a user's value, are never taken for
    /// records.
    pub(crate) fn seed(&self) -> u32 {
        u32_at(&self.encode(), 36)
    }
}

/// The four bytes at `offset`; zero past the end, which no caller asks for.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk::<4>())
        .map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

/// The eight bytes at `offset`; zero past the end, which no caller asks for.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk::<8>())
        .map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader {
        identity: Identity {
            cluster_id: 7,
            member_id: 9,
        },
        first: Sequence(0x1234),
    };

    #[test]
    fn a_header_reads_back() {
        assert_eq!(SegmentHeader::decode(&HEADER.encode()), Ok(HEADER));
    }

    #[test]
    fn every_flipped_byte_of_a_header_is_noticed() {
        for offset in 0..SEGMENT_HEADER_BYTES {
            let mut bytes = HEADER.encode();
            bytes[offset] ^= 0x40;
            let decoded = SegmentHeader::decode(&bytes);
            assert!(decoded.is_err(), "offset {offset}: {decoded:?}");
        }
    }

    #[test]
    fn names_sort_as_sequences_and_nothing_else_is_a_segment() {
        assert_eq!(segment_name(Sequence(0xab)), "00000000000000ab.wal");
        assert_eq!(parse_segment_name("00000000000000ab.wal"), Some(Sequence(0xab)));
        for other in [
            "LOCK",
            "ab.wal",
            "00000000000000ab.wal.tmp",
            "00000000000000AB.wal",
            "+0000000000000ab.wal",
        ] {
            assert_eq!(parse_segment_name(other), None, "{other}");
        }
    }
}
