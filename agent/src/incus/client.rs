//! The REST client: one method for each thing the reconciler asks of Incus.

use std::path::Path;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::operation::{self, Outcome};
use super::transport::{Answer, Transport};
use super::{EventStream, IncusError, Kind, Live, path};

/// Reads and synchronous writes. Incus answers them from its own database; a busy disk may take seconds.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// Operations: the first instance of an image unpacks it.
const OPERATION_LIMIT: Duration = Duration::from_secs(300);

/// A client of one Incus daemon. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Incus {
    pub(super) transport: Transport,
    operation_limit: Duration,
}

/// What the daemon says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Like `6.0.4`.
    pub version: String,
    /// Incus' names for what it can do beyond API 1.0.
    pub extensions: Vec<String>,
    /// Nothing here is real: [`super::simulated`] answers.
    pub simulated: bool,
    /// Which daemon this is, whatever its socket is called. Empty: it does not say.
    pub fingerprint: String,
}

/// What [`Incus::set_state`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateAction {
    Start,
    Stop,
    Restart,
}

impl StateAction {
    /// Incus' word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }
}

/// A change of an object that is there.
struct Update<'a> {
    method: Method,
    body: &'a Value,
    etag: &'a str,
}

impl Incus {
    /// Makes a client of the daemon at this socket. Nothing is sent yet: a daemon that is down now is found out,
    /// as [`IncusError::Unreachable`], by the first request, and reached when it is back.
    ///
    /// # Errors
    /// [`IncusError::Unreachable`] where no client can be made at all.
    pub fn connect(socket: &Path) -> Result<Self, IncusError> {
        Ok(Self {
            transport: Transport::new(socket)?,
            operation_limit: OPERATION_LIMIT,
        })
    }

    /// The same client, giving up on operations after this long.
    #[must_use]
    pub fn with_operation_limit(self, limit: Duration) -> Self {
        Self {
            operation_limit: limit,
            ..self
        }
    }

    #[must_use]
    pub fn socket(&self) -> &Path {
        self.transport.socket()
    }

    pub async fn server(&self) -> Result<ServerInfo, IncusError> {
        let (server, _) = self.read("/1.0").await?;
        let environment = server.get("environment");
        let text = |field: &str| environment.and_then(|e| e.get(field)).and_then(Value::as_str);
        let version =
            text("server_version").ok_or_else(|| IncusError::bad_answer("a server without a version"))?;
        let extensions = server
            .get("api_extensions")
            .and_then(Value::as_array)
            .map(Vec::as_slice);
        Ok(ServerInfo {
            version: version.to_owned(),
            extensions: extensions
                .unwrap_or_default()
                .iter()
                .filter_map(|extension| extension.as_str().map(str::to_owned))
                .collect(),
            simulated: text("server") == Some(super::SIMULATED_SERVER),
            fingerprint: text("certificate_fingerprint").unwrap_or_default().to_owned(),
        })
    }

    /// One object with its ETag, or `None` where Incus has none of this name.
    pub async fn get(&self, kind: Kind, project: &str, name: &str) -> Result<Option<Live>, IncusError> {
        match self.read(&path::object(kind, project, name)?).await {
            Ok((object, etag)) => Ok(Some(Live { object, etag })),
            Err(IncusError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every object of a kind in all projects, without ETags. What lives in another object says in which.
    pub async fn list_all(&self, kind: Kind) -> Result<Vec<Live>, IncusError> {
        match kind {
            Kind::Server => Ok(self.get(kind, "", "").await?.into_iter().collect()),
            Kind::Volume => {
                let pools = self.list("/1.0/storage-pools?recursion=1").await?;
                self.list_within(kind, &pools).await
            }
            Kind::NetworkForward => {
                let networks = self.list("/1.0/networks?recursion=1").await?;
                self.list_within(kind, &networks).await
            }
            // Networks are everybody's: documents speak of those of the default project.
            Kind::StoragePool | Kind::Project | Kind::NetworkAcl | Kind::Network => {
                self.list(&format!("/1.0/{}?recursion=1", kind.plural())).await
            }
            _ => {
                self.list(&format!("/1.0/{}?recursion=1&all-projects=true", kind.plural()))
                    .await
            }
        }
    }

    /// [`Incus::list_all`] of a kind that lives in another, where the objects that it lives in have been listed.
    pub async fn list_within(&self, kind: Kind, containers: &[Live]) -> Result<Vec<Live>, IncusError> {
        let mut found = Vec::new();
        let field = kind.container_field().unwrap_or_default();
        let everywhere = match kind {
            Kind::Volume => "&all-projects=true",
            _ => "",
        };
        for container in containers.iter().filter(|container| holds(kind, container)) {
            let container = container.name();
            let path = path::folder(kind, container)?;
            let list = match self.list(&format!("{path}?recursion=1{everywhere}")).await {
                // It went away meanwhile.
                Err(IncusError::NotFound { .. }) => continue,
                list => list?,
            };
            // A volume's snapshots are listed among the volumes.
            let list = list.into_iter().filter(|live| !live.name().contains('/'));
            found.extend(list.map(|mut live| {
                if let Some(object) = live.object.as_object_mut() {
                    object.insert(field.to_owned(), container.into());
                }
                live
            }));
        }
        Ok(found)
    }

    async fn list(&self, path: &str) -> Result<Vec<Live>, IncusError> {
        let objects = self.read_list(path).await?.into_iter();
        let live = |object| Live {
            object,
            etag: String::new(),
        };
        Ok(objects.map(live).collect())
    }

    /// A list of anything. An empty one is `null` now and then: so an Incus without a storage pool answers.
    pub(super) async fn read_list(&self, path: &str) -> Result<Vec<Value>, IncusError> {
        match self.read(path).await? {
            (Value::Array(objects), _) => Ok(objects),
            (Value::Null, _) => Ok(Vec::new()),
            _ => Err(IncusError::bad_answer("a list that is no array")),
        }
    }

    /// Creates one object, whose name is in `body`, and what it lives in, too. An existing one of that name is an
    /// [`IncusError::Refused`] (or `OperationFailed`) like any other: read to tell. An image is [`Incus::create_image`]'s.
    pub async fn create(&self, kind: Kind, project: &str, body: &Value) -> Result<(), IncusError> {
        let name = kind.name_of(body);
        path::object(kind, project, &name)?;
        let mut body = body.clone();
        let container = match (kind.container_field(), body.as_object_mut()) {
            (Some(field), Some(fields)) => fields.remove(field),
            _ => None,
        };
        let container = container.as_ref().and_then(Value::as_str).unwrap_or_default();
        let answer = self
            .write(
                Method::POST,
                &path::collection(kind, project, container)?,
                Some(&body),
                None,
            )
            .await?;
        match self.finish(answer, Duration::ZERO).await? {
            Outcome::Success => Ok(()),
            Outcome::Forgotten => shown(self.get(kind, project, &name).await?.is_some()),
        }
    }

    /// Makes the object exactly this (`PUT`), if its ETag still matches. An instance's body carries its live
    /// `volatile.*` and no `architecture`.
    pub async fn replace(
        &self,
        kind: Kind,
        project: &str,
        name: &str,
        body: &Value,
        etag: &str,
    ) -> Result<(), IncusError> {
        self.update(
            kind,
            project,
            name,
            Update {
                method: Method::PUT,
                body,
                etag,
            },
        )
        .await
    }

    /// Merges `body` into the object (`PATCH`), if its ETag still matches. A config value `""` removes its key; a
    /// device is replaced whole. Never for projects: Incus replaces their whole config by the patch's.
    pub async fn patch(
        &self,
        kind: Kind,
        project: &str,
        name: &str,
        body: &Value,
        etag: &str,
    ) -> Result<(), IncusError> {
        if kind == Kind::Project {
            return Err(IncusError::Misuse {
                reason: "a patch replaces a project's whole config",
            });
        }
        self.update(
            kind,
            project,
            name,
            Update {
                method: Method::PATCH,
                body,
                etag,
            },
        )
        .await
    }

    /// Deletes one object. One that is not there is [`IncusError::NotFound`]; a running instance, a profile in use
    /// and a project with contents are refused.
    pub async fn delete(&self, kind: Kind, project: &str, name: &str) -> Result<(), IncusError> {
        let answer = self
            .write(Method::DELETE, &path::object(kind, project, name)?, None, None)
            .await?;
        match self.finish(answer, Duration::ZERO).await? {
            Outcome::Success => Ok(()),
            Outcome::Forgotten => shown(self.get(kind, project, name).await?.is_none()),
        }
    }

    /// Starts, stops or restarts an instance. `timeout_seconds` is how long a guest may take to shut down before
    /// the operation fails; `force` does not ask the guest. Starting what runs fails, as does stopping what does
    /// not: read first.
    pub async fn set_state(
        &self,
        project: &str,
        name: &str,
        action: StateAction,
        force: bool,
        timeout_seconds: u32,
    ) -> Result<(), IncusError> {
        let body = json!({"action": action.as_str(), "timeout": timeout_seconds, "force": force});
        let answer = self
            .write(
                Method::PUT,
                &path::below_instance(project, name, "state")?,
                Some(&body),
                None,
            )
            .await?;
        match self
            .finish(answer, Duration::from_secs(timeout_seconds.into()))
            .await?
        {
            Outcome::Success => Ok(()),
            Outcome::Forgotten => {
                let live = self.get(Kind::Instance, project, name).await?;
                let status = live.as_ref().map_or("", Live::status);
                shown(match action {
                    StateAction::Start => status == "Running",
                    StateAction::Stop => status == "Stopped",
                    // It ran before as well.
                    StateAction::Restart => false,
                })
            }
        }
    }

    /// The lifecycle events of all projects from now on. Nothing is replayed: after connecting, and after
    /// reconnecting, look at everything once.
    pub async fn events(&self) -> Result<EventStream, IncusError> {
        EventStream::connect(self.transport.socket()).await
    }

    async fn update(
        &self,
        kind: Kind,
        project: &str,
        name: &str,
        update: Update<'_>,
    ) -> Result<(), IncusError> {
        let Update { method, body, etag } = update;
        if etag.is_empty() {
            return Err(IncusError::Misuse {
                reason: "a change without an etag could undo another",
            });
        }
        let answer = self
            .write(
                method,
                &path::object(kind, project, name)?,
                Some(body),
                Some(etag),
            )
            .await?;
        match self.finish(answer, Duration::ZERO).await? {
            Outcome::Success => Ok(()),
            Outcome::Forgotten => {
                let live = self.get(kind, project, name).await?;
                shown(live.is_some_and(|live| shows(&live.object, body)))
            }
        }
    }

    pub(super) async fn read(&self, path: &str) -> Result<(Value, String), IncusError> {
        match self.transport.get(path, REQUEST_LIMIT).await? {
            Answer::Sync { metadata, etag } => Ok((metadata, etag)),
            Answer::Async { .. } => Err(IncusError::bad_answer("a read began an operation")),
        }
    }

    pub(super) async fn write(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
    ) -> Result<Answer, IncusError> {
        self.transport.send(method, path, body, etag, REQUEST_LIMIT).await
    }

    /// Waits for the operation that a write began, if it began one.
    pub(super) async fn finish(&self, answer: Answer, extra: Duration) -> Result<Outcome, IncusError> {
        match answer {
            Answer::Sync { .. } => Ok(Outcome::Success),
            Answer::Async { operation, .. } => {
                operation::wait(
                    &self.transport,
                    &operation,
                    self.operation_limit.saturating_add(extra),
                )
                .await
            }
        }
    }
}

/// Whether there can be objects of a kind in a container. Pools of buckets have no volumes, and what Incus does not
/// manage has no forwards.
fn holds(kind: Kind, container: &Live) -> bool {
    match kind {
        Kind::Volume => container.text("driver") != "cephobject",
        Kind::NetworkForward => matches!(container.text("type"), "bridge" | "ovn") && container.is_managed(),
        _ => false,
    }
}

/// A forgotten operation succeeded if its effect is there.
pub(super) fn shown(effect: bool) -> Result<(), IncusError> {
    if effect {
        Ok(())
    } else {
        Err(IncusError::OperationLost)
    }
}

/// Whether the object has what an update asked for. `volatile.*` is Incus' own and moves meanwhile.
fn shows(live: &Value, body: &Value) -> bool {
    let Some(body) = body.as_object() else {
        return false;
    };
    body.iter().all(|(field, wanted)| {
        let live = live.get(field);
        match (field.as_str(), wanted) {
            ("config" | "devices", Value::Object(wanted)) => wanted.iter().all(|(key, value)| {
                let is_removal = value.as_str() == Some("");
                let live = live.and_then(|live| live.get(key));
                key.starts_with("volatile.") || live == Some(value) || (is_removal && live.is_none())
            }),
            ("architecture", _) => true,
            _ => live == Some(wanted),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_shows_when_all_it_asked_for_is_there() {
        let live = json!({"description": "", "profiles": ["default"],
            "config": {"limits.memory": "128MiB", "volatile.uuid": "u"}, "devices": {"a": {"type": "none"}}});
        let check = |body: Value, expected| assert_eq!(shows(&live, &body), expected, "{body}");
        check(
            json!({"config": {"limits.memory": "128MiB", "volatile.uuid": "old"}}),
            true,
        );
        check(json!({"config": {"limits.memory": "256MiB"}}), false);
        check(json!({"config": {"limits.cpu": ""}}), true);
        check(json!({"config": {"limits.memory": ""}}), false);
        check(
            json!({"devices": {"a": {"type": "none"}}, "profiles": ["default"], "description": ""}),
            true,
        );
        check(json!({"devices": {"b": {"type": "none"}}}), false);
        check(json!({"profiles": []}), false);
        check(json!([]), false);
    }

    #[tokio::test]
    async fn what_would_do_damage_is_not_sent() {
        // Nothing listens there: an attempt to send would be `Unreachable`.
        let dir = tempfile::tempdir().unwrap();
        let incus = Incus::connect(&dir.path().join("none.socket")).unwrap();
        let body = json!({"config": {}});
        let patched = incus.patch(Kind::Project, "", "t1", &body, "e").await;
        assert!(matches!(patched, Err(IncusError::Misuse { .. })), "{patched:?}");
        let blind = incus.replace(Kind::Instance, "p", "n", &body, "").await;
        assert!(matches!(blind, Err(IncusError::Misuse { .. })), "{blind:?}");
        let nameless = incus.create(Kind::Instance, "p", &body).await;
        assert!(
            matches!(nameless, Err(IncusError::BadName { .. })),
            "{nameless:?}"
        );
        let sent = incus.get(Kind::Instance, "p", "n").await;
        assert!(matches!(sent, Err(IncusError::Unreachable { .. })), "{sent:?}");
        let listened = incus.events().await;
        assert!(matches!(listened, Err(IncusError::Unreachable { .. })));
    }
}
