//! Everything that Incus has, in lists: also of what no document speaks of. For looking only: what is to be changed is
//! read by [`super::Incus::get`], with its ETag.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use serde_json::Value;

use super::lifecycle::Lifecycle;
use super::{Incus, IncusError, path};

/// A collection of Incus' API, of all projects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Collection {
    Images,
    /// With their `state` and their `snapshots`.
    Instances,
    /// Also the host's interfaces that Incus does not manage.
    Networks,
    Profiles,
    Projects,
    StoragePools,
    Warnings,
}

impl Collection {
    pub const ALL: [Self; 7] = [
        Self::Images,
        Self::Instances,
        Self::Networks,
        Self::Profiles,
        Self::Projects,
        Self::StoragePools,
        Self::Warnings,
    ];

    /// Incus' word in paths.
    const fn word(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Instances => "instances",
            Self::Networks => "networks",
            Self::Profiles => "profiles",
            Self::Projects => "projects",
            Self::StoragePools => "storage-pools",
            Self::Warnings => "warnings",
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::Images => "/1.0/images?recursion=1&all-projects=true",
            Self::Instances => "/1.0/instances?recursion=2&all-projects=true",
            Self::Networks => "/1.0/networks?recursion=1&all-projects=true",
            Self::Profiles => "/1.0/profiles?recursion=1&all-projects=true",
            Self::Projects => "/1.0/projects?recursion=1",
            Self::StoragePools => "/1.0/storage-pools?recursion=1",
            Self::Warnings => "/1.0/warnings?recursion=1",
        }
    }
}

impl Incus {
    /// Everything in a collection, as Incus shows it. A daemon that does not know the collection has nothing in it.
    pub async fn list_collection(&self, collection: Collection) -> Result<Vec<Value>, IncusError> {
        self.list_path(collection.path()).await
    }

    /// The custom volumes of a storage pool, in all projects; their snapshots among them, as `VOLUME/SNAPSHOT`.
    pub async fn list_custom_volumes(&self, pool: &str) -> Result<Vec<Value>, IncusError> {
        self.list_path(&path::custom_volumes(pool)?).await
    }

    async fn list_path(&self, path: &str) -> Result<Vec<Value>, IncusError> {
        match self.read_list(path).await {
            Err(IncusError::NotFound { .. }) => Ok(Vec::new()),
            listed => listed,
        }
    }

    /// Which collections change, from now on. As for [`Incus::events`]: nothing is replayed.
    pub async fn changes(&self) -> Result<ChangeStream, IncusError> {
        Ok(ChangeStream(Lifecycle::connect(self.socket()).await?))
    }
}

/// The collection that each lifecycle event is about; a volume's is that of its pool, an alias' that of images.
#[derive(Debug)]
pub struct ChangeStream(Lifecycle);

impl Stream for ChangeStream {
    type Item = Result<Collection, IncusError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(Pin::new(&mut self.0).poll_next(cx)) {
                Some(Ok(text)) => {
                    if let Some(collection) = changed(&text) {
                        return Poll::Ready(Some(Ok(collection)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// `None` for what is in no collection that is listed here, and for what is no event at all: there is nothing to be
/// looked at then, and a full look comes in any case.
fn changed(message: &str) -> Option<Collection> {
    let event: Value = serde_json::from_str(message).ok()?;
    let source = event.get("metadata")?.get("source")?.as_str()?;
    let word = source.strip_prefix("/1.0/")?.split(['/', '?']).next()?;
    Collection::ALL
        .into_iter()
        .find(|collection| collection.word() == word)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_names_its_collection() {
        for (source, expected) in [
            ("/1.0/instances/web?project=t1", Some(Collection::Instances)),
            ("/1.0/instances/web/snapshots/s0", Some(Collection::Instances)),
            ("/1.0/images/aliases/a", Some(Collection::Images)),
            (
                "/1.0/storage-pools/default/volumes/custom/d",
                Some(Collection::StoragePools),
            ),
            ("/1.0/network-acls/a", None),
            ("/1.0", None),
            ("", None),
        ] {
            let message = json!({"type": "lifecycle", "metadata": {"action": "a", "source": source}});
            assert_eq!(changed(&message.to_string()), expected, "{source}");
        }
        assert_eq!(changed("no json"), None);
        assert_eq!(changed("{}"), None);
    }
}
