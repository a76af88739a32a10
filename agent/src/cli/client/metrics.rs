//! A member's `/metrics`: plain HTTP, on the port of its API.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::{Client, Endpoint};
use crate::cli::error::CliError;

/// A member's metrics are some hundred KiB.
const LIMIT_BYTES: usize = 8 << 20;

impl Client {
    /// The text of the first endpoint's metrics.
    pub(crate) async fn metrics(&self) -> Result<String, CliError> {
        let limit: Duration = self.options.command_timeout;
        let Some(endpoint) = self.endpoints.first() else {
            return Err(CliError::usage("no endpoint given"));
        };
        let failed = |why: String| CliError::failed(format!("{}/metrics: {why}", endpoint.url()));
        match timeout(limit, self.read_metrics(endpoint)).await {
            Err(_) => Err(failed("no answer".to_owned())),
            Ok(read) => read.map_err(|error| failed(super::deepest(error.as_ref()))),
        }
    }

    async fn read_metrics(
        &self,
        endpoint: &Endpoint,
    ) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        let stream = endpoint.open().await?;
        if endpoint.is_secure() {
            let tls = self.options.tls.connect_http1(&endpoint.host(), stream).await?;
            get(endpoint, tls).await
        } else {
            get(endpoint, stream).await
        }
    }
}

async fn get(
    endpoint: &Endpoint,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer: we ask once.
    let connection = tokio::spawn(connection);
    let request = http::Request::get("/metrics")
        .header(http::header::HOST, endpoint.authority())
        .body(Empty::<bytes::Bytes>::new())?;
    let response = sender.send_request(request).await?;
    if !response.status().is_success() {
        return Err(response.status().to_string().into());
    }
    let body = Limited::new(response.into_body(), LIMIT_BYTES).collect().await?;
    connection.abort();
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}
