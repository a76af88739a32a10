//! A client of one member over our own generated code: requests go out and answers come back unchanged.

use std::time::Duration;

use proto::agent::v1::hosts_client::HostsClient;
use proto::agent::v1::trust_client::TrustClient;
use proto::etcdserverpb::auth_client::AuthClient;
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::{
    AuthenticateRequest, HashKvRequest, HashKvResponse, Member, MemberListRequest, PutRequest, RangeRequest,
    RangeResponse, StatusRequest, StatusResponse,
};
use proto::v3electionpb::election_client::ElectionClient;
use proto::v3lockpb::lock_client::LockClient;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Above everything a server may send, so that its limits are seen and not ours.
const MESSAGE_LIMIT: usize = 64 << 20;

/// A connection whose calls all carry a user's token, or none.
pub type Connection = InterceptedService<Channel, Token>;

/// What a call says of who asks.
#[derive(Clone, Debug, Default)]
pub struct Token(Option<AsciiMetadataValue>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

/// All services of one member, over one connection that is made when first needed.
#[derive(Clone, Debug)]
pub struct Client {
    pub kv: KvClient<Connection>,
    pub watch: WatchClient<Connection>,
    pub lease: LeaseClient<Connection>,
    pub auth: AuthClient<Connection>,
    pub cluster: ClusterClient<Connection>,
    pub maintenance: MaintenanceClient<Connection>,
    pub lock: LockClient<Connection>,
    pub election: ElectionClient<Connection>,
    pub hosts: HostsClient<Connection>,
    pub trust: TrustClient<Connection>,
    channel: Channel,
    token: Token,
}

impl Client {
    /// # Panics
    /// When `endpoint` is no URL. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(endpoint: &str) -> Client {
        let endpoint = Endpoint::from_shared(endpoint.to_owned()).expect("a URL");
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .connect_lazy();
        Client::over(channel, Token::default())
    }

    /// Over a channel that was made otherwise: one with TLS.
    #[must_use]
    pub fn of(channel: Channel) -> Client {
        Client::over(channel, Token::default())
    }

    fn over(channel: Channel, token: Token) -> Client {
        let connection = InterceptedService::new(channel.clone(), token.clone());
        Client {
            kv: KvClient::new(connection.clone())
                .max_decoding_message_size(MESSAGE_LIMIT)
                .max_encoding_message_size(MESSAGE_LIMIT),
            watch: WatchClient::new(connection.clone()).max_decoding_message_size(MESSAGE_LIMIT),
            lease: LeaseClient::new(connection.clone()),
            auth: AuthClient::new(connection.clone()),
            cluster: ClusterClient::new(connection.clone()),
            maintenance: MaintenanceClient::new(connection.clone()),
            lock: LockClient::new(connection.clone()),
            election: ElectionClient::new(connection.clone()),
            hosts: HostsClient::new(connection.clone()),
            trust: TrustClient::new(connection),
            channel,
            token,
        }
    }

    /// The same connection in the name of whoever a token was given to.
    ///
    /// # Panics
    /// When the token cannot be sent.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Client {
        let token = token.parse().expect("a token of ASCII letters");
        Client::over(self.channel.clone(), Token(Some(token)))
    }

    /// The same connection in another client's name.
    #[must_use]
    pub fn in_the_name_of(&self, other: &Client) -> Client {
        Client::over(self.channel.clone(), other.token.clone())
    }

    /// The token that every call carries; empty: none.
    #[must_use]
    pub fn token(&self) -> &str {
        let token = self.token.0.as_ref();
        token.and_then(|token| token.to_str().ok()).unwrap_or_default()
    }

    /// The same connection in a user's name.
    ///
    /// # Errors
    /// As the server says.
    pub async fn log_in(&self, name: &str, password: &str) -> Result<Client, Status> {
        let request = AuthenticateRequest {
            name: name.to_owned(),
            password: password.to_owned(),
        };
        let answer = bounded(REQUEST_TIMEOUT, self.auth.clone().authenticate(request)).await?;
        Ok(self.with_token(&answer.token))
    }

    /// Puts, and answers the revision of the write.
    ///
    /// # Errors
    /// As the server says.
    pub async fn put(&mut self, key: &str, value: &[u8]) -> Result<i64, Status> {
        self.put_within(key, value, REQUEST_TIMEOUT).await
    }

    /// # Errors
    /// As the server says, or that it did not answer in time.
    pub async fn put_within(&mut self, key: &str, value: &[u8], timeout: Duration) -> Result<i64, Status> {
        let put = PutRequest {
            key: key.to_owned().into(),
            value: value.to_vec().into(),
            ..Default::default()
        };
        let answer = bounded(timeout, self.kv.put(with_timeout(put, timeout))).await?;
        Ok(answer.header.map_or(0, |header| header.revision))
    }

    /// Every key with this prefix, ascending; every key at all where it is empty.
    ///
    /// # Errors
    /// As the server says.
    pub async fn get_prefix(&mut self, prefix: &str, serializable: bool) -> Result<RangeResponse, Status> {
        // An empty key is refused; a zero byte is the least key there is.
        let from = if prefix.is_empty() { "\0" } else { prefix };
        let range = RangeRequest {
            key: from.to_owned().into(),
            range_end: prefix_end(prefix.as_bytes()).into(),
            serializable,
            ..Default::default()
        };
        bounded(REQUEST_TIMEOUT, self.kv.range(range)).await
    }

    /// One linearizable read of a key; the empty string stands for some key that nobody writes.
    ///
    /// # Errors
    /// As the server says, or that it did not answer in time.
    pub async fn get_within(&mut self, key: &str, timeout: Duration) -> Result<RangeResponse, Status> {
        let key = if key.is_empty() { "\u{1}probe" } else { key };
        let range = RangeRequest {
            key: key.to_owned().into(),
            ..Default::default()
        };
        bounded(timeout, self.kv.range(with_timeout(range, timeout))).await
    }

    /// # Errors
    /// As the server says.
    pub async fn status(&mut self) -> Result<StatusResponse, Status> {
        bounded(CONNECT_TIMEOUT, self.maintenance.status(StatusRequest {})).await
    }

    /// # Errors
    /// As the server says.
    pub async fn hash_kv(&mut self, revision: i64) -> Result<HashKvResponse, Status> {
        bounded(
            REQUEST_TIMEOUT,
            self.maintenance.hash_kv(HashKvRequest { revision }),
        )
        .await
    }

    /// # Errors
    /// As the server says.
    pub async fn member_list(&mut self) -> Result<Vec<Member>, Status> {
        let list = MemberListRequest { linearizable: true };
        Ok(bounded(REQUEST_TIMEOUT, self.cluster.member_list(list))
            .await?
            .members)
    }
}

/// The end of the range of all keys with a prefix, as etcd's clients compute it.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

fn with_timeout<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// The server may be stopped or cut off: the client's own clock bounds the wait too.
async fn bounded<T>(
    timeout: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(timeout, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {timeout:?}"))),
    }
}
