//! A client of one member over our own generated code: requests go out and answers come back unchanged.

use std::time::Duration;

use proto::etcdserverpb::auth_client::AuthClient;
use proto::etcdserverpb::cluster_client::ClusterClient;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::lease_client::LeaseClient;
use proto::etcdserverpb::maintenance_client::MaintenanceClient;
use proto::etcdserverpb::watch_client::WatchClient;
use proto::etcdserverpb::{
    HashKvRequest, HashKvResponse, Member, MemberListRequest, PutRequest, RangeRequest, RangeResponse,
    StatusRequest, StatusResponse,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Above everything a server may send, so that its limits are seen and not ours.
const MESSAGE_LIMIT: usize = 64 << 20;

/// All services of one member, over one connection that is made when first needed.
#[derive(Clone, Debug)]
pub struct Client {
    pub kv: KvClient<Channel>,
    pub watch: WatchClient<Channel>,
    pub lease: LeaseClient<Channel>,
    pub auth: AuthClient<Channel>,
    pub cluster: ClusterClient<Channel>,
    pub maintenance: MaintenanceClient<Channel>,
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
        Client {
            kv: KvClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_LIMIT)
                .max_encoding_message_size(MESSAGE_LIMIT),
            watch: WatchClient::new(channel.clone()).max_decoding_message_size(MESSAGE_LIMIT),
            lease: LeaseClient::new(channel.clone()),
            auth: AuthClient::new(channel.clone()),
            cluster: ClusterClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel),
        }
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
