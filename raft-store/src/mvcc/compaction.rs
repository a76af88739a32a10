//! Removing what compaction gave up, beside apply and in bounded steps.
//!
//! Compaction itself is a number: below it nobody reads any more. What nobody can read is then swept from backend
//! and index by a short-lived thread, [`STEP_RECORDS`] at a time. Whoever scans history for long (a snapshot, a
//! hash) holds a [`Pin`], and the sweeper leaves alone what was readable when the pin was taken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Index, record};
use crate::backend::{BackendError, Batch};
use crate::state::State;

const STEP_RECORDS: usize = 1_000;

/// Who sweeps, and who holds it back.
#[derive(Debug, Default)]
pub(crate) struct Sweeper {
    /// How many pins hold each compacted revision.
    pins: Mutex<BTreeMap<i64, usize>>,
    thread: Mutex<SweepThread>,
    stop: AtomicBool,
    /// Changes whenever a sweep ends.
    ended: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct SweepThread {
    running: bool,
    /// Something became removable since the running thread looked last.
    again: bool,
    handle: Option<JoinHandle<()>>,
}

/// Keeps what is readable now from being swept, until dropped.
#[derive(Debug)]
pub(crate) struct Pin {
    state: Arc<State>,
    revision: i64,
}

impl Pin {
    pub(crate) fn new(state: Arc<State>) -> Pin {
        // The compacted revision is read under the sweeper's lock: it cannot move past us in between.
        let mut pins = state.sweeper.pins.lock();
        let revision = state.published.read().compacted;
        *pins.entry(revision).or_default() += 1;
        drop(pins);
        Pin { state, revision }
    }

    /// The compacted revision that it holds.
    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        {
            let mut pins = self.state.sweeper.pins.lock();
            if let Some(held) = pins.get_mut(&self.revision) {
                *held -= 1;
                if *held == 0 {
                    pins.remove(&self.revision);
                }
            }
        }
        Sweeper::start(&self.state);
    }
}

impl Sweeper {
    /// Sweeps what can be swept. Returns at once.
    pub(crate) fn start(state: &Arc<State>) {
        let mut thread = state.sweeper.thread.lock();
        thread.again = true;
        if thread.running || state.sweeper.stop.load(Ordering::Relaxed) || !state.index.has_compacted() {
            return;
        }
        let swept = Arc::clone(state);
        match thread::Builder::new()
            .name("store-sweep".to_owned())
            .spawn(move || sweep(&swept))
        {
            Ok(handle) => {
                thread.running = true;
                thread.handle = Some(handle);
            }
            // Nothing is lost: the next compaction tries again.
            Err(error) => tracing::warn!(%error, "compacted history is not removed yet"),
        }
    }

    /// Changes whenever a sweep ends: then look at [`Sweeper::is_done`].
    pub(crate) fn ended(&self) -> watch::Receiver<()> {
        self.ended.subscribe()
    }

    /// Whether nothing compacted is left, or nobody will remove it any more.
    pub(crate) fn is_done(&self, index: &Index) -> bool {
        self.stop.load(Ordering::Relaxed) || (!self.thread.lock().running && !index.has_compacted())
    }

    /// Waits until the running sweep ends.
    #[cfg(test)]
    pub(crate) fn finish(&self) {
        let handle = self.thread.lock().handle.take();
        if let Some(handle) = handle {
            handle.join().unwrap();
        }
    }

    /// Stops sweeping for good, and waits until it has.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let handle = self.thread.lock().handle.take();
        if let Some(handle) = handle
            && handle.join().is_err()
        {
            tracing::error!("removing compacted history panicked");
        }
        self.ended.send_replace(());
    }
}

fn sweep(state: &State) {
    loop {
        match sweep_step(state) {
            Ok(true) if !state.sweeper.stop.load(Ordering::Relaxed) => {}
            Ok(_) => {
                let mut thread = state.sweeper.thread.lock();
                if thread.again && !state.sweeper.stop.load(Ordering::Relaxed) {
                    thread.again = false;
                    continue;
                }
                thread.running = false;
                drop(thread);
                state.sweeper.ended.send_replace(());
                return;
            }
            Err(error) => {
                // The backend has failed: apply meets the same failure and stops the member.
                tracing::error!(error = %std::io::Error::from(error), "compacted history was not removed");
                state.sweeper.thread.lock().running = false;
                state.sweeper.ended.send_replace(());
                return;
            }
        }
    }
}

/// Removes one step's worth; whether there may be more.
fn sweep_step(state: &State) -> Result<bool, BackendError> {
    let obsolete = {
        let pins = state.sweeper.pins.lock();
        let compacted = state.published.read().compacted;
        let held = pins
            .keys()
            .next()
            .map_or(compacted, |pinned| compacted.min(*pinned));
        state.index.take_compacted(held, STEP_RECORDS)
    };
    if obsolete.is_empty() {
        return Ok(false);
    }
    let mut batch = Batch::default();
    for version in &obsolete {
        record::delete(&state.backend, &mut batch, version.revision)?;
    }
    state.backend.write(batch)?;
    state.index.remove(&obsolete);
    Ok(true)
}
