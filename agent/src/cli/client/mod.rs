//! The way to the cluster: several endpoints as if they were one.
//!
//! A read goes on to the next endpoint whenever one does not answer. A write does so only when it surely never left
//! this machine, or the member says that it proposed nothing: sending it again could apply it twice. Never prints,
//! and knows no command.

mod calls;
mod endpoint;
mod hosts;
mod identity;
mod metrics;
mod tls;
mod trust;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Response, Status};

pub(crate) use endpoint::Endpoint;
pub(crate) use hosts::Attached;
use identity::Identity;
pub(crate) use identity::{Credentials, Secret, Token};
pub(crate) use tls::{Tls, TlsFiles};

use super::error::CliError;

/// Pauses between rounds over all endpoints: short at first, an election takes about a second.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A connection to one member that carries the user's token with every request.
pub(crate) type Link = InterceptedService<Channel, Token>;

/// May a request be sent once more when nobody knows what became of it?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    /// It changes nothing.
    Always,
    /// Only when it was surely not sent.
    IfUnsent,
}

/// How long to wait, where to go, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct ClientOptions {
    pub(crate) endpoints: Vec<String>,
    pub(crate) dial_timeout: Duration,
    pub(crate) command_timeout: Duration,
    /// A watch may be silent for hours: an endpoint that vanished without a word is noticed by asking.
    pub(crate) keep_alive_time: Duration,
    pub(crate) keep_alive_timeout: Duration,
    /// How to speak TLS, with whoever wants it.
    pub(crate) tls: Tls,
    pub(crate) credentials: Option<Credentials>,
    /// Whose endpoints these are, for whoever has to mend them.
    pub(crate) context: Option<String>,
}

/// The endpoints, and the channel to each that was used.
#[derive(Debug)]
pub(crate) struct Client {
    options: ClientOptions,
    endpoints: Vec<Endpoint>,
    identity: Arc<Identity>,
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
        let identity = Arc::new(Identity::new(options.credentials.clone()));
        Self::with_identity(options, identity)
    }

    fn with_identity(options: ClientOptions, identity: Arc<Identity>) -> Result<Self, CliError> {
        if options.endpoints.is_empty() {
            return Err(CliError::usage("no endpoint given").hint("--endpoints HOST:PORT[,HOST:PORT]"));
        }
        let parse = |text: &String| Endpoint::parse(text, &options.tls);
        let endpoints = options
            .endpoints
            .iter()
            .map(parse)
            .collect::<Result<Vec<_>, _>>()?;
        let channels = Mutex::new(vec![None; endpoints.len()]);
        Ok(Self {
            options,
            endpoints,
            identity,
            channels,
            preferred: AtomicUsize::new(0),
        })
    }

    /// The same, at one endpoint only, and logged in as this one is.
    pub(crate) fn only(&self, endpoint: &str) -> Result<Self, CliError> {
        let options = ClientOptions {
            endpoints: vec![endpoint.to_owned()],
            ..self.options.clone()
        };
        Self::with_identity(options, self.identity.clone())
    }

    /// The same, over connections of its own.
    pub(crate) fn another(&self) -> Result<Self, CliError> {
        Self::with_identity(self.options.clone(), self.identity.clone())
    }

    /// The same, for what takes as long as it takes at a host.
    pub(crate) fn patient(&self, time: Duration) -> Result<Self, CliError> {
        let options = ClientOptions {
            command_timeout: self.options.command_timeout.max(time),
            ..self.options.clone()
        };
        Self::with_identity(options, self.identity.clone())
    }

    /// Another cluster, with the same patience.
    pub(crate) fn elsewhere(
        &self,
        endpoints: Vec<String>,
        tls: Tls,
        credentials: Option<Credentials>,
    ) -> Result<Self, CliError> {
        Self::new(ClientOptions {
            endpoints,
            tls,
            credentials,
            context: None,
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
        send: impl AsyncFn(Link) -> Result<Response<T>, Status>,
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
                return Err(nobody_there(&silent, self.options.context.as_deref()));
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
        send: &impl AsyncFn(Link) -> Result<Response<T>, Status>,
    ) -> Result<T, Attempt> {
        let channel = self.channel(index).await.map_err(Attempt::Unsent)?;
        let started = Instant::now();
        let answer = timeout_at(deadline, self.as_user(channel, send)).await;
        tracing::debug!(
            endpoint = %self.options.endpoints[index],
            took = ?started.elapsed(),
            outcome = outcome(&answer),
        );
        answer.unwrap_or(Err(Attempt::OutOfTime))
    }

    /// Sends with the user's token. A token that has expired is renewed once: it was refused before anything was done.
    async fn as_user<T>(
        &self,
        channel: Channel,
        send: &impl AsyncFn(Link) -> Result<Response<T>, Status>,
    ) -> Result<T, Attempt> {
        let token = self.login(channel.clone()).await?;
        let link = InterceptedService::new(channel.clone(), token.clone());
        let status = match send(link).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => status,
        };
        if !self.identity.may_renew(&token, &status) {
            return Err(failed_attempt(status));
        }
        let token = self.login(channel.clone()).await?;
        let answer = send(InterceptedService::new(channel, token)).await;
        answer.map(Response::into_inner).map_err(failed_attempt)
    }

    /// Whatever stops a login, the request itself was not sent.
    async fn login(&self, channel: Channel) -> Result<Token, Attempt> {
        self.identity
            .token(channel)
            .await
            .map_err(|status| match failed_attempt(status) {
                Attempt::Lost(status) => Attempt::Unsent(status.message().to_owned()),
                other => other,
            })
    }

    /// The channel to an endpoint, connected at its first use. It reconnects by itself later.
    async fn channel(&self, index: usize) -> Result<Channel, String> {
        if let Some(channel) = self.channels.lock().get(index).cloned().flatten() {
            return Ok(channel);
        }
        let endpoint = self.endpoints.get(index).ok_or("no such endpoint")?;
        let connected =
            tokio::time::timeout(self.options.dial_timeout, endpoint.connect(&self.options)).await;
        let channel = connected
            .map_err(|_| "no answer to the connection".to_owned())?
            .map_err(|error| deepest(error.as_ref()))?;
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
        let error = CliError::no_answer(format!("no answer within {seconds} s{tried}"));
        match repeat {
            Repeat::Always => error.hint("are most members up? `agentctl endpoint status` shows who is"),
            Repeat::IfUnsent => error.hint(
                "are most members up? `agentctl endpoint status` shows who is; the change may still take effect: look before you \
                 repeat it",
            ),
        }
    }
}

/// What became of a request that got no answer, or a wrong one.
fn failed_attempt(status: Status) -> Attempt {
    if let Some(why) = connect_failure(&status) {
        return Attempt::Unsent(why);
    }
    // Only the transport's own errors have a source: what a member answered is words alone.
    let broken = status.source().is_some();
    let answered = proposed_nothing(&status) || refused_change(&status);
    if broken || status.code() == Code::Unavailable && !answered {
        Attempt::Lost(status)
    } else {
        Attempt::Refused(status)
    }
}

/// For `--debug`.
fn outcome<T>(answer: &Result<Result<T, Attempt>, tokio::time::error::Elapsed>) -> &str {
    match answer {
        Err(_) | Ok(Err(Attempt::OutOfTime)) => "no answer in time",
        Ok(Ok(_)) => "answered",
        Ok(Err(Attempt::Unsent(why))) => why,
        Ok(Err(Attempt::Lost(status) | Attempt::Refused(status))) => status.message(),
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

/// Did the member refuse a change of the membership, since the members do not all reach each other?
fn refused_change(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.message() == "etcdserver: unhealthy cluster"
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

fn nobody_there(silent: &[String], context: Option<&str>) -> CliError {
    let silent = silent.join(", ");
    let hint = match context {
        _ if silent.contains("certificate") => {
            "--cacert FILE names the authority that signed the member's certificate; the endpoint must be a name in it"
                .to_owned()
        }
        Some(context) => {
            format!("that is context `{context}`: agentctl context set {context} --endpoints HOST:PORT,..., or --context NAME")
        }
        None => "start one with `agent dev`, or say where the members are: --endpoints HOST:PORT,...".to_owned(),
    };
    CliError::failed(format!("no member answers at {silent}")).hint(hint)
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
    use proto::etcdserverpb as pb;

    use super::*;

    fn client(endpoints: Vec<String>) -> Client {
        let dial_timeout = Duration::from_secs(2);
        Client::new(ClientOptions {
            endpoints,
            dial_timeout,
            command_timeout: Duration::from_secs(3),
            keep_alive_time: Duration::from_secs(2),
            keep_alive_timeout: Duration::from_secs(6),
            tls: Tls::default(),
            credentials: None,
            context: None,
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
