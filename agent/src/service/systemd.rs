//! systemd, by its own command line: the same on a host and inside a guest.

use super::machine::Machine;
use super::{Activity, Loaded, ServiceError, UnitSeen};

/// There while systemd runs the machine.
pub(super) const RUNNING: &str = "/run/systemd/system";
const UNITS: &str = "/etc/systemd/system";

pub(super) fn unit(name: &str) -> String {
    format!("{name}.service")
}

pub(super) fn unit_path(name: &str) -> String {
    format!("{UNITS}/{}", unit(name))
}

/// Runs `systemctl`, for its effect.
pub(super) async fn command<M: Machine>(machine: &M, words: &[&str]) -> Result<(), ServiceError> {
    let mut all = vec!["systemctl", "--no-ask-password"];
    all.extend(words);
    let ran = machine.run(&all).await?;
    if ran.code == 0 {
        return Ok(());
    }
    Err(ServiceError::Command {
        command: format!("systemctl {}", words.join(" ")),
        code: ran.code,
        reason: ran.last_line().to_owned(),
    })
}

/// Begun, not waited for: a unit that takes minutes to start is followed by looking at it.
pub(super) async fn restart<M: Machine>(machine: &M, name: &str) -> Result<(), ServiceError> {
    // What has failed too often is not started again before this; on any other it does nothing.
    command(machine, &["reset-failed", &unit(name)]).await.ok();
    command(machine, &["--no-block", "restart", &unit(name)]).await
}

pub(super) async fn stop<M: Machine>(machine: &M, name: &str) -> Result<(), ServiceError> {
    match look(machine, name).await?.loaded {
        Loaded::Missing => Ok(()),
        _ => command(machine, &["stop", &unit(name)]).await,
    }
}

const PROPERTIES: &str = "--property=LoadState,ActiveState,SubState,UnitFileState,FragmentPath,\
                          NeedDaemonReload,Result,LoadError";

pub(super) async fn look<M: Machine>(machine: &M, name: &str) -> Result<UnitSeen, ServiceError> {
    let unit = unit(name);
    let ran = machine.run(&["systemctl", "show", PROPERTIES, &unit]).await?;
    if ran.code != 0 {
        return Err(ServiceError::Command {
            command: format!("systemctl show {unit}"),
            code: ran.code,
            reason: ran.last_line().to_owned(),
        });
    }
    let mut seen = parse(&ran.stdout);
    if matches!(seen.activity, Activity::Failed | Activity::Restarting)
        && let Some(line) = last_log_line(machine, &unit).await
    {
        seen.detail = format!("{}: {line}", seen.detail);
    }
    Ok(seen)
}

/// What the unit said last, where there is a journal to ask.
async fn last_log_line<M: Machine>(machine: &M, unit: &str) -> Option<String> {
    let unit = format!("--unit={unit}");
    let words = [
        "journalctl",
        &unit,
        "--lines=1",
        "--output=cat",
        "--no-pager",
        "--quiet",
    ];
    let ran = machine.run(&words).await.ok()?;
    let line = ran.stdout.lines().last()?.trim();
    (ran.code == 0 && !line.is_empty()).then(|| line.chars().take(500).collect())
}

/// Reads the properties of `systemctl show`.
fn parse(text: &str) -> UnitSeen {
    let property = |name: &str| {
        let mut lines = text.lines();
        lines
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_default()
    };
    let path = property("FragmentPath").to_owned();
    let loaded = match property("LoadState") {
        "not-found" | "" => Loaded::Missing,
        "loaded" if property("NeedDaemonReload") == "yes" => Loaded::Outdated(path),
        "loaded" => Loaded::From(path),
        // What was written over a broken one may be good, once it is read.
        _ if property("NeedDaemonReload") == "yes" => Loaded::Outdated(path),
        broken => Loaded::Broken(format!("{broken} {}", property("LoadError")).trim().to_owned()),
    };
    let activity = match property("ActiveState") {
        "active" | "reloading" | "refreshing" => Activity::Active,
        "activating" if property("SubState").starts_with("auto-restart") => Activity::Restarting,
        "activating" => Activity::Starting,
        "deactivating" => Activity::Stopping,
        "failed" => Activity::Failed,
        _ => Activity::Inactive,
    };
    let enabled = match property("UnitFileState") {
        "enabled" | "enabled-runtime" => Some(true),
        "disabled" => Some(false),
        // Static, generated, an alias: nothing to switch.
        _ => None,
    };
    let detail = match (activity, property("Result")) {
        (Activity::Failed, result) if !result.is_empty() => format!("failed ({result})"),
        _ => format!("{} ({})", property("ActiveState"), property("SubState")),
    };
    UnitSeen {
        loaded,
        enabled,
        activity,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use expect_test::expect;
    use tempfile::TempDir;

    use super::*;
    use crate::service::{HostMachine, Manager};

    /// A `systemctl` that keeps each unit's state in a file, and writes down what it was asked.
    const FAKE: &str = r#"#!/bin/sh
here=${0%/*}/..
shift_options() { while :; do case "$1" in --no-*) shift ;; *) break ;; esac; done; echo "$@"; }
set -- $(shift_options "$@")
[ "$1" = show ] || echo "$@" >>"$here/asked"
state() { cat "$here/state.$1" 2>/dev/null || echo inactive; }
case "$1" in
daemon-reload) cp "$here"/etc/systemd/system/*.service "$here/read" 2>/dev/null; exit 0 ;;
show)
    file=$here/etc/systemd/system/$3
    if [ -e "$file" ]; then echo LoadState=loaded; echo "FragmentPath=/etc/systemd/system/$3"
    else echo LoadState=not-found; echo FragmentPath=; fi
    cmp -s "$file" "$here/read/$3" && echo NeedDaemonReload=no || echo NeedDaemonReload=yes
    echo "ActiveState=$(state "$3")"; echo SubState=sub; echo Result=exit-code
    [ -e "$here/enabled.$3" ] && echo UnitFileState=enabled || echo UnitFileState=disabled ;;
enable) : >"$here/enabled.$2" ;;
disable) rm -f "$here/enabled.$2" ;;
restart) if grep -q broken "$here/etc/systemd/system/$2"; then echo failed >"$here/state.$2"
    else echo active >"$here/state.$2"; fi ;;
stop) rm -f "$here/state.$2" ;;
reset-failed) echo "Unit $2 not loaded." >&2; exit 1 ;;
*) echo "Unknown command verb $1." >&2; exit 1 ;;
esac
"#;

    fn machine() -> (TempDir, HostMachine) {
        let root = tempfile::tempdir().unwrap();
        for folder in ["bin", "read", "etc/systemd/system"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let programs = root.path().join("bin");
        let journal = "#!/bin/sh\necho a line before\necho 'no such file: /srv/web'\n";
        for (name, text) in [("systemctl", FAKE), ("journalctl", journal)] {
            fs::write(programs.join(name), text).unwrap();
            fs::set_permissions(programs.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let machine = HostMachine::new(root.path(), Some(&programs));
        (root, machine)
    }

    fn write(root: &TempDir, name: &str, text: &str) {
        fs::write(root.path().join("etc/systemd/system").join(name), text).unwrap();
    }

    #[tokio::test]
    async fn a_unit_from_its_file_to_its_end() {
        let (root, machine) = machine();
        let systemd = Manager::Systemd;
        assert_eq!(
            systemd.look(&machine, "web").await.unwrap().loaded,
            Loaded::Missing
        );
        systemd.stop(&machine, "web").await.unwrap();

        write(&root, "web.service", "[Service]\n");
        let path = || "/etc/systemd/system/web.service".to_owned();
        let seen = systemd.look(&machine, "web").await.unwrap();
        assert_eq!(seen.loaded, Loaded::Outdated(path()));
        systemd.reload(&machine).await.unwrap();
        systemd.enable(&machine, "web", true).await.unwrap();
        systemd.restart(&machine, "web", None).await.unwrap();
        let seen = systemd.look(&machine, "web").await.unwrap();
        assert_eq!(
            (&seen.loaded, seen.enabled, seen.activity),
            (&Loaded::From(path()), Some(true), Activity::Active)
        );

        systemd.stop(&machine, "web").await.unwrap();
        systemd.enable(&machine, "web", false).await.unwrap();
        let seen = systemd.look(&machine, "web").await.unwrap();
        assert_eq!((seen.enabled, seen.activity), (Some(false), Activity::Inactive));
        expect![[r"
            daemon-reload
            enable web.service
            reset-failed web.service
            restart web.service
            stop web.service
            disable web.service
        "]]
        .assert_eq(&fs::read_to_string(root.path().join("asked")).unwrap());
    }

    #[tokio::test]
    async fn a_failure_has_its_last_words() {
        let (root, machine) = machine();
        write(&root, "web.service", "[Service]\nExecStart=broken\n");
        Manager::Systemd.reload(&machine).await.unwrap();
        Manager::Systemd.restart(&machine, "web", None).await.unwrap();
        let seen = Manager::Systemd.look(&machine, "web").await.unwrap();
        assert_eq!(seen.activity, Activity::Failed);
        assert_eq!(seen.detail, "failed (exit-code): no such file: /srv/web");
        let refused = command(&machine, &["levitate"]).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "systemctl levitate ended with 1: Unknown command verb levitate."
        );
    }

    #[test]
    fn what_systemd_shows_is_read() {
        let check = |text: &str| {
            let seen = parse(text);
            format!(
                "{:?} {:?} {:?} {}",
                seen.loaded, seen.enabled, seen.activity, seen.detail
            )
        };
        expect![[r#"From("/lib/systemd/system/ssh.service") Some(true) Active active (running)"#]].assert_eq(
            &check(
                "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\n\
             FragmentPath=/lib/systemd/system/ssh.service\nNeedDaemonReload=no\nResult=success\n",
            ),
        );
        expect![[r#"From("/x") None Restarting activating (auto-restart)"#]].assert_eq(&check(
            "LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nUnitFileState=static\n\
             FragmentPath=/x\n",
        ));
        expect![[
            r#"Broken("bad-setting org.freedesktop.systemd1.BadUnitSetting") None Inactive inactive (dead)"#
        ]]
        .assert_eq(&check(
            "LoadState=bad-setting\nActiveState=inactive\nSubState=dead\nFragmentPath=/x\n\
                 LoadError=org.freedesktop.systemd1.BadUnitSetting\n",
        ));
        expect!["Missing None Inactive  ()"].assert_eq(&check(""));
    }
}
