//! `agentctl template`: what templates there are, what they need, and what comes out of them.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{FillArgs, TEMPLATES_PREFIX, template_of};
use crate::cli::Session;
use crate::cli::documents::{self, Selection, Stored};
use crate::cli::error::CliError;
use crate::cli::format::columns::columns;
use crate::cli::format::{self, Format};
use crate::document::{self, Kind, Rendered, Template, Variable};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TemplateCommand {
    /// The templates that the cluster holds
    List(ListArgs),
    /// What a template needs, and its documents
    Show(ShowArgs),
    /// The documents that come out, for looking or for `agentctl apply -f -`
    Render(RenderArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  agentctl template list\n\n\
                        A template is a document: `agentctl apply -f web.yaml` stores one, `agentctl delete template\n\
                        web` deletes it. What was made from it stays: `agentctl cluster apply` applies it again.")]
pub(in crate::cli) struct ListArgs {}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  agentctl template show web")]
pub(in crate::cli) struct ShowArgs {
    /// Its name
    name: String,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  agentctl template render web --set APP=shop --hosts ovh,ionos\n  \
                        agentctl template render web --variables shop.yaml --hosts ovh | agentctl apply -f -\n\n\
                        `agentctl cluster apply --template` stores what comes out, and deletes later what no longer does."
)]
pub(in crate::cli) struct RenderArgs {
    /// Its name
    name: String,
    #[command(flatten)]
    fill: FillArgs,
}

impl TemplateCommand {
    pub(in crate::cli) async fn run(self, session: &Session) -> Result<(), CliError> {
        match self {
            Self::List(_) => list(session).await,
            Self::Show(args) => show(session, &template_of(session, &args.name).await?),
            Self::Render(args) => args.run(session).await,
        }
    }
}

impl RenderArgs {
    async fn run(self, session: &Session) -> Result<(), CliError> {
        let values = self.fill.values()?;
        let hosts = self.fill.hosts()?;
        let template = template_of(session, &self.name).await?;
        let place = format!("template {}", self.name);
        let rendered = template
            .render(&values, hosts)
            .map_err(|error| super::apply::wrong(&place, &error))?;
        if session.format == Some(Format::Json) {
            let documents = rendered.iter().map(|rendered| as_json(&rendered.document));
            return format::write_json(&documents.collect());
        }
        format::write(texts(&rendered).as_bytes())
    }
}

fn texts(rendered: &[Rendered]) -> String {
    let texts: Vec<String> = rendered
        .iter()
        .map(|rendered| format!("{}\n", rendered.text.trim_end()))
        .collect();
    texts.join("---\n")
}

fn as_json(document: &document::Document) -> Value {
    serde_json::from_str(&document::canonical_text(document)).unwrap_or_default()
}

async fn list(session: &Session) -> Result<(), CliError> {
    let selection = Selection {
        kind: Some(Kind::Template),
        ..Selection::default()
    };
    let listing = documents::list(&session.client, &[TEMPLATES_PREFIX]).await?;
    let stored = documents::stored(&listing.kvs, &selection);
    match session.format {
        Some(Format::Json) => {
            let templates = stored.iter().filter_map(|stored| stored.document.as_ref());
            format::write_json(&templates.map(as_json).collect())
        }
        Some(Format::Simple) => {
            let names: String = stored
                .iter()
                .map(|stored| format!("{}\n", stored.key.name))
                .collect();
            format::write(names.as_bytes())
        }
        _ if stored.is_empty() => {
            eprintln!("no templates");
            Ok(())
        }
        _ => format::write(list_table(&stored).as_bytes()),
    }
}

fn list_table(stored: &[Stored]) -> String {
    let row = |stored: &Stored| match stored.document.as_ref().map(Template::of) {
        None => [
            stored.key.name.clone(),
            String::new(),
            String::new(),
            String::new(),
            format!(
                "is wrong: `agentctl status template {}` says why",
                stored.key.name
            ),
        ],
        Some(template) => [
            template.name,
            document::split(&template.documents.text).len().to_string(),
            template
                .variables
                .iter()
                .map(variable_word)
                .collect::<Vec<_>>()
                .join(", "),
            template.description,
            String::new(),
        ],
    };
    let headings = ["NAME", "DOCUMENTS", "VARIABLES", "DESCRIPTION", "NOTE"];
    columns(headings, &stored.iter().map(row).collect::<Vec<_>>())
}

fn variable_word(variable: &Variable) -> String {
    match &variable.default {
        None => variable.name.clone(),
        Some(default) => format!("{}={default}", variable.name),
    }
}

fn show(session: &Session, template: &Template) -> Result<(), CliError> {
    if session.format == Some(Format::Json) {
        let variables = template.variables.iter().map(|variable| {
            json!({"name": variable.name, "description": variable.description, "default": variable.default})
        });
        return format::write_json(&json!({
            "name": template.name,
            "description": template.description,
            "variables": variables.collect::<Vec<_>>(),
            "documents": template.documents.text,
        }));
    }
    format::write(show_text(template).as_bytes())
}

fn show_text(template: &Template) -> String {
    let mut text = template.name.clone();
    if !template.description.is_empty() {
        text.push_str(&format!(": {}", template.description));
    }
    text.push('\n');
    if !template.variables.is_empty() {
        let row = |variable: &Variable| {
            let default = match variable.default.as_deref() {
                None => "-".to_owned(),
                Some("") => "\"\"".to_owned(),
                Some(default) => default.to_owned(),
            };
            [variable.name.clone(), default, variable.description.clone()]
        };
        let rows: Vec<_> = template.variables.iter().map(row).collect();
        text.push('\n');
        text.push_str(&columns(["VARIABLE", "DEFAULT", "DESCRIPTION"], &rows));
    }
    format!("{text}\n{}\n", template.documents.text.trim_end())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proto::mvccpb::KeyValue;

    use super::*;

    const WEB: &str = "kind: template
name: web
spec:
  description: A web server
  variables:
    APP: {description: its name}
    MEMORY: {description: what it may use, default: 256MiB}
  documents: |
    kind: profile
    name: @APP@
    spec:
      config: {limits.memory: @MEMORY@}
    ---
    kind: instance
    name: @APP@-@HOST@
    host: @HOST@
    spec:
      source: {type: image, alias: busybox}
";

    #[test]
    fn templates_are_listed_and_shown() {
        let kv = |name: &str, value: &str| KeyValue {
            key: format!("{TEMPLATES_PREFIX}{name}").into(),
            value: value.to_owned().into(),
            ..Default::default()
        };
        let stored = documents::stored(&[kv("web", WEB), kv("wrong", "kind: [")], &Selection::default());
        let template = Template::of(stored[0].document.as_ref().unwrap());
        expect![[r#"
            NAME   DOCUMENTS  VARIABLES           DESCRIPTION   NOTE
            web    2          APP, MEMORY=256MiB  A web server
            wrong                                               is wrong: `agentctl status template wrong` says why

            web: A web server

            VARIABLE  DEFAULT  DESCRIPTION
            APP       -        its name
            MEMORY    256MiB   what it may use

            kind: profile
            name: @APP@
            spec:
              config: {limits.memory: @MEMORY@}
            ---
            kind: instance
            name: @APP@-@HOST@
            host: @HOST@
            spec:
              source: {type: image, alias: busybox}
        "#]].assert_eq(&format!("{}\n{}", list_table(&stored), show_text(&template)));
    }

    #[test]
    fn what_comes_out_goes_in_again() {
        let template = Template::of(&document::parse(WEB).unwrap());
        let values = [("APP".to_owned(), "shop".to_owned())].into();
        let hosts = ["ovh".to_owned(), "ionos".to_owned()];
        let text = texts(&template.render(&values, &hosts).unwrap());
        expect![[r#"
            kind: profile
            name: shop
            spec:
              config: {limits.memory: 256MiB}
            hosts: [ovh, ionos]
            ---
            kind: instance
            name: shop-ovh
            host: ovh
            spec:
              source: {type: image, alias: busybox}
            ---
            kind: instance
            name: shop-ionos
            host: ionos
            spec:
              source: {type: image, alias: busybox}
        "#]]
        .assert_eq(&text);
        for (_, document) in document::split(&text) {
            document::parse(document).unwrap();
        }
    }
}
