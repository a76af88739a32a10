//! A backup's spec: of what, and for snapshots and for exports when, how many, and where to.

use serde_json::{Map, Value};

use super::host;
use crate::document::fields::{Reader, fault, find, join, map, missing, word, wrong_type};
use crate::document::yaml::{Content, Entry, Node};
use crate::document::{DocumentError, Kind, Schedule, name};

const FIELDS: [&str; 5] = ["instance", "volume", "pool", "snapshots", "exports"];
const KEEP: [&str; 6] = ["last", "hourly", "daily", "weekly", "monthly", "yearly"];
/// More of one sort is a mistake, not a plan.
const KEEP_MAX: u32 = 10_000;
const HOSTS_MAX: usize = 16;

pub(super) fn read(reader: &mut Reader, node: &Node) -> Result<Map<String, Value>, DocumentError> {
    let entries = host::known(reader, node, "backup", &FIELDS)?;
    let mut spec = Map::new();
    match (
        find(entries, "instance"),
        find(entries, "volume"),
        find(entries, "pool"),
    ) {
        (Some(_), Some(second), _) | (Some(_), None, Some(second)) => {
            let message = "stands beside instance: a backup is of one thing";
            return Err(fault(second, &join("spec", &second.name), message));
        }
        (Some(instance), None, None) => {
            spec.insert("instance".into(), named(instance, Kind::Instance)?);
        }
        (None, Some(volume), Some(pool)) => {
            spec.insert("volume".into(), named(volume, Kind::Volume)?);
            spec.insert("pool".into(), named(pool, Kind::StoragePool)?);
        }
        (None, Some(_), None) => return Err(missing(node, "spec.pool", "the pool that the volume is in")),
        (None, None, _) => {
            return Err(missing(
                node,
                "spec.instance",
                "what is backed up: an instance, or a volume and its pool",
            ));
        }
    }
    if find(entries, "snapshots")
        .or_else(|| find(entries, "exports"))
        .is_none()
    {
        let what = "when, as {schedule: '0 * * * *', keep: {hourly: 24}}; or exports";
        return Err(missing(node, "spec.snapshots", what));
    }
    for name in ["snapshots", "exports"] {
        if let Some(entry) = find(entries, name) {
            spec.insert(name.to_owned(), rule(reader, entry)?.into());
        }
    }
    Ok(spec)
}

fn named(entry: &Entry, kind: Kind) -> Result<Value, DocumentError> {
    let at = join("spec", &entry.name);
    let text = word(&entry.value, &at)?;
    match name::fault(kind, text) {
        Some(wrong) => Err(fault(entry, &at, wrong)),
        None => Ok(text.into()),
    }
}

fn rule(reader: &mut Reader, entry: &Entry) -> Result<Map<String, Value>, DocumentError> {
    let path = join("spec", &entry.name);
    let entries = map(&entry.value, &path)?;
    let names: &[&str] = match entry.name.as_str() {
        "exports" => &["schedule", "keep", "to"],
        _ => &["schedule", "keep"],
    };
    reader.known(entries, &path, names, "no such field")?;
    let at = join(&path, "schedule");
    let Some(schedule) = find(entries, "schedule") else {
        return Err(missing(
            &entry.value,
            &at,
            "five fields of cron in UTC, as '30 3 * * *', or @daily",
        ));
    };
    let text = word(&schedule.value, &at)?;
    Schedule::parse(text).map_err(|wrong| {
        let message = format!("is no schedule of cron ({wrong}); as '30 3 * * *', in UTC");
        fault(schedule, &at, message)
    })?;
    let mut rule = Map::new();
    rule.insert("schedule".into(), text.into());
    rule.insert("keep".into(), keep(reader, &entry.value, entries, &path)?.into());
    if let Some(to) = find(entries, "to") {
        rule.insert("to".into(), hosts(to, &join(&path, "to"))?.into());
    }
    Ok(rule)
}

fn keep(
    reader: &mut Reader,
    node: &Node,
    entries: &[Entry],
    path: &str,
) -> Result<Map<String, Value>, DocumentError> {
    let path = join(path, "keep");
    let what = "how many stay, as {hourly: 24, daily: 7}";
    let Some(keep) = find(entries, "keep") else {
        return Err(missing(node, &path, what));
    };
    let entries = map(&keep.value, &path)?;
    reader.known(entries, &path, &KEEP, "no such field")?;
    if entries.is_empty() {
        return Err(wrong_type(&keep.value, &path, what));
    }
    let mut counts = Map::new();
    for entry in entries {
        let at = join(&path, &entry.name);
        let count = word(&entry.value, &at)?.parse::<u32>().ok();
        let Some(count) = count.filter(|count| (1..=KEEP_MAX).contains(count)) else {
            return Err(fault(entry, &at, format!("is a number from 1 to {KEEP_MAX}")));
        };
        counts.insert(entry.name.clone(), count.into());
    }
    Ok(counts)
}

fn hosts(entry: &Entry, path: &str) -> Result<Vec<Value>, DocumentError> {
    let Content::List(items) = &entry.value.content else {
        return Err(wrong_type(&entry.value, path, "a list of hosts"));
    };
    if items.len() > HOSTS_MAX {
        return Err(fault(entry, path, format!("has at most {HOSTS_MAX} hosts")));
    }
    let mut hosts: Vec<Value> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let host = word(item, &path)?;
        if let Some(wrong) = name::plain_fault(host) {
            return Err(DocumentError::new(item.line, item.column, &path, wrong));
        }
        hosts.push(host.into());
    }
    Ok(hosts)
}
