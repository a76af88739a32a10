//! Waiting for Incus' background operations.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::IncusError;
use super::transport::{Answer, Transport};

/// One wait is one held request; Incus answers it when the operation ends or the time is over.
const WAIT_SECONDS: u64 = 30;
/// How much longer than the wait itself its answer may take.
const ANSWER_MARGIN: Duration = Duration::from_secs(10);

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    /// Incus forgets operations about 5 s after their end: only the object itself can tell now.
    Forgotten,
}

/// Waits until the operation ends, for at most `limit`.
///
/// A wait that is over before the operation is answered as an error, exactly like an operation that failed: so the
/// operation itself is read then, and only its status counts.
pub(super) async fn wait(
    transport: &Transport,
    operation: &str,
    limit: Duration,
) -> Result<Outcome, IncusError> {
    let path = operation_path(operation)?;
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(IncusError::Timeout {
                limit_seconds: limit.as_secs(),
            });
        }
        let seconds = left.as_secs().clamp(1, WAIT_SECONDS);
        let request_limit = Duration::from_secs(seconds) + ANSWER_MARGIN;
        let waited = transport
            .get(&format!("{path}/wait?timeout={seconds}"), request_limit)
            .await;
        let answer = match waited {
            Err(IncusError::OperationFailed { .. }) => transport.get(path, ANSWER_MARGIN).await,
            waited => waited,
        };
        match answer {
            Ok(Answer::Sync { metadata, .. }) if ended(&metadata)? => return Ok(Outcome::Success),
            Ok(Answer::Sync { .. }) => {}
            Ok(Answer::Async { .. }) => {
                return Err(IncusError::bad_answer("waiting for an operation began another"));
            }
            Err(IncusError::NotFound { .. }) => return Ok(Outcome::Forgotten),
            Err(error) => return Err(error),
        }
    }
}

/// Waits for the end of a session's operation, however long that takes, and returns the operation: a command that
/// failed is told in it.
pub(super) async fn result(transport: &Transport, path: &str) -> Result<Value, IncusError> {
    loop {
        let limit = Duration::from_secs(WAIT_SECONDS) + ANSWER_MARGIN;
        let waited = transport
            .get(&format!("{path}/wait?timeout={WAIT_SECONDS}"), limit)
            .await;
        let answer = match waited {
            Err(IncusError::OperationFailed { .. }) => transport.get(path, ANSWER_MARGIN).await,
            waited => waited,
        };
        match answer {
            Ok(Answer::Sync { metadata, .. }) => {
                let code = metadata.get("status_code").and_then(Value::as_u64);
                if code.is_some_and(|code| code >= 200) {
                    return Ok(metadata);
                }
            }
            Ok(Answer::Async { .. }) => {
                return Err(IncusError::bad_answer("waiting for an operation began another"));
            }
            Err(IncusError::NotFound { .. }) => return Err(IncusError::OperationLost),
            Err(error) => return Err(error),
        }
    }
}

/// Incus' operation status codes: 200 success, 400 failure, 401 cancelled; those from 100 to 199 are under way.
pub(super) fn ended(operation: &Value) -> Result<bool, IncusError> {
    match operation.get("status_code").and_then(Value::as_u64) {
        Some(100..=199) => Ok(false),
        Some(200) => Ok(true),
        Some(400..) => {
            let message = operation
                .get("err")
                .and_then(Value::as_str)
                .unwrap_or("no reason given")
                .to_owned();
            Err(IncusError::OperationFailed { message })
        }
        _ => Err(IncusError::bad_answer("an operation without a known status")),
    }
}

/// `/1.0/operations/UUID` and nothing else: the path comes from the daemon's answer and goes into a request.
pub(super) fn operation_path(operation: &str) -> Result<&str, IncusError> {
    let operation = operation.split('?').next().unwrap_or_default();
    let known = operation
        .strip_prefix("/1.0/operations/")
        .is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
    if known {
        Ok(operation)
    } else {
        Err(IncusError::bad_answer(
            "an operation's path is not below /1.0/operations",
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::json;

    use super::*;
    use crate::incus::simulated::SimulatedIncus;

    #[test]
    fn operations_are_judged_by_their_status_code() {
        assert!(!ended(&json!({"status_code": 103})).unwrap());
        assert!(ended(&json!({"status_code": 200})).unwrap());
        let failed = ended(&json!({"status_code": 400, "err": "disk full"})).unwrap_err();
        assert_eq!(failed.to_string(), "incus operation failed: disk full");
        assert!(matches!(ended(&json!({})), Err(IncusError::BadAnswer { .. })));
    }

    #[tokio::test]
    async fn an_unknown_operation_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("unix.socket");
        let simulated = SimulatedIncus::start(dir.path(), &socket).await.unwrap();
        let transport = Transport::new(&socket).unwrap();
        let path = "/1.0/operations/00000000-0000-4000-8000-000000000000";
        let outcome = wait(&transport, path, Duration::from_secs(5)).await;
        assert_eq!(outcome.unwrap(), Outcome::Forgotten);
        simulated.stop().await;
    }

    /// A daemon with one operation, of which the first wait is over before it is.
    async fn wait_twice(end: Value) -> (Result<Outcome, IncusError>, usize) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("unix.socket");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let waits = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&waits);
        let over = json!({"type": "error", "error_code": 500, "error": "context deadline exceeded"});
        let running = json!({"type": "sync", "metadata": {"status_code": 103}});
        let ended = json!({"type": "sync", "metadata": end});
        let (read, waited) = (Arc::clone(&waits), ended.clone());
        let app = Router::new()
            .route(
                "/1.0/operations/a/wait",
                get(async move || match counted.fetch_add(1, Ordering::SeqCst) {
                    0 => Json(over),
                    _ => Json(waited),
                }),
            )
            .route(
                "/1.0/operations/a",
                get(async move || match read.load(Ordering::SeqCst) {
                    1 => Json(running),
                    _ => Json(ended),
                }),
            );
        let server = tokio::spawn(axum::serve(listener, app).into_future());
        let transport = Transport::new(&socket).unwrap();
        let outcome = wait(&transport, "/1.0/operations/a", Duration::from_secs(60)).await;
        server.abort();
        (outcome, waits.load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn a_wait_that_is_over_is_no_failure() {
        let (outcome, waits) = wait_twice(json!({"status_code": 200})).await;
        assert_eq!((outcome.unwrap(), waits), (Outcome::Success, 2));
        let (outcome, waits) = wait_twice(json!({"status_code": 400, "err": "disk full"})).await;
        assert_eq!(
            outcome.unwrap_err().to_string(),
            "incus operation failed: disk full"
        );
        assert_eq!(waits, 2);
    }

    #[test]
    fn only_an_operations_path_is_waited_for() {
        assert_eq!(
            operation_path("/1.0/operations/a-1").unwrap(),
            "/1.0/operations/a-1"
        );
        assert_eq!(
            operation_path("/1.0/operations/a-1?project=t").unwrap(),
            "/1.0/operations/a-1"
        );
        for path in [
            "",
            "/1.0/operations/",
            "/1.0/instances/a",
            "/1.0/operations/../instances/a",
        ] {
            assert!(operation_path(path).is_err(), "{path}");
        }
    }
}
