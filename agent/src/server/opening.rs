//! The first bytes of a connection: whoever has not said which HTTP it speaks within a time is dropped.
//!
//! HTTP/1.1's own library counts the time of a request's head, and HTTP/2's asks whether somebody is there; before either is
//! chosen nobody counts. It owns that moment and no more: it must not change a byte.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::authority::PREFACE;
use crate::written_through::written_through;

/// A connection that has to say something soon.
#[derive(Debug)]
pub(super) struct Opening<S> {
    socket: S,
    /// Of the preface of HTTP/2, the bytes that have come.
    seen: usize,
    /// `None`: it is known what is spoken.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<S> Opening<S> {
    pub(super) fn new(socket: S, patience: Duration) -> Opening<S> {
        Opening {
            socket,
            seen: 0,
            patience: Some(Box::pin(sleep(patience))),
        }
    }

    fn take_note(&mut self, bytes: &[u8]) {
        let expected = PREFACE.get(self.seen..).unwrap_or_default();
        let undecided = bytes.len() < expected.len() && expected.starts_with(bytes);
        if undecided && !bytes.is_empty() {
            self.seen += bytes.len();
        } else {
            self.patience = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.socket).poll_read(cx, buf);
        let Some(patience) = &mut this.patience else {
            return polled;
        };
        if polled.is_ready() {
            this.take_note(buf.filled().get(before..).unwrap_or_default());
        } else if patience.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "nothing was said in time",
            )));
        }
        polled
    }
}

written_through!(Opening);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn who_does_not_say_what_it_speaks_is_dropped() {
        let (almost, _) = PREFACE.split_at(PREFACE.len() - 1);
        for (said, is_dropped) in [
            (&b""[..], true),
            (b"P", true),
            (almost, true),
            (b"POST", false),
            (PREFACE, false),
        ] {
            let (mut client, server) = tokio::io::duplex(64);
            let mut opening = Opening::new(server, PATIENCE);
            let mut buffer = [0; 64];
            // Byte by byte, and each within the time.
            for byte in said {
                client.write_all(&[*byte]).await.unwrap();
                assert_eq!(opening.read(&mut buffer).await.unwrap(), 1);
                tokio::time::advance(Duration::from_secs(1)).await;
            }
            match timeout(PATIENCE * 2, opening.read(&mut buffer)).await {
                Ok(Err(error)) => assert!(is_dropped && error.kind() == io::ErrorKind::TimedOut),
                Ok(Ok(read)) => panic!("{read} bytes that nobody sent"),
                Err(_) => assert!(!is_dropped, "{said:?}"),
            }
        }
    }
}
