//! Calls that stream: a line of JSON for each answer, and where the client streams, any number of JSON messages in
//! the request's body, read while the answers are sent.
//!
//! Nothing is held but the message on its way: the next answer is taken when the client has taken the last one.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, Stream};
use http::header::CONTENT_TYPE;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::codec::Transcode;
use super::failure::Failure;
use super::methods::Method;
use super::splitter::{SplitError, Splitter};
use super::{CALL_CONTENT_TYPE, Gateway, Origin, deadline_exceeded, json};

/// Makes the call. The response begins with the first answer, so that a call that fails before has a status of
/// its own. `timeout` is for all of the stream.
pub(super) async fn serve(
    gateway: &Gateway,
    method: &Method,
    origin: Origin,
    body: Body,
    timeout: Option<Duration>,
) -> Result<Response, Failure> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let (path, codec) = (method.path.clone(), Transcode::to(&method.output));
    let mut calls = gateway.calls();
    let (answers, fault) = if method.client_streams {
        let (messages, fault) = messages(&method.input, body, gateway.max_body_bytes);
        let request = origin.request(messages);
        (calls.streaming(request, path, codec).await, Some(fault))
    } else {
        let message = gateway.read(&method.input, &origin, body).await?;
        let request = origin.request(message);
        (calls.server_streaming(request, path, codec).await, None)
    };
    let mut answers = Answers {
        messages: answers.map_err(Failure::stream)?.into_inner(),
        fault,
        deadline,
    };
    let first = match answers.next().await {
        Some(Ok(first)) => json::print_line(&first).map_err(Failure::stream)?,
        Some(Err(status)) => return Err(Failure::stream(status)),
        None => return Ok(().into_response()),
    };
    let first = stream::once(std::future::ready(Ok::<_, Infallible>(Bytes::from(first))));
    let headers = [CALL_CONTENT_TYPE, (CONTENT_TYPE, "application/json")];
    let body = Body::from_stream(first.chain(answers.lines()));
    Ok((headers, body).into_response())
}

/// The answers of one call, until the client's own messages turn out to be none.
struct Answers {
    messages: Streaming<DynamicMessage>,
    fault: Option<oneshot::Receiver<Status>>,
    deadline: Option<Instant>,
}

impl Answers {
    async fn next(&mut self) -> Option<Result<DynamicMessage, Status>> {
        let fault = async {
            if let Some(fault) = &mut self.fault {
                let told = fault.await;
                // The client's messages have ended, well or not: there is nothing more to hear.
                self.fault = None;
                if let Ok(status) = told {
                    return status;
                }
            }
            std::future::pending().await
        };
        let expired = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            status = fault => Some(Err(status)),
            answer = self.messages.message() => answer.transpose(),
            () = expired => Some(Err(deadline_exceeded())),
        }
    }

    /// A line for each answer, and one for how it broke off if it did.
    fn lines(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
        stream::unfold(Some(self), |answers| async {
            let mut answers = answers?;
            let line = match answers.next().await? {
                Ok(message) => json::print_line(&message).map(Bytes::from),
                Err(status) => Err(status),
            };
            Some(match line {
                Ok(line) => (Ok(line), Some(answers)),
                Err(status) => (Ok(Failure::stream(status).line().into()), None),
            })
        })
    }
}

/// The messages in a request's body, as they arrive. One that cannot be read ends them, and is reported.
fn messages(
    kind: &MessageDescriptor,
    body: Body,
    max_bytes: usize,
) -> (
    impl Stream<Item = DynamicMessage> + Send + 'static,
    oneshot::Receiver<Status>,
) {
    let (fault, faults) = oneshot::channel();
    let messages = Messages {
        kind: kind.clone(),
        body: body.into_data_stream(),
        splitter: Splitter::new(max_bytes),
        fault,
    };
    (stream::unfold(messages, Messages::next), faults)
}

struct Messages {
    kind: MessageDescriptor,
    body: BodyDataStream,
    splitter: Splitter,
    fault: oneshot::Sender<Status>,
}

impl Messages {
    async fn next(mut self) -> Option<(DynamicMessage, Messages)> {
        match self.read().await {
            Ok(Some(message)) => Some((message, self)),
            Ok(None) => None,
            Err(status) => {
                // Nobody listens any more when the call is over.
                let _ = self.fault.send(status);
                None
            }
        }
    }

    async fn read(&mut self) -> Result<Option<DynamicMessage>, Status> {
        loop {
            if let Some(text) = self.splitter.next_message().map_err(refusal)? {
                return json::parse(&self.kind, &text).map(Some);
            }
            match self.body.next().await {
                Some(Ok(bytes)) => self.splitter.push(&bytes),
                Some(Err(_)) => return Err(Status::cancelled("the request broke off")),
                None if self.splitter.is_within_message() => return Err(json::unexpected_end()),
                None => return Ok(None),
            }
        }
    }
}

fn refusal(error: SplitError) -> Status {
    match error {
        SplitError::NotAnObject => Status::invalid_argument("proto: syntax error: a message is an object"),
        SplitError::TooLong => Status::resource_exhausted("the message is too long"),
    }
}
