//! `kv watch KEY -- COMMAND`: runs a command for every change, one after the other.

use std::ffi::OsString;

use proto::etcdserverpb as pb;
use proto::mvccpb::Event;
use proto::mvccpb::event::EventType;
use tokio::process::Command;

use crate::cli::error::CliError;
use crate::cli::format::fields::quote;

/// Runs `command` once for each event of an answer, with etcdctl's variables in its environment.
///
/// # Errors
/// When it cannot be started, or fails.
pub(super) async fn run(command: &[OsString], response: &pb::WatchResponse) -> Result<(), CliError> {
    let Some((program, arguments)) = command.split_first() else {
        return Ok(());
    };
    let name = program.to_string_lossy();
    let revision = response.header.map_or(0, |header| header.revision);
    for event in &response.events {
        let status = Command::new(program)
            .args(arguments)
            .envs(variables(revision, event))
            .status()
            .await
            .map_err(|error| CliError::io(&name, &error))?;
        if !status.success() {
            return Err(CliError::failed(format!("{name} ended with {status}"))
                .hint("the watch ends with the first command that fails"));
        }
    }
    Ok(())
}

/// Key, value and kind are in double quotes with Go's escapes: any bytes fit in.
fn variables(revision: i64, event: &Event) -> [(&'static str, String); 4] {
    let kind = if event.r#type() == EventType::Delete {
        "DELETE"
    } else {
        "PUT"
    };
    let (key, value) = event
        .kv
        .as_ref()
        .map(|kv| (quote(&kv.key), quote(&kv.value)))
        .unwrap_or_default();
    [
        ("ETCD_WATCH_REVISION", revision.to_string()),
        ("ETCD_WATCH_EVENT_TYPE", quote(kind.as_bytes())),
        ("ETCD_WATCH_KEY", key),
        ("ETCD_WATCH_VALUE", value),
    ]
}

#[cfg(test)]
mod tests {
    use proto::mvccpb::KeyValue;

    use super::*;

    #[test]
    fn variables_are_etcdctls() {
        let event = Event {
            kv: Some(KeyValue {
                key: "a".into(),
                value: "two\nlines".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let variables = variables(7, &event).map(|(name, value)| format!("{name}={value}"));
        assert_eq!(
            variables,
            [
                "ETCD_WATCH_REVISION=7",
                "ETCD_WATCH_EVENT_TYPE=\"PUT\"",
                "ETCD_WATCH_KEY=\"a\"",
                "ETCD_WATCH_VALUE=\"two\\nlines\""
            ]
        );
    }
}
