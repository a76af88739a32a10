//! The way to the cluster: several endpoints as if they were one.
//!
//! A read goes on to the next endpoint whenever one does not answer. A write does so only when it surely never left
//! this machine, or the member says that it proposed nothing: sending it again could apply it twice. Never prints,
//! and knows no command.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use proto::etcdserverpb as pb;
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::watch_client::WatchClient;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Response, Status};

use super::error::CliError;

/// Largest answer read, and largest request sent.
const MESSAGE_LIMIT_BYTES: usize = 16 << 20;
/// Pauses between rounds over all endpoints: short at first, an election takes about a second.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A watch may be silent for hours: this notices an endpoint that vanished without a word.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// May a request be sent once more when nobody knows what became of it?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    /// It changes nothing.
    Always,
    /// Only when it was surely not sent.
    IfUnsent,
}

/// How long to wait, and where to go.
#[derive(Clone, Debug)]
pub(crate) struct ClientOptions {
    pub(crate) endpoints: Vec<String>,
    pub(crate) dial_timeout: Duration,
    pub(crate) command_timeout: Duration,
}

/// The endpoints, and the channel to each that was used.
#[derive(Debug)]
pub(crate) struct Client {
    options: ClientOptions,
    channels: Mutex<Vec<Option<Channel>>>,
    /// Which endpoint answered last: it is asked first.
    preferred: AtomicUsize,
}

/// Why one endpoint gave no answer.
enum Attempt {
    /// Nothing was sent.
    Unsent(String),
    /// Something may have been.
    Lost(Status),
    Refused(Status),
    OutOfTime,
}

impl Client {
    pub(crate) fn new(options: ClientOptions) -> Result<Self, CliError> {
        if options.endpoints.is_empty() {
            return Err(CliError::usage("no endpoint given").hint("--endpoints HOST:PORT[,HOST:PORT]"));
        }
        for endpoint in &options.endpoints {
            uri(endpoint)?;
        }
        let channels = Mutex::new(vec![None; options.endpoints.len()]);
        Ok(Self {
            options,
            channels,
            preferred: AtomicUsize::new(0),
        })
    }

    /// The same, at one endpoint only.
    pub(crate) fn only(&self, endpoint: &str) -> Result<Self, CliError> {
        Self::new(ClientOptions {
            endpoints: vec![endpoint.to_owned()],
            ..self.options.clone()
        })
    }

    /// As given on the command line.
    pub(crate) fn endpoints(&self) -> &[String] {
        &self.options.endpoints
    }

    /// The endpoint that answered last.
    pub(crate) fn answering(&self) -> &str {
        let index = self.preferred.load(Ordering::Relaxed);
        self.options.endpoints.get(index).map_or("", String::as_str)
    }

    pub(crate) fn command_timeout(&self) -> Duration {
        self.options.command_timeout
    }

    pub(crate) async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, CliError> {
        self.call(Repeat::Always, async |channel| {
            kv(channel).range(request.clone()).await
        })
        .await
    }

    pub(crate) async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, CliError> {
        self.call(Repeat::IfUnsent, async |channel| {
            kv(channel).put(request.clone()).await
        })
        .await
    }

    pub(crate) async fn delete_range(
        &self,
        request: pb::DeleteRangeRequest,
    ) -> Result<pb::DeleteRangeResponse, CliError> {
        self.call(Repeat::IfUnsent, async |channel| {
            kv(channel).delete_range(request.clone()).await
        })
        .await
    }

    pub(crate) async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, CliError> {
        self.call(Repeat::IfUnsent, async |channel| {
            kv(channel).txn(request.clone()).await
        })
        .await
    }

    pub(crate) async fn compact(
        &self,
        request: pb::CompactionRequest,
    ) -> Result<pb::CompactionResponse, CliError> {
        self.call(Repeat::IfUnsent, async |channel| {
            kv(channel).compact(request).await
        })
        .await
    }

    pub(crate) async fn member_list(&self) -> Result<pb::MemberListResponse, CliError> {
        // Linearizable would need a quorum, and who is a member is asked for most when there is none.
        let request = pb::MemberListRequest { linearizable: false };
        self.call(Repeat::Always, async |channel| {
            ClusterClient::new(channel).member_list(request).await
        })
        .await
    }

    pub(crate) async fn member_add(
        &self,
        request: pb::MemberAddRequest,
    ) -> Result<pb::MemberAddResponse, CliError> {
        self.call(Repeat::IfUnsent, async |channel| {
            ClusterClient::new(channel).member_add(request.clone()).await
        })
        .await
    }

    pub(crate) async fn member_remove(&self, id: u64) -> Result<pb::MemberRemoveResponse, CliError> {
        let request = pb::MemberRemoveRequest { id };
        self.call(Repeat::IfUnsent, async |channel| {
            ClusterClient::new(channel).member_remove(request).await
        })
        .await
    }

    pub(crate) async fn member_update(
        &self,
        request: pb::MemberUpdateRequest,
    ) -> Result<pb::MemberUpdateResponse, CliError> {
        self.call(Repeat::IfUnsent, async |channel| {
            ClusterClient::new(channel).member_update(request.clone()).await
        })
        .await
    }

    pub(crate) async fn member_promote(&self, id: u64) -> Result<pb::MemberPromoteResponse, CliError> {
        let request = pb::MemberPromoteRequest { id };
        self.call(Repeat::IfUnsent, async |channel| {
            ClusterClient::new(channel).member_promote(request).await
        })
        .await
    }

    pub(crate) async fn status(&self) -> Result<pb::StatusResponse, CliError> {
        self.call(Repeat::Always, async |channel| {
            maintenance(channel).status(pb::StatusRequest {}).await
        })
        .await
    }

    pub(crate) async fn alarms(&self) -> Result<pb::AlarmResponse, CliError> {
        let request = pb::AlarmRequest::default();
        self.call(Repeat::Always, async |channel| {
            maintenance(channel).alarm(request).await
        })
        .await
    }

    /// Raises or clears an alarm. Harmless to repeat.
    pub(crate) async fn set_alarm(&self, request: pb::AlarmRequest) -> Result<pb::AlarmResponse, CliError> {
        self.call(Repeat::Always, async |channel| {
            maintenance(channel).alarm(request).await
        })
        .await
    }

    pub(crate) async fn hash_kv(&self, revision: i64) -> Result<pb::HashKvResponse, CliError> {
        let request = pb::HashKvRequest { revision };
        self.call(Repeat::Always, async |channel| {
            maintenance(channel).hash_kv(request).await
        })
        .await
    }

    pub(crate) async fn move_leader(&self, target: u64) -> Result<pb::MoveLeaderResponse, CliError> {
        let request = pb::MoveLeaderRequest { target_id: target };
        self.call(Repeat::IfUnsent, async |channel| {
            maintenance(channel).move_leader(request).await
        })
        .await
    }

    pub(crate) async fn snapshot(&self) -> Result<tonic::Streaming<pb::SnapshotResponse>, CliError> {
        self.call(Repeat::Always, async |channel| {
            maintenance(channel).snapshot(pb::SnapshotRequest {}).await
        })
        .await
    }

    pub(crate) async fn lease_grant(
        &self,
        request: pb::LeaseGrantRequest,
    ) -> Result<pb::LeaseGrantResponse, CliError> {
        self.call(Repeat::IfUnsent, async |channel| {
            lease(channel).lease_grant(request).await
        })
        .await
    }

    pub(crate) async fn lease_revoke(&self, id: i64) -> Result<pb::LeaseRevokeResponse, CliError> {
        let request = pb::LeaseRevokeRequest { id };
        self.call(Repeat::IfUnsent, async |channel| {
            lease(channel).lease_revoke(request).await
        })
        .await
    }

    pub(crate) async fn lease_time_to_live(
        &self,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, CliError> {
        self.call(Repeat::Always, async |channel| {
            lease(channel).lease_time_to_live(request).await
        })
        .await
    }

    pub(crate) async fn leases(&self) -> Result<pb::LeaseLeasesResponse, CliError> {
        let request = pb::LeaseLeasesRequest {};
        self.call(Repeat::Always, async |channel| {
            lease(channel).lease_leases(request).await
        })
        .await
    }

    /// Renews once. Harmless to repeat: a renewal sets the deadline, it does not add to it.
    pub(crate) async fn lease_keep_alive(&self, id: i64) -> Result<pb::LeaseKeepAliveResponse, CliError> {
        let request = pb::LeaseKeepAliveRequest { id };
        self.call(Repeat::Always, async |channel| {
            let stream = futures::stream::iter([request]);
            let mut answers = lease(channel).lease_keep_alive(stream).await?.into_inner();
            let answer = answers.message().await?;
            answer
                .map(Response::new)
                .ok_or_else(|| Status::unavailable("the member closed the stream"))
        })
        .await
    }

    /// Opens a watch stream at whichever endpoint is there, and says at which.
    pub(crate) async fn watch(
        &self,
        request: pb::WatchCreateRequest,
    ) -> Result<(String, tonic::Streaming<pb::WatchResponse>), CliError> {
        let create = pb::WatchRequest {
            request_union: Some(pb::watch_request::RequestUnion::CreateRequest(request)),
        };
        let stream = self
            .call(Repeat::Always, async |channel| {
                // The request side stays open: a member may take its end for the end of the watch.
                let requests = futures::StreamExt::chain(
                    futures::stream::iter([create.clone()]),
                    futures::stream::pending(),
                );
                let client = WatchClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT_BYTES);
                let mut client = client.max_encoding_message_size(MESSAGE_LIMIT_BYTES);
                client.watch(requests).await
            })
            .await?;
        Ok((self.answering().to_owned(), stream))
    }

    /// Puts another endpoint first: the preferred one was lost while it streamed.
    pub(crate) fn prefer_next(&self) {
        let lost = self.preferred.load(Ordering::Relaxed);
        self.preferred
            .store((lost + 1) % self.options.endpoints.len(), Ordering::Relaxed);
    }

    /// Goes round the endpoints until one answers, the time is up, or nobody is there at all.
    async fn call<T>(
        &self,
        repeat: Repeat,
        send: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, CliError> {
        let deadline = Instant::now() + self.options.command_timeout;
        let first = self.preferred.load(Ordering::Relaxed);
        let count = self.options.endpoints.len();
        let mut pause = FIRST_PAUSE;
        let mut silent = Vec::new();
        loop {
            let mut somebody_is_there = false;
            silent.clear();
            for index in (first..first + count).map(|index| index % count) {
                let endpoint = &self.options.endpoints[index];
                match self.attempt(index, deadline, &send).await {
                    Ok(answer) => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    Err(Attempt::Unsent(why)) => silent.push(format!("{endpoint} ({why})")),
                    Err(Attempt::Lost(status)) if repeat == Repeat::Always => {
                        somebody_is_there = true;
                        silent.push(format!("{endpoint} ({})", status.message()));
                    }
                    Err(Attempt::Refused(status)) if proposed_nothing(&status) => {
                        somebody_is_there = true;
                        silent.push(format!("{endpoint} ({})", status.message()));
                    }
                    Err(Attempt::Lost(status)) => return Err(lost_write(endpoint, &status)),
                    Err(Attempt::Refused(status)) => return Err(status.into()),
                    Err(Attempt::OutOfTime) => return Err(self.out_of_time(repeat, &silent)),
                }
            }
            if !somebody_is_there {
                return Err(nobody_there(&silent));
            }
            if Instant::now() + pause >= deadline {
                return Err(self.out_of_time(Repeat::Always, &silent));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt<T>(
        &self,
        index: usize,
        deadline: Instant,
        send: &impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, Attempt> {
        let channel = self.channel(index).await.map_err(Attempt::Unsent)?;
        match timeout_at(deadline, send(channel)).await {
            Err(_elapsed) => Err(Attempt::OutOfTime),
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => {
                if let Some(why) = connect_failure(&status) {
                    return Err(Attempt::Unsent(why));
                }
                // Only the transport's own errors have a source: what a member answered is words alone.
                let broken = status.source().is_some();
                Err(
                    if broken || status.code() == Code::Unavailable && !proposed_nothing(&status) {
                        Attempt::Lost(status)
                    } else {
                        Attempt::Refused(status)
                    },
                )
            }
        }
    }

    /// The channel to an endpoint, connected at its first use. It reconnects by itself later.
    async fn channel(&self, index: usize) -> Result<Channel, String> {
        if let Some(channel) = self.channels.lock().get(index).cloned().flatten() {
            return Ok(channel);
        }
        let endpoint = self.options.endpoints.get(index).ok_or("no such endpoint")?;
        let transport = Channel::from_shared(uri(endpoint).map_err(|error| error.to_string())?)
            .map_err(|error| error.to_string())?
            .connect_timeout(self.options.dial_timeout)
            .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let connected = tokio::time::timeout(self.options.dial_timeout, transport.connect()).await;
        let channel = connected
            .map_err(|_| "no answer to the connection".to_owned())?
            .map_err(|error| deepest(&error))?;
        if let Some(place) = self.channels.lock().get_mut(index) {
            *place = Some(channel.clone());
        }
        Ok(channel)
    }

    fn out_of_time(&self, repeat: Repeat, silent: &[String]) -> CliError {
        let seconds = self.options.command_timeout.as_secs_f64();
        let tried = if silent.is_empty() {
            String::new()
        } else {
            format!(": {}", silent.join(", "))
        };
        let error = CliError::failed(format!("no answer within {seconds} s{tried}"));
        match repeat {
            Repeat::Always => error.hint("are most members up? `agentctl endpoint status` shows who is"),
            Repeat::IfUnsent => error.hint("the change may still take effect: look before you repeat it"),
        }
    }
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel)
        .max_decoding_message_size(MESSAGE_LIMIT_BYTES)
        .max_encoding_message_size(MESSAGE_LIMIT_BYTES)
}

fn lease(channel: Channel) -> LeaseClient<Channel> {
    LeaseClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT_BYTES)
}

fn maintenance(channel: Channel) -> MaintenanceClient<Channel> {
    MaintenanceClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT_BYTES)
}

/// `host:port` or `http://host:port`, as a URI.
fn uri(endpoint: &str) -> Result<String, CliError> {
    if endpoint.starts_with("https://") {
        return Err(
            CliError::usage(format!("{endpoint}: agentctl does not speak TLS yet"))
                .hint("use a plaintext endpoint on the host itself: --endpoints 127.0.0.1:2379"),
        );
    }
    let authority = endpoint
        .strip_prefix("http://")
        .unwrap_or(endpoint)
        .trim_end_matches('/');
    let valid = authority
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
        && authority
            .parse::<http::uri::Authority>()
            .is_ok_and(|parsed| !parsed.as_str().contains('@'));
    if valid {
        Ok(format!("http://{authority}"))
    } else {
        Err(CliError::usage(format!("`{endpoint}` is not an endpoint"))
            .hint("an endpoint is HOST:PORT or http://HOST:PORT; several are separated by commas"))
    }
}

/// Why the connection was never made, when that is the reason: then nothing was sent.
fn connect_failure(status: &Status) -> Option<String> {
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return Some(deepest(error));
        }
        cause = error.source();
    }
    None
}

/// Did the member say that it did nothing for want of a leader?
fn proposed_nothing(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.message() == "etcdserver: no leader"
}

/// The innermost cause: the operating system's own word.
fn deepest(error: &(dyn Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    match deepest.downcast_ref::<std::io::Error>() {
        Some(error) => super::error::os_text(error),
        None => deepest.to_string(),
    }
}

fn nobody_there(silent: &[String]) -> CliError {
    CliError::failed(format!("no member answers at {}", silent.join(", ")))
        .hint("start one with `agent dev`, or say where the members are: --endpoints HOST:PORT,...")
}

fn lost_write(endpoint: &str, status: &Status) -> CliError {
    CliError::failed(format!(
        "{endpoint} did not confirm the change: {}",
        status.message()
    ))
    .hint("the change may still take effect: look before you repeat it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_checked() {
        let cases = [
            "127.0.0.1:2379",
            "http://127.0.0.1:2379",
            "http://ovh:2379/",
            "[::1]:2379",
        ];
        assert_eq!(
            cases.map(|endpoint| uri(endpoint).unwrap()),
            [
                "http://127.0.0.1:2379",
                "http://127.0.0.1:2379",
                "http://ovh:2379",
                "http://[::1]:2379"
            ]
        );
        for wrong in [
            "",
            "ovh",
            "ovh:0",
            "ovh:99999",
            ":2379",
            "ftp://ovh:2379",
            "https://ovh:2379",
            "me@ovh:1",
        ] {
            assert!(uri(wrong).is_err(), "{wrong}");
        }
    }

    fn client(endpoints: Vec<String>) -> Client {
        let dial_timeout = Duration::from_secs(2);
        Client::new(ClientOptions {
            endpoints,
            dial_timeout,
            command_timeout: Duration::from_secs(3),
        })
        .unwrap()
    }

    /// A loopback address where nobody listens: bound once, and let go.
    fn closed_port() -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    }

    #[tokio::test]
    async fn nobody_there_fails_at_once_and_says_where_it_looked() {
        let (one, two) = (closed_port(), closed_port());
        let client = client(vec![one.clone(), two.clone()]);
        let error = client.put(pb::PutRequest::default()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("no member answers at {one} (connection refused), {two} (connection refused)")
        );
    }

    #[tokio::test]
    async fn a_write_that_may_have_been_sent_is_not_sent_again() {
        let client = client(vec!["127.0.0.1:1".to_owned()]);
        // No connection is needed to see what the loop makes of an answer.
        client.channels.lock()[0] = Some(Channel::from_static("http://127.0.0.1:1").connect_lazy());
        let calls = AtomicUsize::new(0);
        let result: Result<(), CliError> = client
            .call(Repeat::IfUnsent, async |_| {
                calls.fetch_add(1, Ordering::Relaxed);
                Err(Status::unavailable("etcdserver: request timed out"))
            })
            .await;
        assert!(result.unwrap_err().text().contains("look before you repeat it"));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn reads_and_unproposed_writes_wait_for_a_leader() {
        for (repeat, text) in [
            (Repeat::Always, "etcdserver: leader changed"),
            (Repeat::IfUnsent, "etcdserver: no leader"),
        ] {
            let client = client(vec!["127.0.0.1:1".to_owned()]);
            client.channels.lock()[0] = Some(Channel::from_static("http://127.0.0.1:1").connect_lazy());
            let calls = AtomicUsize::new(0);
            let result = client
                .call(repeat, async |_| match calls.fetch_add(1, Ordering::Relaxed) {
                    0..3 => Err(Status::unavailable(text)),
                    _ => Ok(Response::new(7)),
                })
                .await;
            assert_eq!(result, Ok(7), "{text}");
        }
    }
}
