//! A service's spec: what is run and how, or a systemd unit as it is.

use serde_json::{Map, Value};

use super::host;
use crate::document::DocumentError;
use crate::document::fields::{Reader, boolean, fault, find, join, map, missing, one_of, word};
use crate::document::yaml::{Entry, Node};

const FIELDS: [&str; 10] = [
    "exec",
    "args",
    "environment",
    "user",
    "workingDirectory",
    "restart",
    "after",
    "unit",
    "enabled",
    "files",
];
/// What a unit's own text says.
const NOT_BESIDE_UNIT: [&str; 7] = [
    "exec",
    "args",
    "environment",
    "user",
    "workingDirectory",
    "restart",
    "after",
];

pub(super) fn read(reader: &mut Reader, node: &Node) -> Result<Map<String, Value>, DocumentError> {
    let entries = host::known(reader, node, "service", &FIELDS)?;
    match (find(entries, "unit"), find(entries, "exec")) {
        (Some(_), _) => {
            let beside = entries
                .iter()
                .find(|entry| NOT_BESIDE_UNIT.contains(&entry.name.as_str()));
            if let Some(entry) = beside {
                let message = "stands beside unit: the unit says everything";
                return Err(fault(entry, &join("spec", &entry.name), message));
            }
        }
        (None, Some(_)) => {}
        (None, None) => {
            return Err(missing(
                node,
                "spec.exec",
                "the absolute path of what is run, or a unit",
            ));
        }
    }
    let mut spec = Map::new();
    for entry in entries {
        let at = join("spec", &entry.name);
        let value: Value = match entry.name.as_str() {
            "exec" | "workingDirectory" => path_or_root(entry, &at)?.into(),
            "args" => host::lines(reader, entry, &at)?.into(),
            "environment" => environment(reader, entry, &at)?.into(),
            "user" => user(entry, &at)?.into(),
            "restart" => one_of(&entry.value, &at, &["always", "on-failure", "no"])?.into(),
            "after" => after(reader, entry, &at)?.into(),
            "unit" => unit(entry, &at)?.into(),
            "enabled" => boolean(&entry.value, &at)?.into(),
            _ => host::files(reader, entry)?.into(),
        };
        spec.insert(entry.name.clone(), value);
    }
    Ok(spec)
}

fn path_or_root<'a>(entry: &'a Entry, at: &str) -> Result<&'a str, DocumentError> {
    match word(&entry.value, at)? {
        "/" if entry.name == "workingDirectory" => Ok("/"),
        _ => host::path(entry, at),
    }
}

fn environment(reader: &mut Reader, entry: &Entry, at: &str) -> Result<Map<String, Value>, DocumentError> {
    let mut environment = Map::new();
    for variable in map(&entry.value, at)? {
        let at = join(at, &variable.name);
        reader.remember(&at, variable.line);
        let mut bytes = variable.name.bytes();
        let good = bytes
            .next()
            .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !good {
            return Err(fault(
                variable,
                &at,
                "a variable's name has letters, digits and underscores only",
            ));
        }
        environment.insert(variable.name.clone(), host::line(&variable.value, &at)?.into());
    }
    Ok(environment)
}

fn user<'a>(entry: &'a Entry, at: &str) -> Result<&'a str, DocumentError> {
    let user = word(&entry.value, at)?;
    let good = (1..=32).contains(&user.len())
        && user.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && user
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if good {
        Ok(user)
    } else {
        Err(fault(entry, at, "is the name of a user, as www-data"))
    }
}

fn after(reader: &mut Reader, entry: &Entry, at: &str) -> Result<Vec<Value>, DocumentError> {
    let units = host::lines(reader, entry, at)?;
    let good = |unit: &str| {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"@._:-".contains(&byte);
        unit.bytes().all(is_name) && unit.rsplit_once('.').is_some_and(|(name, _)| !name.is_empty())
    };
    match units.iter().position(|unit| !unit.as_str().is_some_and(good)) {
        None => Ok(units),
        Some(index) => Err(fault(
            entry,
            &format!("{at}[{index}]"),
            "is the whole name of a unit, as network-online.target",
        )),
    }
}

fn unit<'a>(entry: &'a Entry, at: &str) -> Result<&'a str, DocumentError> {
    let unit = host::text(entry, at)?;
    if unit.contains('\0') || !unit.lines().any(|line| line.trim() == "[Service]") {
        return Err(fault(
            entry,
            at,
            "is the text of a systemd unit, with a section [Service]",
        ));
    }
    Ok(unit)
}
