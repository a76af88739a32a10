//! Logs that somebody has written by hand: every checksum is right, and what is said is not. A member names the file and the
//! place, ends, and changes nothing; it does not break down on the way.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use proto::replicated::{self as wire, entry::Payload};
use tempfile::TempDir;
use tests::cluster::{Cluster, Subject};
use tests::wait;

const SEGMENT_HEADER_BYTES: usize = 40;
const RECORD_HEADER_BYTES: usize = 20;
const ENTRY: u8 = 2;
const TRUNCATE: u8 = 3;
const PURGE: u8 = 4;
const COMMITTED: u8 = 5;

/// CVE-2020-15106: the length of a record was believed, and a large one ended etcd in a panic.
#[tokio::test]
async fn cve_2020_15106_a_records_length_is_not_believed() {
    let mut left = Left::by_a_member().await;
    let lengths = [19, (1 << 28) + 1, u32::MAX];
    for length in lengths {
        // With something after it that is a record, so that it was whole once.
        let forge = |log: &mut Log| log.set_length(0, length);
        left.refused(&format!("{length}"), "impossible length", forge)
            .await;
        // As the last thing: a write that was interrupted, which nobody was told of.
        let serves = left.starts(|log| log.push_bytes(&length.to_le_bytes())).await;
        assert!(serves.is_ok(), "{length}: {serves:?}");
    }
}

/// CVE-2020-15112: an entry's index was believed, and one past the end ended etcd in a panic.
#[tokio::test]
async fn cve_2020_15112_an_entrys_index_is_not_believed() {
    let mut left = Left::by_a_member().await;
    for index in [0, 1, 1 << 40] {
        let forge = |log: &mut Log| log.push(ENTRY, &entry(index));
        left.refused(&format!("entry {index}"), "belongs", forge).await;
    }
    for kind in [ENTRY, TRUNCATE, PURGE, COMMITTED] {
        for index in [u64::MAX, u64::MAX - 1] {
            let forge = |log: &mut Log| {
                match kind {
                    ENTRY => log.push(kind, &entry(index)),
                    _ => log.push(kind, &[&[1][..], &log_id(index).encode_to_vec()].concat()),
                }
                log.push(ENTRY, &entry(index.wrapping_add(1)));
            };
            let what = format!("kind {kind}, index {index}");
            left.refused(&what, "which no log reaches", forge).await;
        }
    }
    // What is purged is no place for an entry.
    let forge = |log: &mut Log| {
        log.push(PURGE, &[&[1][..], &log_id(1 << 20).encode_to_vec()].concat());
        log.push(ENTRY, &entry(1 << 10));
    };
    left.refused("an entry in what is purged", "belongs", forge).await;
}

/// What a member has left behind, to be forged and started again and again.
struct Left {
    cluster: Cluster,
    data: PathBuf,
    /// As the member left it.
    kept: PathBuf,
    _folder: TempDir,
}

impl Left {
    async fn by_a_member() -> Left {
        let folder = tempfile::tempdir().expect("a folder");
        let (data, kept) = (folder.path().join("data"), folder.path().join("kept"));
        let builder = Cluster::builder(&Subject::agent(), 1).data_dir(0, &data);
        let mut cluster = builder.start().await;
        cluster.client(0).put("kept", b"yes").await.expect("a put");
        cluster.terminate(0).await;
        fs::rename(&data, &kept).expect("put a folder away");
        Left {
            cluster,
            data,
            kept,
            _folder: folder,
        }
    }

    /// Starts the member on what it left and somebody has changed; what it says where it does not serve.
    async fn starts(&mut self, forge: impl FnOnce(&mut Log)) -> Result<(), String> {
        if self.data.exists() {
            fs::remove_dir_all(&self.data).expect("remove a folder");
        }
        copy(&self.kept, &self.data);
        let mut log = Log::open(&self.data.join("wal"));
        forge(&mut log);
        fs::write(&log.file, &log.bytes).expect("write a segment");
        let said_before = self.cluster.member(0).log().len();
        self.cluster.start(0);
        let ended = wait::until("the member to serve, or to end", async || {
            let log = self.cluster.member(0).log();
            let said = log.get(said_before..)?;
            let ended = said.contains("error: ");
            (ended || said.contains("ready to serve client requests")).then_some(ended)
        });
        let ended = ended.await;
        if ended {
            let status = self.cluster.member_mut(0).wait_exit(wait::PATIENCE).await;
            assert!(!status.expect("an end").success());
            let after = fs::read(&log.file).expect("read a segment");
            assert!(after == log.bytes, "a refused log was changed");
        } else {
            let mut client = self.cluster.client(0);
            let kept = client.get_within("kept", wait::PATIENCE).await.expect("a get");
            assert_eq!(kept.kvs.first().map(|kv| kv.value.as_ref()), Some(&b"yes"[..]));
            self.cluster.kill(0);
        }
        let said = self.cluster.member(0).log().split_off(said_before);
        assert!(!said.contains("panicked"), "it broke down: {said}");
        match ended {
            true => Err(said),
            false => Ok(()),
        }
    }

    async fn refused(&mut self, what: &str, words: &str, forge: impl FnOnce(&mut Log)) {
        match self.starts(forge).await {
            Ok(()) => panic!("{what}: it serves"),
            Err(said) => assert!(said.contains(words), "{what}: {said}"),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("make a folder");
    for entry in fs::read_dir(from).expect("read a folder") {
        let entry = entry.expect("a folder's entry");
        let (kind, to) = (entry.file_type().expect("a kind"), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to);
        } else if kind.is_file() {
            fs::copy(entry.path(), to).expect("copy a file");
        }
    }
}

/// The last segment of a log, as the format says (`raft-store/src/wal/format.rs`, `record.rs`).
struct Log {
    file: PathBuf,
    bytes: Vec<u8>,
    /// Where the next record goes.
    tail: usize,
    /// Of the next record.
    sequence: u64,
}

impl Log {
    fn open(folder: &Path) -> Log {
        let files = fs::read_dir(folder).expect("read a folder");
        let files = files.map(|file| file.expect("a file").path());
        let segments = files.filter(|file| file.extension().is_some_and(|suffix| suffix == "wal"));
        let file = segments.max().expect("a segment");
        let bytes = fs::read(&file).expect("read a segment");
        let (mut tail, mut sequence) = (SEGMENT_HEADER_BYTES, number(&bytes[28..36]));
        loop {
            let length = length_at(&bytes, tail);
            if length == 0 {
                break;
            }
            tail += length.next_multiple_of(4);
            sequence += 1;
        }
        assert!(tail > SEGMENT_HEADER_BYTES, "a log with records");
        Log {
            file,
            bytes,
            tail,
            sequence,
        }
    }

    /// Changes the length that a record says it has, and makes its checksum fit the change.
    fn set_length(&mut self, record: usize, length: u32) {
        let mut at = SEGMENT_HEADER_BYTES;
        for _ in 0..record {
            at += length_at(&self.bytes, at).next_multiple_of(4);
        }
        let end = at + length_at(&self.bytes, at);
        self.bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        self.seal(at, end);
    }

    /// One more record, with the checksum and the place that it would have.
    fn push(&mut self, kind: u8, payload: &[u8]) {
        let length = RECORD_HEADER_BYTES + payload.len();
        let mut record = u32::try_from(length).expect("small").to_le_bytes().to_vec();
        record.extend([0; 4]);
        record.extend(self.sequence.to_le_bytes());
        record.extend([kind, 0, 0, 0]);
        record.extend(payload);
        let at = self.tail;
        self.push_bytes(&record);
        self.seal(at, at + length);
        self.tail += length.next_multiple_of(4);
        self.sequence += 1;
    }

    fn push_bytes(&mut self, bytes: &[u8]) {
        self.bytes[self.tail..self.tail + bytes.len()].copy_from_slice(bytes);
    }

    fn seal(&mut self, at: usize, end: usize) {
        // The segment header's own checksum is what those of its records start from.
        let seed = u32::from_le_bytes(self.bytes[36..40].try_into().expect("four bytes"));
        let checksum = crc32c::crc32c_append(seed, &self.bytes[at..at + 4]);
        let checksum = crc32c::crc32c_append(checksum, &self.bytes[at + 8..end]);
        self.bytes[at + 4..at + 8].copy_from_slice(&checksum.to_le_bytes());
    }
}

fn length_at(bytes: &[u8], at: usize) -> usize {
    let length = bytes[at..at + 4].try_into().expect("four bytes");
    u32::from_le_bytes(length) as usize
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

fn log_id(index: u64) -> wire::LogId {
    wire::LogId {
        term: 1,
        node_id: 1,
        index,
    }
}

fn entry(index: u64) -> Vec<u8> {
    let entry = wire::Entry {
        log_id: Some(log_id(index)),
        payload: Some(Payload::Blank(wire::Empty {})),
    };
    entry.encode_to_vec()
}
