//! What a client of the gateway is told when a call fails.
//!
//! etcd 3.5 and 3.6 differ in how they say it, so both are said: `error` and `grpc_code` are where clients of 3.5
//! look, `code` is where those of 3.6 do.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use serde_json::{Value, json};
use tonic::{Code, Status};

/// A call that has no answer.
#[derive(Debug)]
pub(super) struct Failure {
    // Boxed, because successes should not pay for its size.
    status: Box<Status>,
    streaming: bool,
}

impl Failure {
    /// Of a call with a single answer, or of one that could not begin.
    pub(super) fn call(status: Status) -> Failure {
        Failure {
            status: Box::new(status),
            streaming: false,
        }
    }

    /// Of a call that answers with a stream.
    pub(super) fn stream(status: Status) -> Failure {
        Failure {
            status: Box::new(status),
            streaming: true,
        }
    }

    /// The last line of a stream that breaks off.
    pub(super) fn line(&self) -> String {
        format!("{}\n", self.body())
    }

    fn body(&self) -> Value {
        let code = self.status.code() as i32;
        let message = self.status.message();
        if self.streaming {
            let http = http_status(self.status.code());
            json!({ "error": {
                "grpc_code": code,
                "http_code": http.as_u16(),
                "message": message,
                "http_status": http.canonical_reason().unwrap_or_default(),
                "code": code,
            } })
        } else {
            json!({ "error": message, "code": code, "message": message })
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = self.status.code();
        let text = if self.streaming {
            self.line()
        } else {
            self.body().to_string()
        };
        let mut response = (http_status(code), [(CONTENT_TYPE, "application/json")], text).into_response();
        if code == Code::Unauthenticated
            && let Ok(challenge) = HeaderValue::from_str(self.status.message())
        {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// As gRPC's own JSON gateway maps them.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        let status = || Status::not_found("etcdserver: requested lease not found");
        assert_eq!(
            Failure::call(status()).body().to_string(),
            r#"{"error":"etcdserver: requested lease not found","code":5,"message":"etcdserver: requested lease not found"}"#
        );
        assert_eq!(
            Failure::stream(status()).line(),
            concat!(
                r#"{"error":{"grpc_code":5,"http_code":404,"message":"etcdserver: requested lease not found","#,
                r#""http_status":"Not Found","code":5}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_refused_token_is_a_challenge() {
        let response =
            Failure::call(Status::unauthenticated("etcdserver: invalid auth token")).into_response();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(
            response.headers()[WWW_AUTHENTICATE],
            "etcdserver: invalid auth token"
        );
    }
}
