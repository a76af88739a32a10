//! `agent install` and `agent uninstall`: this program on a host's disk, and what starts it there.
//!
//! [`plan`] says which files a host gets, pure; [`files`] puts them there; [`rc`] is the script of a host without systemd. The
//! unit is that of user-data ([`cloud_init::unit`]): hosts are the same whichever way they came up. What a host keeps
//! (settings, certificates, data) is never made, changed or removed here.

mod files;
mod plan;
mod rc;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use cloud_init::Flags;

use crate::reconciler::OnRestart;
use files::Root;
use plan::{BINARY, CONFIG, Init, Line, RC, RC_LOCALS, TOKEN, UNIT};

#[derive(Args, Debug)]
#[command(
    after_help = "Files that are as they should be stay as they are: again, it changes nothing. A newer program is\n\
                  put in the place of the former, and with --now the member is started anew.\n\n\
                  Examples:\n  agent install --now\n  agent install --now --join-token-file token --provider IONOS\n  \
                  agent install --root /mnt/image --init rc"
)]
pub struct InstallArgs {
    /// Start the member, too
    #[arg(long, conflicts_with = "root")]
    now: bool,
    /// The host joins by this token at its first start, which `agentctl token create` has printed
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// The company whose machine it is
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// What becomes of its instances when the host, not only its agent, was restarted [default: adopt]
    #[arg(long, value_enum, value_name = "WHAT")]
    on_restart: Option<OnRestart>,
    /// What starts programs on this host [default: what is there]
    #[arg(long, value_enum, value_name = "INIT")]
    init: Option<InitChoice>,
    /// Below this folder, which is the disk of a host that does not run
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "What the host keeps stays: its settings and certificates, and the member's data.\n\n\
                  Example:\n  agent uninstall"
)]
pub struct UninstallArgs {
    /// Below this folder, which is the disk of a host that does not run
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum InitChoice {
    Systemd,
    /// A script in /etc/rc.d, as Slackware has them
    Rc,
}

impl InstallArgs {
    /// Installs, and says what has changed.
    ///
    /// # Errors
    /// The text says what to do.
    pub fn run(&self) -> Result<()> {
        let root = Root::new(self.root.as_deref());
        let init = match self.init {
            Some(InitChoice::Systemd) => Init::Systemd,
            Some(InitChoice::Rc) => Init::Rc,
            None => plan::init_of(&root)?,
        };
        let token = match &self.join_token_file {
            Some(path) => Some(
                std::fs::read_to_string(path)
                    .with_context(|| format!("--join-token-file {}", path.display()))?,
            ),
            None => None,
        };
        let line = self.line(&root, init, token.is_some())?;
        if self.now && !line.joins() && !root.has(CONFIG) {
            bail!(
                "there is no {CONFIG}: copy the host's folder of `agentctl cluster init` to /etc/agent, or give \
                 --join-token-file"
            );
        }
        let mut changed = root.put_program(BINARY)?;
        for file in plan::files(init, &line) {
            changed |= root.put(&file.path, &file.text, file.mode)?;
        }
        if let Some(token) = token.filter(|_| !root.has(CONFIG)) {
            changed |= root.put(TOKEN, &token, 0o600)?;
        }
        changed |= match init {
            Init::Systemd => root.link(plan::WANTED, UNIT)?,
            Init::Rc => {
                let mut changed = false;
                for (path, action) in RC_LOCALS {
                    changed |= root.put_block(path, &rc::block(action))?;
                }
                changed
            }
        };
        if !changed {
            println!("nothing changed");
        }
        if self.root.is_none() {
            start(init, changed, self.now)?;
        }
        Ok(())
    }

    /// How the member is started: as the host was told before, unless something else is said now.
    fn line(&self, root: &Root, init: Init, joins: bool) -> Result<Line> {
        let rebuilds = self.on_restart.map(|choice| choice == OnRestart::Rebuild);
        let line = Line::new(
            joins,
            &Flags {
                provider: self.provider.clone().unwrap_or_default(),
                rebuilds: rebuilds.unwrap_or_default(),
            },
        )?;
        let said = joins || self.provider.is_some();
        let before = match init {
            Init::Systemd => root.read(UNIT)?,
            Init::Rc => root.read(RC)?,
        };
        let before = before.and_then(|text| Line::in_text(&text));
        Ok(match before.filter(|_| !said) {
            Some(before) => match rebuilds {
                Some(rebuilds) => before.with_restarts(rebuilds),
                None => before,
            },
            None => line,
        })
    }
}

impl UninstallArgs {
    /// Removes what [`InstallArgs::run`] has put there.
    ///
    /// # Errors
    /// What the disk or the host's manager says.
    pub fn run(&self) -> Result<()> {
        let root = Root::new(self.root.as_deref());
        let here = self.root.is_none();
        let is_unit = root.has(UNIT);
        if here && is_unit {
            call("systemctl", &["disable", "--now", "agent.service"])?;
        }
        if here && root.has(RC) {
            call(RC, &["stop"])?;
        }
        let mut changed = false;
        for (path, _) in RC_LOCALS {
            changed |= root.remove_block(path)?;
        }
        for path in plan::ALL {
            changed |= root.remove(path)?;
        }
        if here && is_unit {
            call("systemctl", &["daemon-reload"])?;
        }
        if !changed {
            println!("nothing changed");
        }
        println!(
            "kept: {} (settings and certificates), {} (the member's data)",
            plan::FOLDER,
            plan::DATA
        );
        Ok(())
    }
}

/// Has the host's manager know what has changed, and the member run.
fn start(init: Init, changed: bool, now: bool) -> Result<()> {
    match init {
        Init::Systemd => {
            if !Path::new("/run/systemd/system").exists() {
                ensure!(
                    !now,
                    "systemd does not run here: start the host with it, or give --init rc"
                );
                return Ok(());
            }
            if changed {
                call("systemctl", &["daemon-reload"])?;
            }
            match (now, changed) {
                (true, true) => call("systemctl", &["restart", "agent.service"]),
                (true, false) => call("systemctl", &["start", "agent.service"]),
                _ => Ok(()),
            }
        }
        Init::Rc => match (now, changed) {
            (true, true) => call(RC, &["restart"]),
            (true, false) => call(RC, &["start"]),
            _ => Ok(()),
        },
    }
}

fn call(program: &str, words: &[&str]) -> Result<()> {
    let status = Command::new(program).args(words).status();
    let status = status.with_context(|| format!("cannot run {program}"))?;
    ensure!(status.success(), "{program} {}: {status}", words.join(" "));
    Ok(())
}
