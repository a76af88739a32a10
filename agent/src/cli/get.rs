//! `agentctl get`: the documents the cluster holds.

use clap::Args;
use serde_json::{Value, json};

use super::Session;
use super::change;
use super::documents::{self, Selection, Stored, parse_kind};
use super::error::CliError;
use super::format::columns::columns;
use super::format::{self, Format};
use super::live;
use crate::document::{self, DEFAULT_TENANT, Kind};

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl get\n  agentctl get instances --tenant shop\n  \
                        agentctl get instance web > web.yaml\n  agentctl get instance web --live\n\n\
                        With KIND and NAME it prints the document itself, ready for `agentctl apply -f`."
)]
pub(super) struct GetArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// With KIND and NAME: beside it what Incus has on each host, and what the host says
    #[arg(long, requires = "name")]
    live: bool,
}

/// Which documents a command is about; all, if nothing is said.
#[derive(Args, Clone, Debug)]
pub(super) struct WhichArgs {
    /// Only this kind, as instance or instances
    #[arg(value_parser = parse_kind)]
    kind: Option<Kind>,
    /// Only this one
    name: Option<String>,
    /// Only this tenant's [default: all; for a NAME: default]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
}

impl WhichArgs {
    pub(super) fn selection(self) -> Selection {
        Selection {
            kind: self.kind,
            name: self.name,
            tenant: self.tenant,
        }
    }
}

impl GetArgs {
    pub(super) async fn run(self, session: &Session) -> Result<(), CliError> {
        let selection = self.which.selection();
        let prefixes = selection.prefixes();
        let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
        let listing = documents::look(&session.client, &prefixes).await?;
        let stored = documents::stored(&listing.kvs, &selection);
        if let (Some(_), [one]) = (&selection.name, stored.as_slice()) {
            if self.live {
                return live::show(session, one).await;
            }
            return match session.format {
                Some(Format::Table) => format::write(table(&stored).as_bytes()),
                Some(Format::Json) => format::write_json(&as_json(one)),
                _ => format::write(whole_lines(&one.text).as_bytes()),
            };
        }
        if selection.name.is_some() {
            return Err(not_there(&selection));
        }
        match session.format {
            Some(Format::Json) => format::write_json(&json!({
                "revision": listing.revision,
                "documents": stored.iter().map(as_json).collect::<Vec<_>>(),
            })),
            Some(Format::Simple) => {
                let lines: String = stored
                    .iter()
                    .map(|stored| format!("{}\n", stored.key.key()))
                    .collect();
                format::write(lines.as_bytes())
            }
            _ if stored.is_empty() => {
                eprintln!("no {}", selection.words());
                Ok(())
            }
            _ => format::write(table(&stored).as_bytes()),
        }
    }
}

pub(super) fn not_there(selection: &Selection) -> CliError {
    CliError::failed(format!("there is no {}", selection.words())).hint("`agentctl get` lists what there is")
}

fn whole_lines(text: &str) -> String {
    if text.ends_with('\n') {
        text.to_owned()
    } else {
        format!("{text}\n")
    }
}

/// A text that is no document is shown as the text it is.
fn as_json(stored: &Stored) -> Value {
    let parsed = stored.document.as_ref().map(document::canonical_text);
    let document = parsed.and_then(|text| serde_json::from_str(&text).ok());
    json!({
        "key": stored.key.key(),
        "revision": stored.revision,
        "document": document.unwrap_or_else(|| Value::String(stored.text.clone())),
    })
}

fn table(stored: &[Stored]) -> String {
    let row = |stored: &Stored| {
        let note = if stored.document.is_none() {
            "is no document: `agentctl status` says why"
        } else {
            ""
        };
        let tenant = tenant_cell(&stored.key.tenant);
        let revision = stored.revision.to_string();
        let hosts = change::hosts(stored.document.as_ref());
        [
            stored.key.kind.to_string(),
            stored.key.name.clone(),
            tenant,
            hosts,
            revision,
            note.to_owned(),
        ]
    };
    let rows: Vec<_> = stored.iter().map(row).collect();
    columns(["KIND", "NAME", "TENANT", "HOST", "REVISION", "NOTE"], &rows)
}

/// Who has no tenants of its own need not read about them.
pub(super) fn tenant_cell(tenant: &str) -> String {
    if tenant == DEFAULT_TENANT {
        String::new()
    } else {
        tenant.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proto::mvccpb::KeyValue;

    use super::*;

    #[test]
    fn documents_are_listed() {
        let kv = |key: &str, value: &str, mod_revision| KeyValue {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            mod_revision,
            ..Default::default()
        };
        let kvs = [
            kv(
                "/cluster/desired/projects/shop",
                "kind: project\nname: shop\nspec: {}\n",
                3,
            ),
            kv("/cluster/desired/unknown/x", "", 4),
            kv("/tenants/default/desired/instances/web", "kind: [", 5),
            kv(
                "/tenants/shop/desired/profiles/web",
                "kind: profile\nname: web\ntenant: shop\nhost: ovh\nspec: {}\n",
                6,
            ),
            kv("/tenants/shop/status/profiles/web/ovh", "{}", 7),
        ];
        let stored = documents::stored(&kvs, &Selection::default());
        expect![[r#"
            KIND      NAME  TENANT  HOST        REVISION  NOTE
            project   shop          every host  3
            instance  web           -           5         is no document: `agentctl status` says why
            profile   web   shop    ovh         6
        "#]]
        .assert_eq(&table(&stored));
    }
}
