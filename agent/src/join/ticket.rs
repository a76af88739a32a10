//! A join token as text: one word that can be pasted, with a checksum, so that half a one is not taken for a wrong one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message;
use proto::agent::v1::JoinTicket;
use thiserror::Error;

/// What it is, and its format.
const START: &str = "agent1.";
const CHECKSUM_BYTES: usize = 4;
/// Far above what a token of many endpoints takes.
const LONGEST: usize = 8 << 10;

/// Why a text is no token.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TicketError {
    #[error("this is no join token: one begins with agent1. (agentctl token create)")]
    Other,
    #[error("the join token is not complete: copy all of it")]
    Incomplete,
}

/// The text of a token.
#[must_use]
pub fn write(ticket: &JoinTicket) -> String {
    let mut bytes = ticket.encode_to_vec();
    let checksum = checksum_of(&bytes);
    bytes.extend_from_slice(&checksum);
    format!("{START}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// Reads a text, with blanks and newlines around it.
///
/// # Errors
/// See [`TicketError`].
pub fn read(text: &str) -> Result<JoinTicket, TicketError> {
    let encoded = text.trim().strip_prefix(START).ok_or(TicketError::Other)?;
    if encoded.len() > LONGEST {
        return Err(TicketError::Other);
    }
    let bytes = URL_SAFE_NO_PAD
        .decode(encoded)
        .map_err(|_| TicketError::Incomplete)?;
    let (bytes, checksum) = bytes
        .split_last_chunk::<CHECKSUM_BYTES>()
        .ok_or(TicketError::Incomplete)?;
    if checksum_of(bytes) != *checksum {
        return Err(TicketError::Incomplete);
    }
    JoinTicket::decode(bytes).map_err(|_| TicketError::Incomplete)
}

/// The first bytes of a SHA-256: no other checksum is linked here.
fn checksum_of(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    use sha2::{Digest, Sha256};
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let [a, b, c, d, ..] = digest;
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_clipboard_or_is_refused() {
        let ticket = JoinTicket {
            cluster_id: 7,
            token_id: u64::MAX,
            ca_sha256: vec![1; 32].into(),
            secret: vec![2; 32].into(),
            host: "liquidweb".into(),
            endpoints: vec!["https://51.0.0.10:2380".into()],
        };
        let text = write(&ticket);
        assert!(text.starts_with("agent1.") && text.len() < 250, "{text}");
        assert_eq!(read(&format!(" {text}\n")).unwrap(), ticket);
        for end in START.len()..text.len() {
            assert_eq!(read(&text[..end]), Err(TicketError::Incomplete), "{end}");
        }
        assert_eq!(read("K10abc"), Err(TicketError::Other));
        assert_eq!(read(""), Err(TicketError::Other));
    }
}
