//! Tokens that have proved to be genuine: a client shows the same one with every call, and only the first pays for
//! the signature.
//!
//! What a token says is remembered, never whether it is still good: that is asked of the users at every call.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// Tokens that are remembered, at most.
const TOKENS: usize = 32_768;

/// Longer tokens are not remembered: with [`TOKENS`] this bounds the memory.
const MAX_BYTES: usize = 1024;

/// What genuine tokens say, until nobody has shown them for a while.
#[derive(Debug)]
pub(super) struct Proven<C> {
    idle: Duration,
    table: Mutex<Table<C>>,
}

#[derive(Debug)]
struct Table<C> {
    tokens: HashMap<Box<str>, Shown<C>>,
    /// A full table is swept no earlier: it may be full of tokens in use.
    next_sweep: Duration,
}

#[derive(Debug)]
struct Shown<C> {
    claims: Arc<C>,
    last: Duration,
}

impl<C> Proven<C> {
    /// Forgets what was not shown for `idle`.
    pub(super) fn new(idle: Duration) -> Proven<C> {
        Proven {
            idle,
            table: Mutex::new(Table {
                tokens: HashMap::new(),
                next_sweep: Duration::ZERO,
            }),
        }
    }

    /// What a token says that is remembered; it is remembered longer by that.
    pub(super) fn show(&self, token: &str, now: Duration) -> Option<Arc<C>> {
        let mut table = self.table.lock();
        let shown = table.tokens.get_mut(token)?;
        if now.saturating_sub(shown.last) >= self.idle {
            table.tokens.remove(token);
            return None;
        }
        shown.last = shown.last.max(now);
        Some(Arc::clone(&shown.claims))
    }

    /// Remembers a token, if there is room for it.
    pub(super) fn remember(&self, token: &str, claims: &Arc<C>, now: Duration) {
        if token.len() > MAX_BYTES {
            return;
        }
        let mut table = self.table.lock();
        if table.tokens.len() >= TOKENS && now >= table.next_sweep {
            let idle = self.idle;
            table
                .tokens
                .retain(|_, shown| now.saturating_sub(shown.last) < idle);
            table.next_sweep = now + idle / 8;
        }
        if table.tokens.len() < TOKENS {
            let claims = Arc::clone(claims);
            table.tokens.insert(token.into(), Shown { claims, last: now });
        }
    }

    pub(super) fn forget(&self, token: &str) {
        self.table.lock().tokens.remove(token);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table.lock().tokens.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(80);

    #[test]
    fn what_is_shown_is_remembered_and_the_rest_makes_room() {
        let proven = Proven::new(IDLE);
        let claims = Arc::new(7);
        let mut now = Duration::from_secs(1000);
        for i in 0..TOKENS {
            proven.remember(&i.to_string(), &claims, now);
        }
        proven.remember("late", &claims, now);
        assert_eq!(proven.show("late", now), None, "there is no room");
        now += IDLE / 2;
        assert_eq!(proven.show("0", now), Some(claims.clone()));
        now += IDLE / 2;
        proven.remember("late", &claims, now);
        assert_eq!(proven.len(), 2, "room is made of what was not shown");
        assert_eq!(proven.show("1", now), None, "nobody showed it for too long");
        assert_eq!(proven.show("0", now), Some(claims.clone()));
        proven.forget("0");
        assert_eq!(proven.show("0", now), None);
        assert_eq!(
            proven.show("late", now + IDLE),
            None,
            "not even where there is room"
        );
        assert_eq!(proven.len(), 0);
        proven.remember(&"x".repeat(MAX_BYTES + 1), &claims, now);
        assert_eq!(proven.len(), 0);
    }
}
