//! How requests arrive and answers leave: a message that has begun is there in time, and what has arrived only in part, or
//! waits to be sent, counts as its client's.
//!
//! It looks at gRPC's frames and at nothing in them. A message that is there at once costs nothing here.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tower::{Layer, Service};

use super::shares::{Client, Held, Shares};
use super::status::ApiError;

/// The first message of a call, and every one that has begun, is there within this time; where there is to be one only,
/// the end of the request, too.
pub(super) const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Before each message: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;

/// A request that is there at once, up to this size, does not count.
const SMALL_BYTES: usize = 64 << 10;

/// Calls whose clients send as many messages as they like, when they like. All others send one.
const STREAMS: [&str; 3] = [
    "/etcdserverpb.Watch/Watch",
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/agent.v1.Hosts/Attach",
];

/// An answer that holds something is handed on in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;

#[derive(Clone, Debug)]
pub(super) struct ArrivalLayer {
    shares: Shares,
}

impl ArrivalLayer {
    pub(super) fn new(shares: Shares) -> ArrivalLayer {
        ArrivalLayer { shares }
    }
}

impl<S> Layer<S> for ArrivalLayer {
    type Service = Arrival<S>;

    fn layer(&self, inner: S) -> Arrival<S> {
        Arrival {
            inner,
            shares: self.shares.clone(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Arrival<S> {
    inner: S,
    shares: Shares,
}

impl<S> Service<Request<Body>> for Arrival<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = futures::future::MapOk<S::Future, fn(Response<Body>) -> Response<Body>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let client = Client::of_connection(request.extensions());
        let shares = self.shares.clone();
        let is_stream = STREAMS.contains(&request.uri().path());
        let arriving = request.map(|body| Body::new(Arriving::new(body, is_stream, shares, client)));
        futures::TryFutureExt::map_ok(self.inner.call(arriving), leaving as fn(_) -> _)
    }
}

/// A request's body as it arrives.
struct Arriving {
    body: Body,
    is_stream: bool,
    has_ended: bool,
    shares: Shares,
    client: Client,
    progress: Progress,
    /// Of what is there in part.
    held: Option<Held>,
    /// Since when the message, or the end, is waited for.
    since: Instant,
    patience: Option<Pin<Box<Sleep>>>,
}

/// How far a body is in its messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// Messages, the one that is not whole included.
    begun: u64,
    message: Message,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Message {
    Head {
        seen: usize,
        length: usize,
    },
    Rest {
        length: usize,
        left: usize,
    },
    /// Or none has begun.
    #[default]
    Whole,
}

impl Progress {
    fn after(self, data: &[u8]) -> Progress {
        let Progress {
            mut begun,
            mut message,
        } = self;
        let mut data = data;
        while let Some((first, more)) = data.split_first() {
            (message, data) = match message {
                Message::Rest { length, left } => {
                    let taken = left.min(data.len());
                    let message = match left - taken {
                        0 => Message::Whole,
                        left => Message::Rest { length, left },
                    };
                    (message, data.get(taken..).unwrap_or_default())
                }
                Message::Head { seen, length } => (
                    Message::of_head(seen + 1, length << 8 | usize::from(*first)),
                    more,
                ),
                Message::Whole => {
                    begun += 1;
                    // The first byte says whether it is compressed.
                    (Message::of_head(1, 0), more)
                }
            };
        }
        Progress { begun, message }
    }
}

impl Message {
    fn of_head(seen: usize, length: usize) -> Message {
        match (seen, length) {
            (HEAD_BYTES, 0) => Message::Whole,
            (HEAD_BYTES, length) => Message::Rest { length, left: length },
            (seen, length) => Message::Head { seen, length },
        }
    }
}

impl Arriving {
    fn new(body: Body, is_stream: bool, shares: Shares, client: Client) -> Arriving {
        Arriving {
            body,
            is_stream,
            has_ended: false,
            shares,
            client,
            progress: Progress::default(),
            held: None,
            since: Instant::now(),
            patience: None,
        }
    }

    fn take_note(&mut self, data: &[u8]) -> Result<(), ApiError> {
        let before = self.progress;
        self.progress = before.after(data);
        let Progress { begun, message } = self.progress;
        if self.is_stream && (begun != before.begun || message == Message::Whole) {
            self.held = None;
            self.since = Instant::now();
            self.patience = None;
        }
        let (bytes, uncounted) = match message {
            // What is too large for any share is too large for the service, which says so itself.
            Message::Rest { length, .. } if length <= self.shares.each() => (length, 0),
            // It stays in memory until the request ends.
            Message::Whole if !self.is_stream && !self.body.is_end_stream() => (data.len(), SMALL_BYTES),
            _ => (0, 0),
        };
        if self.held.is_none() && bytes > uncounted {
            let held = self.shares.take(&self.client, bytes);
            self.held = Some(held.ok_or(ApiError::TooManyRequests)?);
        }
        Ok(())
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let may_rest = match self.is_stream {
            true => self.progress.begun > 0 && self.progress.message == Message::Whole,
            false => self.has_ended,
        };
        if may_rest {
            return false;
        }
        let until = self.since + ARRIVAL_TIMEOUT;
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep_until(until)));
        patience.as_mut().poll(cx).is_ready()
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        let refused = match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let data = frame.data_ref();
                data.map_or(Ok(()), |data| this.take_note(data))
            }
            Poll::Pending if this.is_late(cx) => Err(ApiError::ArrivesTooSlowly),
            Poll::Ready(None) => {
                this.has_ended = true;
                this.held = None;
                Ok(())
            }
            _ => Ok(()),
        };
        match refused {
            Ok(()) => polled,
            Err(error) => Poll::Ready(Some(Err(axum::Error::new(Status::from(error))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer that holds something until its client has taken it.
pub(super) fn holding<T>(message: T, held: Option<Held>) -> tonic::Response<T> {
    let mut response = tonic::Response::new(message);
    if let Some(held) = held {
        response.extensions_mut().insert(Arc::new(held));
    }
    response
}

/// What an answer holds is given back when the last of it is sent, or its client has gone.
pub(super) fn leaving(mut response: Response<Body>) -> Response<Body> {
    match response.extensions_mut().remove::<Arc<Held>>() {
        Some(held) => response.map(|body| {
            Body::new(Leaving {
                body,
                ready: Bytes::new(),
                _held: held,
            })
        }),
        None => response,
    }
}

/// Piece by piece: what is handed over stays in the connection's own buffers, which are small.
struct Leaving {
    body: Body,
    /// Of the last frame, what is not handed over.
    ready: Bytes,
    _held: Arc<Held>,
}

impl HttpBody for Leaving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if this.ready.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.ready = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        let piece = this.ready.split_to(this.ready.len().min(PIECE_BYTES));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;
    use tonic::Code;
    use tonic::service::Routes;
    use tonic_health::pb::health_server::HealthServer;
    use tower::ServiceExt;

    use super::super::health::HealthService;
    use super::*;
    use crate::shutdown::Shutdown;

    const MIB: usize = 1 << 20;

    fn client() -> Client {
        Client::User("ann".into())
    }

    /// A body that is written by hand.
    fn by_hand() -> (mpsc::Sender<Result<Bytes, axum::Error>>, Body) {
        let (sender, receiver) = mpsc::channel(4);
        (sender, Body::from_stream(ReceiverStream::new(receiver)))
    }

    fn arriving(is_stream: bool, shares: &Shares) -> (mpsc::Sender<Result<Bytes, axum::Error>>, Arriving) {
        let (sender, body) = by_hand();
        (sender, Arriving::new(body, is_stream, shares.clone(), client()))
    }

    fn message(length: usize, there: usize) -> Bytes {
        let head = [&[0][..], &u32::try_from(length).unwrap().to_be_bytes()].concat();
        [head, vec![7; there]].concat().into()
    }

    async fn refusal(body: &mut Arriving) -> Status {
        let frame = body.frame().await.unwrap();
        Status::from_error(frame.unwrap_err().into())
    }

    #[test]
    fn messages_are_followed_however_they_are_cut() {
        let bytes = [message(3, 3), message(0, 0), message(300, 300), message(9, 4)].concat();
        let expected = Progress {
            begun: 4,
            message: Message::Rest { length: 9, left: 5 },
        };
        for cut in 0..bytes.len() {
            let (start, rest) = bytes.split_at(cut);
            assert_eq!(Progress::default().after(start).after(rest), expected, "{cut}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_has_begun_is_there_in_time() {
        let shares = Shares::new(MIB, MIB);
        // Nothing at all, a head without an end, a message that comes drop by drop, and one after which nothing ends.
        for (is_stream, begun) in [
            (true, Bytes::new()),
            (true, Bytes::from_static(&[0, 0])),
            (true, message(1000, 1)),
            (false, Bytes::new()),
            (false, message(1000, 1)),
            (false, message(1, 0)),
        ] {
            let (sender, mut body) = arriving(is_stream, &shares);
            let start = Instant::now();
            if !begun.is_empty() {
                sender.send(Ok(begun.clone())).await.unwrap();
                body.frame().await.unwrap().unwrap();
            }
            tokio::time::advance(ARRIVAL_TIMEOUT / 2).await;
            if begun.len() > HEAD_BYTES - 1 {
                sender.send(Ok(Bytes::from_static(&[7]))).await.unwrap();
                body.frame().await.unwrap().unwrap();
            }
            let refused = refusal(&mut body).await;
            assert_eq!(refused.code(), Code::DeadlineExceeded, "{is_stream} {begun:?}");
            assert_eq!(start.elapsed().as_secs(), ARRIVAL_TIMEOUT.as_secs());
        }
        // Between two messages of a stream there may be any time.
        let (sender, mut body) = arriving(true, &shares);
        for _ in 0..3 {
            sender.send(Ok(message(2, 2))).await.unwrap();
            body.frame().await.unwrap().unwrap();
            let quiet = tokio::time::timeout(ARRIVAL_TIMEOUT * 2, body.frame()).await;
            assert!(quiet.is_err());
        }
    }

    #[tokio::test]
    async fn what_is_there_in_part_counts() {
        let shares = Shares::new(3 * MIB, MIB);
        let (sender, mut body) = arriving(true, &shares);
        sender.send(Ok(message(MIB, 10))).await.unwrap();
        body.frame().await.unwrap().unwrap();
        let (second, mut other) = arriving(true, &shares);
        second.send(Ok(message(10, 9))).await.unwrap();
        assert_eq!(refusal(&mut other).await.code(), Code::ResourceExhausted);
        // What is there at once is no matter, and what is whole gives its bytes back.
        let (third, mut other) = arriving(false, &shares);
        third.send(Ok(message(10, 10))).await.unwrap();
        other.frame().await.unwrap().unwrap();
        sender.send(Ok(vec![7; MIB - 10].into())).await.unwrap();
        body.frame().await.unwrap().unwrap();
        assert!(shares.take(&client(), MIB).is_some(), "all of it is free again");
        // One whose request does not end holds on to what it has said.
        let (fourth, mut other) = arriving(false, &shares);
        fourth
            .send(Ok(message(MIB - HEAD_BYTES, MIB - HEAD_BYTES)))
            .await
            .unwrap();
        other.frame().await.unwrap().unwrap();
        assert!(shares.take(&client(), 1).is_none());
        drop(fourth);
        assert!(other.frame().await.is_none());
        assert!(shares.take(&client(), MIB).is_some());
    }

    /// Through a service, as its client is told.
    #[tokio::test(start_paused = true)]
    async fn a_call_that_does_not_arrive_is_told() {
        let shares = Shares::new(MIB, MIB);
        let service = HealthServer::new(HealthService(Shutdown::new()));
        let routes = Routes::new(service).into_axum_router();
        let routes = routes.layer(ArrivalLayer::new(shares.clone()));
        let told = async |begun: Bytes| {
            let (sender, body) = by_hand();
            sender.send(Ok(begun)).await.unwrap();
            let request = Request::post("/grpc.health.v1.Health/Check");
            let request = request.header("content-type", "application/grpc");
            let request = request.body(body).unwrap();
            let answer = routes.clone().oneshot(request).await.unwrap();
            drop(sender);
            Status::from_header_map(answer.headers()).map(|status| status.code())
        };
        assert_eq!(told(message(9, 1)).await, Some(Code::DeadlineExceeded));
        assert_eq!(told(message(0, 0)).await, Some(Code::DeadlineExceeded));
        let _all = shares.take(&Client::Local, MIB);
        assert_eq!(told(message(9, 1)).await, Some(Code::ResourceExhausted));
    }
}
