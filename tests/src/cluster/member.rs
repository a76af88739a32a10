//! One member: its process, its addresses, its folder and its log.

use std::fs::{self, File, OpenOptions};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::address::free_ports;
use crate::wait;

const LOG_TAIL_LINES: usize = 30;

/// A member of the cluster under test, running or not.
#[derive(Debug)]
pub struct Member {
    pub name: String,
    /// Where clients reach it.
    pub client_url: String,
    /// Where clients reach it with TLS, in a cluster that has certificates.
    pub tls_url: String,
    /// Where the other members reach it.
    pub peer_url: String,
    pub data_dir: PathBuf,
    /// Where it was when it was admitted.
    first_peer_url: String,
    /// Of the peer URLs.
    scheme: &'static str,
    log: PathBuf,
    process: Option<Child>,
}

impl Member {
    pub(super) fn new(
        name: &str,
        address: Ipv4Addr,
        scheme: &'static str,
        data_dir: PathBuf,
        log: PathBuf,
    ) -> Member {
        let [client, peer, tls] = free_ports(address);
        Member {
            name: name.to_owned(),
            client_url: format!("http://{address}:{client}"),
            tls_url: format!("https://{address}:{tls}"),
            peer_url: format!("{scheme}://{address}:{peer}"),
            first_peer_url: format!("{scheme}://{address}:{peer}"),
            scheme,
            data_dir,
            log,
            process: None,
        }
    }

    pub(super) fn first_peer_url(&self) -> &str {
        &self.first_peer_url
    }

    pub(super) fn move_peer(&mut self, address: Ipv4Addr) {
        let [peer] = free_ports(address);
        self.peer_url = format!("{}://{address}:{peer}", self.scheme);
    }

    pub(super) fn spawn(&mut self, mut command: Command) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("log file");
        let same_log: File = log.try_clone().expect("log file");
        let child = command
            .stdin(std::process::Stdio::null())
            .stdout(log)
            .stderr(same_log)
            .spawn();
        self.process = Some(child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")));
    }

    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// The processor time that its process has had, of all its threads.
    #[must_use]
    pub fn processor_time(&self) -> Duration {
        // The kernel counts for users in hundredths of a second, on every architecture there is.
        const TICK: Duration = Duration::from_millis(10);
        let pid = self.process.as_ref().expect("a running member").id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
        // Behind the name, which may hold anything: user and system time are the 14th and 15th field of all.
        let (_, after) = stat.rsplit_once(") ").expect("a name in parentheses");
        let fields = after.split(' ').skip(11).take(2);
        let ticks = fields.map(|field| field.parse::<u32>().expect("a number of ticks"));
        TICK * ticks.sum::<u32>()
    }

    /// The memory that the process has resident, in MiB.
    #[must_use]
    pub fn resident_mib(&self) -> u64 {
        const PAGES_IN_A_MIB: u64 = (1 << 20) / 4096;
        let pid = self.process.as_ref().expect("a running member").id();
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).expect("a process");
        let pages = statm
            .split(' ')
            .nth(1)
            .and_then(|pages| pages.parse::<u64>().ok());
        pages.expect("the resident pages") / PAGES_IN_A_MIB
    }

    /// The exit status, once the process has ended by itself.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut()?.try_wait().expect("wait for a child");
        if status.is_some() {
            self.process = None;
        }
        status
    }

    /// Sends a signal without waiting for what it does.
    pub fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            let pid = i32::try_from(process.id()).expect("a pid");
            kill(Pid::from_raw(pid), signal).expect("signal a child");
        }
    }

    /// SIGKILL, and the process is gone when this returns.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("kill a child");
            process.wait().expect("wait for a child");
        }
    }

    /// Waits for the end of the process, however it comes.
    pub async fn wait_exit(&mut self, deadline: Duration) -> Result<ExitStatus, String> {
        let what = format!("the end of {}", self.name);
        wait::within(deadline, &what, || std::future::ready(self.exited())).await
    }

    /// All it has logged, over all its runs.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of its log, for the report of a failed test.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(LOG_TAIL_LINES);
        lines.get(from..).unwrap_or_default().join("\n")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself; nothing is left to do then.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
