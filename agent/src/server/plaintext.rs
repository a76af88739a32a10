//! Whoever speaks plaintext to a port with TLS is told so, in its own protocol.

use std::io;

use tokio::net::TcpStream;

/// The first byte of every TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;
/// What an HTTP/2 connection begins with. No method of HTTP/1.1 begins like it.
const HTTP2: &[u8] = b"PRI";
const WORDS: &str = "this port speaks TLS: use https://, and a certificate of the cluster";
/// HTTP/2's INADEQUATE_SECURITY.
const INADEQUATE_SECURITY: u32 = 0xc;
const SETTINGS: u8 = 0x4;
const GOAWAY: u8 = 0x7;

/// Looks at how a connection begins, and takes nothing from it. `None`: as TLS does.
///
/// # Errors
/// When the connection breaks.
pub(super) async fn answer(socket: &TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut start = [0; HTTP2.len()];
    let seen = socket.peek(&mut start).await?;
    Ok(answer_to(start.get(..seen).unwrap_or_default()))
}

fn answer_to(start: &[u8]) -> Option<Vec<u8>> {
    match start {
        // Ended before it began: TLS has its own words for that.
        [] | [TLS_HANDSHAKE, ..] => None,
        // At least one byte is there; a connection that begins by single bytes gets the older protocol's answer.
        start if start == HTTP2 => Some(goaway()),
        _ => Some(
            format!(
                "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\
                 Content-Length: {}\r\n\r\n{WORDS}\n",
                WORDS.len() + 1
            )
            .into_bytes(),
        ),
    }
}

/// The server's part of the preface, and the end of the connection with the reason.
fn goaway() -> Vec<u8> {
    let mut frames = frame(SETTINGS, &[]);
    let mut payload = 0_u32.to_be_bytes().to_vec();
    payload.extend_from_slice(&INADEQUATE_SECURITY.to_be_bytes());
    payload.extend_from_slice(WORDS.as_bytes());
    frames.extend(frame(GOAWAY, &payload));
    frames
}

/// A frame of the connection itself: length, type, no flags, stream 0.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let [_, length @ ..] = length;
    let mut frame = length.to_vec();
    frame.extend_from_slice(&[kind, 0, 0, 0, 0, 0]);
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_has_its_answer() {
        assert_eq!(answer_to(b""), None);
        assert_eq!(answer_to(&[TLS_HANDSHAKE, 3, 1]), None);
        let http1 = String::from_utf8(answer_to(b"GET").unwrap()).unwrap();
        assert!(
            http1.starts_with("HTTP/1.1 400 ") && http1.ends_with(&format!("\r\n\r\n{WORDS}\n")),
            "{http1}"
        );
        let http2 = answer_to(b"PRI").unwrap();
        assert_eq!(http2[..9], [0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]);
        assert_eq!(usize::from(http2[11]), 8 + WORDS.len());
        assert!(http2.ends_with(WORDS.as_bytes()));
    }
}
