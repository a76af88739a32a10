//! Real processes, and agents that come and go around them.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;
use crate::service::Restart;

/// Far more than anything here takes.
const DEADLINE: Duration = Duration::from_secs(30);

struct Agent {
    supervised: Supervised,
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

impl Agent {
    fn start(dir: &TempDir) -> Agent {
        let (supervisor, supervised) = Supervisor::new(&dir.path().join("services"));
        let shutdown = Shutdown::new();
        let task = tokio::spawn(supervisor.run(shutdown.clone()));
        Agent {
            supervised,
            shutdown,
            task,
        }
    }

    /// One that has started this service and seen it run.
    async fn running(dir: &TempDir, script: &str, restart: Restart) -> Agent {
        let agent = Agent::start(dir);
        agent.supervised.start(web(script, restart)).await.unwrap();
        agent.until(Activity::Active).await;
        agent
    }

    /// Stops the service, and ends.
    async fn stop(self) {
        self.supervised.stop("web").await.unwrap();
        self.end().await;
    }

    async fn end(self) {
        self.shutdown.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.unwrap().unwrap();
    }

    /// Waits for this activity; what is said with it.
    async fn until(&self, activity: Activity) -> String {
        let wait = async {
            loop {
                let seen = self.supervised.look("web");
                if seen.activity == activity {
                    return seen.detail;
                }
                self.supervised.changed().await;
            }
        };
        match tokio::time::timeout(DEADLINE, wait).await {
            Ok(detail) => detail,
            Err(_) => panic!("not {activity:?}: {:?}", self.supervised.look("web")),
        }
    }
}

fn web(script: &str, restart: Restart) -> Definition {
    Definition {
        name: "web".into(),
        exec: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        restart,
        ..Definition::default()
    }
}

/// Sleeps in a child of its own, so that there is a group to speak of.
const SLEEPS: &str = "sleep 1000 & wait";

fn pid(dir: &TempDir) -> Pid {
    let record = record::read_all(&dir.path().join("services")).pop().unwrap().1;
    Pid::from_raw(record.process.unwrap().pid)
}

fn group_is_gone(group: Pid) -> bool {
    !proc::group_runs(group.as_raw())
}

/// Waits until the process with this number is another one.
async fn until_not(dir: &TempDir, agent: &Agent, before: Pid) {
    let wait = async {
        while pid(dir) == before {
            agent.supervised.changed().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap();
}

#[tokio::test]
async fn a_service_is_started_and_stopped_with_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(&dir);
    agent.supervised.stop("web").await.unwrap();
    assert_eq!(agent.supervised.look("web"), UnitSeen::missing());
    agent
        .supervised
        .start(web(SLEEPS, Restart::Always))
        .await
        .unwrap();
    agent.until(Activity::Active).await;
    let group = pid(&dir);
    agent.supervised.stop("web").await.unwrap();
    assert!(group_is_gone(group));
    assert_eq!(agent.supervised.look("web"), UnitSeen::missing());
    assert_eq!(
        fs::read_dir(dir.path().join("services")).unwrap().count(),
        0,
        "nothing is left"
    );
    agent.end().await;
}

#[tokio::test]
async fn what_dies_is_started_again_and_leaves_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::running(&dir, SLEEPS, Restart::OnFailure).await;
    let first = pid(&dir);
    kill(first, Signal::SIGKILL).unwrap();
    until_not(&dir, &agent, first).await;
    agent.until(Activity::Active).await;
    assert!(group_is_gone(first));
    agent.stop().await;
}

#[tokio::test]
async fn an_end_is_told_with_its_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(&dir);
    let script = "echo first; echo 'no such database' >&2; exit 3";
    agent.supervised.start(web(script, Restart::No)).await.unwrap();
    let detail = agent.until(Activity::Failed).await;
    assert_eq!(detail, "ended with exit status: 3: no such database");
    agent
        .supervised
        .start(web("exit 0", Restart::OnFailure))
        .await
        .unwrap();
    agent.until(Activity::Inactive).await;
    agent
        .supervised
        .start(web("exec /no/such/file", Restart::Always))
        .await
        .unwrap();
    let detail = agent.until(Activity::Restarting).await;
    assert!(
        detail.starts_with("ended with exit status: 127: ") && detail.contains("/no/such/file"),
        "{detail}"
    );
    let missing = Definition {
        exec: "/no/such/program".into(),
        restart: Restart::No,
        ..web("", Restart::No)
    };
    agent.supervised.start(missing).await.unwrap();
    let detail = agent.until(Activity::Failed).await;
    assert!(detail.starts_with("cannot start /no/such/program: "), "{detail}");
    agent.stop().await;
}

#[tokio::test]
async fn the_next_agent_adopts_what_runs() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::running(&dir, SLEEPS, Restart::Always).await;
    let before = pid(&dir);
    agent.end().await;
    assert!(!group_is_gone(before), "an agent that ends takes nothing with it");

    let agent = Agent::start(&dir);
    agent.until(Activity::Active).await;
    assert_eq!(pid(&dir), before);
    kill(before, Signal::SIGKILL).unwrap();
    until_not(&dir, &agent, before).await;
    agent.until(Activity::Active).await;
    let second = pid(&dir);
    agent.end().await;

    // Its leader dies while no agent looks: what it left behind does not stay beside its successor.
    kill(second, Signal::SIGKILL).unwrap();
    let agent = Agent::start(&dir);
    until_not(&dir, &agent, second).await;
    agent.until(Activity::Active).await;
    assert!(group_is_gone(second));
    agent.stop().await;
}

/// An agent may be killed between the start of a process and its record.
#[tokio::test]
async fn a_process_without_a_record_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::running(&dir, SLEEPS, Restart::Always).await;
    let before = pid(&dir);
    agent.end().await;
    let (folder, record) = record::read_all(&dir.path().join("services")).pop().unwrap();
    record::Record::new(record.definition).write(&folder).unwrap();

    let agent = Agent::start(&dir);
    agent.until(Activity::Active).await;
    assert_eq!(pid(&dir), before);
    agent.supervised.stop("web").await.unwrap();
    assert!(group_is_gone(before));
    agent.end().await;
}

#[tokio::test]
async fn who_does_not_listen_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let deaf = "trap '' TERM; echo deaf; sleep 1000 & while :; do wait; done";
    let agent = Agent::running(&dir, deaf, Restart::Always).await;
    let group = pid(&dir);
    agent.supervised.stop("web").await.unwrap();
    assert!(group_is_gone(group));
    agent.end().await;
}

/// The kernel may hold a process that was killed, say while it waits for a disk that is gone.
#[tokio::test]
async fn nothing_is_started_beside_what_cannot_be_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut supervisor, supervised) = Supervisor::new(dir.path());
    let (says, state) = watch::channel(State::Stuck(7));
    let stop = CancellationToken::new();
    let held = Service {
        stop: stop.clone(),
        state,
    };
    supervisor.services.lock().insert("web".to_owned(), held);
    for refused in [
        supervisor.start(web(SLEEPS, Restart::Always)).await,
        supervisor.stop("web").await,
    ] {
        assert_eq!(
            refused.unwrap_err().to_string(),
            "service web is still there 5 s after it was killed"
        );
    }
    assert!(stop.is_cancelled(), "and it is not begun again");
    let seen = supervised.look("web");
    assert_eq!(seen.activity, Activity::Stopping);
    assert_eq!(
        seen.detail,
        "the group of process 7 was killed and is still there"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

    says.send_replace(State::Stopped);
    supervisor.stop("web").await.unwrap();
    assert_eq!(supervised.look("web"), UnitSeen::missing());
}

#[tokio::test]
async fn the_environment_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(&dir);
    let definition = Definition {
        environment: [("GREETING".to_owned(), "hello you".to_owned())].into(),
        working_directory: Some("/proc".into()),
        ..web("echo \"$GREETING $(pwd) $CARGO_PKG_NAME.\"; exit 1", Restart::No)
    };
    agent.supervised.start(definition).await.unwrap();
    let detail = agent.until(Activity::Failed).await;
    assert_eq!(detail, "ended with exit status: 1: hello you /proc .");
    agent.stop().await;
}
