//! What answers look like on the screen. Pure: responses in, bytes out; only [`write`] touches the world.

pub(crate) mod columns;
pub(crate) mod fields;
pub(crate) mod json;
pub(crate) mod simple;

use std::io::{self, Write};

use clap::ValueEnum;

use super::error::CliError;

/// `-w`. Where none is given each command takes what suits a reader: simple for keys, a table for the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Plain lines, as etcdctl writes them
    Simple,
    /// etcdctl's JSON: bytes in base64
    Json,
    /// Columns for people
    Table,
    /// etcdctl's fields: one name and value on each line
    Fields,
    /// The answer as it came, in protobuf
    Protobuf,
}

/// Writes to standard output, all of it, now.
pub(crate) fn write(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|error| CliError::output(&error))
}

/// One JSON value on one line.
pub(crate) fn write_json(value: &serde_json::Value) -> Result<(), CliError> {
    write(format!("{value}\n").as_bytes())
}
