//! The guard: a process of its own that stops instances whose deadline has passed, and keeps them stopped.
//!
//! It knows nothing of the cluster. What it has to guard is in a file, so that one that was killed goes on where it was.
//! It ends by itself when it has guarded nothing for a while, or when its folder is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use futures::future::join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use super::message::{self, Boottime, Feed, Kept, Name, SOCKET};
use crate::incus::{Incus, StateAction};
use crate::service::supervised::{Identity, boot};

const STATE: &str = "guarded.json";
const LOCK: &str = "guard.lock";
const FORMAT: u32 = 1;
/// Deadlines are looked at so often, and what is barred, too.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// For one feed.
const FEED_LIMIT: Duration = Duration::from_secs(2);
/// For one answer of Incus'.
const INCUS_LIMIT: Duration = Duration::from_secs(5);
/// An Incus that has not stopped an instance by now is not waited for.
const PAST_INCUS_AFTER: Duration = Duration::from_secs(8);
/// With nothing to guard.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// `agent fence`: started by the agent itself.
#[derive(Args, Debug)]
#[command(
    about = "Stop instances once their deadline has passed (started by `agent run`)",
    hide = true
)]
pub struct GuardArgs {
    /// Where its socket and its file are
    #[arg(long)]
    folder: PathBuf,
    #[arg(long)]
    incus_socket: PathBuf,
}

/// One instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Guarded {
    #[serde(flatten)]
    instance: Name,
    until: Boottime,
    /// Its first process, of which all others are children: so that it ends though Incus does not answer.
    process: Option<Identity>,
    /// Incus has shown, since the deadline, that it does not run.
    #[serde(skip)]
    is_stopped: bool,
}

/// The file's contents.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    format: u32,
    /// Deadlines are times since this boot.
    boot: String,
    guarded: Vec<Guarded>,
}

#[derive(Debug)]
struct Guard {
    folder: PathBuf,
    incus: Incus,
    guarded: BTreeMap<Name, Guarded>,
    _lock: File,
}

impl GuardArgs {
    /// Guards until there is nothing to guard.
    ///
    /// # Errors
    /// When its folder, its socket or its file cannot be used.
    pub fn run(&self) -> Result<()> {
        let lock = File::create(self.folder.join(LOCK)).context("--folder")?;
        if lock.try_lock().is_err() {
            // Another one guards.
            return Ok(());
        }
        let guard = Guard {
            guarded: load(&self.folder)?,
            folder: self.folder.clone(),
            incus: Incus::connect(&self.incus_socket).context("--incus-socket")?,
            _lock: lock,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(guard.run())
    }
}

/// What the guard before this one had. After a boot every deadline has passed.
fn load(folder: &Path) -> Result<BTreeMap<Name, Guarded>> {
    let text = match fs::read(folder.join(STATE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        read => read.context(STATE)?,
    };
    let kept: State = serde_json::from_slice(&text).context(STATE)?;
    let is_this_boot = boot().is_some_and(|boot| boot == kept.boot);
    let guarded = kept.guarded.into_iter().map(|mut guarded| {
        if !is_this_boot {
            guarded.until = Boottime::LONG_AGO;
        }
        (guarded.instance.clone(), guarded)
    });
    Ok(guarded.collect())
}

impl Guard {
    async fn run(mut self) -> Result<()> {
        let socket = self.folder.join(SOCKET);
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).context("the guard's socket")?;
        info!(instances = self.guarded.len(), "guarding");
        let mut idle_since = Instant::now();
        loop {
            let next = self.next_look();
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _) = accepted.context("the guard's socket")?;
                    self.answer(stream).await;
                }
                () = sleep(next) => {}
            }
            if !self.folder.is_dir() {
                return Ok(());
            }
            if !self.guarded.is_empty() {
                idle_since = Instant::now();
            } else if idle_since.elapsed() > IDLE_LIMIT {
                info!("nothing to guard");
                return Ok(());
            }
            self.enforce().await;
        }
    }

    /// When a deadline passes, or after a while.
    fn next_look(&self) -> Duration {
        let ahead = self.guarded.values().map(|guarded| guarded.until.left());
        ahead
            .filter(|left| !left.is_zero())
            .min()
            .map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY))
    }

    async fn answer(&mut self, mut stream: UnixStream) {
        let answered = timeout(FEED_LIMIT, async {
            let feed: Feed = message::read(&mut stream).await?;
            let kept = self.take(feed);
            // Not promised before it is written down.
            self.save()?;
            message::write(&mut stream, &kept).await
        });
        match answered.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "a feed was not taken"),
            Err(_) => warn!("a feed did not come to its end"),
        }
    }

    fn take(&mut self, feed: Feed) -> Kept {
        let named: BTreeSet<&Name> = feed.holds.iter().map(|hold| &hold.instance).collect();
        self.guarded.retain(|name, guarded| {
            named.contains(name) || (guarded.until.has_passed() && !guarded.is_stopped)
        });
        let mut held = Vec::new();
        for hold in feed.holds {
            let Some(until) = hold.until.filter(|until| !until.has_passed()) else {
                continue;
            };
            let guarded = self
                .guarded
                .entry(hold.instance.clone())
                .or_insert_with(|| Guarded {
                    instance: hold.instance.clone(),
                    until,
                    process: None,
                    is_stopped: false,
                });
            if guarded.until.has_passed() && !guarded.is_stopped {
                // Its time was over, and it has not been seen to stop.
                continue;
            }
            guarded.until = guarded.until.max(until);
            guarded.is_stopped = false;
            held.push(hold.instance);
        }
        Kept { held }
    }

    /// In place of the file that was there. A host that goes down boots anew, and then nothing of it counts.
    fn save(&self) -> io::Result<()> {
        let kept = State {
            format: FORMAT,
            boot: boot().unwrap_or_default(),
            guarded: self.guarded.values().cloned().collect(),
        };
        let new = self.folder.join(format!("{STATE}.new"));
        fs::write(&new, serde_json::to_vec(&kept)?)?;
        fs::rename(new, self.folder.join(STATE))
    }

    /// Stops what must not run, and finds out which processes the others are.
    async fn enforce(&mut self) {
        let incus = &self.incus;
        let looks = self.guarded.values().map(|guarded| look(incus, guarded));
        let seen: Vec<(Name, Seen)> = join_all(looks).await;
        for (name, seen) in seen {
            let Some(guarded) = self.guarded.get_mut(&name) else {
                continue;
            };
            match seen {
                Seen::Nothing => {}
                Seen::Process(process) => guarded.process = Some(process),
                Seen::Stopped { by_us } => {
                    if by_us {
                        warn!(
                            project = name.project,
                            instance = name.name,
                            "stopped: its deadline has passed"
                        );
                    }
                    guarded.is_stopped = guarded.until.has_passed();
                    guarded.process = None;
                }
            }
        }
    }
}

/// What came of a look at one instance.
enum Seen {
    Nothing,
    Process(Identity),
    /// It does not run.
    Stopped {
        by_us: bool,
    },
}

async fn look(incus: &Incus, guarded: &Guarded) -> (Name, Seen) {
    let name = guarded.instance.clone();
    let seen = if guarded.until.has_passed() {
        stop(incus, guarded).await
    } else if guarded.process.as_ref().is_some_and(Identity::is_alive) {
        Seen::Nothing
    } else {
        let state = timeout(INCUS_LIMIT, incus.state(&name.project, &name.name)).await;
        match state {
            Ok(Ok(Some(state))) => process(&state).map_or(Seen::Nothing, Seen::Process),
            _ => Seen::Nothing,
        }
    };
    (name, seen)
}

async fn stop(incus: &Incus, guarded: &Guarded) -> Seen {
    let Name { project, name } = &guarded.instance;
    let stopped = timeout(INCUS_LIMIT, async {
        let state = incus.state(project, name).await?;
        // What is gone does not run.
        let status = state.as_ref().and_then(|state| state.get("status")?.as_str());
        if matches!(status, None | Some("Stopped")) {
            return Ok(false);
        }
        incus
            .set_state(project, name, StateAction::Stop, true, 0)
            .await
            .map(|()| true)
    });
    match stopped.await {
        Ok(Ok(by_us)) => return Seen::Stopped { by_us },
        Ok(Err(error)) => warn!(project, instance = name, %error, "not stopped, tried again"),
        Err(_) => warn!(project, instance = name, "incus does not answer"),
    }
    past_incus(guarded)
}

/// Ends the instance without its Incus.
fn past_incus(guarded: &Guarded) -> Seen {
    if !guarded.until.after(PAST_INCUS_AFTER).has_passed() {
        return Seen::Nothing;
    }
    let Name { project, name } = &guarded.instance;
    let Some(process) = &guarded.process else {
        error!(
            project,
            instance = name,
            "its deadline has passed, and neither Incus nor its process can be reached"
        );
        return Seen::Nothing;
    };
    if process.is_alive() {
        let killed = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        warn!(
            project,
            instance = name,
            pid = process.pid,
            ?killed,
            "killed: its deadline has passed, and Incus did not stop it"
        );
        return Seen::Nothing;
    }
    Seen::Stopped { by_us: true }
}

/// The first process of an instance that runs.
fn process(state: &Value) -> Option<Identity> {
    let pid = state.get("pid")?.as_i64()?;
    Identity::of(i32::try_from(pid).ok().filter(|pid| *pid > 0)?)
}

#[cfg(test)]
mod tests {
    use super::super::message::Hold;
    use super::*;

    fn name(name: &str) -> Name {
        Name {
            project: "default".into(),
            name: name.into(),
        }
    }

    fn guard(folder: &Path) -> Guard {
        Guard {
            folder: folder.to_owned(),
            incus: Incus::connect(&folder.join("none")).unwrap(),
            guarded: load(folder).unwrap(),
            _lock: File::create(folder.join(LOCK)).unwrap(),
        }
    }

    fn holds(names: &[&str], until: Option<Boottime>) -> Feed {
        let hold = |one: &&str| Hold {
            instance: name(one),
            until,
        };
        Feed {
            holds: names.iter().map(hold).collect(),
        }
    }

    #[tokio::test]
    async fn a_deadline_that_passed_is_kept_to() {
        let folder = tempfile::tempdir().unwrap();
        let mut guard = guard(folder.path());
        let later = Boottime::now().after(Duration::from_secs(1_000));
        assert_eq!(
            guard.take(holds(&["a", "b"], Some(later))).held,
            [name("a"), name("b")]
        );
        // What is named without a deadline keeps the one it had; what is not named is let go of.
        assert!(guard.take(holds(&["a"], None)).held.is_empty());
        assert_eq!(guard.guarded.keys().collect::<Vec<_>>(), [&name("a")]);
        assert_eq!(guard.guarded[&name("a")].until, later);

        let one = guard.guarded.get_mut(&name("a")).unwrap();
        one.until = Boottime::LONG_AGO;
        assert!(guard.take(holds(&[], None)).held.is_empty());
        assert!(
            guard.take(holds(&["a"], Some(later))).held.is_empty(),
            "not seen to be stopped"
        );
        assert!(guard.guarded[&name("a")].until.has_passed());
        guard.guarded.get_mut(&name("a")).unwrap().is_stopped = true;
        assert_eq!(guard.take(holds(&["a"], Some(later))).held, [name("a")]);
        assert!(
            guard
                .take(holds(&["c"], Some(Boottime::LONG_AGO)))
                .held
                .is_empty()
        );
    }

    #[tokio::test]
    async fn another_guard_goes_on_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let later = Boottime::now().after(Duration::from_secs(1_000));
        let mut first = guard(folder.path());
        first.take(holds(&["a"], Some(later)));
        first.save().unwrap();
        assert_eq!(guard(folder.path()).guarded[&name("a")].until, later);
        let text = fs::read_to_string(folder.path().join(STATE)).unwrap();
        let other_boot = text.replace(&boot().unwrap(), "another");
        fs::write(folder.path().join(STATE), other_boot).unwrap();
        assert!(guard(folder.path()).guarded[&name("a")].until.has_passed());
    }

    #[tokio::test]
    async fn a_process_ends_though_incus_does_not_answer() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let guarded = Guarded {
            instance: name("a"),
            until: Boottime::LONG_AGO,
            process: Identity::of(i32::try_from(child.id()).unwrap()),
            is_stopped: false,
        };
        let folder = tempfile::tempdir().unwrap();
        let incus = Incus::connect(&folder.path().join("none")).unwrap();
        assert!(matches!(stop(&incus, &guarded).await, Seen::Nothing));
        child.wait().unwrap();
        assert!(matches!(
            stop(&incus, &guarded).await,
            Seen::Stopped { by_us: true }
        ));
    }
}
