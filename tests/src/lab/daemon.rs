//! One real `incusd` in a directory of its own.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{INCUSD, image, leftovers};

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// For each run of the command line: one that hangs fails its test instead of stopping it.
const COMMAND_LIMIT_SECONDS: &str = "120";

/// A running daemon with a `busybox` image, a storage pool `default` and a root disk on the default profile.
/// Dropping it stops its instances and itself.
#[derive(Debug)]
pub struct IncusDaemon {
    dir: PathBuf,
    /// `None` once it is stopped.
    child: Option<Child>,
}

impl IncusDaemon {
    /// Starts a daemon whose whole state is in `dir`, which is made, and prepares it. A container's root must be
    /// able to pass through all of the directories above.
    pub fn start(dir: &Path) -> anyhow::Result<Self> {
        Self::start_as(dir, Command::new(INCUSD))
    }

    /// The same in a network of its own, where its bridges may have any name and address.
    pub fn start_apart(dir: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new("unshare");
        // The interfaces that Incus looks for in /sys are those of the network in which that was mounted.
        let script = "ip link set lo up && mkdir -p \"$INCUS_DIR/cgroup\" \
            && mount --rbind /sys/fs/cgroup \"$INCUS_DIR/cgroup\" \
            && mount -t sysfs sysfs /sys \
            && mount --rbind \"$INCUS_DIR/cgroup\" /sys/fs/cgroup \
            && exec \"$0\" \"$@\"";
        command.args(["--net", "--mount", "--", "/bin/sh", "-c", script, INCUSD]);
        Self::start_as(dir, command)
    }

    fn start_as(dir: &Path, mut incusd: Command) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        check_passable(dir)?;
        let log = File::create(dir.join("incusd.log"))?;
        let child = incusd
            .args(["--group", "root"])
            .env("INCUS_DIR", dir)
            // Cargo's own: every program that Incus runs would search it.
            .env_remove("LD_LIBRARY_PATH")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {INCUSD}"))?;
        let mut daemon = Self {
            dir: dir.to_owned(),
            child: Some(child),
        };
        daemon.wait_for_socket()?;
        daemon.prepare()?;
        Ok(daemon)
    }

    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("unix.socket")
    }

    /// Runs Incus' own command line against this daemon and returns what it prints.
    pub fn incus(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("timeout");
        command
            .args([COMMAND_LIMIT_SECONDS, "incus"])
            .args(args)
            .env("INCUS_DIR", &self.dir)
            // Not the settings of the person who runs the tests.
            .env("INCUS_CONF", self.dir.join("client"));
        run(&mut command)
    }

    /// A command that sees the network that this daemon is in.
    ///
    /// # Errors
    /// When it was stopped.
    pub fn in_its_network(&self, program: &str) -> anyhow::Result<Command> {
        let child = self.child.as_ref().context("the daemon is stopped")?;
        let mut command = Command::new("nsenter");
        command.args([&format!("--net=/proc/{}/ns/net", child.id()), "--", program]);
        Ok(command)
    }

    /// Stops the instances and the daemon, and unmounts what it mounted. Its files stay.
    ///
    /// # Errors
    /// What is left in spite of it.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.clean_up()
    }

    fn wait_for_socket(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        let child = self.child.as_mut().context("the daemon is stopped")?;
        while UnixStream::connect(self.dir.join("unix.socket")).is_err() {
            let why = match child.try_wait()? {
                Some(status) => format!("incusd ended: {status}"),
                None if Instant::now() > deadline => format!("no socket within {START_LIMIT:?}"),
                None => {
                    thread::sleep(POLL);
                    continue;
                }
            };
            bail!(
                "{why}\n{}",
                fs::read_to_string(self.dir.join("incusd.log")).unwrap_or_default()
            );
        }
        // The socket is there a little before the daemon is ready.
        self.incus(&["admin", "waitready", "--timeout=60"]).map(drop)
    }

    fn prepare(&self) -> anyhow::Result<()> {
        let build = tempfile::tempdir()?;
        let image = image::build(build.path())?;
        let image = image
            .to_str()
            .context("the temporary directory's name is not UTF-8")?;
        self.incus(&["image", "import", image, "--alias", "busybox"])?;
        self.incus(&["storage", "create", "default", "dir"])?;
        self.incus(&[
            "profile",
            "device",
            "add",
            "default",
            "root",
            "disk",
            "path=/",
            "pool=default",
        ])?;
        Ok(())
    }

    fn clean_up(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let stopped = self.stop_instances();
        end(&mut child)?;
        leftovers::kill_processes(&self.dir);
        leftovers::unmount(&self.dir);
        let mounts = leftovers::mounts(&self.dir);
        anyhow::ensure!(mounts.is_empty(), "still mounted: {mounts:?}");
        stopped
    }

    fn stop_instances(&self) -> anyhow::Result<()> {
        let listed = self.incus(&["list", "--all-projects", "--format=json"])?;
        let instances: Vec<Value> = serde_json::from_str(&listed)?;
        let text = |instance: &Value, field: &str| {
            instance
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        for instance in instances
            .iter()
            .filter(|instance| text(instance, "status") != "Stopped")
        {
            let (name, project) = (text(instance, "name"), text(instance, "project"));
            self.incus(&["stop", "--force", "--project", &project, &name])?;
        }
        Ok(())
    }
}

impl Drop for IncusDaemon {
    fn drop(&mut self) {
        if let Err(error) = self.clean_up() {
            eprintln!(
                "the incusd in {} was not stopped cleanly: {error:#}",
                self.dir.display()
            );
        }
    }
}

/// Runs a command to its end and returns what it prints.
pub(super) fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Asks the daemon to end as at a power failure, which takes its bridges down, too, and makes it end where it does not.
fn end(child: &mut Child) -> anyhow::Result<()> {
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGPWR)?;
    let deadline = Instant::now() + STOP_LIMIT;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("incusd did not end within {STOP_LIMIT:?} and was killed");
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Without this a container fails to start, and says something about its root file system.
fn check_passable(dir: &Path) -> anyhow::Result<()> {
    for parent in dir.ancestors().skip(1) {
        let mode = fs::metadata(parent)?.permissions().mode();
        anyhow::ensure!(
            mode & 0o001 != 0,
            "containers cannot pass through {}: mode {mode:o}",
            parent.display()
        );
    }
    Ok(())
}
