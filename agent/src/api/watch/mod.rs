//! etcd's Watch service: any number of watches on one stream.
//!
//! `session` decides (ids, answers, progress; pure), `stream` waits and sends, `split` keeps messages small. What
//! is due to a watch, and in which order, is the store's watch hub's business.

mod session;
mod split;
mod stream;

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use proto::etcdserverpb::watch_server::Watch;
use proto::etcdserverpb::{WatchRequest, WatchResponse};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Api;
use super::interceptor::Needs;

#[derive(Clone, Debug)]
pub(super) struct WatchService(pub(super) Arc<Api>);

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let WatchService(api) = self;
        let caller = api.admit(&request, Needs::Anyone).await?;
        let answers = stream::start(api.clone(), caller, request.into_inner());
        // What an answer held is given back when it is taken.
        let answers = ReceiverStream::new(answers).map(|(answer, _held)| answer);
        Ok(Response::new(answers.boxed()))
    }
}
