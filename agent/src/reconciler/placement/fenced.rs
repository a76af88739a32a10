//! The task that lets this host's fenced instances run: it puts off their deadlines with the guard (see [`crate::fence`]).
//!
//! What it must not do: count a deadline from any moment after it began to ask the quorum; hand an instance that was
//! fenced over to no guard before the binding says that it is fenced no more, as the leader goes by the binding.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::record::replace;
use crate::document::{Binding, DesiredKey, Failover, Kind};
use crate::fence::{Boottime, FenceError, GuardClient, HOLD, Hold, Name};
use crate::node::Node;
use crate::reconciler::desired::{Bound, Desired, Parser, Text};
use crate::reconciler::execute::in_full;
use crate::reconciler::stored;
use crate::reconciler::trigger::follow_documents;
use crate::shutdown::Shutdown;

/// Several times before a deadline passes.
const EVERY: Duration = Duration::from_secs(4);
/// While something is not as it should be.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const READ_INDEX_LIMIT: Duration = Duration::from_secs(4);
/// Nothing is begun so shortly before a deadline.
const MARGIN: Duration = Duration::from_secs(4);

/// Puts off the deadlines of this host's fenced instances.
#[derive(Debug)]
pub struct Fencer {
    node: Node,
    guard: GuardClient,
    parser: Parser,
    until: Deadlines,
    held: watch::Sender<Deadlines>,
    /// There is a guard, which may have something.
    has_guard: bool,
    is_in_trouble: bool,
}

/// What may run here, and until when.
type Deadlines = BTreeMap<DesiredKey, Boottime>;

/// The instances that may run here now, as far as their fences are concerned.
#[derive(Clone, Debug)]
pub struct Held(watch::Receiver<Deadlines>);

/// One fenced instance that is bound to this host.
#[derive(Debug)]
struct Fenced<'a> {
    key: &'a DesiredKey,
    bound: &'a Bound,
    /// Its document says that it is fenced.
    is_wanted: bool,
}

impl Fencer {
    #[must_use]
    pub(crate) fn new(node: Node, guard: GuardClient) -> Fencer {
        Fencer {
            parser: Parser::new(node.name()),
            has_guard: guard.was_started(),
            until: BTreeMap::new(),
            held: watch::Sender::new(Deadlines::new()),
            is_in_trouble: false,
            node,
            guard,
        }
    }

    /// What every pass of the reconciler sees.
    #[must_use]
    pub fn held(&self) -> Held {
        Held(self.held.subscribe())
    }

    /// Runs until shutdown. The deadlines go on: an agent that is back in time finds its instances running.
    pub async fn run(mut self, shutdown: Shutdown) {
        let wake = Arc::new(Notify::new());
        let node = self.node.clone();
        if self.has_guard {
            // What Incus started by itself after a boot is nobody's until a quorum has said so.
            self.guard.wake().await;
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = follow_documents(&node, &wake) => {}
            () = self.work(&wake) => {}
        }
    }

    async fn work(&mut self, wake: &Notify) {
        loop {
            let wait = match self.pass().await {
                Ok(()) => {
                    if std::mem::take(&mut self.is_in_trouble) {
                        info!("the fence holds");
                    }
                    EVERY
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.is_in_trouble, true) {
                        warn!(error = in_full(&error), "the fence does not hold yet");
                    }
                    AGAIN_AFTER
                }
            };
            self.let_pass();
            tokio::select! {
                () = wake.notified() => {}
                () = sleep(wait) => {}
            }
        }
    }

    async fn pass(&mut self) -> Result<(), FenceError> {
        let from = Boottime::now();
        if !matches!(
            timeout(READ_INDEX_LIMIT, self.node.read_index()).await,
            Ok(Ok(()))
        ) {
            debug!("no quorum: no deadline is put off");
            return Ok(());
        }
        let Ok((desired, _)) = stored::read(self.node.store(), &mut self.parser, self.node.name()) else {
            // A compaction in between is over at the next reading.
            return Ok(());
        };
        let fenced = fenced(&desired, self.node.name());
        if fenced.is_empty() && !self.has_guard {
            return Ok(());
        }
        let holds: Vec<Hold> = fenced.iter().map(|one| one.hold(from)).collect();
        let fed = self.guard.feed(holds).await;
        self.has_guard = !fenced.is_empty();
        let kept = fed?;
        for one in &fenced {
            if kept.contains(&name(one.key)) {
                self.until.insert(one.key.clone(), one.until(from));
            }
        }
        self.until
            .retain(|key, _| fenced.iter().any(|one| one.key == key && one.may_run()));
        for one in &fenced {
            self.note(one).await;
        }
        Ok(())
    }

    /// Has the binding say whether the instance is fenced: only then the leader may put it elsewhere.
    async fn note(&self, one: &Fenced<'_>) {
        let binding = &one.bound.binding;
        let fence_seconds = match (one.is_wanted, binding.fence_seconds) {
            (true, None) if self.until.contains_key(one.key) => Some(HOLD.as_secs()),
            // An agent of another version may have had another.
            (true, Some(other)) if other != HOLD.as_secs() => Some(HOLD.as_secs()),
            (false, Some(_)) => None,
            _ => return,
        };
        let noted = Binding {
            fence_seconds,
            ..binding.clone()
        };
        if let Err(error) = replace(&self.node, one.key, one.bound.revision, &noted).await {
            debug!(error = in_full(&error), "a binding was not written");
        }
    }

    /// Takes what is about to end from what may run. Told of is only what begins or ends: deadlines change all the time.
    fn let_pass(&mut self) {
        self.until.retain(|_, until| until.left() > MARGIN);
        self.held.send_if_modified(|before| {
            let is_new = !before.keys().eq(self.until.keys());
            before.clone_from(&self.until);
            is_new
        });
    }
}

impl Fenced<'_> {
    /// The leader has noted that nothing is heard of this host: nothing is put off until it has taken that back.
    fn may_run(&self) -> bool {
        self.bound.binding.silent_since.is_none()
    }

    /// Not later than the binding says, which the leader goes by.
    fn until(&self, from: Boottime) -> Boottime {
        let noted = self.bound.binding.fence_seconds.map(Duration::from_secs);
        from.after(noted.map_or(HOLD, |noted| noted.min(HOLD)))
    }

    fn hold(&self, from: Boottime) -> Hold {
        Hold {
            instance: name(self.key),
            until: self.may_run().then(|| self.until(from)),
        }
    }
}

impl Held {
    /// Of a host without fences.
    #[must_use]
    pub fn none() -> Held {
        Held(watch::Sender::new(Deadlines::new()).subscribe())
    }

    /// Judged by the clock: an agent that was frozen for long goes on with what it knew before.
    pub(crate) fn now(&self) -> BTreeSet<DesiredKey> {
        let held = self.0.borrow();
        let ahead = held.iter().filter(|(_, until)| until.left() > MARGIN);
        ahead.map(|(key, _)| key.clone()).collect()
    }

    /// Waits until they are others; for ever, once nobody tells.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What is bound to this host and fenced, or was until its document was changed.
fn fenced<'a>(desired: &'a Desired, host: &str) -> Vec<Fenced<'a>> {
    let here = desired
        .bindings
        .iter()
        .filter(|(key, bound)| key.kind == Kind::Instance && bound.binding.host == host);
    here.filter_map(|(key, bound)| {
        let was = bound.binding.fence_seconds.is_some();
        let is_wanted = match desired.documents.get(key).map(|wanted| &wanted.text) {
            Some(Text::Good(document)) => document.failover() == Failover::Fenced,
            // A text that is wrong takes nothing back.
            Some(Text::Invalid { .. }) => was,
            None => false,
        };
        (is_wanted || was).then_some(Fenced {
            key,
            bound,
            is_wanted,
        })
    })
    .collect()
}

fn name(key: &DesiredKey) -> Name {
    Name {
        project: key.tenant.clone(),
        name: key.name.clone(),
    }
}
