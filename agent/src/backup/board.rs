//! What is said of each document's backups: for the reconciler, which writes the status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::document::DesiredKey;

/// Shared by those who do and those who say. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub struct Board {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    said: Mutex<BTreeMap<DesiredKey, Said>>,
    changed: Notify,
}

/// How it went, by what is done: snapshots, exports, copies.
pub(crate) type Said = BTreeMap<&'static str, Result<String, String>>;

impl Board {
    /// Says how one part of a document's work stands; `None`: it is not this host's.
    pub(super) fn say(&self, key: &DesiredKey, part: &'static str, what: Option<Result<String, String>>) {
        let mut said = self.shared.said.lock();
        let of_key = said.entry(key.clone()).or_default();
        let is_new = match what {
            Some(what) if of_key.get(part) == Some(&what) => false,
            Some(what) => {
                of_key.insert(part, what);
                true
            }
            None => of_key.remove(part).is_some(),
        };
        if of_key.is_empty() {
            said.remove(key);
        }
        drop(said);
        if is_new {
            self.shared.changed.notify_one();
        }
    }

    /// Forgets all documents but these.
    pub(super) fn retain(&self, documents: &BTreeSet<DesiredKey>) {
        self.shared.said.lock().retain(|key, _| documents.contains(key));
    }

    /// What is to be said of every document that this host has something to do for.
    pub(crate) fn all(&self) -> BTreeMap<DesiredKey, Said> {
        self.shared.said.lock().clone()
    }

    /// Completes after something else is to be said.
    pub(crate) async fn changed(&self) {
        self.shared.changed.notified().await;
    }
}
