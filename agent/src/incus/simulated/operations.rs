//! The simulated daemon's operations. A change is made when it is asked for; its operation only tells how it went.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::world::NO_TIME;

/// Incus forgets an operation this long after its end.
const KEPT: Duration = Duration::from_secs(5);
const KEPT_COUNT: usize = 1_024;

/// What ended lately, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Operations {
    ended: VecDeque<Operation>,
}

#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) id: String,
    description: &'static str,
    ended_at: Instant,
    /// The status code and message of its failure.
    failure: Option<(u16, String)>,
}

impl Operations {
    /// Notes an operation and returns it as it looks at its beginning.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        description: &'static str,
        failure: Option<(u16, String)>,
    ) -> Value {
        self.forget(now);
        if self.ended.len() == KEPT_COUNT {
            self.ended.pop_front();
        }
        let operation = Operation {
            id: new_uuid(),
            description,
            ended_at: now,
            failure,
        };
        let begun = operation.show("Running", 103, "");
        self.ended.push_back(operation);
        begun
    }

    pub(super) fn get(&mut self, now: Instant, id: &str) -> Option<Operation> {
        self.forget(now);
        self.ended.iter().find(|operation| operation.id == id).cloned()
    }

    fn forget(&mut self, now: Instant) {
        while self
            .ended
            .front()
            .is_some_and(|operation| now.duration_since(operation.ended_at) >= KEPT)
        {
            self.ended.pop_front();
        }
    }
}

impl Operation {
    /// How it ended, as a wait for it is answered.
    pub(super) fn ended(self) -> Result<Value, (u16, String)> {
        match self.failure {
            None => Ok(self.shown()),
            Some(failure) => Err(failure),
        }
    }

    /// How it looks now.
    pub(super) fn shown(&self) -> Value {
        match &self.failure {
            None => self.show("Success", 200, ""),
            Some((_, message)) => self.show("Failure", 400, message),
        }
    }

    fn show(&self, status: &str, status_code: u16, err: &str) -> Value {
        json!({
            "id": self.id, "class": "task", "description": self.description, "created_at": NO_TIME,
            "updated_at": NO_TIME, "status": status, "status_code": status_code, "resources": {},
            "metadata": null, "may_cancel": false, "err": err, "location": "none",
        })
    }
}

/// A random (version 4) UUID.
pub(super) fn new_uuid() -> String {
    let random: u128 = rand::random();
    let versioned = (random & !(0xf << 76) & !(0b11 << 62)) | (0x4 << 76) | (0b10 << 62);
    let hex = format!("{versioned:032x}");
    let mut uuid = String::with_capacity(36);
    for (position, digit) in hex.chars().enumerate() {
        if matches!(position, 8 | 12 | 16 | 20) {
            uuid.push('-');
        }
        uuid.push(digit);
    }
    uuid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_forgotten_after_its_end() {
        let now = Instant::now();
        let mut operations = Operations::default();
        let begun = operations.begin(now, "Creating instance", None);
        assert_eq!(begun["status_code"], 103);
        let id = begun["id"].as_str().unwrap();
        assert_eq!(
            operations.get(now, id).unwrap().ended().unwrap()["status_code"],
            200
        );
        assert!(operations.get(now + KEPT, id).is_none());
    }

    #[test]
    fn uuids_have_their_form() {
        let uuid = new_uuid();
        let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{uuid}");
        assert_eq!(uuid.as_bytes()[14], b'4', "{uuid}");
        assert!(matches!(uuid.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{uuid}");
    }
}
