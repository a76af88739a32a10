//! Is this member well? For gRPC's health protocol, and for probes over HTTP.
//!
//! The rules of the HTTP probes are pure ([`verdict`], [`probes`]); asking the node is at the edge.

use std::pin::Pin;
use std::sync::Arc;

use ::http::StatusCode;
use ::http::header::CONTENT_TYPE;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use proto::etcdserverpb::{AlarmMember, AlarmType, RangeRequest};
use tonic::Status;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::status::ApiError;
use super::{Api, http};
use crate::shutdown::Shutdown;

/// gRPC's health protocol. The one service it knows is the member as a whole, named `""`.
#[derive(Clone, Debug)]
pub(super) struct HealthService(pub(super) Shutdown);

impl HealthService {
    fn response(serving: bool) -> HealthCheckResponse {
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        HealthCheckResponse {
            status: tonic_health::pb::health_check_response::ServingStatus::from(status).into(),
        }
    }

    fn check_name(request: &tonic::Request<HealthCheckRequest>) -> Result<(), Status> {
        if request.get_ref().service.is_empty() {
            Ok(())
        } else {
            Err(Status::not_found("unknown service"))
        }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        HealthService::check_name(&request)?;
        Ok(tonic::Response::new(HealthService::response(
            !self.0.is_cancelled(),
        )))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    async fn watch(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        HealthService::check_name(&request)?;
        let shutdown = self.0.clone();
        let now = stream::once(std::future::ready(Ok(HealthService::response(
            !shutdown.is_cancelled(),
        ))));
        let at_the_end = stream::once(async move {
            shutdown.cancelled().await;
            Ok(HealthService::response(false))
        });
        Ok(tonic::Response::new(Box::pin(now.chain(at_the_end))))
    }
}

/// What a probe asks for in its query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ProbeQuery {
    serializable: bool,
    verbose: bool,
    /// Alarms, or checks, that do not count.
    exclude: Vec<String>,
}

impl ProbeQuery {
    fn parse(query: Option<&str>) -> ProbeQuery {
        let mut parsed = ProbeQuery::default();
        for pair in query.unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "serializable" => parsed.serializable = value == "true",
                "verbose" => parsed.verbose = true,
                "exclude" if !value.is_empty() => parsed.exclude.push(value.to_owned()),
                _ => {}
            }
        }
        parsed
    }

    fn excludes(&self, name: &str) -> bool {
        self.exclude.iter().any(|excluded| excluded == name)
    }
}

/// `/health`: is the group well, as this member sees it; with `serializable=true`, only this member.
pub(super) async fn health(State(api): State<Arc<Api>>, RawQuery(query): RawQuery) -> Response {
    let query = ProbeQuery::parse(query.as_deref());
    let has_leader = api.view().leader != 0;
    let reason = match verdict(&query, &api.node.store().alarms(), has_leader) {
        Ok(()) => match read(&api, query.serializable).await {
            Ok(()) => None,
            Err(error) => Some(format!("RANGE ERROR:{}", error.text())),
        },
        Err(reason) => Some(reason.to_owned()),
    };
    api.metrics.health_checked(reason.is_none());
    let status = if reason.is_none() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        [(CONTENT_TYPE, "text/plain; charset=utf-8")],
        health_body(reason.as_deref()),
    )
        .into_response()
}

/// What can be said without a read.
fn verdict(query: &ProbeQuery, alarms: &[AlarmMember], has_leader: bool) -> Result<(), &'static str> {
    for alarm in alarms {
        if query.excludes(alarm.alarm().as_str_name()) {
            continue;
        }
        return Err(match alarm.alarm() {
            AlarmType::Nospace => "ALARM NOSPACE",
            AlarmType::Corrupt => "ALARM CORRUPT",
            AlarmType::None => "ALARM UNKNOWN",
        });
    }
    if !query.serializable && !has_leader {
        return Err("RAFT NO LEADER");
    }
    Ok(())
}

fn health_body(reason: Option<&str>) -> String {
    let health = if reason.is_none() { "true" } else { "false" };
    let body = serde_json::json!({ "health": health, "reason": reason.unwrap_or_default() });
    // Only bad news ends its line, from etcd.
    let end = if reason.is_none() { "" } else { "\n" };
    format!("{body}{end}")
}

/// One check of `/livez` or `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
}

impl Probe {
    fn name(self) -> &'static str {
        match self {
            Probe::DataCorruption => "data_corruption",
            Probe::SerializableRead => "serializable_read",
            Probe::LinearizableRead => "linearizable_read",
        }
    }

    async fn run(self, api: &Api) -> Result<(), &'static str> {
        match self {
            Probe::DataCorruption => {
                let alarms = api.node.store().alarms();
                let corrupt = alarms.iter().any(|alarm| alarm.alarm() == AlarmType::Corrupt);
                if corrupt {
                    Err("alarm activated: CORRUPT")
                } else {
                    Ok(())
                }
            }
            Probe::SerializableRead => read(api, true).await.map_err(ApiError::text),
            Probe::LinearizableRead => read(api, false).await.map_err(ApiError::text),
        }
    }
}

/// Should this process be restarted? Not because of its peers.
const LIVE: [Probe; 1] = [Probe::SerializableRead];

/// Should clients be sent here?
const READY: [Probe; 3] = [
    Probe::DataCorruption,
    Probe::SerializableRead,
    Probe::LinearizableRead,
];

/// `/livez`
pub(super) async fn livez(State(api): State<Arc<Api>>, RawQuery(query): RawQuery) -> Response {
    probes(&api, &LIVE, query.as_deref()).await
}

/// `/livez/CHECK`
pub(super) async fn livez_check(
    State(api): State<Arc<Api>>,
    Path(check): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    one_probe(&api, &LIVE, &check, query.as_deref()).await
}

/// `/readyz`
pub(super) async fn readyz(State(api): State<Arc<Api>>, RawQuery(query): RawQuery) -> Response {
    probes(&api, &READY, query.as_deref()).await
}

/// `/readyz/CHECK`
pub(super) async fn readyz_check(
    State(api): State<Arc<Api>>,
    Path(check): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    one_probe(&api, &READY, &check, query.as_deref()).await
}

async fn one_probe(api: &Api, probes_there: &[Probe], name: &str, query: Option<&str>) -> Response {
    match probes_there.iter().find(|probe| probe.name() == name) {
        Some(probe) => probes(api, std::slice::from_ref(probe), query).await,
        None => http::page_not_found(),
    }
}

async fn probes(api: &Api, probes: &[Probe], query: Option<&str>) -> Response {
    let query = ProbeQuery::parse(query);
    let mut results = Vec::with_capacity(probes.len());
    for probe in probes.iter().filter(|probe| !query.excludes(probe.name())) {
        results.push((probe.name(), probe.run(api).await));
    }
    let well = results.iter().all(|(_, result)| result.is_ok());
    api.metrics.health_checked(well);
    let status = if well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = probes_body(&results, query.verbose);
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}

/// A line for each check when asked for, or when one failed.
fn probes_body(results: &[(&str, Result<(), &str>)], verbose: bool) -> String {
    let well = results.iter().all(|(_, result)| result.is_ok());
    let mut body = String::new();
    if verbose || !well {
        for (name, result) in results {
            match result {
                Ok(()) => body.push_str(&format!("[+]{name} ok\n")),
                Err(reason) => body.push_str(&format!("[-]{name} failed: {reason}\n")),
            }
        }
    }
    body.push_str(if well { "ok\n" } else { "\n" });
    body
}

/// The smallest read that goes all the way.
async fn read(api: &Api, serializable: bool) -> Result<(), ApiError> {
    let reading = async {
        if !serializable {
            api.node.read_index().await?;
        }
        let request = RangeRequest {
            key: "health".into(),
            limit: 1,
            keys_only: true,
            ..RangeRequest::default()
        };
        api.node.store().range(&request)?;
        Ok(())
    };
    tokio::time::timeout(api.node.timeouts().request, reading)
        .await
        .unwrap_or(Err(ApiError::TimedOut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let cases = [
            (None, ProbeQuery::default()),
            (Some(""), ProbeQuery::default()),
            (
                Some("serializable=true"),
                ProbeQuery {
                    serializable: true,
                    ..ProbeQuery::default()
                },
            ),
            (Some("serializable=yes"), ProbeQuery::default()),
            (
                Some("verbose&exclude=NOSPACE&exclude=&exclude=CORRUPT"),
                ProbeQuery {
                    verbose: true,
                    exclude: vec!["NOSPACE".into(), "CORRUPT".into()],
                    ..ProbeQuery::default()
                },
            ),
        ];
        for (query, expected) in cases {
            assert_eq!(ProbeQuery::parse(query), expected, "{query:?}");
        }
    }

    #[test]
    fn verdicts() {
        let alarm = |alarm: AlarmType| {
            vec![AlarmMember {
                member_id: 1,
                alarm: alarm.into(),
            }]
        };
        let cases = [
            ("", vec![], true, Ok(())),
            ("", vec![], false, Err("RAFT NO LEADER")),
            ("serializable=true", vec![], false, Ok(())),
            ("", alarm(AlarmType::Nospace), true, Err("ALARM NOSPACE")),
            ("exclude=NOSPACE", alarm(AlarmType::Nospace), true, Ok(())),
            (
                "exclude=NOSPACE",
                alarm(AlarmType::Corrupt),
                true,
                Err("ALARM CORRUPT"),
            ),
            (
                "serializable=true",
                alarm(AlarmType::Corrupt),
                false,
                Err("ALARM CORRUPT"),
            ),
        ];
        for (query, alarms, has_leader, expected) in cases {
            let parsed = ProbeQuery::parse(Some(query));
            assert_eq!(
                verdict(&parsed, &alarms, has_leader),
                expected,
                "{query} {alarms:?}"
            );
        }
    }

    #[test]
    fn bodies() {
        assert_eq!(health_body(None), r#"{"health":"true","reason":""}"#);
        assert_eq!(
            health_body(Some("ALARM NOSPACE")),
            "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n"
        );
        let well = [("serializable_read", Ok(()))];
        assert_eq!(probes_body(&well, false), "ok\n");
        assert_eq!(probes_body(&well, true), "[+]serializable_read ok\nok\n");
        let ill = [
            ("data_corruption", Ok(())),
            ("linearizable_read", Err("etcdserver: no leader")),
        ];
        let lines = "[+]data_corruption ok\n[-]linearizable_read failed: etcdserver: no leader\n\n";
        assert_eq!(probes_body(&ill, false), lines);
    }
}
