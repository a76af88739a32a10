//! Which headers of an HTTP request go along with the call.

use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::failure::Failure;

/// What the rest of such a header's name, and its value, become metadata.
const PREFIX: &str = "grpc-metadata-";
const TIMEOUT: &str = "grpc-timeout";

/// `Authorization`, and every `Grpc-Metadata-NAME` as `NAME`. Names that mean something to gRPC itself are not a
/// client's to set.
pub(super) fn from_headers(headers: &HeaderMap) -> MetadataMap {
    let mut taken = HeaderMap::new();
    for (name, value) in headers {
        if name == AUTHORIZATION {
            taken.append(AUTHORIZATION, value.clone());
        } else if let Some(rest) = name.as_str().strip_prefix(PREFIX)
            && !is_reserved(rest)
            && let Ok(name) = HeaderName::try_from(rest)
        {
            taken.append(name, value.clone());
        }
    }
    MetadataMap::from_headers(taken)
}

fn is_reserved(name: &str) -> bool {
    name.starts_with("grpc-")
        || matches!(
            name,
            "content-type" | "content-length" | "te" | "host" | "connection"
        )
}

/// How long the client is willing to wait, in gRPC's notation: up to eight digits and a unit.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let Some(value) = headers.get(TIMEOUT) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    parse_timeout(text)
        .map(Some)
        .ok_or_else(|| Failure::call(Status::invalid_argument(format!("invalid grpc-timeout: {text}"))))
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(count * 3600),
        'M' => Duration::from_secs(count * 60),
        'S' => Duration::from_secs(count),
        'm' => Duration::from_millis(count),
        'u' => Duration::from_micros(count),
        'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_along() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "TOKEN"),
            ("grpc-metadata-hasleader", "true"),
            ("grpc-metadata-token", "OTHER"),
            ("grpc-metadata-grpc-encoding", "gzip"),
            ("grpc-metadata-content-type", "text/plain"),
            ("grpc-metadata-", "nothing"),
            ("cookie", "private"),
            ("x-forwarded-for", "::1"),
        ] {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let mut taken: Vec<String> = from_headers(&headers)
            .into_headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        taken.sort();
        assert_eq!(taken, ["authorization: TOKEN", "hasleader: true", "token: OTHER"]);
    }

    #[test]
    fn timeouts() {
        let cases = [
            ("1H", Some(3_600_000)),
            ("2M", Some(120_000)),
            ("3S", Some(3000)),
            ("04m", Some(4)),
            ("5000u", Some(5)),
            ("99999999n", Some(99)),
            ("1X", None),
            ("S", None),
            ("", None),
            ("123456789S", None),
            ("-1S", None),
            ("1µ", None),
        ];
        for (text, milliseconds) in cases {
            let parsed = parse_timeout(text).map(|timeout| timeout.as_millis());
            assert_eq!(parsed, milliseconds, "{text}");
        }
    }
}
