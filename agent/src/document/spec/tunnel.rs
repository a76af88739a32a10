//! A tunnel's spec: where a host listens, and which port of which instance is behind it.

use std::net::SocketAddr;

use serde_json::{Map, Value};

use super::host;
use crate::document::fields::{Reader, fault, find, join, missing, word};
use crate::document::yaml::{Entry, Node};
use crate::document::{DocumentError, Kind, name};

const FIELDS: [(&str, &str); 3] = [
    ("listen", "the address of the host, as 127.0.0.1:5432"),
    ("instance", "the instance that it leads to"),
    ("port", "the port of the instance"),
];

pub(super) fn read(reader: &mut Reader, node: &Node) -> Result<Map<String, Value>, DocumentError> {
    let entries = host::known(reader, node, "tunnel", &FIELDS.map(|(name, _)| name))?;
    let mut spec = Map::new();
    for (name, what) in FIELDS {
        let at = join("spec", name);
        let Some(entry) = find(entries, name) else {
            return Err(missing(node, &at, what));
        };
        let value = match name {
            "listen" => listen(entry, &at)?,
            "instance" => instance(entry, &at)?,
            _ => port(entry, &at)?,
        };
        spec.insert(name.to_owned(), value);
    }
    Ok(spec)
}

fn listen(entry: &Entry, at: &str) -> Result<Value, DocumentError> {
    let text = word(&entry.value, at)?;
    match text.parse::<SocketAddr>() {
        // One address has one spelling.
        Ok(address) => Ok(address.to_string().into()),
        Err(_) => Err(fault(
            entry,
            at,
            "is an address of the host and a port, as 127.0.0.1:5432 or '[::1]:5432'; with port 0 it is any that is free",
        )),
    }
}

fn instance(entry: &Entry, at: &str) -> Result<Value, DocumentError> {
    let text = word(&entry.value, at)?;
    match name::fault(Kind::Instance, text) {
        Some(wrong) => Err(fault(entry, at, wrong)),
        None => Ok(text.into()),
    }
}

fn port(entry: &Entry, at: &str) -> Result<Value, DocumentError> {
    match word(&entry.value, at)?.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port.into()),
        _ => Err(fault(entry, at, "is a number from 1 to 65535")),
    }
}
