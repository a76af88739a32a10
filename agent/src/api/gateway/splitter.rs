//! Cuts a stream of JSON objects, one after the other, into its messages, as the bytes arrive.
//!
//! It looks at every byte once, however the bytes were cut on their way, and holds one message at most.

use bytes::{Buf, Bytes, BytesMut};

/// Why there is no next message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SplitError {
    /// Something else than an object begins here.
    NotAnObject,
    TooLong,
}

#[derive(Debug)]
pub(super) struct Splitter {
    buffer: BytesMut,
    /// Up to here the buffer has been looked at; what follows is of the next message.
    seen: usize,
    /// Objects and lists that are open.
    depth: usize,
    within: Within,
    max_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Structure,
    Text,
    /// After a backslash in a text.
    Escape,
}

impl Splitter {
    /// A message may be `max_bytes` long.
    pub(super) fn new(max_bytes: usize) -> Splitter {
        Splitter {
            buffer: BytesMut::new(),
            seen: 0,
            depth: 0,
            within: Within::Structure,
            max_bytes,
        }
    }

    pub(super) fn push(&mut self, bytes: &Bytes) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether a message has begun and not ended.
    pub(super) fn is_within_message(&self) -> bool {
        self.depth > 0
    }

    /// The next whole message; `None`: more bytes are needed.
    pub(super) fn next_message(&mut self) -> Result<Option<Bytes>, SplitError> {
        if self.depth == 0 {
            let blanks = self.buffer.len() - self.buffer.trim_ascii_start().len();
            self.buffer.advance(blanks);
            self.seen = 0;
            if self.buffer.first().is_some_and(|&first| first != b'{') {
                return Err(SplitError::NotAnObject);
            }
        }
        let unseen = self.buffer.get(self.seen..).unwrap_or_default();
        for (offset, &byte) in unseen.iter().enumerate() {
            match (self.within, byte) {
                (Within::Escape, _) => self.within = Within::Text,
                (Within::Text, b'\\') => self.within = Within::Escape,
                (Within::Text, b'"') => self.within = Within::Structure,
                (Within::Text, _) => {}
                (Within::Structure, b'"') => self.within = Within::Text,
                (Within::Structure, b'{' | b'[') => self.depth += 1,
                (Within::Structure, b'}' | b']') => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        let length = self.seen + offset + 1;
                        self.seen = 0;
                        if length > self.max_bytes {
                            return Err(SplitError::TooLong);
                        }
                        return Ok(Some(self.buffer.split_to(length).freeze()));
                    }
                }
                (Within::Structure, _) => {}
            }
        }
        self.seen = self.buffer.len();
        if self.seen > self.max_bytes {
            return Err(SplitError::TooLong);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages in `text` when it arrives `chunk` bytes at a time, and how it ended.
    fn split(text: &str, chunk: usize) -> (Vec<String>, Result<bool, SplitError>) {
        let mut splitter = Splitter::new(64);
        let mut messages = Vec::new();
        for bytes in text.as_bytes().chunks(chunk) {
            splitter.push(&Bytes::copy_from_slice(bytes));
            loop {
                match splitter.next_message() {
                    Ok(Some(message)) => messages.push(String::from_utf8(message.to_vec()).unwrap()),
                    Ok(None) => break,
                    Err(error) => return (messages, Err(error)),
                }
            }
        }
        (messages, Ok(splitter.is_within_message()))
    }

    #[test]
    fn messages_are_cut_at_their_ends() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(100));
        let cases: [(&str, &[&str], Result<bool, SplitError>); 9] = [
            ("", &[], Ok(false)),
            (" \n\t", &[], Ok(false)),
            (r#"{"a":1}{"b":2}"#, &[r#"{"a":1}"#, r#"{"b":2}"#], Ok(false)),
            (" {}\n{} \n", &["{}", "{}"], Ok(false)),
            (
                r#"{"a":"}\"{\\"}{"b":[{},[]]}"#,
                &[r#"{"a":"}\"{\\"}"#, r#"{"b":[{},[]]}"#],
                Ok(false),
            ),
            (r#"{"a":{"#, &[], Ok(true)),
            ("{}]", &["{}"], Err(SplitError::NotAnObject)),
            ("5", &[], Err(SplitError::NotAnObject)),
            (&long, &[], Err(SplitError::TooLong)),
        ];
        for (text, messages, end) in cases {
            for chunk in [1, 2, 3, 64] {
                let split = split(text, chunk);
                assert_eq!(split.0, messages, "{text} by {chunk}");
                assert_eq!(split.1, end, "{text} by {chunk}");
            }
        }
    }
}
