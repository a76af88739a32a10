//! What `agent dev` shows. Pure, but for the look into `$PATH`: a command that is shown must work when pasted.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// The port at which agentctl and etcdctl look by themselves.
const WELL_KNOWN: &str = "http://127.0.0.1:2379";

#[derive(Clone, Debug)]
pub(super) struct Screen {
    /// Host and client URL.
    pub(super) members: Vec<(String, String)>,
    /// Which one leads; beyond the last: nobody knows.
    pub(super) leader: usize,
    pub(super) incus: String,
    pub(super) dir: String,
    pub(super) took: Duration,
    pub(super) tools: Tools,
}

/// How this machine calls what we speak of.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    agentctl: String,
    etcdctl: bool,
    example: bool,
}

impl Tools {
    pub(super) fn find(executable: &Path) -> Self {
        let here = std::env::current_dir().unwrap_or_default();
        let show = |path: PathBuf| path.strip_prefix(&here).map(Path::to_owned).unwrap_or(path);
        let agentctl = if in_path("agentctl") {
            "agentctl".to_owned()
        } else {
            let beside = executable.with_file_name("agentctl");
            if beside.is_file() {
                show(beside).display().to_string()
            } else {
                format!("{} ctl", show(executable.to_owned()).display())
            }
        };
        Self {
            agentctl,
            etcdctl: in_path("etcdctl"),
            example: here.join("examples/web.yaml").is_file(),
        }
    }
}

pub(super) fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// The first screen.
pub(super) fn ready(screen: &Screen) -> String {
    let mut text = String::from("three members on this machine, one at each \"provider\"\n");
    let hosts = screen
        .members
        .iter()
        .map(|(host, _)| host.len())
        .max()
        .unwrap_or(0);
    let urls = screen.members.iter().map(|(_, url)| url.len()).max().unwrap_or(0);
    for (index, (host, url)) in screen.members.iter().enumerate() {
        let role = if index == screen.leader { "leader" } else { "" };
        let line = format!("  {host:hosts$}  {url:urls$}  {role}");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    let _ = writeln!(text, "Incus: {}", screen.incus);
    for (index, command) in commands(screen).iter().enumerate() {
        let _ = writeln!(
            text,
            "{}{command}",
            if index == 0 { "try:   " } else { "       " }
        );
    }
    let seconds = screen.took.as_secs_f64();
    let _ = writeln!(
        text,
        "ready in {seconds:.1} s; Ctrl-C stops it, data stays in {}",
        screen.dir
    );
    text
}

fn commands(screen: &Screen) -> Vec<String> {
    let Tools {
        agentctl,
        etcdctl,
        example,
    } = &screen.tools;
    let mut commands = Vec::new();
    let urls: Vec<&str> = screen.members.iter().map(|(_, url)| url.as_str()).collect();
    if urls.first() != Some(&WELL_KNOWN) {
        let all: Vec<&str> = urls.iter().map(|url| url.trim_start_matches("http://")).collect();
        commands.push(export(&all.join(","), *etcdctl));
    }
    let read = if *etcdctl {
        "etcdctl get greeting".to_owned()
    } else {
        format!("{agentctl} kv get greeting")
    };
    commands.push(format!("{agentctl} kv put greeting hello && {read}"));
    commands.push(if *example {
        format!("{agentctl} apply -f examples/web.yaml")
    } else {
        format!("{agentctl} endpoint status")
    });
    let dir = if screen.dir == super::DEFAULT_DIR {
        String::new()
    } else {
        format!(" --dir {}", screen.dir)
    };
    let host = screen.members.first().map_or("", |(host, _)| host.as_str());
    commands.push(format!(
        "{agentctl} dev kill {host}{dir}        # a provider goes away; watch the others carry on"
    ));
    commands
}

/// Sets the endpoints of whoever is there to use them.
fn export(endpoints: &str, etcdctl: bool) -> String {
    let too = if etcdctl {
        "; export ETCDCTL_ENDPOINTS=$AGENTCTL_ENDPOINTS"
    } else {
        ""
    };
    format!("export AGENTCTL_ENDPOINTS={endpoints}{too}")
}

/// After `agentctl dev kill`.
pub(super) fn killed(host: &str, others: &[String], etcdctl: bool) -> String {
    if others.is_empty() {
        return format!("{host} is gone, and it was the last one\n");
    }
    let export = export(&others.join(","), etcdctl);
    format!("{host} is gone; the others carry on:\n  {export}\n")
}

/// `agentctl dev list`.
pub(super) fn list(members: &[(&str, String, Option<u32>)]) -> String {
    let line = |(host, url, pid): &(&str, String, Option<u32>)| {
        let state = pid.map_or_else(|| "killed".to_owned(), |pid| format!("runs, pid {pid}"));
        format!("{host:9}  {url:22}  {state}\n")
    };
    members.iter().map(line).collect()
}

pub(super) fn status(status: Option<ExitStatus>) -> String {
    status.map_or_else(|| "nobody knows how".to_owned(), |status| status.to_string())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn screen(base: u16) -> Screen {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        Screen {
            members: vec![
                ("ovh".into(), url(base)),
                ("ionos".into(), url(base + 10_000)),
                ("liquidweb".into(), url(base + 20_000)),
            ],
            leader: 0,
            incus: "none found, simulating one".into(),
            dir: "./agent-dev".into(),
            took: Duration::from_millis(812),
            tools: Tools {
                agentctl: "agentctl".into(),
                etcdctl: true,
                example: true,
            },
        }
    }

    #[test]
    fn the_first_screen() {
        expect![[r#"
            three members on this machine, one at each "provider"
              ovh        http://127.0.0.1:2379   leader
              ionos      http://127.0.0.1:12379
              liquidweb  http://127.0.0.1:22379
            Incus: none found, simulating one
            try:   agentctl kv put greeting hello && etcdctl get greeting
                   agentctl apply -f examples/web.yaml
                   agentctl dev kill ovh        # a provider goes away; watch the others carry on
            ready in 0.8 s; Ctrl-C stops it, data stays in ./agent-dev
        "#]]
        .assert_eq(&ready(&screen(2379)));
    }

    #[test]
    fn commands_work_where_nothing_is_installed() {
        let mut screen = screen(2400);
        screen.tools = Tools {
            agentctl: "target/release/agent ctl".into(),
            etcdctl: false,
            example: false,
        };
        screen.dir = "/srv/dev".into();
        expect![[r#"
            three members on this machine, one at each "provider"
              ovh        http://127.0.0.1:2400   leader
              ionos      http://127.0.0.1:12400
              liquidweb  http://127.0.0.1:22400
            Incus: none found, simulating one
            try:   export AGENTCTL_ENDPOINTS=127.0.0.1:2400,127.0.0.1:12400,127.0.0.1:22400
                   target/release/agent ctl kv put greeting hello && target/release/agent ctl kv get greeting
                   target/release/agent ctl endpoint status
                   target/release/agent ctl dev kill ovh --dir /srv/dev        # a provider goes away; watch the others carry on
            ready in 0.8 s; Ctrl-C stops it, data stays in /srv/dev
        "#]].assert_eq(&ready(&screen));
    }

    #[test]
    fn a_kill_says_where_to_go_on() {
        expect![[r#"
            ovh is gone; the others carry on:
              export AGENTCTL_ENDPOINTS=127.0.0.1:12379,127.0.0.1:22379; export ETCDCTL_ENDPOINTS=$AGENTCTL_ENDPOINTS
        "#]].assert_eq(&killed(
            "ovh",
            &["127.0.0.1:12379".into(), "127.0.0.1:22379".into()],
            true,
        ));
        expect![[r#"
            ovh        http://127.0.0.1:2379   killed
            ionos      http://127.0.0.1:12379  runs, pid 42
        "#]]
        .assert_eq(&list(&[
            ("ovh", "http://127.0.0.1:2379".into(), None),
            ("ionos", "http://127.0.0.1:12379".into(), Some(42)),
        ]));
    }
}
