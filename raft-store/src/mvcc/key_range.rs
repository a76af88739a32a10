//! Which keys a request names, as etcd writes it: a key and a range end.

use std::ops::Bound;

/// A start and an end, as ordered maps take them.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Borrowed from a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyRange<'a> {
    One(&'a [u8]),
    From(&'a [u8]),
    /// Half-open; names nothing where the end is not after the start.
    Between(&'a [u8], &'a [u8]),
}

impl<'a> KeyRange<'a> {
    /// `range_end` empty: that key. `"\0"`: every key from it on. Otherwise the half-open range.
    pub(crate) fn new(key: &'a [u8], range_end: &'a [u8]) -> KeyRange<'a> {
        match range_end {
            [] => KeyRange::One(key),
            [0] => KeyRange::From(key),
            _ => KeyRange::Between(key, range_end),
        }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        match *self {
            KeyRange::One(only) => key == only,
            KeyRange::From(start) => key >= start,
            KeyRange::Between(start, end) => start <= key && key < end,
        }
    }

    /// For ordered maps; `None` where it names nothing, which those panic over.
    pub(crate) fn bounds(&self) -> Option<Bounds<'a>> {
        match *self {
            KeyRange::One(key) => Some((Bound::Included(key), Bound::Included(key))),
            KeyRange::From(start) => Some((Bound::Included(start), Bound::Unbounded)),
            KeyRange::Between(start, end) => {
                (start < end).then_some((Bound::Included(start), Bound::Excluded(end)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_name_what_etcd_says() {
        let named = |key: &str, end: &str| -> String {
            let range = KeyRange::new(key.as_bytes(), end.as_bytes());
            ["\0", "a", "b", "c"]
                .iter()
                .filter(|k| range.contains(k.as_bytes()))
                .copied()
                .collect()
        };
        assert_eq!(named("a", ""), "a");
        assert_eq!(named("b", "\0"), "bc");
        assert_eq!(named("\0", "\0"), "\0abc");
        assert_eq!(named("a", "c"), "ab");
        assert_eq!(named("c", "a"), "");
        assert_eq!(KeyRange::new(b"c", b"c").bounds(), None);
    }
}
