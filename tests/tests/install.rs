//! `agent install`: what a host gets, and a host without systemd that is started by a script. The same on a real systemd is
//! in `boots`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use tests::cluster::address::{free_ports, own_loopback};
use tests::{tools, wait};

/// The disk of a host.
struct Disk(TempDir);

impl Disk {
    fn new(folders: &[&str]) -> Disk {
        let disk = Disk(tempfile::tempdir().expect("a folder"));
        for folder in folders {
            fs::create_dir_all(disk.at(folder)).expect("make a folder");
        }
        disk
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn agent(&self, words: &[&str]) -> String {
        let root = self.0.path().display().to_string();
        let mut command = Command::new(tools::agent());
        let output = command.args(words).args(["--root", &root]).output();
        let output = output.expect("run the agent");
        assert!(output.status.success(), "{words:?}: {}", said(&output));
        said(&output)
    }

    /// The script, with this disk for the host's.
    fn rc(&self, action: &str) -> Output {
        let mut command = Command::new("/bin/sh");
        command.arg(self.at("etc/rc.d/rc.agent")).arg(action);
        command
            .env("AGENT_ROOT", self.0.path())
            .output()
            .expect("run the script")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.at("etc/rc.d/rc.agent").exists() {
            self.rc("stop");
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn an_image_with_systemd_gets_the_unit_of_user_data() {
    let disk = Disk::new(&["usr/lib/systemd/system", "etc/agent"]);
    let said = disk.agent(&["install"]);
    for path in [
        "/usr/local/bin/agent",
        "/usr/local/bin/agentctl",
        "/etc/systemd/system/agent.service",
    ] {
        assert!(said.contains(&format!("wrote {path}\n")), "{said}");
    }
    assert_eq!(disk.agent(&["install"]), "nothing changed\n");
    let mode = |path: &str| fs::metadata(disk.at(path)).expect("a file").permissions().mode() & 0o777;
    assert_eq!(
        (
            mode("usr/local/bin/agent"),
            mode("etc/systemd/system/agent.service")
        ),
        (0o755, 0o644)
    );
    let wanted = disk.at("etc/systemd/system/multi-user.target.wants/agent.service");
    let wanted = fs::read_link(wanted).expect("a link");
    assert_eq!(wanted, Path::new("/etc/systemd/system/agent.service"));

    // The same unit, to the letter, as a host has that cloud-init made.
    let rendered = Command::new(tools::agentctl())
        .args(["cloud-init", "render", "--host", "ovh", "--allow-plaintext"])
        .args(["--cluster", "ovh=http://10.0.0.1:2380"])
        .output()
        .expect("run agentctl");
    let rendered = said_lines(&String::from_utf8_lossy(&rendered.stdout));
    let unit = disk.read("etc/systemd/system/agent.service");
    assert!(rendered.contains(&said_lines(&unit)), "{unit}");

    // What a host was told when it was made stays, until something else is said.
    fs::write(disk.at("token"), "agent1.x").expect("write a file");
    let token = disk.at("token").display().to_string();
    disk.agent(&["install", "--join-token-file", &token, "--provider", "A Provider"]);
    let joins = disk.read("etc/systemd/system/agent.service");
    assert!(
        joins.contains(
            "agent join --token-file /etc/agent/token --keep-trying -- \"--provider=A Provider\"\n"
        ),
        "{joins}"
    );
    assert_eq!(
        (disk.read("etc/agent/token").as_str(), mode("etc/agent/token")),
        ("agent1.x", 0o600)
    );
    assert_eq!(disk.agent(&["install"]), "nothing changed\n");

    let said = disk.agent(&["uninstall"]);
    assert!(
        said.contains("removed /usr/local/bin/agent\n") && said.contains("kept: /etc/agent"),
        "{said}"
    );
    assert!(
        !disk.at("usr/local/bin/agent").exists() && !disk.at("etc/systemd/system/agent.service").exists()
    );
    assert!(disk.at("etc/agent/token").exists());
    assert!(disk.agent(&["uninstall"]).starts_with("nothing changed\n"));
}

/// Without the indentation that a document's text has.
fn said_lines(text: &str) -> String {
    text.lines()
        .map(|line| line.trim_start().to_owned() + "\n")
        .collect()
}

#[test]
fn a_disk_without_either_is_asked_about() {
    let disk = Disk::new(&[]);
    let root = disk.0.path().display().to_string();
    let output = Command::new(tools::agent())
        .args(["install", "--root", &root])
        .output();
    let output = output.expect("run the agent");
    assert!(
        !output.status.success() && said(&output).contains("--init rc"),
        "{}",
        said(&output)
    );
    assert!(!disk.at("usr").exists(), "something was put there all the same");
}

/// As a Slackware has it: started by `rc.local`, kept running, and ended in order.
#[tokio::test]
async fn a_host_without_systemd_is_started_by_a_script() {
    let disk = Disk::new(&["etc/rc.d", "etc/agent"]);
    let local = "#!/bin/sh\necho hello\n";
    fs::write(disk.at("etc/rc.d/rc.local"), local).expect("write a file");
    disk.agent(&["install"]);
    assert_eq!(disk.agent(&["install"]), "nothing changed\n");
    let rc_local = disk.read("etc/rc.d/rc.local");
    assert!(
        rc_local.starts_with(local) && rc_local.contains("rc.agent start"),
        "{rc_local}"
    );
    assert!(disk.read("etc/rc.d/rc.local_shutdown").contains("rc.agent stop"));

    let address = own_loopback();
    let [client, peer] = free_ports(address);
    let (client, peer) = (
        format!("http://{address}:{client}"),
        format!("http://{address}:{peer}"),
    );
    let settings = format!(
        "name: ovh\ndata-dir: {}\nincus-socket: none\nlisten-client-urls: {client}\nadvertise-client-urls: {client}\n\
         listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\ninitial-cluster: ovh={peer}\n",
        disk.at("var/lib/agent").display()
    );
    fs::write(disk.at("etc/agent/config.yaml"), settings).expect("write a file");
    let put = |value: &str| {
        let mut command = Command::new(disk.at("usr/local/bin/agent"));
        let output = command
            .args(["ctl", "--endpoints", &client, "kv", "put", "k", value])
            .output();
        output.expect("run agentctl").status.success()
    };
    let serves = async |what: &str| wait::until(what, async || put("v").then_some(())).await;

    assert_eq!(disk.rc("status").status.code(), Some(3));
    let started = disk.rc("start");
    assert!(started.status.success(), "{}", said(&started));
    serves("the agent to serve").await;
    assert!(said(&disk.rc("start")).contains("runs already"));
    assert_eq!(disk.rc("status").status.code(), Some(0));

    // It dies, and another takes its place.
    let supervisor = disk.read("var/run/agent.pid").trim().to_owned();
    let first = child_of(&supervisor).await;
    let killed = Command::new("/bin/kill").args(["-KILL", &first]).status();
    assert!(killed.expect("run kill").success());
    wait::until("another agent", async || {
        let now = try_child_of(&supervisor)?;
        (now != first && is_agent(&now)).then_some(())
    })
    .await;
    serves("the agent to serve again").await;

    let restarted = disk.rc("restart");
    assert!(restarted.status.success(), "{}", said(&restarted));
    serves("the agent to serve once more").await;
    let last = child_of(disk.read("var/run/agent.pid").trim()).await;
    let stopped = disk.rc("stop");
    assert!(stopped.status.success(), "{}", said(&stopped));
    assert_eq!(disk.rc("status").status.code(), Some(3));
    assert!(!Path::new("/proc").join(&last).exists(), "the agent runs on");
    assert!(
        disk.read("var/log/agent.log").contains("stopped"),
        "it was not let finish"
    );

    disk.agent(&["uninstall"]);
    assert_eq!(disk.read("etc/rc.d/rc.local"), local);
    assert!(!disk.at("etc/rc.d/rc.agent").exists());
    assert!(disk.at("etc/agent/config.yaml").exists() && disk.at("var/lib/agent").exists());
}

async fn child_of(supervisor: &str) -> String {
    wait::until("the agent", async || {
        try_child_of(supervisor).filter(|child| is_agent(child))
    })
    .await
}

fn try_child_of(supervisor: &str) -> Option<String> {
    let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).ok()?;
    children.split_whitespace().next().map(str::to_owned)
}

/// And not the pause between two.
fn is_agent(process: &str) -> bool {
    let command = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&command).contains("--config")
}
