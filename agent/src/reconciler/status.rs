//! What is to be written so that the store says what this host says.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::plan::Report;
use crate::document::{DesiredKey, Status, rfc3339_utc, status_key};

/// What a pass says about one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Report {
        /// The document's. 0: it is gone.
        revision: i64,
        report: Report,
    },
    /// Nothing new: what stands in the store stays.
    Unchanged,
}

/// One key to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StatusWrite {
    pub(crate) key: String,
    /// `None` deletes it.
    pub(crate) value: Option<Vec<u8>>,
}

/// This host's status keys in the store; `None` for one that cannot be read.
pub(crate) type Stored = BTreeMap<DesiredKey, Option<Status>>;

/// The writes that turn `stored` into what was said. None where nothing changed: a status is no heartbeat.
pub(crate) fn writes(
    stored: &Stored,
    said: &BTreeMap<DesiredKey, Said>,
    host: &str,
    now: SystemTime,
) -> Vec<StatusWrite> {
    let mut writes = Vec::new();
    for (key, said) in said {
        let Said::Report { revision, report } = said else {
            continue;
        };
        let before = stored.get(key).and_then(Option::as_ref);
        let mut status = Status {
            phase: report.phase,
            revision: *revision,
            since: rfc3339_utc(now),
            message: report.message.clone(),
            host: host.to_owned(),
            line: report.line,
        };
        if let Some(before) = before.filter(|before| before.phase == status.phase) {
            status.since.clone_from(&before.since);
        }
        if before != Some(&status)
            && let Ok(value) = serde_json::to_vec(&status)
        {
            writes.push(StatusWrite {
                key: status_key(key, host),
                value: Some(value),
            });
        }
    }
    let gone = stored.keys().filter(|key| !said.contains_key(*key));
    writes.extend(gone.map(|key| StatusWrite {
        key: status_key(key, host),
        value: None,
    }));
    writes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::document::{Kind, Phase};

    fn web() -> DesiredKey {
        DesiredKey {
            kind: Kind::Instance,
            tenant: "default".into(),
            name: "web".into(),
        }
    }

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    fn said(phase: Phase, revision: i64, message: &str) -> BTreeMap<DesiredKey, Said> {
        BTreeMap::from([(
            web(),
            Said::Report {
                revision,
                report: Report::new(phase, message),
            },
        )])
    }

    /// Applies the writes, and returns how many there were.
    fn write(stored: &mut Stored, said: &BTreeMap<DesiredKey, Said>, second: u64) -> usize {
        let writes = writes(stored, said, "ovh", at(second));
        for write in &writes {
            assert_eq!(write.key, "/tenants/default/status/instances/web/ovh");
            match &write.value {
                Some(value) => stored.insert(web(), Some(serde_json::from_slice(value).unwrap())),
                None => stored.remove(&web()),
            };
        }
        writes.len()
    }

    #[test]
    fn a_status_is_written_only_when_it_changes() {
        let mut stored = Stored::new();
        assert_eq!(write(&mut stored, &said(Phase::Progressing, 14, "create"), 1), 1);
        assert_eq!(write(&mut stored, &said(Phase::Progressing, 14, "create"), 2), 0);
        assert_eq!(write(&mut stored, &said(Phase::Ready, 14, ""), 3), 1);
        assert_eq!(stored[&web()].as_ref().unwrap().since, "1970-01-01T00:00:03Z");
        // A new revision in the same phase is written, and the phase keeps its beginning.
        assert_eq!(write(&mut stored, &said(Phase::Ready, 20, ""), 4), 1);
        assert_eq!(stored[&web()].as_ref().unwrap().since, "1970-01-01T00:00:03Z");
        assert_eq!(
            write(&mut stored, &BTreeMap::from([(web(), Said::Unchanged)]), 5),
            0
        );
        assert_eq!(write(&mut stored, &BTreeMap::new(), 6), 1);
        assert!(stored.is_empty());
        assert_eq!(write(&mut stored, &BTreeMap::new(), 7), 0);
    }

    #[test]
    fn what_cannot_be_read_is_written_again() {
        let mut stored = Stored::from([(web(), None)]);
        assert_eq!(write(&mut stored, &said(Phase::Ready, 14, ""), 1), 1);
    }
}
