//! Incus' lifecycle events, of the objects that documents speak of.

use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use serde_json::Value;

use super::lifecycle::Lifecycle;
use super::{IncusError, Kind, path};

/// Something happened to an object. Of kinds this client does not handle nothing is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Empty for a project, which is in none.
    pub project: String,
    pub kind: Kind,
    pub name: String,
    /// Incus' word, like `instance-started`.
    pub action: String,
}

/// Events as they come. Ends when the daemon stops; after an error it has ended.
#[derive(Debug)]
pub struct EventStream {
    /// `None` once it has ended.
    lifecycle: Option<Lifecycle>,
}

impl EventStream {
    pub(super) async fn connect(socket: &Path) -> Result<Self, IncusError> {
        Ok(Self {
            lifecycle: Some(Lifecycle::connect(socket).await?),
        })
    }
}

impl Stream for EventStream {
    type Item = Result<Event, IncusError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(lifecycle) = &mut self.lifecycle else {
                return Poll::Ready(None);
            };
            let item = match ready!(Pin::new(lifecycle).poll_next(cx)) {
                Some(Ok(text)) => match parse(text.as_bytes()) {
                    Ok(None) => continue,
                    Ok(Some(event)) => return Poll::Ready(Some(Ok(event))),
                    Err(error) => Some(Err(error)),
                },
                Some(Err(error)) => Some(Err(error)),
                None => None,
            };
            self.lifecycle = None;
            return Poll::Ready(item);
        }
    }
}

/// `None` for what is no lifecycle event of a kind we handle.
fn parse(message: &[u8]) -> Result<Option<Event>, IncusError> {
    let event: Value =
        serde_json::from_slice(message).map_err(|error| IncusError::bad_answer(error.to_string()))?;
    if event.get("type").and_then(Value::as_str) != Some("lifecycle") {
        return Ok(None);
    }
    let metadata = event.get("metadata");
    let text = |field: &str| {
        metadata
            .and_then(|metadata| metadata.get(field))
            .and_then(Value::as_str)
    };
    let (Some(action), Some(source)) = (text("action"), text("source")) else {
        return Err(IncusError::bad_answer(
            "a lifecycle event without action or source",
        ));
    };
    let (path, query) = source.split_once('?').unwrap_or((source, ""));
    if path == "/1.0" {
        return Ok(Some(Event {
            project: String::new(),
            kind: Kind::Server,
            name: String::new(),
            action: action.to_owned(),
        }));
    }
    let mut segments = path.trim_start_matches('/').split('/');
    let (Some("1.0"), Some(kinds), Some(name)) = (segments.next(), segments.next(), segments.next()) else {
        return Ok(None);
    };
    let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.plural() == kinds) else {
        return Ok(None);
    };
    let Some(name) = path::decode(name).filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let project = match kind {
        Kind::Server | Kind::StoragePool | Kind::Project => String::new(),
        // The source names the project unless it is the default one.
        _ => query
            .split('&')
            .find_map(|pair| pair.strip_prefix("project="))
            .map_or_else(|| Some("default".to_owned()), path::decode)
            .ok_or_else(|| IncusError::bad_answer("a lifecycle event of an unreadable project"))?,
    };
    Ok(Some(Event {
        project,
        kind,
        name,
        action: action.to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(source: &str, expected: Option<(&str, Kind, &str)>) {
        let message = json!({"type": "lifecycle", "metadata": {"action": "a", "source": source}});
        let event = parse(message.to_string().as_bytes()).unwrap();
        let event = event
            .as_ref()
            .map(|e| (e.project.as_str(), e.kind, e.name.as_str()));
        assert_eq!(event, expected, "{source}");
    }

    #[test]
    fn events_name_their_object() {
        check("/1.0/instances/web", Some(("default", Kind::Instance, "web")));
        check(
            "/1.0/instances/web?project=t1",
            Some(("t1", Kind::Instance, "web")),
        );
        check(
            "/1.0/instances/web/snapshots/s0?project=t1",
            Some(("t1", Kind::Instance, "web")),
        );
        check(
            "/1.0/profiles/a%20b?project=t%31",
            Some(("t1", Kind::Profile, "a b")),
        );
        check("/1.0/projects/t1", Some(("", Kind::Project, "t1")));
        check("/1.0", Some(("", Kind::Server, "")));
        // What lives in another object is told of as a change of that one.
        check(
            "/1.0/storage-pools/default/volumes/custom/data?project=t1",
            Some(("", Kind::StoragePool, "default")),
        );
        for source in [
            "",
            "/",
            "/1.0/instances",
            "/1.0/operations/n",
            "/2.0/instances/a",
            "/1.0/projects/%",
        ] {
            check(source, None);
        }
    }

    #[test]
    fn messages_of_other_shapes() {
        assert_eq!(parse(br#"{"type":"operation","metadata":{}}"#).unwrap(), None);
        assert!(parse(br#"{"type":"lifecycle","metadata":{}}"#).is_err());
        assert!(parse(b"no json").is_err());
    }
}
