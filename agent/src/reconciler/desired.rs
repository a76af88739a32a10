//! What is wanted: every document of the applied state, parsed, with the last good text of each.
//!
//! Documents for other hosts are here too. That one exists at all is what keeps its object from being deleted. An
//! instance with `placement` is on the host that its binding names, and nowhere while it has none.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::document::{
    Binding, DesiredKey, Document, DocumentError, SecretKey, hosts_named, parse_at, parse_binding_key,
    parse_desired_key, parse_secret_key,
};

/// Every document at one revision of the store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Desired {
    /// The store's revision when it was read.
    pub(crate) revision: i64,
    pub(crate) documents: BTreeMap<DesiredKey, Wanted>,
    /// Where the instances with `placement` were put.
    pub(crate) bindings: BTreeMap<DesiredKey, Bound>,
    /// What documents may refer to, sealed.
    pub(crate) secrets: BTreeMap<SecretKey, StoredSecret>,
    /// What cannot be worked on, because a secret that it refers to is not to be had, and why.
    pub(crate) waiting: BTreeMap<DesiredKey, String>,
}

/// A sealed value, and the revision that put it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredSecret {
    pub(crate) revision: i64,
    pub(crate) value: Vec<u8>,
}

/// A binding, and the revision that put it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) revision: i64,
    pub(crate) binding: Binding,
}

/// What stands at one key.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The revision that put this text.
    pub(crate) revision: i64,
    /// The revision that created the key.
    pub(crate) created_revision: i64,
    pub(crate) text: Text,
}

/// A document's text, understood or not. Understood, it is as it is on this host.
#[derive(Clone, Debug)]
pub(crate) enum Text {
    Good(Arc<Document>),
    Invalid {
        error: DocumentError,
        /// The hosts it names, where that much can be read.
        hosts: Option<Vec<String>>,
        /// The last good text that this member has seen at the key, and its revision.
        last_good: Option<(i64, Arc<Document>)>,
    },
}

/// One key and value of the store, as far as documents need it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredText<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) created_revision: i64,
    pub(crate) revision: i64,
}

/// Parses each text once, and remembers the last good one of every key that is still there.
#[derive(Debug)]
pub(crate) struct Parser {
    host: String,
    seen: HashMap<DesiredKey, Seen>,
    bindings: BTreeMap<DesiredKey, Bound>,
}

#[derive(Debug)]
struct Seen {
    wanted: Wanted,
    /// The host of the binding that the texts were read with.
    host: Option<String>,
    last_good: Option<(i64, Arc<Document>)>,
}

impl Parser {
    pub(crate) fn new(host: &str) -> Parser {
        Parser {
            host: host.to_owned(),
            seen: HashMap::new(),
            bindings: BTreeMap::new(),
        }
    }

    /// Reads the documents among `texts`, which are all that the store has at `revision`.
    pub(crate) fn read<'a>(
        &mut self,
        revision: i64,
        texts: impl Iterator<Item = StoredText<'a>> + Clone,
    ) -> Desired {
        self.bindings = texts.clone().filter_map(binding).collect();
        let texts_of_secrets = texts.clone().filter_map(secret).collect();
        let mut documents = BTreeMap::new();
        for stored in texts {
            let Some((key, path)) = std::str::from_utf8(stored.key)
                .ok()
                .and_then(|path| Some((parse_desired_key(path)?, path)))
            else {
                continue;
            };
            let before = self.seen.remove(&key);
            let seen = match before {
                Some(seen) if seen.wanted.revision == stored.revision && seen.host == self.host_of(&key) => {
                    seen
                }
                before => self.parse(path, &key, stored, before.and_then(|seen| seen.last_good)),
            };
            documents.insert(key, seen);
        }
        // What was not among them is gone: a document put anew starts without a past.
        self.seen = documents.into_iter().collect();
        let mut documents: BTreeMap<DesiredKey, Wanted> = self
            .seen
            .iter()
            .map(|(key, seen)| (key.clone(), seen.wanted.clone()))
            .collect();
        for part in self.seen.values().flat_map(Seen::parts) {
            // What has a document of its own is that one's.
            documents.entry(part.0).or_insert(part.1);
        }
        Desired {
            revision,
            documents,
            bindings: self.bindings.clone(),
            secrets: texts_of_secrets,
            waiting: BTreeMap::new(),
        }
    }

    /// What would stand at a key if this text were put there; `None` where no document lives.
    pub(crate) fn hypothetical(&self, stored: StoredText<'_>) -> Option<(DesiredKey, Wanted)> {
        let path = std::str::from_utf8(stored.key).ok()?;
        let key = parse_desired_key(path)?;
        let last_good = self.seen.get(&key).and_then(|seen| seen.last_good.clone());
        let wanted = self.parse(path, &key, stored, last_good).wanted;
        Some((key, wanted))
    }

    /// Where an instance was put.
    fn host_of(&self, key: &DesiredKey) -> Option<String> {
        let bound = self.bindings.get(key)?;
        bound.binding.bound_host().map(str::to_owned)
    }

    fn parse(
        &self,
        path: &str,
        key: &DesiredKey,
        stored: StoredText<'_>,
        last_good: Option<(i64, Arc<Document>)>,
    ) -> Seen {
        let host = self.host_of(key);
        let last_good = last_good.map(|(revision, document)| (revision, bound(document, host.as_deref())));
        let text = String::from_utf8_lossy(stored.value);
        let (text, last_good) = match parse_at(path, &text) {
            Ok(document) => {
                let document = bound(Arc::new(document.on_host(&self.host).clone()), host.as_deref());
                (
                    Text::Good(Arc::clone(&document)),
                    Some((stored.revision, document)),
                )
            }
            Err(error) => {
                // Of a text that does not say where it is, the binding still does.
                let hosts = hosts_named(&text).or_else(|| host.clone().map(|host| vec![host]));
                (
                    Text::Invalid {
                        error,
                        hosts,
                        last_good: last_good.clone(),
                    },
                    last_good,
                )
            }
        };
        let wanted = Wanted {
            revision: stored.revision,
            created_revision: stored.created_revision,
            text,
        };
        Seen {
            wanted,
            host,
            last_good,
        }
    }
}

/// A document as it is where its instance was put.
fn bound(mut document: Arc<Document>, host: Option<&str>) -> Arc<Document> {
    if document.placement.is_some() {
        Arc::make_mut(&mut document).bind(host);
    }
    document
}

/// A binding that cannot be read is none: the scheduler writes it anew.
fn binding(stored: StoredText<'_>) -> Option<(DesiredKey, Bound)> {
    let key = parse_binding_key(std::str::from_utf8(stored.key).ok()?)?;
    let bound = Bound {
        revision: stored.revision,
        binding: serde_json::from_slice(stored.value).unwrap_or_default(),
    };
    Some((key, bound))
}

fn secret(stored: StoredText<'_>) -> Option<(SecretKey, StoredSecret)> {
    let key = parse_secret_key(std::str::from_utf8(stored.key).ok()?)?;
    let secret = StoredSecret {
        revision: stored.revision,
        value: stored.value.to_vec(),
    };
    Some((key, secret))
}

impl Desired {
    /// Takes an instance to be on a host, as if it were bound.
    pub(crate) fn suppose(&mut self, key: &DesiredKey, host: &str) {
        if let Some(wanted) = self.documents.get_mut(key)
            && let Text::Good(document) = &mut wanted.text
        {
            *document = bound(Arc::clone(document), Some(host));
        }
    }
}

impl Seen {
    /// What the document brings beside itself, of the text that is in force.
    fn parts(&self) -> impl Iterator<Item = (DesiredKey, Wanted)> {
        self.last_good.iter().flat_map(|(revision, document)| {
            document.parts.iter().map(|part| {
                let wanted = Wanted {
                    revision: *revision,
                    created_revision: self.wanted.created_revision,
                    text: Text::Good(Arc::new(part.clone())),
                };
                (part.desired_key(), wanted)
            })
        })
    }
}

impl Text {
    /// The document that is in force, where this text or the last good one before it is one.
    pub(crate) fn in_force(&self) -> Option<&Arc<Document>> {
        match self {
            Text::Good(document) => Some(document),
            Text::Invalid { last_good, .. } => last_good.as_ref().map(|(_, document)| document),
        }
    }

    /// See [`Text::in_force`].
    pub(crate) fn in_force_mut(&mut self) -> Option<&mut Arc<Document>> {
        match self {
            Text::Good(document) => Some(document),
            Text::Invalid { last_good, .. } => last_good.as_mut().map(|(_, document)| document),
        }
    }
}

impl Wanted {
    /// Whether this text, or the last good one before it, applies to `host`. `None`: that cannot be read from it.
    pub(crate) fn names_host(&self, host: &str) -> Option<bool> {
        match &self.text {
            Text::Good(document) => Some(document.names_host(host)),
            Text::Invalid {
                hosts: Some(hosts), ..
            } => Some(hosts.iter().any(|named| named == host)),
            Text::Invalid {
                last_good: Some((_, document)),
                ..
            } => Some(document.names_host(host)),
            Text::Invalid { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "/tenants/default/desired/profiles/web";

    fn read(parser: &mut Parser, texts: &[(&str, i64, &str)]) -> Desired {
        let stored = texts.iter().map(|(key, revision, text)| StoredText {
            key: key.as_bytes(),
            value: text.as_bytes(),
            created_revision: 2,
            revision: *revision,
        });
        parser.read(99, stored)
    }

    fn last_good(desired: &Desired) -> Option<i64> {
        match &desired.documents.values().next()?.text {
            Text::Good(_) => None,
            Text::Invalid { last_good, .. } => last_good.as_ref().map(|(revision, _)| *revision),
        }
    }

    #[test]
    fn the_last_good_text_stays_in_mind_until_the_key_is_gone() {
        let good = "kind: profile\nname: web\nspec: {}\n";
        let mut parser = Parser::new("ovh");
        read(&mut parser, &[(KEY, 2, good)]);
        assert_eq!(last_good(&read(&mut parser, &[(KEY, 3, "kind: [")])), Some(2));
        assert_eq!(last_good(&read(&mut parser, &[(KEY, 4, "name: web")])), Some(2));
        read(&mut parser, &[]);
        assert_eq!(last_good(&read(&mut parser, &[(KEY, 6, "kind: [")])), None);
    }

    #[test]
    fn other_keys_are_not_documents() {
        let mut parser = Parser::new("ovh");
        let desired = read(
            &mut parser,
            &[
                ("greeting", 2, "hello"),
                ("/tenants/default/status/profiles/web/ovh", 3, "{}"),
                (KEY, 4, "x"),
            ],
        );
        assert_eq!(desired.documents.len(), 1);
    }

    #[test]
    fn hosts_of_a_wrong_text_are_its_own_or_those_of_the_last_good_one() {
        let mut parser = Parser::new("ovh");
        let hosts = |desired: &Desired| desired.documents.values().next().unwrap().names_host("ovh");
        assert_eq!(hosts(&read(&mut parser, &[(KEY, 2, "kind: [")])), None);
        read(
            &mut parser,
            &[(KEY, 3, "kind: profile\nname: web\nhost: ovh\nspec: {}\n")],
        );
        assert_eq!(hosts(&read(&mut parser, &[(KEY, 4, "kind: [")])), Some(true));
        assert_eq!(hosts(&read(&mut parser, &[(KEY, 5, "host: ionos")])), Some(false));
    }
}
