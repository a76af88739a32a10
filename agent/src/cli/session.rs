//! What every command is given: the way to the cluster, and how answers are to be shown.

use prost::Message;
use proto::etcdserverpb as pb;
use serde_json::Value;

use super::client::Client;
use super::error::CliError;
use super::format::fields::{self, Fields};
use super::format::simple::Style;
use super::format::{self, Format, json};

#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) format: Option<Format>,
    pub(super) hex: bool,
}

impl Session {
    /// Shows an answer as the user wants it. Where a command has no table of its own, its plain lines stand for it.
    pub(super) fn show<M: Message>(
        &self,
        answer: &M,
        json: impl FnOnce(&M) -> Value,
        fields: impl FnOnce(&mut Fields, &M),
        simple: impl FnOnce(&mut Vec<u8>, &M, Style),
    ) -> Result<(), CliError> {
        match self.format {
            Some(Format::Json) => format::write_json(&json(answer)),
            Some(Format::Fields) => {
                let mut out = Fields::default();
                fields(&mut out, answer);
                format::write(&out.into_bytes())
            }
            Some(Format::Protobuf) => format::write(&answer.encode_to_vec()),
            Some(Format::Simple | Format::Table) | None => {
                let mut out = Vec::new();
                simple(&mut out, answer, self.style());
                format::write(&out)
            }
        }
    }

    /// The same, for answers whose plain text is one line that the command knows.
    pub(super) fn show_line<M: Message>(
        &self,
        answer: &M,
        json: impl FnOnce(&M) -> Value,
        fields: impl FnOnce(&mut Fields, &M),
        line: &str,
    ) -> Result<(), CliError> {
        self.show(answer, json, fields, |out, _, _| {
            out.extend_from_slice(line.as_bytes());
            out.push(b'\n');
        })
    }

    /// The same, for answers that hold names: `(in JSON, in fields)` is what those are called.
    pub(super) fn show_names<M: Message>(
        &self,
        answer: &M,
        header: Option<&pb::ResponseHeader>,
        (in_json, in_fields): (&str, &str),
        names: &[String],
        text: &[u8],
    ) -> Result<(), CliError> {
        self.show(
            answer,
            |_| json::names(header, in_json, names),
            |out, _| {
                fields::header(out, header);
                fields::names(out, in_fields, names);
            },
            |out, _, _| out.extend_from_slice(text),
        )
    }

    /// The same, for answers that hold nothing but their header.
    pub(super) fn show_done<M: Message>(
        &self,
        answer: &M,
        header: Option<&pb::ResponseHeader>,
        line: &str,
    ) -> Result<(), CliError> {
        self.show_line(
            answer,
            |_| json::only_header(header),
            |out, _| fields::header(out, header),
            line,
        )
    }

    pub(super) fn style(&self) -> Style {
        Style {
            hex: self.hex,
            value_only: false,
        }
    }
}
