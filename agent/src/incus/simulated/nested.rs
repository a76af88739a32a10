//! The paths of what lives in another object: `/1.0/storage-pools/POOL/volumes/custom/NAME` and
//! `/1.0/networks/NETWORK/forwards/ADDRESS`. What a request means is [`super::api`]'s, as for any other object.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::routing::get;
use http::HeaderMap;

use super::Daemon;
use super::api::{self, Params};
use super::change::Update;
use crate::incus::Kind;

pub(super) fn routes() -> Router<Daemon> {
    routes_of(Kind::Volume, "/1.0/storage-pools/{container}/volumes/custom").merge(routes_of(
        Kind::NetworkForward,
        "/1.0/networks/{container}/forwards",
    ))
}

type In = Path<String>;
type At = Path<(String, String)>;

fn routes_of(kind: Kind, folder: &str) -> Router<Daemon> {
    let list = move |State(daemon): State<Daemon>, Path(container): In, Query(params): Query<Params>| async move {
        api::list_of(&daemon, kind, Some(&container), &params)
    };
    let create =
        move |State(daemon): State<Daemon>,
              Path(container): In,
              Query(params): Query<Params>,
              body: Bytes| async move { api::create_in(&daemon, kind, &container, &params, &body) };
    let read = move |State(daemon): State<Daemon>, Path(at): At, Query(params): Query<Params>| async move {
        api::read_at(&daemon, kind, &name(&at), &params)
    };
    let update = move |update: Update| {
        move |State(daemon): State<Daemon>,
              Path(at): At,
              Query(params): Query<Params>,
              headers: HeaderMap,
              body: Bytes| async move {
            api::update_at(&daemon, (kind, &name(&at)), &params, &headers, &body, update)
        }
    };
    let delete = move |State(daemon): State<Daemon>, Path(at): At, Query(params): Query<Params>| async move {
        api::delete_at(&daemon, kind, &name(&at), &params)
    };
    Router::new().route(folder, get(list).post(create)).route(
        &format!("{folder}/{{name}}"),
        get(read)
            .put(update(Update::Replace))
            .patch(update(Update::Merge))
            .delete(delete),
    )
}

fn name((container, own): &(String, String)) -> String {
    format!("{container}/{own}")
}
