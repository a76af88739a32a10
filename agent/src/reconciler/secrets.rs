//! Secrets between the store and a host: opened here, seen by nobody who plans.
//!
//! Before a plan is made, stand-ins take the place of references in documents, and of the same values in what Incus has,
//! so that a plan, a status and a log line cannot hold a value: they are made without any. Where a step is carried out its
//! stand-ins become values, and what comes back of it is searched for them before it is said.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use super::desired::{Desired, StoredSecret};
use super::observe::{Observed, config_field};
use super::ownership;
use super::services::{Action, Content};
use super::step::{Change, Step};
use crate::document::{
    DEFAULT_TENANT, DesiredKey, Document, SecretKey, another_value, may_hold_stand_in, stands_for,
};
use crate::secrets::{KeyFile, Sealed};
use crate::service::digest;

/// What this host can open. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Secrets(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keys: Option<KeyFile>,
    /// What documents of this host refer to.
    opened: Mutex<BTreeMap<SecretKey, Opened>>,
}

#[derive(Clone, Debug)]
struct Opened {
    revision: i64,
    value: Plain,
}

/// A value that nothing prints.
#[derive(Clone, PartialEq, Eq)]
struct Plain(Arc<[u8]>);

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Steps as they are carried out, and what is in them that nobody may say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Revealed(Vec<(String, Plain)>);

impl Secrets {
    /// `None`: nothing can be opened here.
    pub(crate) fn new(keys: Option<KeyFile>) -> Secrets {
        Secrets(Arc::new(Inner {
            keys,
            opened: Mutex::default(),
        }))
    }

    /// Puts stand-ins in the place of what the documents of `host` refer to, and notes which have to wait for a secret.
    pub(crate) fn stand_in(&self, desired: &mut Desired, host: &str) {
        let Desired {
            documents,
            secrets,
            waiting,
            ..
        } = desired;
        let mut opened = self.0.opened.lock();
        opened.retain(|key, one| {
            secrets
                .get(key)
                .is_some_and(|stored| stored.revision == one.revision)
        });
        for (key, wanted) in documents {
            let Some(document) = wanted.text.in_force_mut() else {
                continue;
            };
            if document.secrets().is_empty() || !document.names_host(host) {
                continue;
            }
            match self.open_all(document, secrets, &mut opened) {
                Ok(()) => {
                    let tenant = tenant_of(key);
                    Arc::make_mut(document).stand_in_for_secrets(|name| {
                        let one = opened.get(&secret(tenant, name))?;
                        Some((one.revision, digest(&one.value.0)))
                    });
                }
                Err(reason) => {
                    waiting.insert(key.clone(), reason);
                }
            }
        }
    }

    /// Opens what a document refers to; why it has to wait.
    fn open_all(
        &self,
        document: &Document,
        secrets: &BTreeMap<SecretKey, StoredSecret>,
        opened: &mut BTreeMap<SecretKey, Opened>,
    ) -> Result<(), String> {
        let tenant = tenant_of(&document.desired_key()).to_owned();
        for name in document.secrets() {
            let key = secret(&tenant, name);
            let Some(stored) = secrets.get(&key) else {
                let of = match tenant.as_str() {
                    DEFAULT_TENANT => String::new(),
                    tenant => format!(" --tenant {tenant}"),
                };
                return Err(format!("waits for secret {name}: agentctl secret set {name}{of}"));
            };
            if opened.contains_key(&key) {
                continue;
            }
            let value = self
                .open(&key, stored)
                .map_err(|reason| format!("secret {key} {reason}"))?;
            let revision = stored.revision;
            opened.insert(key, Opened { revision, value });
        }
        Ok(())
    }

    fn open(&self, key: &SecretKey, stored: &StoredSecret) -> Result<Plain, String> {
        let sealed = Sealed::read(&stored.value).map_err(|error| error.to_string())?;
        let Some(file) = &self.0.keys else {
            return Err("cannot be opened here: this member has no --secrets-key-file".to_owned());
        };
        let keys = file
            .keys()
            .map_err(|error| format!("cannot be opened here: {error}"))?;
        let value = sealed
            .open(&keys, &key.key())
            .map_err(|error| error.to_string())?;
        Ok(Plain(value.into()))
    }

    fn value(&self, tenant: &str, name: &str) -> Option<Plain> {
        let opened = self.0.opened.lock();
        opened.get(&secret(tenant, name)).map(|one| one.value.clone())
    }

    /// Puts stand-ins in the place of the same values in what Incus has. `desired`: the documents that it is compared
    /// with. A value where there should be a secret's, and is another, is not shown either: it may be a former one.
    pub(crate) fn hide(&self, observed: &mut Observed, desired: &[&Desired]) {
        for (key, object) in &mut observed.objects {
            let wanted: Vec<&Document> = desired
                .iter()
                .filter_map(|desired| desired.documents.get(key)?.text.in_force())
                .map(Arc::as_ref)
                .filter(|document| !document.secrets().is_empty())
                .collect();
            let noted = object
                .config
                .get(ownership::APPLIED)
                .filter(|text| may_hold_stand_in(text));
            if wanted.is_empty() && noted.is_none() {
                continue;
            }
            let noted: Value = noted
                .and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or_default();
            let field = config_field(key.kind);
            for (entry, value) in &mut object.config {
                let of_wanted = wanted
                    .iter()
                    .filter_map(|document| document.spec.get(field)?.get(entry));
                let of_noted = noted.get("spec").and_then(|spec| spec.get(field)?.get(entry));
                let expected: Vec<&str> = of_wanted.chain(of_noted).filter_map(Value::as_str).collect();
                if let Some(instead) = self.instead_of(key, &expected, value) {
                    *value = instead;
                }
            }
        }
    }

    /// What is seen of a value that may be one of these, of which some are stand-ins. `None`: the value itself.
    fn instead_of(&self, key: &DesiredKey, expected: &[&str], value: &str) -> Option<String> {
        let expected = expected
            .iter()
            .filter_map(|text| Some((*text, stands_for(text)?)));
        let mut instead = None;
        for (text, one) in expected {
            // What cannot be compared is left as it is.
            let agrees = self
                .value(tenant_of(key), one.name)
                .is_none_or(|secret| secret.0.as_ref() == value.as_bytes());
            if agrees {
                return Some(text.to_owned());
            }
            instead = Some(another_value());
        }
        instead
    }

    /// Puts values in the place of stand-ins.
    ///
    /// # Errors
    /// A secret that is not to be had any more, or that Incus cannot take.
    pub(crate) fn reveal(&self, key: &DesiredKey, steps: &mut [Step]) -> Result<Revealed, String> {
        let mut revealed = Revealed::default();
        let field = config_field(key.kind);
        for step in steps {
            match step {
                Step::Create { body } => {
                    let config = body.get_mut(field).and_then(Value::as_object_mut);
                    for value in config.into_iter().flat_map(|config| config.values_mut()) {
                        if let Some(text) = value.as_str()
                            && let Some(text) = self.text(key, text, &mut revealed)?
                        {
                            *value = text.into();
                        }
                    }
                }
                Step::Change { changes } => {
                    for change in changes {
                        if let Change::Config {
                            after: Some(after), ..
                        } = change
                            && let Some(text) = self.text(key, after, &mut revealed)?
                        {
                            *after = text;
                        }
                    }
                }
                Step::Service(act) => {
                    if let Action::Write(file, _) = &mut act.action
                        && let Content::Secret { name, .. } = &file.content
                    {
                        let value = self.needed(key, name)?;
                        revealed.0.push((name.clone(), value.clone()));
                        Arc::make_mut(file).content = Content::Plain(value.0.to_vec());
                    }
                }
                Step::Start
                | Step::Stop { .. }
                | Step::Delete { .. }
                | Step::Discard { .. }
                | Step::Tunnel(_) => {}
            }
        }
        Ok(revealed)
    }

    /// The text of a stand-in; `None` for any other.
    fn text(&self, key: &DesiredKey, text: &str, revealed: &mut Revealed) -> Result<Option<String>, String> {
        let Some(one) = stands_for(text) else {
            return Ok(None);
        };
        let value = self.needed(key, one.name)?;
        let text = std::str::from_utf8(&value.0)
            .ok()
            .filter(|text| !text.contains('\0'))
            .ok_or_else(|| format!("secret {} is no text, which config has to be", one.name))?;
        let text = text.to_owned();
        revealed.0.push((one.name.to_owned(), value));
        Ok(Some(text))
    }

    fn needed(&self, key: &DesiredKey, name: &str) -> Result<Plain, String> {
        self.value(tenant_of(key), name)
            .ok_or_else(|| format!("secret {name} is not to be had any more"))
    }
}

impl Revealed {
    /// A text without the values that are in it.
    pub(crate) fn scrubbed(&self, text: String) -> String {
        self.0.iter().fold(text, |text, (name, value)| {
            match std::str::from_utf8(&value.0) {
                // One letter says nothing, and would leave no text readable.
                Ok(value) if value.len() > 1 => text.replace(value, &format!("(secret {name})")),
                _ => text,
            }
        })
    }
}

fn secret(tenant: &str, name: &str) -> SecretKey {
    SecretKey {
        tenant: tenant.to_owned(),
        name: name.to_owned(),
    }
}

/// What belongs to the cluster is the operators', whose tenant is the default one.
fn tenant_of(key: &DesiredKey) -> &str {
    match key.tenant.as_str() {
        "" => DEFAULT_TENANT,
        tenant => tenant,
    }
}

#[cfg(test)]
mod tests;
