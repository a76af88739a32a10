//! Which keys a command means: one, a range, a prefix, everything from a key on.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use bytes::Bytes;
use clap::Args;

use super::error::CliError;

/// Where etcd's ranges say "to the end", and, as a key, "from the beginning".
const OPEN: &[u8] = b"\0";

/// A half-open range as etcd writes it: no end is that one key, an end of one zero byte is no end at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) key: Bytes,
    pub(crate) range_end: Bytes,
}

/// The key, and how far it reaches.
#[derive(Args, Clone, Debug)]
pub(crate) struct RangeArgs {
    /// The key; with --prefix or --from-key "" stands for all keys
    #[arg(value_name = "KEY")]
    key: OsString,
    /// End of the range, itself left out
    #[arg(value_name = "RANGE_END", conflicts_with_all = ["prefix", "from_key", "range_end_flag"])]
    range_end: Option<OsString>,
    /// End of the range, itself left out
    #[arg(long = "range-end", value_name = "KEY", conflicts_with_all = ["prefix", "from_key"])]
    range_end_flag: Option<OsString>,
    /// All keys that begin with KEY
    #[arg(long, conflicts_with = "from_key")]
    prefix: bool,
    /// All keys from KEY on
    #[arg(long)]
    from_key: bool,
}

impl RangeArgs {
    pub(crate) fn new(key: OsString, range_end: Option<OsString>, prefix: bool, from_key: bool) -> Self {
        Self {
            key,
            range_end,
            range_end_flag: None,
            prefix,
            from_key,
        }
    }

    pub(crate) fn range(self) -> Result<KeyRange, CliError> {
        let key = self.key.into_vec();
        if self.prefix {
            return Ok(KeyRange::prefix(&key));
        }
        if self.from_key {
            return Ok(KeyRange::from_key(&key));
        }
        if key.is_empty() {
            return Err(CliError::usage("the key is empty").hint("for all keys: \"\" --prefix"));
        }
        let range_end = self
            .range_end
            .or(self.range_end_flag)
            .map(OsStringExt::into_vec)
            .unwrap_or_default();
        Ok(KeyRange {
            key: key.into(),
            range_end: range_end.into(),
        })
    }
}

impl KeyRange {
    pub(crate) fn one(key: impl Into<Bytes>) -> Self {
        Self {
            key: key.into(),
            range_end: Bytes::new(),
        }
    }

    /// Every key that begins with `prefix`; every key at all when that is empty.
    pub(crate) fn prefix(prefix: &[u8]) -> Self {
        if prefix.is_empty() {
            return Self::from_key(prefix);
        }
        Self {
            key: Bytes::copy_from_slice(prefix),
            range_end: after_prefix(prefix),
        }
    }

    fn from_key(key: &[u8]) -> Self {
        let key = if key.is_empty() { OPEN } else { key };
        Self {
            key: Bytes::copy_from_slice(key),
            range_end: Bytes::from_static(OPEN),
        }
    }
}

/// The first key after all those that begin with `prefix`.
fn after_prefix(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return end.into();
        }
    }
    Bytes::from_static(OPEN)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        range: RangeArgs,
    }

    fn range(args: &[&str]) -> Result<(Vec<u8>, Vec<u8>), String> {
        let command =
            Command::try_parse_from(["get"].iter().chain(args)).map_err(|error| error.to_string())?;
        let range = command.range.range().map_err(|error| error.to_string())?;
        Ok((range.key.to_vec(), range.range_end.to_vec()))
    }

    #[test]
    fn ranges_are_etcds() {
        let cases: [(&[&str], &[u8], &[u8]); 8] = [
            (&["a"], b"a", b""),
            (&["a", "c"], b"a", b"c"),
            (&["a", "--range-end", "c"], b"a", b"c"),
            (&["a", "--prefix"], b"a", b"b"),
            (&["/x/", "--prefix"], b"/x/", b"/x0"),
            (&["a", "--from-key"], b"a", b"\0"),
            (&["", "--prefix"], b"\0", b"\0"),
            (&["", "--from-key"], b"\0", b"\0"),
        ];
        for (args, key, end) in cases {
            assert_eq!(range(args), Ok((key.to_vec(), end.to_vec())), "{args:?}");
        }
    }

    #[test]
    fn a_prefix_of_the_highest_bytes_reaches_to_the_end() {
        assert_eq!(after_prefix(b"a\xff\xff").as_ref(), b"b");
        assert_eq!(after_prefix(b"\xff\xff").as_ref(), b"\0");
    }

    #[test]
    fn contradictions_are_refused() {
        for args in [
            &["a", "b", "--prefix"][..],
            &["a", "--prefix", "--from-key"],
            &["", "b"],
            &[],
        ] {
            assert!(range(args).is_err(), "{args:?}");
        }
    }
}
