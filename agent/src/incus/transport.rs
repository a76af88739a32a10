//! One request, one connection, one answer: HTTP over the unix socket and Incus' envelope around every answer.
//!
//! Connections are never kept, nor opened ahead: Incus reads the first bytes of a connection before it accepts the
//! next one, so a connection on which nothing is said shuts out everybody else, its own containers' hooks included,
//! and a container's start hangs. A pool of connections opens such ones.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::Value;

use super::IncusError;

/// A list of everything on a busy host stays far below this; more is not read.
const ANSWER_LIMIT_BYTES: usize = 64 << 20;
/// Documents are at most 1.5 MiB; an object of Incus is one document and what Incus keeps with it.
const REQUEST_LIMIT_BYTES: usize = 4 << 20;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Sends requests to one socket.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    socket: PathBuf,
    http: reqwest::Client,
}

/// A request of bytes.
#[derive(Clone, Debug)]
pub(super) struct Raw<'a> {
    pub(super) method: Method,
    /// Begins with a slash and is encoded already.
    pub(super) path: &'a str,
    pub(super) headers: &'a [(&'static str, String)],
    pub(super) body: Bytes,
    /// Of the answer, as much is read.
    pub(super) read_max: usize,
}

/// Its answer.
#[derive(Clone, Debug)]
pub(super) struct RawAnswer {
    headers: HeaderMap,
    pub(super) body: Bytes,
}

impl RawAnswer {
    /// A header's value; empty, where it has none.
    pub(super) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    }
}

/// What Incus' envelope held.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Sync {
        metadata: Value,
        etag: String,
    },
    /// The path of the operation that has begun, and what Incus says of it.
    Async {
        operation: String,
        begun: Value,
    },
}

/// A file's bytes on their way: read as fast as they are wanted.
#[derive(Debug)]
pub(super) struct Download {
    transport: Transport,
    response: reqwest::Response,
    limit: Duration,
}

impl Download {
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, IncusError> {
        let chunk = self.response.chunk().await;
        chunk.map_err(|error| self.transport.failure(error, self.limit))
    }
}

impl Transport {
    pub(super) fn new(socket: &Path) -> Result<Self, IncusError> {
        let http = reqwest::Client::builder()
            .unix_socket(socket)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|source| IncusError::Unreachable {
                socket: socket.to_owned(),
                source: source.into(),
            })?;
        Ok(Self {
            socket: socket.to_owned(),
            http,
        })
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(super) async fn get(&self, path: &str, limit: Duration) -> Result<Answer, IncusError> {
        self.send(Method::GET, path, None, None, limit).await
    }

    /// Sends one request. `path` begins with a slash and is encoded already.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
        limit: Duration,
    ) -> Result<Answer, IncusError> {
        // The host is never resolved: the connection is the socket's.
        let mut request = self
            .http
            .request(method, format!("http://incus{path}"))
            .timeout(limit);
        if let Some(body) = body {
            request = request
                .header(header::CONTENT_TYPE, "application/json")
                .body(encode(body)?);
        }
        if let Some(etag) = etag {
            request = request.header(header::IF_MATCH, header_value(etag)?);
        }
        self.answer(request, limit).await
    }

    /// Posts a file as it is, read while it is sent.
    pub(super) async fn upload(
        &self,
        path: &str,
        headers: &[(&'static str, String)],
        file: tokio::fs::File,
        limit: Duration,
    ) -> Result<Answer, IncusError> {
        let mut request = self
            .http
            .post(format!("http://incus{path}"))
            .timeout(limit)
            .header(header::CONTENT_TYPE, "application/octet-stream");
        for (name, value) in headers {
            request = request.header(*name, header_value(value)?);
        }
        self.answer(request.body(file), limit).await
    }

    /// Opens an answer that is a file's bytes, however many.
    pub(super) async fn download(&self, path: &str, limit: Duration) -> Result<Download, IncusError> {
        let request = self.http.get(format!("http://incus{path}")).timeout(limit);
        let response = request.send().await.map_err(|error| self.failure(error, limit))?;
        let status = response.status();
        if !status.is_success() {
            let body = self.read(response, limit).await?;
            open_envelope(status.as_u16(), String::new(), &body)?;
            return Err(IncusError::bad_answer(format!(
                "http status {status} without an error"
            )));
        }
        Ok(Download {
            transport: self.clone(),
            response,
            limit,
        })
    }

    async fn answer(&self, request: reqwest::RequestBuilder, limit: Duration) -> Result<Answer, IncusError> {
        let response = request.send().await.map_err(|error| self.failure(error, limit))?;
        let status = response.status().as_u16();
        let etag = response
            .headers()
            .get(header::ETAG)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let body = self.read(response, limit).await?;
        open_envelope(status, etag, &body)
    }

    /// A request whose body and answer are a file's bytes. An answer that is none, an error's, is opened as ever.
    pub(super) async fn raw(&self, request: Raw<'_>, limit: Duration) -> Result<RawAnswer, IncusError> {
        let mut sent = self
            .http
            .request(request.method, format!("http://incus{}", request.path))
            .timeout(limit)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(request.body);
        for (name, value) in request.headers {
            sent = sent.header(*name, value);
        }
        let mut response = sent.send().await.map_err(|error| self.failure(error, limit))?;
        let status = response.status();
        let headers = response.headers().clone();
        let mut body = BytesMut::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.failure(error, limit))?
        {
            body.extend_from_slice(&chunk);
            if body.len() >= request.read_max {
                body.truncate(request.read_max);
                break;
            }
        }
        if !status.is_success() {
            open_envelope(status.as_u16(), String::new(), &body)?;
            return Err(IncusError::bad_answer(format!(
                "http status {status} without an error"
            )));
        }
        Ok(RawAnswer {
            headers,
            body: body.freeze(),
        })
    }

    async fn read(&self, mut response: reqwest::Response, limit: Duration) -> Result<Bytes, IncusError> {
        let mut body = BytesMut::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.failure(error, limit))?
        {
            if body.len() + chunk.len() > ANSWER_LIMIT_BYTES {
                return Err(IncusError::bad_answer(format!(
                    "longer than {ANSWER_LIMIT_BYTES} bytes"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    fn failure(&self, error: reqwest::Error, limit: Duration) -> IncusError {
        if error.is_timeout() && !error.is_connect() {
            IncusError::Timeout {
                limit_seconds: limit.as_secs(),
            }
        } else {
            // The URL is ours and says nothing.
            IncusError::Unreachable {
                socket: self.socket.clone(),
                source: error.without_url().into(),
            }
        }
    }
}

fn header_value(value: &str) -> Result<HeaderValue, IncusError> {
    HeaderValue::from_str(value).map_err(|_| IncusError::Misuse {
        reason: "a header with characters that cannot be sent",
    })
}

fn encode(body: &Value) -> Result<Vec<u8>, IncusError> {
    let body = serde_json::to_vec(body).map_err(|error| IncusError::bad_answer(error.to_string()))?;
    if body.len() > REQUEST_LIMIT_BYTES {
        return Err(IncusError::Misuse {
            reason: "the object is larger than 4 MiB",
        });
    }
    Ok(body)
}

/// Judges by the body: a failed operation arrives with HTTP status 200.
fn open_envelope(status: u16, etag: String, body: &[u8]) -> Result<Answer, IncusError> {
    let mut envelope: Value = serde_json::from_slice(body)
        .map_err(|error| IncusError::bad_answer(format!("http status {status}, {error}")))?;
    match envelope.get("type").and_then(Value::as_str) {
        Some("sync") => {
            let metadata = envelope.get_mut("metadata").map(Value::take).unwrap_or_default();
            Ok(Answer::Sync { metadata, etag })
        }
        Some("async") => match envelope.get("operation").and_then(Value::as_str) {
            Some(operation) => Ok(Answer::Async {
                operation: operation.to_owned(),
                begun: envelope.get("metadata").cloned().unwrap_or_default(),
            }),
            None => Err(IncusError::bad_answer("an operation without a path")),
        },
        Some("error") => Err(refusal(&envelope, status)),
        _ => Err(IncusError::bad_answer(format!(
            "http status {status} and no known type"
        ))),
    }
}

fn refusal(envelope: &Value, http_status: u16) -> IncusError {
    let message = envelope
        .get("error")
        .and_then(Value::as_str)
        .unwrap_or("no reason given")
        .to_owned();
    // An operation's failure has status 200 on the outside and 400 within.
    if http_status == 200 {
        return IncusError::OperationFailed { message };
    }
    let code = envelope
        .get("error_code")
        .and_then(Value::as_u64)
        .and_then(|code| u16::try_from(code).ok());
    match code.filter(|code| *code != 0).unwrap_or(http_status) {
        404 => IncusError::NotFound { message },
        412 => IncusError::PreconditionFailed,
        status => IncusError::Refused { status, message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incus::simulated::SimulatedIncus;

    fn check(status: u16, body: &str) -> String {
        match open_envelope(status, "e1".to_owned(), body.as_bytes()) {
            Ok(Answer::Sync { metadata, etag }) => format!("sync {metadata} {etag}"),
            Ok(Answer::Async { operation, .. }) => format!("async {operation}"),
            Err(error) => error.to_string(),
        }
    }

    /// The simulated daemon accepts as Incus does: with a connection that says nothing, the last request here would
    /// have no answer.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_connection_is_left_silent() {
        const LIMIT: Duration = Duration::from_secs(5);
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("unix.socket");
        let simulated = SimulatedIncus::start(dir.path(), &socket).await.unwrap();
        let transport = Transport::new(&socket).unwrap();
        // Uneven crowds: what a pool would hand back and what it would open anew keep crossing.
        for crowd in (1..=6).cycle().take(60) {
            let crowd = (0..crowd).map(|_| transport.get("/1.0", LIMIT));
            for answer in futures::future::join_all(crowd).await {
                assert!(answer.is_ok(), "{answer:?}");
            }
        }
        let other = Transport::new(&socket).unwrap().get("/1.0", LIMIT).await;
        assert!(other.is_ok(), "{other:?}");
        simulated.stop().await;
    }

    #[tokio::test]
    async fn silence_is_a_timeout() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("unix.socket");
        // Connections are taken into its backlog and never answered.
        let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let silent = Transport::new(&socket)
            .unwrap()
            .get("/1.0", Duration::from_millis(50))
            .await;
        assert!(matches!(silent, Err(IncusError::Timeout { .. })), "{silent:?}");
    }

    #[test]
    fn envelopes() {
        assert_eq!(
            check(200, r#"{"type":"sync","status_code":200,"metadata":{"a":1}}"#),
            r#"sync {"a":1} e1"#
        );
        assert_eq!(check(200, r#"{"type":"sync"}"#), "sync null e1");
        assert_eq!(
            check(202, r#"{"type":"async","operation":"/1.0/operations/u"}"#),
            "async /1.0/operations/u"
        );
        assert_eq!(
            check(202, r#"{"type":"async"}"#),
            "unexpected answer from incus: an operation without a path"
        );
        assert_eq!(
            check(404, r#"{"type":"error","error_code":404,"error":"no"}"#),
            "not found: no"
        );
        assert_eq!(
            check(412, r#"{"type":"error","error_code":412,"error":"no"}"#),
            "changed since it was read"
        );
        assert_eq!(
            check(500, r#"{"type":"error","error_code":500,"error":"it exists"}"#),
            "incus refused with status 500: it exists"
        );
        assert_eq!(
            check(200, r#"{"type":"error","error_code":400,"error":"broke"}"#),
            "incus operation failed: broke"
        );
        assert!(check(502, "<html>").starts_with("unexpected answer from incus: http status 502"));
        assert!(check(200, "[]").starts_with("unexpected answer"));
    }
}
