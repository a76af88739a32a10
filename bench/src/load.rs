//! Clients that ask again as soon as they are answered, and the times they waited.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use hdrhistogram::Histogram;
use proto::etcdserverpb::kv_client::KvClient;
use proto::etcdserverpb::{PutRequest, RangeRequest};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

const VALUE_BYTES: usize = 256;
/// Each client writes these over and over, so that the store does not only grow.
const KEYS_OF_A_CLIENT: u64 = 1_000;
/// Answers slower than this count as this slow.
const SLOWEST: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Put,
    GetLinearizable,
    GetSerializable,
}

impl Operation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Put => "put",
            Operation::GetLinearizable => "get (linearizable)",
            Operation::GetSerializable => "get (serializable)",
        }
    }
}

/// The answers of one measurement.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    micros: Histogram<u64>,
    length: Duration,
}

impl Measured {
    fn new(length: Duration) -> anyhow::Result<Measured> {
        let slowest = u64::try_from(SLOWEST.as_micros())?;
        Ok(Measured {
            micros: Histogram::new_with_max(slowest, 3)?,
            length,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of answers are far below 2^52")]
    pub(crate) fn per_second(&self) -> f64 {
        self.micros.len() as f64 / self.length.as_secs_f64()
    }

    pub(crate) fn percentile(&self, percentile: f64) -> Duration {
        Duration::from_micros(self.micros.value_at_percentile(percentile))
    }
}

/// Runs one load. The clients are spread over the endpoints, each on a connection of its own.
pub(crate) async fn run(
    endpoints: &[String],
    operation: Operation,
    clients: usize,
    warm_up: Duration,
    length: Duration,
) -> anyhow::Result<Measured> {
    let mut connected = Vec::new();
    for endpoint in endpoints.iter().cycle().take(clients) {
        let endpoint = Endpoint::from_shared(endpoint.clone())?.connect_timeout(CONNECT_TIMEOUT);
        let channel = endpoint
            .tcp_nodelay(true)
            .connect()
            .await
            .context("cannot connect a client")?;
        connected.push(KvClient::new(channel));
    }
    let from = Instant::now() + warm_up;
    let tasks: Vec<_> = connected
        .into_iter()
        .enumerate()
        .map(|(client, kv)| tokio::spawn(client_loop(client, kv, operation, from, length)))
        .collect();
    let mut measured = Measured::new(length)?;
    for task in tasks {
        measured.micros.add(task.await??.micros)?;
    }
    Ok(measured)
}

async fn client_loop(
    client: usize,
    mut kv: KvClient<Channel>,
    operation: Operation,
    from: Instant,
    length: Duration,
) -> anyhow::Result<Measured> {
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    let mut measured = Measured::new(length)?;
    for round in 0_u64.. {
        let key = Bytes::from(format!("bench/{client:04}/{:06}", round % KEYS_OF_A_CLIENT));
        let asked = Instant::now();
        if asked > from + length {
            break;
        }
        ask(&mut kv, operation, key, &value)
            .await
            .map_err(|status| anyhow!("{}: {status}", operation.name()))?;
        let answered = Instant::now();
        if asked >= from && answered <= from + length {
            measured
                .micros
                .saturating_record(u64::try_from((answered - asked).as_micros())?);
        }
    }
    Ok(measured)
}

async fn ask(
    kv: &mut KvClient<Channel>,
    operation: Operation,
    key: Bytes,
    value: &Bytes,
) -> Result<(), Status> {
    match operation {
        Operation::Put => {
            let put = PutRequest {
                key,
                value: value.clone(),
                ..Default::default()
            };
            kv.put(put).await.map(|_| ())
        }
        Operation::GetLinearizable | Operation::GetSerializable => {
            let serializable = operation == Operation::GetSerializable;
            kv.range(RangeRequest {
                key,
                serializable,
                ..Default::default()
            })
            .await
            .map(|_| ())
        }
    }
}
