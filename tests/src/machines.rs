//! Whole machines, as a provider rents them: Debian with systemd, cloud-init and an Incus of its own. They come up from
//! the user-data that they are given, and from nothing else.
//!
//! Each is a container in which containers run. The provider itself is an Incus in a network of its own, with a web
//! server for what machines fetch. `tests/host-image` makes the image; `tests/run` has it made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::lab::{IncusDaemon, Lab};
use crate::{notes, tools, wait};

/// The provider's bridge: nothing outside sees it, so it may have any address.
const GATEWAY: &str = "10.91.0.1";
const NETWORK: &str = "machines0";
/// Of a machine's boot, on a busy one.
const BOOT_LIMIT: Duration = Duration::from_secs(240);
/// Where cloud-init looks for what a provider gives a machine.
const SEED: &str = "/var/lib/cloud/seed/nocloud";

/// Where machines are rented. Dropping it destroys all of them.
#[derive(Debug)]
pub struct Provider {
    // Before the daemon, whose network it is in.
    web: Child,
    lab: Lab,
    served: TempDir,
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.web.kill();
        let _ = self.web.wait();
    }
}

impl Provider {
    /// `None`, said aloud, where machines cannot run.
    ///
    /// # Panics
    /// When they can, and do not.
    pub async fn open() -> Option<Provider> {
        let Some(image) = image() else {
            notes::skipped("no image of a whole host: tests/run makes it");
            return None;
        };
        let lab = Lab::running_apart(1).await?;
        let prepared = tokio::task::spawn_blocking(move || Self::prepare(lab, &image)).await;
        Some(prepared.expect("a task").expect("a provider"))
    }

    fn prepare(lab: Lab, image: &Path) -> anyhow::Result<Provider> {
        let daemon = lab.daemons().first().context("a daemon")?;
        let image = image.to_str().context("a path in UTF-8")?;
        daemon.incus(&["image", "import", image, "--alias", "host"])?;
        let address = format!("ipv4.address={GATEWAY}/24");
        daemon.incus(&[
            "network",
            "create",
            NETWORK,
            &address,
            "ipv4.nat=false",
            "ipv6.address=none",
        ])?;
        let served = tempfile::tempdir()?;
        let mut web = daemon.in_its_network("busybox")?;
        web.args(["httpd", "-f", "-p", &format!("{GATEWAY}:80"), "-h"])
            .arg(served.path());
        let web = web
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start busybox httpd")?;
        Ok(Provider { web, lab, served })
    }

    /// Puts a file where machines can fetch it; its URL.
    ///
    /// # Panics
    /// When it cannot be copied.
    #[must_use]
    pub fn serve(&self, name: &str, file: &Path) -> String {
        fs::copy(file, self.served.path().join(name)).expect("copy what is served");
        format!("http://{GATEWAY}/{name}")
    }

    /// Rents a machine that will be reached at this address, and switches it on.
    pub fn rent(&self, name: &str, address: &str, user_data: &str) {
        let rented = self.try_rent(name, address, user_data);
        rented.unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }

    fn try_rent(&self, name: &str, address: &str, user_data: &str) -> anyhow::Result<()> {
        let daemon = self.daemon();
        daemon.incus(&[
            "init",
            "host",
            name,
            "--config=security.nesting=true",
            "--config=security.privileged=true",
        ])?;
        let network = format!("network={NETWORK}");
        let address = format!("ipv4.address={address}");
        daemon.incus(&[
            "config",
            "device",
            "add",
            name,
            "eth0",
            "nic",
            &network,
            "name=eth0",
            &address,
        ])?;
        let folder = tempfile::tempdir()?;
        // Another id than that of every machine before: cloud-init runs once for each.
        let meta_data = format!("instance-id: {name}-{}\n", folder.path().display());
        for (file, text) in [("user-data", user_data), ("meta-data", &meta_data)] {
            let path = folder.path().join(file);
            fs::write(&path, text)?;
            let path = path.to_str().context("a path in UTF-8")?;
            daemon.incus(&[
                "file",
                "push",
                "--create-dirs",
                path,
                &format!("{name}{SEED}/{file}"),
            ])?;
        }
        daemon.incus(&["start", name]).map(drop)
    }

    /// The machine burns, with all that was on it.
    pub fn destroy(&self, name: &str) {
        let destroyed = self.daemon().incus(&["delete", "--force", name]);
        destroyed.unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }

    /// Somebody presses its reset button.
    pub fn reset(&self, name: &str) {
        let reset = self.daemon().incus(&["restart", "--force", name]);
        reset.unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }

    /// What a command on a machine prints.
    ///
    /// # Errors
    /// What it complains of.
    pub fn try_on(&self, name: &str, line: &str) -> anyhow::Result<String> {
        self.daemon().incus(&["exec", name, "--", "/bin/sh", "-c", line])
    }

    /// The same; it must succeed.
    pub fn on(&self, name: &str, line: &str) -> String {
        let said = self.try_on(name, line);
        said.unwrap_or_else(|error| panic!("{name}: {error:#}\n{}", self.journal(name)))
    }

    /// Puts a file on a machine.
    pub fn put(&self, name: &str, path: &str, text: &str) {
        let put = || -> anyhow::Result<()> {
            let file = self.served.path().join("put");
            fs::write(&file, text)?;
            let file = file.to_str().context("a path in UTF-8")?;
            let to = format!("{name}{path}");
            self.daemon()
                .incus(&["file", "push", "--create-dirs", "--mode=0600", file, &to])
                .map(drop)
        };
        put().unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }

    /// Waits until what a command on a machine prints is this.
    pub async fn says(&self, name: &str, line: &str, is_it: impl Fn(&str) -> bool) -> String {
        let what = format!("`{line}` on {name}");
        let waited = wait::within(BOOT_LIMIT, &what, async || {
            self.try_on(name, line).ok().filter(|said| is_it(said))
        });
        match waited.await {
            Ok(said) => said,
            Err(vain) => panic!("{vain}: {:?}\n{}", self.try_on(name, line), self.journal(name)),
        }
    }

    /// Waits until cloud-init is through with a machine: nothing of the user-data was refused, nothing failed.
    pub async fn booted(&self, name: &str) {
        // Its exit code says that something failed; what did, is said below.
        self.says(name, "cloud-init status || true", |said| {
            said.contains("done") || said.contains("error")
        })
        .await;
        let said = self.on(
            name,
            "cloud-init status --long || true; cloud-init schema --system 2>&1 || true",
        );
        assert!(
            said.contains("status: done") && said.contains("Valid cloud-config"),
            "{said}\n{}",
            self.journal(name)
        );
    }

    /// A command on a machine of somebody's that reaches those of the provider.
    ///
    /// # Panics
    /// When the provider is gone.
    #[must_use]
    pub fn elsewhere(&self, program: &Path) -> Command {
        let command = self.daemon().in_its_network(&program.to_string_lossy());
        command.expect("the provider's network")
    }

    /// What a machine says of its boot and of its agent.
    #[must_use]
    pub fn journal(&self, name: &str) -> String {
        let line = "tail -n 30 /var/log/cloud-init-output.log; journalctl --no-pager --output cat --lines 60 --unit agent";
        self.try_on(name, line)
            .unwrap_or_else(|error| format!("{error:#}"))
    }

    fn daemon(&self) -> &IncusDaemon {
        self.lab.daemons().first().expect("a daemon")
    }
}

/// What `sha256sum` says of a file.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(file: &Path) -> anyhow::Result<String> {
    let output = Command::new("sha256sum").arg(file).output()?;
    ensure!(
        output.status.success(),
        "sha256sum {}: {}",
        file.display(),
        output.status
    );
    let said = String::from_utf8(output.stdout)?;
    said.split(' ').next().map(str::to_owned).context("a sum")
}

fn image() -> Option<PathBuf> {
    let image = tools::folder("host-image")?.join("host.tar");
    image.exists().then_some(image)
}
