//! What one client may take of a member: where that ends it is refused in words, and others are served meanwhile.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use hyper_util::rt::TokioIo;
use nix::sys::signal::Signal;
use proto::etcdserverpb::request_op::Request as Op;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::*;
use tests::client::Client;
use tests::cluster::{Builder, Cluster, Subject};
use tests::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};

const MIB: usize = 1 << 20;
const TOO_MANY_REQUESTS: &str = "etcdserver: too many requests";
/// Where a client comes from that has taken nothing.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 99, 1, 2);

fn one() -> Builder {
    Cluster::builder(&Subject::agent(), 1)
}

fn address(cluster: &Cluster) -> SocketAddr {
    let address = cluster.endpoint(0).trim_start_matches("http://");
    address.parse().expect("an address")
}

async fn connect(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// A client with an address of its own.
fn client_from(from: Ipv4Addr, cluster: &Cluster) -> Client {
    let to = address(cluster);
    let connector = tower::service_fn(move |_| async move { connect(from, to).await.map(TokioIo::new) });
    let endpoint = Endpoint::from_shared(cluster.endpoint(0).to_owned()).expect("a URL");
    Client::of(endpoint.connect_with_connector_lazy(connector))
}

async fn is_served_elsewhere(cluster: &Cluster) {
    let mut client = client_from(ELSEWHERE, cluster);
    client.put("elsewhere", b"v").await.expect("others are served");
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, words: &str) {
    let status = outcome.expect_err(words);
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(words), "{status:?}");
}

/// curl's answer, and its status at the end.
fn curl(options: &[&str], url: &str) -> String {
    let output = Command::new("curl")
        .args(["--silent", "--max-time", "40", "--write-out", "\n%{http_code}"])
        .args(options)
        .arg(url)
        .output()
        .expect("run curl");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn put_op(key: &str) -> RequestOp {
    let put = PutRequest {
        key: key.to_owned().into(),
        ..PutRequest::default()
    };
    RequestOp {
        request: Some(Op::RequestPut(put)),
    }
}

fn txn(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest {
        success,
        ..TxnRequest::default()
    }
}

#[tokio::test]
async fn a_request_has_a_size() {
    let cluster = one().start().await;
    let mut client = cluster.client(0);
    let just = vec![b'x'; 1536 * 1024 - 16];
    client.put("k", &just).await.expect("1.5 MiB");
    let words = "etcdserver: request is too large";
    refused(
        client.put("k", &vec![b'x'; 1536 * 1024]).await,
        Code::InvalidArgument,
        words,
    );
    let words = "received message larger than max";
    refused(
        client.put("k", &vec![b'x'; 3 * MIB]).await,
        Code::ResourceExhausted,
        words,
    );

    // 128 operations, those of Txns within it counted, too.
    let some = |count: usize| -> Vec<RequestOp> { (0..count).map(|i| put_op(&format!("t{i}"))).collect() };
    client.kv.txn(txn(some(128))).await.expect("128 operations");
    let words = "etcdserver: too many operations in txn request";
    refused(client.kv.txn(txn(some(129))).await, Code::InvalidArgument, words);
    let nested = |count: usize| {
        let inner = RequestOp {
            request: Some(Op::RequestTxn(txn(some(count)))),
        };
        txn(vec![inner, put_op("outer")])
    };
    client.kv.txn(nested(100)).await.expect("102 operations");
    refused(client.kv.txn(nested(127)).await, Code::InvalidArgument, words);

    // The gateway's is JSON, and longer for that.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("body");
    let body = format!(r#"{{"key":"aw==","value":"{}"}}"#, "AAAA".repeat(2 * MIB));
    std::fs::write(&file, body).expect("write a file");
    let data = format!("@{}", file.display());
    let said = curl(
        &["--data-binary", &data],
        &format!("{}/v3/kv/put", cluster.endpoint(0)),
    );
    assert!(said.contains("is longer than") && said.ends_with("429"), "{said}");
}

#[tokio::test]
async fn headers_have_a_size() {
    let cluster = one().start().await;
    let url = format!("{}/health", cluster.endpoint(0));
    for (protocol, most) in [("--http1.1", 64 << 10), ("--http2-prior-knowledge", 16 << 10)] {
        let header = |bytes: usize| format!("x: {}", "y".repeat(bytes));
        let said = curl(&[protocol, "--header", &header(8 << 10)], &url);
        assert!(said.ends_with("200"), "{protocol}: {said}");
        let said = curl(&[protocol, "--header", &header(most + 1024)], &url);
        assert!(said.ends_with("431"), "{protocol}: {said}");
    }
}

/// Connections that begin to say something, or nothing, and leave it at that.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_go_on_is_dropped() {
    const EACH: usize = 100;
    let cluster = one().start().await;
    let mut held = JoinSet::new();
    for begun in [
        "",
        "P",
        "PRI * HTTP/2.0\r\n\r\nSM",
        "G",
        "GET /health HTTP/1.1\r\nx: y",
    ] {
        for _ in 0..EACH {
            let mut stream = connect(Ipv4Addr::new(127, 99, 1, 1), address(&cluster))
                .await
                .expect("a connection");
            stream.write_all(begun.as_bytes()).await.expect("a few bytes");
            held.spawn(async move {
                // Whatever it is told, then the end.
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    }
    is_served_elsewhere(&cluster).await;
    let all_ended = async { while held.join_next().await.is_some() {} };
    tokio::time::timeout(wait::PATIENCE, all_ended)
        .await
        .expect("the end of every one");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_its_share_of_connections() {
    const SHARE: usize = 4_096;
    let cluster = one().start().await;
    let from = Ipv4Addr::new(127, 99, 1, 1);
    let mut held = Vec::new();
    for _ in 0..SHARE {
        held.push(connect(from, address(&cluster)).await.expect("a connection"));
    }
    let mut more = connect(from, address(&cluster)).await.expect("a connection");
    let read = tokio::time::timeout(wait::PATIENCE, more.read(&mut [0; 1])).await;
    assert!(
        matches!(read.expect("its end"), Ok(0) | Err(_)),
        "one more is kept"
    );
    let log = cluster.member(0).log();
    assert!(log.contains("too many connections from one address"), "{log}");
    is_served_elsewhere(&cluster).await;
}

/// Calls on one connection beyond the bound wait for one of the others to end.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_its_number_of_calls() {
    const CALLS: usize = 4_096;
    let cluster = one().start().await;
    let client = cluster.client(0);
    let mut open = JoinSet::new();
    for _ in 0..=CALLS {
        let mut client = client.clone();
        open.spawn(async move { Watch::open(&mut client).await });
    }
    let mut held = Vec::new();
    while held.len() < CALLS {
        held.push(open.join_next().await.expect("a watch").expect("a task"));
    }
    // Time enough for one more, if it were let in.
    for _ in 0..20 {
        is_served_elsewhere(&cluster).await;
    }
    assert!(open.try_join_next().is_none(), "one more is served");
    held.pop();
    let last = tokio::time::timeout(wait::PATIENCE, open.join_next()).await;
    last.expect("its turn").expect("a watch").expect("a task");
}

struct Watch {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Watch {
    async fn open(client: &mut Client) -> Watch {
        let (requests, body) = mpsc::channel(4);
        let answers = client
            .watch
            .watch(ReceiverStream::new(body))
            .await
            .expect("a stream");
        Watch {
            requests,
            answers: answers.into_inner(),
        }
    }

    /// Why one more watch is not opened; `None`: it is.
    async fn create(&mut self) -> Option<String> {
        let create = WatchCreateRequest {
            key: "k".into(),
            ..WatchCreateRequest::default()
        };
        let answer = self.ask(RequestUnion::CreateRequest(create)).await;
        assert!(answer.created, "{answer:?}");
        answer.canceled.then_some(answer.cancel_reason)
    }

    /// What makes room for it has just ended.
    async fn comes_to_be_opened(&mut self) {
        let opened = async { while self.create().await.is_some() {} };
        tokio::time::timeout(wait::PATIENCE, opened)
            .await
            .expect("room for another watch");
    }

    async fn ask(&mut self, request: RequestUnion) -> WatchResponse {
        let request = WatchRequest {
            request_union: Some(request),
        };
        self.requests.send(request).await.expect("a stream that goes on");
        let answer = tokio::time::timeout(wait::PATIENCE, self.answers.message()).await;
        answer
            .expect("an answer in time")
            .expect("a stream")
            .expect("an answer")
    }
}

#[tokio::test]
async fn a_client_has_its_share_of_watches() {
    let cluster = one().arg("--max-client-watches", "3").start().await;
    // On several streams, of several connections.
    let mut first = Watch::open(&mut cluster.client(0)).await;
    let mut second = Watch::open(&mut cluster.client(0)).await;
    assert_eq!(first.create().await, None);
    assert_eq!(first.create().await, None);
    assert_eq!(second.create().await, None);
    let reason = second.create().await.expect("a refusal");
    assert!(reason.contains("too many watches of one client"), "{reason}");
    let mut elsewhere = Watch::open(&mut client_from(ELSEWHERE, &cluster)).await;
    assert_eq!(elsewhere.create().await, None);

    // What is cancelled, and what goes with its stream, makes room.
    first
        .ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 0 }))
        .await;
    second.comes_to_be_opened().await;
    assert!(second.create().await.is_some());
    drop(first);
    second.comes_to_be_opened().await;

    // A user's are the user's, wherever it comes from.
    let mut root = cluster.client(0);
    let add = AuthUserAddRequest {
        name: "root".to_owned(),
        password: "root".to_owned(),
        ..AuthUserAddRequest::default()
    };
    root.auth.user_add(add).await.expect("a user");
    let grant = AuthUserGrantRoleRequest {
        user: "root".to_owned(),
        role: "root".to_owned(),
    };
    root.auth.user_grant_role(grant).await.expect("a role");
    root.auth
        .auth_enable(AuthEnableRequest {})
        .await
        .expect("auth is on");
    let mut here = cluster
        .client(0)
        .log_in("root", "root")
        .await
        .expect("root logs in");
    let mut there = client_from(ELSEWHERE, &cluster).in_the_name_of(&here);
    let mut here = Watch::open(&mut here).await;
    let mut there = Watch::open(&mut there).await;
    for watch in [&mut here, &mut there] {
        assert_eq!(watch.create().await, None);
    }
    assert_eq!(here.create().await, None);
    for watch in [&mut here, &mut there] {
        let reason = watch.create().await.expect("a refusal");
        assert!(reason.contains("too many watches of one client"), "{reason}");
    }
}

#[tokio::test]
async fn there_are_so_many_leases() {
    let cluster = one().arg("--max-leases", "3").start().await;
    let mut client = cluster.client(0);
    let grant = |id| LeaseGrantRequest { id, ttl: 600 };
    for id in 1..=3 {
        client.lease.lease_grant(grant(id)).await.expect("a lease");
    }
    let words = "--max-leases";
    refused(
        client.lease.lease_grant(grant(4)).await,
        Code::ResourceExhausted,
        words,
    );
    is_served_elsewhere(&cluster).await;
    client
        .lease
        .lease_revoke(LeaseRevokeRequest { id: 2 })
        .await
        .expect("revoked");
    client.lease.lease_grant(grant(4)).await.expect("a lease");
}

/// Proposals that wait for a quorum stay in memory: so many bytes of one client's.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_its_share_of_bytes_proposed() {
    const PUTS: usize = 12;
    let builder = Cluster::builder(&Subject::agent(), 3).arg("--max-client-bytes", &(8 * MIB).to_string());
    let cluster = builder.start().await;
    let leader = cluster.leader().await;
    let others: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    for other in &others {
        cluster.member(*other).signal(Signal::SIGSTOP);
    }
    let client = cluster.client(leader);
    let mut puts = JoinSet::new();
    for i in 0..PUTS {
        let mut client = client.clone();
        puts.spawn(async move { client.put(&format!("k{i}"), &vec![b'x'; MIB]).await });
    }
    // Seven wait at most, the others are told at once.
    for _ in 0..PUTS - 7 {
        let told = puts.join_next().await.expect("an answer").expect("a task");
        refused(told, Code::ResourceExhausted, TOO_MANY_REQUESTS);
    }
    // Small ones are bounded by their number.
    let mut small = cluster.client(leader);
    let small = tokio::spawn(async move { small.put("small", b"v").await });
    for other in &others {
        cluster.member(*other).signal(Signal::SIGCONT);
    }
    let is_refused =
        |told: &Result<i64, Status>| matches!(told, Err(status) if status.code() == Code::ResourceExhausted);
    let told = small.await.expect("a task");
    assert!(!is_refused(&told), "{told:?}");
    let waited = puts.join_all().await;
    assert!(waited.iter().any(|told| !is_refused(told)), "{waited:?}");
    // All of it is free again.
    let client = cluster.client(leader);
    wait::until("room for large puts", async || {
        client.clone().put("again", &vec![b'x'; MIB]).await.ok()
    })
    .await;
}

/// Answers that a client does not take stay in memory: so many bytes of one client's.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_its_share_of_bytes_answered() {
    const VALUES: usize = 24;
    let cluster = one()
        .arg("--max-client-bytes", &(8 * MIB).to_string())
        .start()
        .await;
    let mut client = cluster.client(0);
    for i in 0..VALUES {
        client
            .put(&format!("k{i}"), &vec![b'x'; MIB])
            .await
            .expect("a put");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let message = folder.path().join("message");
    // A gRPC message by hand: all keys.
    std::fs::write(&message, b"\0\0\0\0\x06\x0a\x01\0\x12\x01\0").expect("write a file");
    let message = format!("@{}", message.display());
    let grpc = [
        "--http2-prior-knowledge",
        "--header",
        "content-type: application/grpc",
        "--header",
        "te: trailers",
    ];
    let grpc = [&grpc[..], &["--data-binary", &message]].concat();
    let json = vec!["--data", r#"{"key":"AA==","range_end":"AA=="}"#];
    for (call, path) in [(grpc, "/etcdserverpb.KV/Range"), (json, "/v3/kv/range")] {
        let url = format!("{}{path}", cluster.endpoint(0));
        let mut slow = Command::new("curl")
            .args(["--silent", "--limit-rate", "1K", "--output", "/dev/null"])
            .args(&call)
            .arg(&url)
            .spawn()
            .expect("run curl");
        // From the same address there is no more, once that one is under way.
        wait::until("a refusal", async || {
            refusal_of(client.clone().get_prefix("", false).await)
        })
        .await;
        is_served_elsewhere(&cluster).await;
        let mut elsewhere = client_from(ELSEWHERE, &cluster);
        elsewhere.get_prefix("", false).await.expect("others get theirs");
        slow.kill().expect("end curl");
        slow.wait().expect("the end of curl");
        wait::until("an answer again", async || {
            client.clone().get_prefix("", false).await.ok()
        })
        .await;
    }
}

fn refusal_of<T>(outcome: Result<T, Status>) -> Option<()> {
    let status = outcome.err()?;
    assert_eq!(
        (status.code(), status.message()),
        (Code::ResourceExhausted, TOO_MANY_REQUESTS)
    );
    Some(())
}
