//! A call captured from etcdctl 3.4, cut at every byte; and the real HTTP library behind it.

use axum::Router;
use axum::extract::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// SETTINGS, and the acknowledgement of the server's.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0";
/// What follows the HEADERS frame of a call: DATA, an empty message, the end of the stream.
const MESSAGE: &[u8] = b"\0\0\x05\0\x01\0\0\0\x01\0\0\0\0\0";
/// The fields of etcdctl 3.4's `endpoint status`, as it sends them first on a connection. Before the authority:
/// method, scheme, path.
const FIELDS_BEFORE: &[u8] = &[
    0x83, 0x86, 0x45, 0x97, 0x60, 0xa9, 0x24, 0x88, 0x2d, 0x9d, 0xcb, 0x65, 0x71, 0xaf, 0xa0, 0x66, 0xa9,
    0x25, 0xa8, 0x75, 0x10, 0xac, 0x6e, 0x48, 0xd3, 0x6a, 0x3f,
];
/// `:authority: http://127.0.0.1:60193`, Huffman coded.
const AUTHORITY_HUFFMAN: &[u8] = &[
    0x41, 0x90, 0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x04, 0x4e, 0xae, 0x05, 0xc0, 0xb8, 0x6e, 0x38, 0x00, 0xbe,
    0xcf,
];
const AUTHORITY_RAW: &[u8] = b"\x41\x16http://127.0.0.1:60193";
const AUTHORITY_LOCALHOST: &[u8] = b"\x41\x09localhost";
/// After the authority: content-type, user-agent, te, grpc-timeout, client-api-version.
const FIELDS_AFTER: &[u8] = &[
    0x5f, 0x8b, 0x1d, 0x75, 0xd0, 0x62, 0x0d, 0x26, 0x3d, 0x4c, 0x4d, 0x65, 0x64, 0x7a, 0x8b, 0x9a, 0xca,
    0xc8, 0xb4, 0xc7, 0x60, 0x2b, 0xb2, 0xca, 0xec, 0xff, 0x40, 0x02, 0x74, 0x65, 0x86, 0x4d, 0x83, 0x35,
    0x05, 0xb1, 0x1f, 0x40, 0x89, 0x9a, 0xca, 0xc8, 0xb2, 0x4d, 0x49, 0x4f, 0x6a, 0x7f, 0x85, 0x69, 0xf0,
    0xbe, 0x06, 0x6d, 0x40, 0x8d, 0x25, 0x06, 0x2d, 0x49, 0x58, 0x75, 0x99, 0x6e, 0xe5, 0xb1, 0x06, 0x3d,
    0x5f, 0x03, 0x33, 0x2e, 0x34,
];
/// The same fields as a second call sends them: the dynamic table's seven entries, the oldest first.
const FIELDS_INDEXED: &[u8] = &[0x83, 0x86, 0xc4, 0xc3, 0xc2, 0xc1, 0xc0, 0xbf, 0xbe];

fn headers(stream: u8, flags: u8, block: &[u8]) -> Vec<u8> {
    let [.., high, middle, low] = block.len().to_be_bytes();
    let mut frame = vec![high, middle, low, FRAME_HEADERS, 4 | flags, 0, 0, 0, stream];
    frame.extend_from_slice(block);
    frame
}

fn connection(flags: u8, block: &[u8]) -> Vec<u8> {
    [PREFACE, SETTINGS, &headers(1, flags, block), MESSAGE].concat()
}

fn call(authority: &[u8]) -> Vec<u8> {
    connection(0, &[FIELDS_BEFORE, authority, FIELDS_AFTER].concat())
}

/// What the rewriter makes of a connection that ends after these pieces.
fn rewritten<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut rewriter, mut out) = (Rewriter::default(), Vec::new());
    for piece in pieces {
        rewriter.feed(piece, &mut out);
        assert!(rewriter.held.len() <= FRAME_HEADER_BYTES + FRAME_BYTES_MAX);
    }
    rewriter.finish(&mut out);
    out
}

/// Checks what becomes of a connection, wherever its bytes are split.
#[track_caller]
fn check(input: &[u8], expected: &[u8]) {
    for at in 0..=input.len() {
        let (first, second) = input.split_at(at);
        assert_eq!(rewritten([first, second]), expected, "split at {at}");
    }
    assert_eq!(rewritten(input.chunks(1)), expected, "byte by byte");
}

#[test]
fn a_url_becomes_localhost_in_either_coding() {
    let expected = call(AUTHORITY_LOCALHOST);
    check(&call(AUTHORITY_HUFFMAN), &expected);
    check(&call(AUTHORITY_RAW), &expected);
    check(&call(b"\x41\x10https://ovh:2379"), &expected);
    // Without a place in the table, and never to get one.
    check(&call(b"\x01\x0ehttp://n1:2379"), &call(b"\x01\x09localhost"));
    check(&call(b"\x11\x0ehttp://n1:2379"), &call(b"\x11\x09localhost"));
}

#[test]
fn the_schemes_are_coded_as_the_rfc_says() {
    // Appendix B: the code of each character, and its bits.
    let code = |character| match character {
        b'h' => (0x27, 6),
        b't' => (0x9, 5),
        b'p' => (0x2b, 6),
        b's' => (0x8, 5),
        b':' => (0x5c, 7),
        b'/' => (0x18, 6),
        other => unreachable!("{other}"),
    };
    let coded = SCHEMES.map(|scheme| {
        scheme.iter().fold((0, 0), |(length, text), &character| {
            let (code, bits) = code(character);
            (length + bits, text << bits | code)
        })
    });
    assert_eq!(coded, SCHEMES_HUFFMAN);
}

#[test]
fn a_long_url_and_what_comes_before_it_are_understood() {
    // Lengths of more than one byte, a table size, and a name that is not in the table.
    let mut before = b"\x3f\xe1\x1f\x83\x40\x01x\x7f\x80\x01".to_vec();
    before.extend([b'v'; 255]);
    let mut authority = b"\x41\x7f\x49http://".to_vec();
    authority.extend([b'a'; 193]);
    check(
        &connection(0, &[&before, authority.as_slice(), FIELDS_AFTER].concat()),
        &connection(0, &[&before, AUTHORITY_LOCALHOST, FIELDS_AFTER].concat()),
    );
}

#[test]
fn what_is_no_url_or_not_understood_stays() {
    for authority in [
        b"\x41\x0f127.0.0.1:12379".as_slice(),
        AUTHORITY_LOCALHOST,
        b"\x41\x09http://ab",
        b"\x41\x10HTTP://127.0.0.1",
        // Another field with a URL.
        b"\x73\x15http://127.0.0.1:1111",
        // Longer than the block, than a length can be, and the end within a length.
        b"\x41\x7f\xff\x01http://127.0.0.1",
        b"\x41\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01http://127.0.0.1",
    ] {
        let bytes = call(authority);
        check(&bytes, &bytes);
    }
    for block in [
        b"".as_slice(),
        b"\x41",
        b"\x41\x7f",
        b"\x41\x7f\xff",
        b"\x7f",
        b"\xff\x80",
        b"\x40\x05a",
    ] {
        let bytes = connection(0, block);
        check(&bytes, &bytes);
    }
    for flag in [FLAG_PADDED, FLAG_PRIORITY] {
        let bytes = connection(flag, &[FIELDS_BEFORE, AUTHORITY_RAW].concat());
        check(&bytes, &bytes);
    }
    let long = connection(0, &[AUTHORITY_RAW, &[0x83; FRAME_BYTES_MAX]].concat());
    assert_eq!(rewritten(long.chunks(1000)), long);
}

#[test]
fn only_the_first_request_of_an_http2_connection_is_looked_at() {
    let second = headers(3, 0, AUTHORITY_RAW);
    check(
        &[call(AUTHORITY_RAW), second.clone()].concat(),
        &[call(AUTHORITY_LOCALHOST), second].concat(),
    );
    let http1 = b"GET /health HTTP/1.1\r\nhost: http://127.0.0.1:2379\r\n\r\n";
    check(http1, http1);
    // Starts like the preface.
    let unknown = [
        b"PRI * HTTP/2.1\r\n".as_slice(),
        SETTINGS,
        &headers(1, 0, AUTHORITY_RAW),
    ]
    .concat();
    check(&unknown, &unknown);
}

#[test]
fn nothing_is_held_of_http1_and_of_frames_that_are_not_looked_at() {
    for bytes in [
        b"GET / HTTP/1.1".to_vec(),
        [PREFACE, SETTINGS].concat(),
        b"PRI * HT".to_vec(),
    ] {
        let (mut rewriter, mut out) = (Rewriter::default(), Vec::new());
        rewriter.feed(&bytes, &mut out);
        assert_eq!(out, bytes);
    }
}

proptest! {
    #[test]
    fn random_fields_give_the_same_whatever_the_split(
        block in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(AUTHORITY_RAW)], 0..200),
        authority in any::<bool>(),
        size in 1_usize..64,
    ) {
        let authority = if authority { AUTHORITY_HUFFMAN } else { b"" };
        let bytes = connection(0, &[authority, &block].concat());
        let whole = rewritten([bytes.as_slice()]);
        prop_assert!(whole.len() <= bytes.len());
        prop_assert_eq!(rewritten(bytes.chunks(size)), whole);
    }

    #[test]
    fn random_connections_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), size in 1_usize..64) {
        let bytes = [PREFACE, &bytes].concat();
        let whole = rewritten([bytes.as_slice()]);
        prop_assert_eq!(rewritten(bytes.chunks(size)), whole);
    }
}

/// Reads a connection's bytes through the wrapper: the socket has so many at a time, the reader room for so many.
async fn read_through(bytes: &[u8], socket_bytes: usize, reader_bytes: usize) -> Vec<u8> {
    let (mut client, server) = tokio::io::duplex(socket_bytes);
    let mut server = LenientAuthority::new(server);
    let write = async {
        client.write_all(bytes).await.unwrap();
        drop(client);
    };
    let read = async {
        let (mut all, mut room) = (Vec::new(), vec![0; reader_bytes]);
        loop {
            match server.read(&mut room).await.unwrap() {
                0 => break all,
                read => all.extend_from_slice(&room[..read]),
            }
        }
    };
    tokio::join!(write, read).1
}

#[tokio::test]
async fn reads_of_any_size_give_every_byte_in_order() {
    let after = vec![b'x'; 3 * READ_BYTES];
    let input = [call(AUTHORITY_HUFFMAN), after.clone()].concat();
    let expected = [call(AUTHORITY_LOCALHOST), after].concat();
    for socket_bytes in [1, 7, 61, 1 << 16] {
        for reader_bytes in [1, 10, 1 << 16] {
            assert_eq!(read_through(&input, socket_bytes, reader_bytes).await, expected);
        }
    }
}

#[tokio::test]
async fn a_connection_that_ends_within_a_frame_gives_what_came() {
    let bytes = call(AUTHORITY_HUFFMAN);
    // Within the preface, SETTINGS, the header of HEADERS, and its fields.
    for end in [0, 10, 30, 45, 80] {
        assert_eq!(read_through(&bytes[..end], 64, 64).await, &bytes[..end]);
    }
}

/// The bodies that a server gives to the calls of a connection, or the frame that refuses one.
async fn bodies(bytes: &[u8], calls: usize) -> Result<Vec<String>, u8> {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let echo = |request: Request| async move {
        let agent = request.headers().get("user-agent").cloned();
        format!("{} {agent:?}", request.uri())
    };
    let serving = tokio::spawn(async move {
        let service = TowerToHyperService::new(Router::new().fallback(echo));
        let socket = TokioIo::new(LenientAuthority::new(server));
        let _ended = Builder::new(TokioExecutor::new())
            .serve_connection(socket, service)
            .await;
    });
    client.write_all(bytes).await.unwrap();
    let mut bodies = Vec::new();
    while bodies.len() < calls {
        let mut header = [0; FRAME_HEADER_BYTES];
        client.read_exact(&mut header).await.unwrap();
        let mut payload = vec![0; usize::from(header[1]) << 8 | usize::from(header[2])];
        client.read_exact(&mut payload).await.unwrap();
        match header[3] {
            0 if !payload.is_empty() => bodies.push(String::from_utf8(payload).unwrap()),
            // RST_STREAM and GOAWAY.
            refused @ (3 | 7) => return Err(refused),
            _ => {}
        }
    }
    serving.abort();
    Ok(bodies)
}

#[tokio::test]
async fn the_http_library_takes_the_call_and_a_second_one_that_names_it_by_index() {
    // END_STREAM: the second call has no message.
    let second = headers(3, 1, FIELDS_INDEXED);
    let answer = "http://localhost/etcdserverpb.Maintenance/Status Some(\"grpc-go/1.33.3\")";
    for authority in [AUTHORITY_HUFFMAN, AUTHORITY_RAW] {
        let bytes = [call(authority), second.clone()].concat();
        assert_eq!(bodies(&bytes, 2).await, Ok(vec![answer.to_owned(); 2]));
    }
    // A URL of another scheme is left as it is, and the library refuses it: without that this module can go.
    assert_eq!(bodies(&call(b"\x41\x0ehttq://n1:2379"), 1).await, Err(3));
}
