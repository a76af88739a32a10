//! Which files a host gets, by what starts programs there. Pure, but for the look at the disk in [`init_of`].

use anyhow::bail;
use cloud_init::{Flags, HostError};

use super::files::Root;
use super::rc;

pub(super) const BINARY: &str = "/usr/local/bin/agent";
const CTL: &str = "/usr/local/bin/agentctl";
pub(super) const FOLDER: &str = "/etc/agent";
pub(super) const CONFIG: &str = "/etc/agent/config.yaml";
pub(super) const TOKEN: &str = "/etc/agent/token";
pub(super) const DATA: &str = "/var/lib/agent";
pub(super) const UNIT: &str = "/etc/systemd/system/agent.service";
/// What `systemctl enable` makes.
pub(super) const WANTED: &str = "/etc/systemd/system/multi-user.target.wants/agent.service";
pub(super) const RC: &str = "/etc/rc.d/rc.agent";
const LOGROTATE: &str = "/etc/logrotate.d/agent";
/// What a Slackware runs at the end of its start and at the beginning of its stop, and what is said there.
pub(super) const RC_LOCALS: [(&str, &str); 2] = [
    ("/etc/rc.d/rc.local", "start"),
    ("/etc/rc.d/rc.local_shutdown", "stop"),
];
/// Everything that is put somewhere, the program last.
pub(super) const ALL: [&str; 6] = [WANTED, UNIT, RC, LOGROTATE, CTL, BINARY];

/// What starts programs on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Init {
    Systemd,
    Rc,
}

/// What is on this disk.
pub(super) fn init_of(root: &Root) -> Result<Init, anyhow::Error> {
    let systemd = [
        "/run/systemd/system",
        "/usr/lib/systemd/system",
        "/lib/systemd/system",
    ];
    if systemd.iter().any(|path| root.has(path)) {
        return Ok(Init::Systemd);
    }
    if root.has("/etc/rc.d") {
        return Ok(Init::Rc);
    }
    bail!(
        "there is neither systemd nor /etc/rc.d here: say what starts programs, --init systemd or --init rc"
    )
}

/// The last of the flags.
const REBUILDS: &str = " --on-restart=rebuild";

/// How the member is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line(String);

impl Line {
    /// As user-data has it.
    pub(super) fn new(joins: bool, flags: &Flags) -> Result<Line, HostError> {
        cloud_init::start_line(joins, flags).map(Line)
    }

    /// The same, but for what becomes of instances when the host was restarted.
    pub(super) fn with_restarts(&self, rebuilds: bool) -> Line {
        let line = self.0.strip_suffix(REBUILDS).unwrap_or(&self.0);
        // What joins has the flags of `agent run` after two hyphens.
        let line = line.strip_suffix(" --").unwrap_or(line);
        let between = if self.joins() && !line.contains(" -- ") {
            " --"
        } else {
            ""
        };
        Line(match rebuilds {
            true => format!("{line}{between}{REBUILDS}"),
            false => line.to_owned(),
        })
    }

    /// Out of a unit or a script that was written before.
    pub(super) fn in_text(text: &str) -> Option<Line> {
        let line = text.lines().find_map(|line| {
            line.strip_prefix("ExecStart=")
                .or_else(|| line.strip_prefix("# Starts: "))
        })?;
        line.starts_with(&format!("{BINARY} "))
            .then(|| Line(line.to_owned()))
    }

    pub(super) fn joins(&self) -> bool {
        self.0.starts_with(&format!("{BINARY} join "))
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

/// A file of ours.
pub(super) struct File {
    pub(super) path: String,
    pub(super) text: String,
    pub(super) mode: u32,
}

pub(super) fn files(init: Init, line: &Line) -> Vec<File> {
    let file = |path: &str, text: String, mode| File {
        path: path.to_owned(),
        text,
        mode,
    };
    let mut files = vec![file(CTL, cloud_init::CTL.to_owned(), 0o755)];
    match init {
        Init::Systemd => files.push(file(UNIT, cloud_init::unit(line.text()), 0o644)),
        Init::Rc => {
            files.push(file(RC, rc::script(line.text()), 0o755));
            files.push(file(LOGROTATE, rc::LOGROTATE.to_owned(), 0o644));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_started_as_it_was_told_before() {
        let of = |provider: &str, rebuilds| Flags {
            provider: provider.into(),
            rebuilds,
        };
        let joins = Line::new(true, &of("A Provider", false)).unwrap();
        assert!(joins.joins());
        for init in [Init::Systemd, Init::Rc] {
            let files = files(init, &joins);
            let main = files
                .iter()
                .find(|file| [UNIT, RC].contains(&file.path.as_str()))
                .unwrap();
            assert_eq!(Line::in_text(&main.text), Some(joins.clone()));
        }
        for joins in [true, false] {
            for provider in ["", "A Provider"] {
                let [adopts, rebuilds] =
                    [false, true].map(|rebuilds| Line::new(joins, &of(provider, rebuilds)).unwrap());
                for line in [&adopts, &rebuilds] {
                    assert_eq!(line.with_restarts(true), rebuilds);
                    assert_eq!(line.with_restarts(false), adopts);
                }
            }
        }
        let runs = Line::new(false, &Flags::default()).unwrap();
        assert_eq!(
            runs.text(),
            "/usr/local/bin/agent run --config /etc/agent/config.yaml"
        );
        assert!(Line::new(false, &of("a'b", false)).is_err());
    }
}
