//! The JSON gateway, and what else is spoken over plain HTTP: the same conversations with etcd 3.5 and the agent.

use std::fmt::Write as _;

use reqwest::{Client, Method, Response};
use serde_json::{Map, Value};
use tests::cluster::{Cluster, Subject};
use tests::transcript::Transcript;
use tests::wait;

/// Requests in the order they are made of one fresh member: path and body.
const UNARY: &[(&str, &str)] = &[
    ("/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v"}"#),
    ("/v3beta/kv/range", r#"{"key":"Zm9v"}"#),
    ("/v3alpha/kv/range", r#"{"key":"Zm9v"}"#),
    (
        "/v3/kv/range",
        r#"{"key":"AA","rangeEnd":"AA==","keysOnly":true,"bogus":{"a":[1]}}"#,
    ),
    ("/v3/kv/range", r#"{"key":"_-8","limit":5.0,"revision":"2"}"#),
    (
        "/v3/kv/range",
        r#"{"key":"Zm9v","sort_order":"DESCEND","sort_target":4}"#,
    ),
    ("/v3/kv/range", r#"{"key":"Zm9v","sort_order":"SIDEWAYS"}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v"}{"key":"YmFy"} and more"#),
    ("/v3/kv/range", ""),
    ("/v3/kv/range", "{}"),
    ("/v3/kv/range", r#"{"key":null}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v""#),
    ("/v3/kv/range", r#"{"key":"!!"}"#),
    ("/v3/kv/range", r#"{"key":5}"#),
    ("/v3/kv/range", "[]"),
    ("/v3/kv/range", "null"),
    ("/v3/kv/range", r#"{"key":"Zm9v","revision":100}"#),
    ("/v3/kv/range/", r#"{"key":"Zm9v"}"#),
    ("/v3/kv/range?key=Zm9v", "{}"),
    ("/v3/nothing", "{}"),
    ("/nothing", "{}"),
    ("/v3/kv/put", r#"{"key":"Zm9v","value":"YmF6","prev_kv":true}"#),
    (
        "/v3/kv/txn",
        r#"{"compare":[{"key":"Zm9v","target":"MOD","mod_revision":"3"}],"success":[{"request_range":{"key":"Zm9v"}},{"requestPut":{"key":"YQ==","value":"MQ=="}}]}"#,
    ),
    (
        "/v3/kv/txn",
        r#"{"compare":[{"key":"Zm9v","result":"LESS","target":"CREATE","create_revision":1}],"success":[],"failure":[{"request_delete_range":{"key":"YQ==","prev_kv":true}}]}"#,
    ),
    (
        "/v3/kv/txn",
        r#"{"compare":[{"version":"1","mod_revision":"2"}]}"#,
    ),
    ("/v3/kv/deleterange", r#"{"key":"Zm9v","prev_kv":true}"#),
    ("/v3/kv/deleterange", r#"{"key":"Zm9v"}"#),
    ("/v3/kv/compaction", r#"{"revision":"4"}"#),
    ("/v3/kv/compaction", r#"{"revision":"4"}"#),
    ("/v3/kv/range", r#"{"key":"Zm9v","revision":2}"#),
    ("/v3/lease/grant", r#"{"TTL":"600","ID":77}"#),
    ("/v3/lease/grant", r#"{"TTL":600,"ID":"77"}"#),
    ("/v3/lease/grant", r#"{"TTL":99999999999}"#),
    ("/v3/kv/put", r#"{"key":"bGVhc2Vk","lease":"77"}"#),
    ("/v3/kv/put", r#"{"key":"bGVhc2Vk","lease":"78"}"#),
    ("/v3/lease/leases", ""),
    ("/v3/kv/lease/leases", "{}"),
    ("/v3/lease/timetolive", r#"{"ID":78}"#),
    ("/v3/lease/keepalive", r#"{"ID":77}"#),
    ("/v3/lease/keepalive", r#"{"ID":"78"}"#),
    ("/v3/lease/keepalive", "{\"ID\":77}\n{\"ID\":78}\n"),
    ("/v3/lease/keepalive", ""),
    ("/v3/kv/lease/revoke", r#"{"ID":"77"}"#),
    ("/v3/lease/revoke", r#"{"ID":"77"}"#),
    ("/v3/cluster/member/list", "{}"),
    ("/v3/maintenance/alarm", "{}"),
    ("/v3/auth/authenticate", r#"{"name":"root","password":"x"}"#),
    ("/v3/election/leader", r#"{"name":"ZWw="}"#),
    ("/v3/election/proclaim", "{}"),
    ("/v3/election/resign", "{}"),
    ("/v3/election/campaign", r#"{"name":"ZWw=","lease":"77"}"#),
    ("/v3/lock/lock", r#"{"name":"bG8=","lease":"77"}"#),
    ("/v3/lock/unlock", "{}"),
    ("/v3/lock/unlock", r#"{"key":"bG8="}"#),
    ("/v3/lease/grant", r#"{"TTL":"600","ID":79}"#),
    (
        "/v3/election/campaign",
        r#"{"name":"ZWw=","lease":"79","value":"b25l"}"#,
    ),
    (
        "/v3/election/campaign",
        r#"{"name":"ZWw=","lease":"79","value":"dHdv"}"#,
    ),
    ("/v3/election/leader", r#"{"name":"ZWw="}"#),
    (
        "/v3/election/proclaim",
        r#"{"leader":{"name":"ZWw=","key":"ZWwvNGY=","rev":"99","lease":"79"},"value":"dGhyZWU="}"#,
    ),
    (
        "/v3/election/proclaim",
        r#"{"leader":{"name":"ZWw=","key":"ZWwvNGY=","rev":"7","lease":"79"},"value":"dGhyZWU="}"#,
    ),
    (
        "/v3/election/resign",
        r#"{"leader":{"name":"ZWw=","key":"ZWwvNGY=","rev":"7","lease":"79"}}"#,
    ),
    (
        "/v3/election/resign",
        r#"{"leader":{"name":"ZWw=","key":"ZWwvNGY=","rev":"7","lease":"79"}}"#,
    ),
    ("/v3/lock/lock", r#"{"name":"bG8=","lease":"79"}"#),
    ("/v3/lock/lock", r#"{"name":"bG8=","lease":"79"}"#),
    ("/v3/lock/unlock", r#"{"key":"bG8vNGY="}"#),
];

/// What is asked with another method, or of a page that is none of the gateway's.
const PAGES: &[(&str, &str)] = &[
    ("GET", "/v3/kv/range"),
    ("PUT", "/v3/kv/range"),
    ("DELETE", "/v3/watch"),
    ("HEAD", "/v3/kv/range"),
    ("GET", "/health"),
    ("GET", "/health?serializable=true"),
    ("GET", "/health?exclude=NOSPACE&exclude=CORRUPT"),
    ("HEAD", "/health"),
    ("POST", "/health"),
    ("GET", "/livez"),
    ("GET", "/livez?verbose"),
    ("GET", "/livez?exclude=serializable_read"),
    ("GET", "/livez/serializable_read"),
    ("GET", "/livez/nothing"),
    ("POST", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/readyz?verbose"),
    ("GET", "/readyz?verbose&exclude=data_corruption"),
    ("GET", "/readyz?exclude=nothing"),
    ("GET", "/readyz/linearizable_read"),
    ("GET", "/readyz/data_corruption?verbose"),
    ("HEAD", "/readyz"),
    ("POST", "/version"),
    ("GET", "/"),
];

/// Watches as they are sent, in one body, and how many lines to wait for.
const WATCHES: &[(&str, usize)] = &[
    (r#"{"create_request":{"key":"dw==","start_revision":"2"}}"#, 2),
    (
        r#"{"createRequest":{"key":"dw==","startRevision":2,"prevKv":true,"filters":["NODELETE"]}}"#,
        2,
    ),
    (
        r#"{"create_request":{"key":"dw==","watch_id":7}}{"cancel_request":{"watch_id":"7"}}"#,
        2,
    ),
    (
        r#"{"create_request":{"key":"dw=="}} {"create_request":{"key":"dw==","watch_id":9}} {"create_request":{"key":"dw==","watch_id":9}}"#,
        3,
    ),
    (r#"{"create_request":{"key":"dw==","range_end":"YQ=="}}"#, 1),
];

tests::on_both!(check);

async fn check(subject: &Subject) {
    let cluster = Cluster::builder(subject, 1).start().await;
    let asker = Asker::new(&cluster);
    let mut transcript = Transcript::default();
    for (path, body) in UNARY {
        let answer = asker.ask(Method::POST, path, body).await;
        transcript.push(&format!("{path} {}", body.escape_debug()), &answer);
    }
    transcript.check(subject.name(), "gateway/calls.txt", subject.is_etcd());

    let mut transcript = Transcript::default();
    for (method, path) in PAGES {
        let answer = asker.ask(method.parse().expect("a method"), path, "").await;
        transcript.push(&format!("{method} {path}"), &answer);
    }
    transcript.check(subject.name(), "gateway/pages.txt", subject.is_etcd());

    let cluster = Cluster::builder(subject, 1).start().await;
    let asker = Asker::new(&cluster);
    let mut transcript = Transcript::default();
    asker
        .ask(Method::POST, "/v3/kv/put", r#"{"key":"dw==","value":"MQ=="}"#)
        .await;
    for (body, lines) in WATCHES {
        let answer = asker.watch(body, *lines).await;
        transcript.push(body, &answer);
    }
    transcript.check(subject.name(), "gateway/watches.txt", subject.is_etcd());
}

/// What etcd leaves unanswered, or answers by its own library's words, is the agent's own.
#[tokio::test]
async fn what_is_no_message_is_said_at_once() {
    let cluster = Cluster::builder(&Subject::agent(), 1).start().await;
    let asker = Asker::new(&cluster);
    for body in ["[]", "{", r#"{"create_request":5}"#] {
        let answer = asker.ask(Method::POST, "/v3/watch", body).await;
        assert!(answer.starts_with("400\n"), "{body}: {answer}");
    }
    let too_long = format!(r#"{{"key":"Zm9v","value":"{}"}}"#, "A".repeat(8 << 20));
    let answer = asker.ask(Method::POST, "/v3/kv/put", &too_long).await;
    assert!(answer.starts_with("429\n"), "{answer}");
}

/// A client that only listens hears of changes as they happen, and its request may go on while it does.
#[tokio::test]
async fn a_watch_goes_on() {
    let cluster = Cluster::builder(&Subject::agent(), 3).start().await;
    let asker = Asker::new(&cluster);
    let (requests, body) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(4);
    let say = async |text: &str| {
        requests
            .send(Ok(text.to_owned()))
            .await
            .expect("the request goes on");
    };
    // Cut within a message, as a network may.
    say(r#"{"create_req"#).await;
    say(r#"uest":{"key":"dw=="}}"#).await;
    let body = reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(body));
    let response = asker
        .http
        .post(format!("{}/v3/watch", asker.endpoint))
        .body(body)
        .send()
        .await
        .expect("watch");
    let mut lines = Lines::new(response);
    assert!(lines.next().await.contains(r#""created":true"#));
    for value in ["MQ==", "Mg=="] {
        let put = format!(r#"{{"key":"dw==","value":"{value}"}}"#);
        asker.ask(Method::POST, "/v3/kv/put", &put).await;
        let line = lines.next().await;
        assert!(line.contains(&format!(r#""value":"{value}""#)), "{line}");
    }
    say(r#"{"cancel_request":{}}"#).await;
    assert!(lines.next().await.contains(r#""canceled":true"#));
}

/// CVE-2020-15114, a gateway that calls itself for ever, and CVE-2020-15136, one that trusts whoever it dials: this one
/// dials nobody, not even its own member.
#[tokio::test]
async fn cve_2020_15114_and_cve_2020_15136_the_gateway_connects_to_nobody() {
    let cluster = Cluster::builder(&Subject::agent(), 1).start().await;
    let asker = Asker::new(&cluster);
    let watch = r#"{"create_request":{"key":"dw=="}}"#;
    let request = asker
        .http
        .post(format!("{}/v3/watch", asker.endpoint))
        .body(watch);
    // The watch stays open while others call.
    let mut lines = Lines::new(request.send().await.expect("watch"));
    assert!(lines.next().await.contains(r#""created":true"#));
    for _ in 0..10 {
        let said = asker.ask(Method::POST, "/v3/kv/range", r#"{"key":"dw=="}"#).await;
        assert!(said.starts_with("200"), "{said}");
    }
    let own = own_sockets();
    let open = connections_to(&asker.endpoint);
    assert!(!open.is_empty(), "this test's own");
    let others: Vec<&String> = open.iter().filter(|socket| !own.contains(*socket)).collect();
    assert!(others.is_empty(), "somebody else is connected: {others:?}");
}

/// The inodes of this process' sockets.
fn own_sockets() -> Vec<String> {
    let open = std::fs::read_dir("/proc/self/fd").expect("open files");
    let named = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    named
        .filter_map(|link| {
            let link = link.to_string_lossy().into_owned();
            Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect()
}

/// The inodes of the sockets that are connected to a URL's address, whoever's they are.
fn connections_to(url: &str) -> Vec<String> {
    const ESTABLISHED: &str = "01";
    let address: std::net::SocketAddrV4 = url
        .trim_start_matches("http://")
        .parse()
        .expect("an address and a port");
    // As the kernel writes it: the address in the machine's own order of bytes.
    let wanted = format!(
        "{:08X}:{:04X}",
        u32::from_ne_bytes(address.ip().octets()),
        address.port()
    );
    let table = std::fs::read_to_string("/proc/net/tcp").expect("connections");
    let rows = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect());
    rows.filter_map(|row: Vec<&str>| {
        let is_it = row.get(2) == Some(&wanted.as_str()) && row.get(3) == Some(&ESTABLISHED);
        is_it
            .then(|| row.get(9).map(|inode| (*inode).to_owned()))
            .flatten()
    })
    .collect()
}

/// A client with a deadline is told when it has passed.
#[tokio::test]
async fn a_deadline() {
    let cluster = Cluster::builder(&Subject::agent(), 1).start().await;
    let asker = Asker::new(&cluster);
    let response = asker
        .http
        .post(format!("{}/v3/watch", asker.endpoint))
        .header("Grpc-Timeout", "200m")
        .body(r#"{"create_request":{"key":"dw=="}}"#)
        .send()
        .await
        .expect("watch");
    let text = response.text().await.expect("a stream that ends");
    let last: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).expect("JSON");
    assert_eq!(last["error"]["grpc_code"], 4, "{text}");
}

struct Asker {
    http: Client,
    endpoint: String,
}

impl Asker {
    fn new(cluster: &Cluster) -> Asker {
        Asker {
            http: Client::builder().no_proxy().build().expect("an HTTP client"),
            endpoint: cluster.endpoint(0).to_owned(),
        }
    }

    /// Status, and the body as far as it is the same on every run.
    async fn ask(&self, method: Method, path: &str, body: &str) -> String {
        let request = self
            .http
            .request(method, format!("{}{path}", self.endpoint))
            .timeout(wait::PATIENCE)
            .body(body.to_owned());
        let response = request.send().await.expect("an answer");
        let mut answer = format!("{}\n", response.status().as_u16());
        let body = response.text().await.expect("a body");
        let mut lines: Vec<&str> = body.lines().collect();
        // etcd goes through the checks of a probe in any order.
        lines.sort_by_key(|line| if line.starts_with("[+]") { *line } else { "~" });
        for line in lines {
            let _ = writeln!(answer, "{}", masked(line));
        }
        answer
    }

    /// The first lines of a watch's answers.
    async fn watch(&self, body: &str, count: usize) -> String {
        let request = self
            .http
            .post(format!("{}/v3/watch", self.endpoint))
            .body(body.to_owned());
        let mut lines = Lines::new(request.send().await.expect("an answer"));
        let mut answer = String::new();
        for _ in 0..count {
            let _ = writeln!(answer, "{}", masked(&lines.next().await));
        }
        answer
    }
}

/// A streamed answer, line by line.
struct Lines {
    response: Response,
    buffer: Vec<u8>,
}

impl Lines {
    fn new(response: Response) -> Lines {
        Lines {
            response,
            buffer: Vec::new(),
        }
    }

    async fn next(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return String::from_utf8(line).expect("text").trim_end().to_owned();
            }
            let chunk = tokio::time::timeout(wait::PATIENCE, self.response.chunk())
                .await
                .expect("a line in time");
            let chunk = chunk.expect("the stream goes on").expect("another line");
            self.buffer.extend_from_slice(&chunk);
        }
    }
}

/// Without blanks, and without what differs between runs, or between etcd's and our words for the same.
fn masked(line: &str) -> String {
    match serde_json::from_str::<Value>(line) {
        Ok(mut value) => {
            mask(&mut value);
            value.to_string()
        }
        Err(_) => line.to_owned(),
    }
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(fields) => mask_fields(fields),
        Value::Array(items) => items.iter_mut().for_each(mask),
        _ => {}
    }
}

fn mask_fields(fields: &mut Map<String, Value>) {
    // etcd 3.5 as its makers build it says this too, that of Debian does not.
    if fields.get("error") == fields.get("message") {
        fields.shift_remove("error");
    }
    for (name, value) in fields.iter_mut() {
        let differs = match name.as_str() {
            "cluster_id" | "member_id" | "raft_term" | "peerURLs" | "clientURLs" | "name" => true,
            "ID" => value.as_str().is_some_and(|id| id.len() > 3),
            _ => false,
        };
        let by_its_parser =
            name == "message" && value.as_str().is_some_and(|text| text.starts_with("proto:"));
        if differs {
            *value = "...".into();
        } else if by_its_parser {
            *value = "proto: ...".into();
        } else {
            mask(value);
        }
    }
}
