//! The format byte by byte, and the life of the files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use expect_test::expect;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::codec::{DecodeError, Decoder, Encoder, MAX_RECORD_BYTES};
use super::*;
use crate::raft_types::{LogId, Membership, Node, SnapshotMeta, StoredMembership};

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(
        openraft::impls::leader_id_adv::LeaderId { term, node_id: 1 },
        index,
    )
}

/// One member only: the order of a map's entries in the encoding is not part of this format.
fn meta() -> SnapshotMeta {
    let node = Node {
        name: "ovh".to_owned(),
        peer_urls: vec!["http://ovh:2380".to_owned()],
        to_be_voter: false,
    };
    let membership = Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, node)])).unwrap();
    SnapshotMeta {
        last_log_id: Some(log_id(3, 42)),
        last_membership: StoredMembership::new(Some(log_id(2, 7)), membership),
    }
}

fn encoded(records: &[(&str, &str)]) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), &meta()).unwrap();
    for (key, value) in records {
        encoder.append(key.as_bytes(), value.as_bytes()).unwrap();
    }
    encoder.finish().unwrap()
}

fn decoded(bytes: &[u8]) -> Result<(SnapshotMeta, Vec<Record>), DecodeError> {
    let mut decoder = Decoder::new(bytes)?;
    let mut records = Vec::new();
    while let Some(record) = decoder.next_record()? {
        records.push(record);
    }
    assert_eq!(decoder.offset(), bytes.len() as u64);
    Ok((decoder.meta().clone(), records))
}

fn record(key: &str, value: &str) -> Record {
    Record {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

const SMALL: [(&str, &str); 3] = [("m|applied", "42"), ("r|1", "hello"), ("r|2", "")];

/// As `hexdump -C`, with its `*` for repeated lines.
fn hex(bytes: &[u8]) -> String {
    let mut dump = String::new();
    let mut previous: &[u8] = &[];
    for (n, line) in bytes.chunks(16).enumerate() {
        if line == previous {
            if !dump.ends_with("*\n") {
                dump.push_str("*\n");
            }
            continue;
        }
        previous = line;
        let digits: String = line.iter().map(|byte| format!("{byte:02x} ")).collect();
        let text: String = line
            .iter()
            .map(|byte| {
                if byte.is_ascii_graphic() {
                    char::from(*byte)
                } else {
                    '.'
                }
            })
            .collect();
        writeln!(dump, "{:04x}  {digits:<48} {text}", n * 16).unwrap();
    }
    dump
}

/// The golden fixture: if it changes, the format version must, and the old one must stay readable.
#[test]
fn the_format_is_this() {
    expect![[r#"
        0000  61 67 65 6e 74 73 6e 70 01 00 00 00 35 00 00 00  agentsnp....5...
        0010  0a 06 08 03 10 01 18 2a 12 2b 0a 06 08 02 10 01  .......*.+......
        0020  18 07 12 21 0a 03 0a 01 01 12 1a 08 01 12 16 0a  ...!............
        0030  03 6f 76 68 12 0f 68 74 74 70 3a 2f 2f 6f 76 68  .ovh..http://ovh
        0040  3a 32 33 38 30 c8 31 8f 8a 01 31 e0 c6 c4 09 00  :2380.1...1.....
        0050  00 00 02 00 00 00 6d 7c 61 70 70 6c 69 65 64 34  ......m|applied4
        0060  32 01 88 e5 81 e1 03 00 00 00 05 00 00 00 72 7c  2.............r|
        0070  31 68 65 6c 6c 6f 01 a5 c3 5c b2 03 00 00 00 00  1hello...\......
        0080  00 00 00 72 7c 32 02 03 00 00 00 00 00 00 00 00  ...r|2..........
        0090  00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  ................
        *
        0200  69 cd 8d f3 e6 73 3a 5e 5f ee 97 4b c3 a9 b8 48  i....s:^_..K...H
        0210  30 1d 3b ab 08 79 43 db 57 2f dd 20 8d 4c a6 8e  0.;..yC.W/...L..
    "#]]
    .assert_eq(&hex(&encoded(&SMALL)));
}

#[test]
fn what_was_written_is_read() {
    let (read_meta, records) = decoded(&encoded(&SMALL)).unwrap();
    assert_eq!(read_meta, meta());
    assert_eq!(records, SMALL.map(|(key, value)| record(key, value)));

    let empty = Encoder::new(Vec::new(), &SnapshotMeta::default())
        .unwrap()
        .finish()
        .unwrap();
    assert_eq!(decoded(&empty).unwrap(), (SnapshotMeta::default(), Vec::new()));
}

/// What `etcdctl snapshot save` checks of what it receives, whatever the padding.
#[test]
fn the_file_is_aligned_and_ends_with_its_hash() {
    for length in 0..1100 {
        let bytes = encoded(&[("key", &"x".repeat(length))]);
        let (body, hash) = bytes.split_at(bytes.len() - 32);
        assert_eq!(body.len() % 512, 0);
        assert_eq!(hash, &*Sha256::digest(body));
        assert_eq!(decoded(&bytes).unwrap().1.len(), 1);
    }
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let good = encoded(&SMALL);
    for offset in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[offset] ^= 1 << bit;
            match decoded(&bad) {
                Err(DecodeError::Invalid { offset: at, .. }) => {
                    assert!(
                        at <= good.len() as u64,
                        "byte {offset} bit {bit}: reported at {at}"
                    );
                }
                other => panic!("byte {offset} bit {bit}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_cut_is_found_at_every_length() {
    let good = encoded(&SMALL);
    for length in 0..good.len() {
        match decoded(&good[..length]) {
            Err(DecodeError::Invalid { offset, what }) => {
                assert_eq!(what, "the file is cut short", "at {length}");
                assert!(offset <= length as u64);
            }
            other => panic!("cut to {length}: {other:?}"),
        }
    }
}

#[test]
fn what_is_wrong_is_said() {
    let good = encoded(&SMALL);
    let with = |offset: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[offset..offset + bytes.len()].copy_from_slice(bytes);
        decoded(&bad).unwrap_err().to_string()
    };
    let first_record = good.windows(9).position(|part| part == b"m|applied").unwrap() - 13;
    let trailing = [&good[..], b"x"].concat();
    let said = [
        with(0, b"etcd"),
        with(8, &2_u32.to_le_bytes()),
        with(12, &u32::MAX.to_le_bytes()),
        with(first_record, &[9]),
        with(first_record + 5, &u32::MAX.to_le_bytes()),
        with(first_record + 13, b"M"),
        with(good.len() - 40, &[1]),
        decoded(&trailing).unwrap_err().to_string(),
        decoded(b"").unwrap_err().to_string(),
    ];
    expect![[r#"
        not a snapshot of this program, at byte 0
        format version 2 is not known, this program reads version 1, at byte 8
        a length of 4294967295 bytes, above the limit of 1048576, at byte 16
        neither a record nor the trailer (kind 9), at byte 73
        a length of 4294967297 bytes, above the limit of 67108864, at byte 86
        a record's checksum does not match, at byte 73
        the hash of the whole does not match, at byte 512
        more bytes than the snapshot has, at byte 544
        the file is cut short, at byte 0"#]]
    .assert_eq(&said.join("\n"));
}

#[test]
fn a_record_above_the_limit_is_refused() {
    let mut encoder = Encoder::new(std::io::sink(), &meta()).unwrap();
    let error = encoder.append(b"key", &vec![0; MAX_RECORD_BYTES]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

fn written(dir: &TempDir) -> SnapshotFile {
    let mut writer = SnapshotWriter::create(dir.path(), &meta()).unwrap();
    for (key, value) in SMALL {
        writer.append(key.as_bytes(), value.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

fn names(dir: &TempDir) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_snapshot_lives_as_long_as_its_last_clone_unless_it_is_kept() {
    let dir = TempDir::new().unwrap();
    let file = written(&dir);
    assert_eq!(file.size_bytes(), fs::metadata(file.path()).unwrap().len());
    let clone = file.clone();
    drop(file);
    assert_eq!(clone.reader().unwrap().count(), 3);
    drop(clone);
    assert!(names(&dir).is_empty());

    let path = dir.path().join("3-42.snapshot");
    fs::write(&path, "an older one").unwrap();
    let file = written(&dir);
    let kept = file.keep(&path).unwrap();
    // Both names are good until the temporary one goes.
    assert_eq!(file.reader().unwrap().count(), 3);
    drop(file);
    assert_eq!(names(&dir), ["3-42.snapshot"]);
    let kept_again = kept.keep(&path).unwrap();
    assert_eq!(names(&dir), ["3-42.snapshot"]);
    drop((kept, kept_again));
    let opened = SnapshotFile::open(&path).unwrap();
    assert_eq!(opened.meta(), &meta());
    let records: Vec<Record> = opened.reader().unwrap().map(Result::unwrap).collect();
    assert_eq!(records, SMALL.map(|(key, value)| record(key, value)));
}

#[test]
fn unfinished_files_go_away() {
    let dir = TempDir::new().unwrap();
    let mut writer = SnapshotWriter::create(dir.path(), &meta()).unwrap();
    writer.append(b"key", b"value").unwrap();
    let mut receiver = SnapshotReceiver::create(dir.path()).unwrap();
    receiver.write(b"half of it").unwrap();
    assert_eq!(names(&dir).len(), 2);
    drop((writer, receiver));
    assert!(names(&dir).is_empty());

    // A killed process drops nothing.
    fs::write(dir.path().join("snapshot-0.tmp"), "left").unwrap();
    fs::write(dir.path().join("3-42.snapshot.tmp"), "left").unwrap();
    fs::write(dir.path().join("3-42.snapshot"), "kept").unwrap();
    drop(written(&dir));
    remove_leftovers(dir.path()).unwrap();
    assert_eq!(names(&dir), ["3-42.snapshot"]);
}

#[test]
fn a_snapshot_is_received_in_pieces_of_any_size() {
    let dir = TempDir::new().unwrap();
    let sent = fs::read(written(&dir).path()).unwrap();
    for size in [1, 7, 512, sent.len()] {
        let mut receiver = SnapshotReceiver::create(dir.path()).unwrap();
        for chunk in sent.chunks(size) {
            receiver.write(chunk).unwrap();
        }
        let file = receiver.finish().unwrap();
        assert_eq!(file.meta(), &meta());
        assert_eq!(file.size_bytes(), sent.len() as u64);
    }
    assert!(names(&dir).is_empty());
}

#[test]
fn a_damaged_file_is_refused_by_name_and_deleted_if_received() {
    let dir = TempDir::new().unwrap();
    let mut bytes = fs::read(written(&dir).path()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let mut receiver = SnapshotReceiver::create(dir.path()).unwrap();
    receiver.write(&bytes).unwrap();
    let error = receiver.finish().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(names(&dir).is_empty());

    let path = dir.path().join("3-42.snapshot");
    fs::write(&path, &bytes).unwrap();
    let error = SnapshotFile::open(&path).unwrap_err().to_string();
    assert!(
        error.contains("3-42.snapshot: the hash of the whole does not match"),
        "{error}"
    );
    let error = SnapshotFile::open(&dir.path().join("none")).unwrap_err();
    assert!(error.to_string().ends_with("none: cannot open it"), "{error}");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::NotFound);
}
