//! `agentctl get KIND NAME --live`: what is wanted, what is, and what the host says, side by side.

use proto::agent::v1::{LiveObject, ReadLiveRequest};
use proto::etcdserverpb as pb;
use serde_json::{Value, json};

use super::documents::Stored;
use super::duration::ago;
use super::error::CliError;
use super::format::columns::columns;
use super::format::{self, Format};
use super::range::KeyRange;
use super::session::Session;
use crate::document::{self, DesiredKey, Status};

/// Longer values are cut: the whole is in Incus and in the document.
const WIDTH: usize = 40;

/// Shows one document beside its objects.
pub(super) async fn show(session: &Session, stored: &Stored) -> Result<(), CliError> {
    let key = &stored.key;
    let request = ReadLiveRequest {
        kind: key.kind.singular().to_owned(),
        tenant: key.tenant.clone(),
        name: key.name.clone(),
        host: String::new(),
    };
    let live = session
        .client
        .patient(std::time::Duration::from_secs(15))?
        .read_live(request)
        .await?;
    let statuses = statuses(session, key).await?;
    let desired: Value = stored
        .document
        .as_ref()
        .and_then(|document| serde_json::from_str(&document::canonical_text(document)).ok())
        .unwrap_or_default();
    // A host that a document names has something to say of it even where nothing is.
    let named = stored
        .document
        .as_ref()
        .map(|document| document.hosts.clone())
        .unwrap_or_default();
    let mut hosts: Vec<String> = live.objects.iter().map(|object| object.host.clone()).collect();
    hosts.extend(statuses.iter().map(|status| status.host.clone()));
    hosts.extend(named.clone());
    hosts.sort();
    hosts.dedup();
    hosts.retain(|host| named.is_empty() || named.contains(host) || statuses.iter().any(|s| s.host == *host));
    let of_host = |host: &String| {
        let object = live.objects.iter().find(|object| object.host == *host);
        let status = statuses.iter().find(|status| status.host == *host);
        (host.clone(), object.map(parse), status.cloned())
    };
    let views: Vec<_> = hosts.iter().map(of_host).collect();
    if session.format == Some(Format::Json) {
        let hosts: Vec<Value> = views
            .iter()
            .map(|(host, live, status)| json!({"host": host, "live": live, "status": status}))
            .collect();
        return format::write_json(&json!({"revision": stored.revision, "desired": desired, "hosts": hosts}));
    }
    let now = std::time::SystemTime::now();
    let mut text = String::new();
    for (host, live, status) in &views {
        text.push_str(&heading(key, host, status.as_ref(), stored.revision, now));
        match live {
            Some(live) => text.push_str(&table(&desired, live)),
            None => text.push_str("nothing of that name in its Incus\n"),
        }
    }
    format::write(text.as_bytes())?;
    if live.silent.is_empty() {
        return Ok(());
    }
    let reasons: Vec<&str> = live.silent.iter().map(|silent| silent.reason.as_str()).collect();
    Err(CliError::failed(reasons.join("\nerror: ")).hint("what is there is missing above"))
}

fn parse(object: &LiveObject) -> Value {
    serde_json::from_slice(&object.object).unwrap_or_default()
}

async fn statuses(session: &Session, key: &DesiredKey) -> Result<Vec<Status>, CliError> {
    let prefix = document::status_prefix(key.kind, &key.tenant, &key.name);
    let range = KeyRange::prefix(prefix.as_bytes());
    let request = pb::RangeRequest {
        key: range.key,
        range_end: range.range_end,
        ..Default::default()
    };
    let read = session.client.range(request).await?;
    Ok(read
        .kvs
        .iter()
        .filter_map(|kv| serde_json::from_slice(&kv.value).ok())
        .collect())
}

fn heading(
    key: &DesiredKey,
    host: &str,
    status: Option<&Status>,
    revision: i64,
    now: std::time::SystemTime,
) -> String {
    let Some(status) = status else {
        return format!("{key} on {host}: nothing said yet of revision {revision}\n");
    };
    let since = status
        .age(now)
        .map_or_else(String::new, |age| format!(" for {}", ago(age)));
    let message = if status.message.is_empty() {
        String::new()
    } else {
        format!(": {}", status.message)
    };
    format!(
        "{key} on {host}: {}{since} at revision {}{message}\n",
        status.phase, status.revision
    )
}

/// Every field of the document beside what Incus has there.
fn table(desired: &Value, live: &Value) -> String {
    let mut rows = Vec::new();
    if let Some(running) = desired.get("running") {
        let has = live.get("status").and_then(Value::as_str).unwrap_or_default();
        let agrees = (has != "Stopped") == (running == true);
        rows.push(row("running", &running.to_string(), has, agrees));
    }
    for (name, value) in desired
        .get("spec")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        match (name.as_str(), value) {
            // Where it came from is over.
            ("source", _) => {}
            ("config" | "devices", Value::Object(entries)) => {
                for (entry, value) in entries {
                    let has = live.get(name).and_then(|live| live.get(entry));
                    rows.push(field(&format!("{name}.{entry}"), value, has));
                }
            }
            _ => rows.push(field(name, value, live.get(name))),
        }
    }
    columns(["", "FIELD", "DESIRED", "LIVE"], &rows)
}

fn field(path: &str, wanted: &Value, has: Option<&Value>) -> [String; 4] {
    let text = |value: &Value| match (value, document::secret_named_by(value)) {
        (Value::String(text), _) => text.clone(),
        (_, Some(name)) => format!("(secret {name})"),
        (other, None) => other.to_string(),
    };
    let shown = has.map_or_else(|| "-".to_owned(), text);
    row(path, &text(wanted), &shown, has == Some(wanted))
}

fn row(path: &str, wanted: &str, has: &str, agrees: bool) -> [String; 4] {
    let mark = if agrees { "" } else { "!" };
    [mark.to_owned(), path.to_owned(), cut(wanted), cut(has)]
}

fn cut(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut cut: String = line.chars().take(WIDTH).collect();
    if cut.len() < text.trim_end().len() {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn what_differs_is_marked() {
        let desired = json!({"running": true, "spec": {"config": {"limits.memory": "512MiB", "user.a": "1"},
            "devices": {"eth0": {"type": "none"}}, "profiles": ["default"], "source": {"type": "none"},
            "type": "container"}});
        let live = json!({"status": "Running", "type": "container", "profiles": ["default"],
            "config": {"limits.memory": "256MiB", "user.a": "1", "volatile.uuid": "u"}, "devices": {}});
        expect![[r#"
               FIELD                 DESIRED          LIVE
               running               true             Running
            !  config.limits.memory  512MiB           256MiB
               config.user.a         1                1
            !  devices.eth0          {"type":"none"}  -
               profiles              ["default"]      ["default"]
               type                  container        container
        "#]]
        .assert_eq(&table(&desired, &live));
    }
}
