//! `agentctl adopt`: what was made by hand becomes a document, and the document's.

use clap::Args;
use proto::agent::v1::{ClaimRequest, LiveObject, ReadLiveRequest};
use serde_json::{Map, Value, json};

use super::apply;
use super::atomic::{self, Step, Write};
use super::documents::parse_kind;
use super::error::CliError;
use super::format::{self, Format};
use super::instance::written;
use super::session::Session;
use crate::document::{self, DEFAULT_TENANT, DesiredKey, Document, Kind};

/// Incus' own keys: no document may say them.
const INCUS_OWN: [&str; 4] = ["volatile.", "image.", "oci.", document::OWNERSHIP_PREFIX];

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl adopt instance byhand --host ovh\n  agentctl adopt profile web --host ovh --tenant shop\n\n\
                        Where there is no document yet, one is written that says what is there. From then on the host \
                        keeps it so.\nNothing is restarted, and what the document does not name stays as it is."
)]
pub(super) struct AdoptArgs {
    /// Its kind
    #[arg(value_parser = parse_kind)]
    kind: Kind,
    /// Its name
    name: String,
    /// Where it is [default: where its document says]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Whose it is
    #[arg(long, value_name = "TENANT", default_value = DEFAULT_TENANT)]
    tenant: String,
}

impl AdoptArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let key = DesiredKey {
            kind: self.kind,
            tenant: if self.kind.has_tenant() {
                self.tenant.clone()
            } else {
                String::new()
            },
            name: self.name.clone(),
        };
        let (before, _) = apply::read(&session.client, std::slice::from_ref(&key)).await?;
        let (host, imported) = match before.into_iter().next().flatten() {
            Some(stored) => {
                let document = stored.document.ok_or_else(|| {
                    CliError::failed(format!("the document of {key} is wrong"))
                        .hint("`agentctl status` says what is")
                })?;
                let host = self.host.clone().or_else(|| document.hosts.first().cloned());
                let host = host.ok_or_else(|| {
                    CliError::usage(format!("the document of {key} is for every host"))
                        .hint("say which: --host HOST")
                })?;
                (host, None)
            }
            None => {
                let (host, document) = self.import(session, &key).await?;
                let text = written(&document);
                let step = Step {
                    key: key.key(),
                    expected: Some(0),
                    write: Write::Put(text.clone()),
                };
                let revision = atomic::commit(&session.client, &[step], 0).await?;
                let revision = revision.ok_or_else(|| {
                    CliError::failed(format!("somebody else wrote a document of {key} meanwhile"))
                        .hint("try again")
                })?;
                (host, Some((text, revision)))
            }
        };
        let claim = ClaimRequest {
            kind: key.kind.singular().to_owned(),
            tenant: key.tenant.clone(),
            name: key.name.clone(),
            host: host.clone(),
        };
        let claimed = session
            .client
            .claim(claim)
            .await
            .map_err(|error| match &imported {
                Some(_) => CliError::failed(format!("its document is written, but: {error}")).hint(
                    "run the same command again, or `agentctl delete` the document: the object is untouched",
                ),
                None => error,
            })?;
        show(session, &key, &host, imported.as_ref(), claimed.unchanged)
    }

    /// The document of what is there.
    async fn import(&self, session: &Session, key: &DesiredKey) -> Result<(String, Document), CliError> {
        let request = ReadLiveRequest {
            kind: key.kind.singular().to_owned(),
            tenant: key.tenant.clone(),
            name: key.name.clone(),
            host: self.host.clone().unwrap_or_default(),
        };
        let live = session.client.read_live(request).await?;
        let mut found = live.objects.into_iter();
        let (Some(LiveObject { host, object }), other) = (found.next(), found.next()) else {
            let reasons: Vec<String> = live.silent.into_iter().map(|silent| silent.reason).collect();
            let reasons = if reasons.is_empty() {
                String::new()
            } else {
                format!(" ({})", reasons.join("; "))
            };
            return Err(CliError::failed(format!("no host has an object {key}{reasons}")));
        };
        if let Some(other) = other {
            return Err(
                CliError::usage(format!("{host} and {} both have {key}", other.host))
                    .hint("say which: --host HOST"),
            );
        }
        let object: Value = serde_json::from_slice(&object)
            .map_err(|_| CliError::failed(format!("the answer of {host} cannot be read")))?;
        let document = imported(key, &host, &object).map_err(|error| {
            CliError::failed(format!("{key} on {host} cannot be said in a document: {error}"))
        })?;
        Ok((host, document))
    }
}

fn show(
    session: &Session,
    key: &DesiredKey,
    host: &str,
    imported: Option<&(String, i64)>,
    unchanged: bool,
) -> Result<(), CliError> {
    if session.format == Some(Format::Json) {
        return format::write_json(
            &json!({"kind": key.kind.singular(), "name": key.name, "tenant": key.tenant,
            "host": host, "unchanged": unchanged, "revision": imported.map(|(_, revision)| revision)}),
        );
    }
    let mut text = String::new();
    if let Some((document, revision)) = imported {
        text.push_str(&format!(
            "{document}---\nits document is at revision {revision}\n"
        ));
    }
    text.push_str(&if unchanged {
        format!("{key} on {host} was the cluster's already\n")
    } else {
        format!("{key} on {host} is kept as its document says from now on\n")
    });
    format::write(text.as_bytes())
}

/// The document that says what Incus has. A field that no document of the kind may have is left out.
fn imported(key: &DesiredKey, host: &str, live: &Value) -> Result<Document, document::DocumentError> {
    let mut spec = Map::new();
    for field in [
        "type",
        "driver",
        "pool",
        "content_type",
        "description",
        "profiles",
        "config",
        "devices",
        "ephemeral",
    ] {
        let Some(value) = live.get(field) else { continue };
        let value = match (field, value) {
            ("config", Value::Object(config)) => {
                let mut config = config.clone();
                config.retain(|key, _| !INCUS_OWN.iter().any(|own| key.starts_with(own)));
                Value::Object(config)
            }
            (_, value) => value.clone(),
        };
        let is_empty = match &value {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::String(text) => text.is_empty(),
            Value::Object(entries) => entries.is_empty(),
            _ => false,
        };
        if !is_empty {
            spec.insert(field.to_owned(), value);
        }
    }
    if key.kind == Kind::Instance {
        let image = live
            .pointer("/config/volatile.base_image")
            .and_then(Value::as_str);
        let source = match image.filter(|image| !image.is_empty()) {
            Some(fingerprint) => json!({"type": "image", "fingerprint": fingerprint}),
            None => json!({"type": "none"}),
        };
        spec.insert("source".to_owned(), source);
    }
    loop {
        let document = document::parse(&text(key, host, live, &spec));
        let Err(error) = &document else { return document };
        // `spec.driver`, of a kind that has none.
        let unknown = error.path.strip_prefix("spec.").map(str::to_owned);
        let is_unknown = error.message.starts_with("no such field");
        match unknown.filter(|_| is_unknown) {
            Some(field) if spec.remove(&field).is_some() => {}
            _ => return document,
        }
    }
}

fn text(key: &DesiredKey, host: &str, live: &Value, spec: &Map<String, Value>) -> String {
    let mut fields = Map::new();
    fields.insert("kind".to_owned(), key.kind.singular().into());
    fields.insert("name".to_owned(), key.name.clone().into());
    if key.kind.has_tenant() {
        fields.insert("tenant".to_owned(), key.tenant.clone().into());
    }
    fields.insert("host".to_owned(), host.into());
    if key.kind == Kind::Instance {
        let status = live.get("status").and_then(Value::as_str);
        fields.insert("running".to_owned(), (status != Some("Stopped")).into());
    }
    fields.insert("spec".to_owned(), Value::Object(spec.clone()));
    Value::Object(fields).to_string()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn what_is_there_becomes_a_document() {
        let key = |kind: Kind, tenant: &str| DesiredKey {
            kind,
            tenant: tenant.into(),
            name: "web".into(),
        };
        let live = json!({"name": "web", "type": "container", "status": "Running", "profiles": ["default"],
            "description": "", "ephemeral": false, "architecture": "x86_64", "expanded_config": {"limits.cpu": "2"},
            "config": {"limits.memory": "64MiB", "volatile.base_image": "abc", "image.os": "debian",
                "user.agent.cluster": "other"},
            "devices": {"eth0": {"type": "none"}}});
        expect![[r#"
            kind: instance
            name: web
            tenant: shop
            host: ovh
            running: true
            spec:
              config:
                limits.memory: 64MiB
              devices:
                eth0:
                  type: none
              profiles:
              - default
              source:
                fingerprint: abc
                type: image
              type: container
        "#]]
        .assert_eq(&written(
            &imported(&key(Kind::Instance, "shop"), "ovh", &live).unwrap(),
        ));
        let profile =
            json!({"name": "web", "driver": "none", "description": "d", "config": {}, "devices": {}});
        expect![[r#"
            kind: profile
            name: web
            host: ovh
            spec:
              description: d
        "#]]
        .assert_eq(&written(
            &imported(&key(Kind::Profile, "default"), "ovh", &profile).unwrap(),
        ));
    }
}
