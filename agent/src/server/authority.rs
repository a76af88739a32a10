//! Lets clients in that name a URL where HTTP/2 wants an authority.
//!
//! etcdctl 3.4 hands its endpoint to grpc-go as it is for the calls that go to one member (`endpoint status`,
//! `endpoint hashkv`, `defrag`, `snapshot save`), so their first request says `:authority: http://127.0.0.1:2379`.
//! etcd takes that; the HTTP/2 library under this server resets such a stream with PROTOCOL_ERROR, and has no
//! option for it. Here the bytes of a new connection are looked at until the end of its first HEADERS frame, and
//! an authority there that starts with `http://` or `https://` becomes [`REPLACEMENT`]. A connection has one
//! target, so later requests name the same authority by its index in the HPACK table.
//!
//! It owns those first bytes of a connection, and no more: it must not judge a request. What it does not
//! understand, a later frame and the whole of an HTTP/1 connection pass through untouched, and what is wrong with
//! them is for the HTTP library to say. It may change the authority only because nothing in this program reads it.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::written_through::written_through;

/// How every HTTP/2 connection starts (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
/// The server asks for no larger frames than the protocol's default; a larger one is an error there.
const FRAME_BYTES_MAX: usize = 16_384;
const FRAME_HEADERS: u8 = 1;
const FLAG_PADDED: u8 = 0x08;
const FLAG_PRIORITY: u8 = 0x20;

/// `:authority` in HPACK's static table (RFC 7541, appendix A).
const INDEX_AUTHORITY: usize = 1;
/// What the server reads instead of the URL.
const REPLACEMENT: &[u8] = b"localhost";
const SCHEMES: [&[u8]; 2] = [b"http://", b"https://"];
/// The same in HPACK's Huffman code (RFC 7541, appendix B), each the length in bits and the bits.
#[expect(clippy::unusual_byte_groupings, reason = "a group a character")]
const SCHEMES_HUFFMAN: [(u32, u64); 2] = [
    (
        41,
        // h      t     t     p      :       /      /
        0b100111_01001_01001_101011_1011100_011000_011000,
    ),
    (
        46,
        // h      t     t     p      s     :       /      /
        0b100111_01001_01001_101011_01000_1011100_011000_011000,
    ),
];

/// Bytes read from the socket at a time while the first HEADERS frame is awaited.
const READ_BYTES: usize = 2048;

/// A connection whose first request may name a URL as its authority.
#[derive(Debug)]
pub(super) struct LenientAuthority<S> {
    socket: S,
    /// Until the first HEADERS frame has been read; then the socket is read directly.
    start: Option<Box<Start>>,
}

/// The inbound side of a connection at its start.
#[derive(Debug, Default)]
struct Start {
    rewriter: Rewriter,
    /// What may be read, from `taken` on.
    ready: Vec<u8>,
    taken: usize,
}

impl<S> LenientAuthority<S> {
    pub(super) fn new(socket: S) -> Self {
        Self {
            socket,
            start: Some(Box::default()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LenientAuthority<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while let Some(start) = &mut this.start {
            if buf.remaining() == 0 || start.give(buf) {
                return Poll::Ready(Ok(()));
            }
            if start.rewriter.is_done() {
                this.start = None;
                break;
            }
            // To return with nothing read would say that the connection has ended: so it is read until there is
            // something to give. The rewriter holds one frame at most, which bounds the turns.
            let mut bytes = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.socket).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                start.rewriter.finish(&mut start.ready);
            } else {
                start.rewriter.feed(read.filled(), &mut start.ready);
            }
        }
        Pin::new(&mut this.socket).poll_read(cx, buf)
    }
}

impl Start {
    /// Gives what is ready, as far as there is room. False when nothing is.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let ready = self.ready.get(self.taken..).unwrap_or_default();
        let given = ready.get(..buf.remaining()).unwrap_or(ready);
        if given.is_empty() {
            self.ready.clear();
            self.taken = 0;
            return false;
        }
        buf.put_slice(given);
        self.taken += given.len();
        true
    }
}

written_through!(LenientAuthority);

/// Bytes of a connection in, the same bytes out, but for the authority of the first HEADERS frame.
#[derive(Debug, Default)]
struct Rewriter {
    state: State,
    /// What has come of a frame's header, and then of the whole frame if it is the one to look at.
    held: Vec<u8>,
}

/// What the next byte belongs to.
#[derive(Debug)]
enum State {
    /// The preface, of which so many bytes have come.
    Preface(usize),
    FrameHeader,
    /// A frame that is of no interest, of which so many bytes are to come.
    Passing(usize),
    /// The first HEADERS frame, so long with its header.
    Headers(usize),
    Done,
}

impl Default for State {
    fn default() -> Self {
        Self::Preface(0)
    }
}

impl Rewriter {
    fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Takes the next bytes of the connection, and appends to `out` what can be said of them.
    fn feed(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        while !input.is_empty() {
            input = match self.state {
                State::Preface(seen) => self.preface(seen, input, out),
                State::FrameHeader => self.frame_header(input, out),
                State::Passing(left) => {
                    let (now, rest) = split(input, left);
                    out.extend_from_slice(now);
                    self.state = match left - now.len() {
                        0 => State::FrameHeader,
                        left => State::Passing(left),
                    };
                    rest
                }
                State::Headers(length) => {
                    let rest = self.hold(input, length);
                    if self.held.len() == length {
                        shorten_authority(&mut self.held);
                        self.finish(out);
                    }
                    rest
                }
                State::Done => {
                    out.extend_from_slice(input);
                    &[]
                }
            };
        }
    }

    /// Gives up what is held as it is: the connection has ended, or there is nothing more to look for.
    fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
        self.state = State::Done;
    }

    fn preface<'a>(&mut self, seen: usize, input: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let expected = PREFACE.get(seen..).unwrap_or_default();
        let (now, rest) = split(input, expected.len());
        if !expected.starts_with(now) {
            // HTTP/1, or nothing known.
            self.state = State::Done;
            return input;
        }
        out.extend_from_slice(now);
        self.state = match seen + now.len() {
            all if all == PREFACE.len() => State::FrameHeader,
            seen => State::Preface(seen),
        };
        rest
    }

    fn frame_header<'a>(&mut self, input: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let rest = self.hold(input, FRAME_HEADER_BYTES);
        let &[high, middle, low, kind, flags, ..] = self.held.as_slice() else {
            return rest;
        };
        if self.held.len() < FRAME_HEADER_BYTES {
            return rest;
        }
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if kind != FRAME_HEADERS {
            out.append(&mut self.held);
            self.state = match length {
                0 => State::FrameHeader,
                length => State::Passing(length),
            };
        } else if length == 0 || length > FRAME_BYTES_MAX || flags & (FLAG_PADDED | FLAG_PRIORITY) != 0 {
            // Padding and priorities come before the fields; the clients this is for send neither.
            self.finish(out);
        } else {
            self.state = State::Headers(FRAME_HEADER_BYTES + length);
        }
        rest
    }

    /// Holds bytes back until `length` of them are held.
    fn hold<'a>(&mut self, input: &'a [u8], length: usize) -> &'a [u8] {
        let (now, rest) = split(input, length.saturating_sub(self.held.len()));
        self.held.extend_from_slice(now);
        rest
    }
}

/// The first `length` bytes, or all when there are fewer, and the others.
fn split(bytes: &[u8], length: usize) -> (&[u8], &[u8]) {
    bytes.split_at_checked(length).unwrap_or((bytes, &[]))
}

/// Replaces the authority of a HEADERS frame if it is a URL.
///
/// The shorter text is safe for the fields and frames that follow, though the encoder keeps the longer one in its
/// dynamic table: the decoder counts a smaller entry, so it evicts no earlier than the encoder believes, and
/// indexes count from the newest entry. What the encoder has is always the newest part of what the decoder has,
/// and it never names anything else.
fn shorten_authority(frame: &mut Vec<u8>) {
    let Some(block) = frame.get(FRAME_HEADER_BYTES..) else {
        return;
    };
    let Some(text) = url_authority(block) else {
        return;
    };
    let Some(length) = (block.len() + 1 + REPLACEMENT.len()).checked_sub(text.len()) else {
        return;
    };
    let [.., high, middle, low] = length.to_be_bytes();
    let text = FRAME_HEADER_BYTES + text.start..FRAME_HEADER_BYTES + text.end;
    // As HPACK writes a string that is not Huffman coded: a length below 127, and the bytes.
    let prefix = [REPLACEMENT.len() as u8];
    frame.splice(text, prefix.into_iter().chain(REPLACEMENT.iter().copied()));
    frame.splice(..3, [high, middle, low]);
}

/// Where a block of fields has a string, its length included, that is an authority, a URL, and longer than
/// [`REPLACEMENT`]. None when there is none, and from the first thing on that is not HPACK.
fn url_authority(block: &[u8]) -> Option<Range<usize>> {
    let mut fields = Fields { block, at: 0 };
    while let Some(first) = block.get(fields.at).copied() {
        // RFC 7541, section 6: the first bits say what it is, the others start an index or a size.
        let index_bits = match first {
            0x80.. => {
                fields.integer(7)?;
                continue;
            }
            0x40.. => 6,
            0x20.. => {
                fields.integer(5)?;
                continue;
            }
            _ => 4,
        };
        let name = fields.integer(index_bits)?;
        if name == 0 {
            fields.string()?;
        }
        let start = fields.at;
        let (huffman, value) = fields.string()?;
        if name == INDEX_AUTHORITY {
            return is_url(huffman, value).then_some(start..fields.at);
        }
    }
    None
}

/// Whether an authority as it is coded starts like a URL, and is one that gets shorter.
fn is_url(huffman: bool, value: &[u8]) -> bool {
    // Huffman coded, too, a longer value is never a shorter text: after the 41 (or 46) bits of the scheme's 7 (or
    // 8) characters there are at least 32 (27) bits besides the padding, and a character has 30 at most.
    if value.len() <= REPLACEMENT.len() {
        return false;
    }
    if !huffman {
        return SCHEMES.iter().any(|scheme| value.starts_with(scheme));
    }
    let Some(first) = value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)) else {
        return false;
    };
    SCHEMES_HUFFMAN
        .iter()
        .any(|&(bits, code)| first >> (u64::BITS - bits) == code)
}

/// Reads HPACK's integers and strings from a block of fields.
struct Fields<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// An integer that starts in the last `bits` of the next byte (RFC 7541, section 5.1).
    fn integer(&mut self, bits: u32) -> Option<usize> {
        let mask = (1_u8 << bits) - 1;
        let prefix = self.next()? & mask;
        let mut value = usize::from(prefix);
        if prefix < mask {
            return Some(value);
        }
        // Three bytes more are enough for every length and table size that is of use here.
        for shift in [0, 7, 14] {
            let byte = self.next()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A string (RFC 7541, section 5.2): whether it is Huffman coded, and its bytes as they are.
    fn string(&mut self) -> Option<(bool, &'a [u8])> {
        let huffman = self.block.get(self.at)? & 0x80 != 0;
        let length = self.integer(7)?;
        let end = self.at.checked_add(length)?;
        let bytes = self.block.get(self.at..end)?;
        self.at = end;
        Some((huffman, bytes))
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.block.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }
}

#[cfg(test)]
mod tests;
