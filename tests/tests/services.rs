//! Services and files, on a host and inside an instance of a real Incus: what is written becomes so, once, and nothing
//! else is touched.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::hosts::Hosts;
use tests::wait;

const INSTANCE: &str = "kind: instance
name: web
host: m0
spec:
  profiles: [default]
  source: {type: image, alias: busybox}
";

/// Says in a file how often it was started, and with what.
fn inside(content: &str) -> String {
    format!(
        "kind: service
name: counter
instance: web
spec:
  exec: /bin/sh
  args: [-c, 'read line </srv/counter/conf; echo \"$line $WHO\" >>/starts; exec sleep 300']
  environment: {{WHO: counter}}
  files:
    - {{path: /srv/counter/conf, mode: 0640, owner: 5:6, content: \"{content}\\n\"}}
"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_inside_an_instance() {
    let Some(host) = start().await else {
        return;
    };
    host.apply(INSTANCE).await;
    let planned = host
        .agentctl(&["plan", "-f", &host.file("document.yaml", &inside("one"))])
        .await;
    assert!(
        planned.contains("+ service  counter         m0          create"),
        "{planned}"
    );
    host.apply(&inside("one")).await;
    host.reported(0, "services/counter", "Ready", None).await;
    assert_eq!(
        host.agentctl(&["diff"]).await,
        "no host differs from its documents\n"
    );
    let planned = host
        .agentctl(&["plan", "-f", &host.file("document.yaml", &inside("two"))])
        .await;
    assert!(
        planned
            .contains("~ service  counter         m0          /srv/counter/conf: content differs (restart)"),
        "{planned}"
    );
    starts(&host, &["one counter"]).await;
    assert_eq!(
        exec(&host, "/bin/busybox stat -c '%a %u:%g' /srv/counter/conf"),
        "640 5:6\n"
    );

    // Another content: one restart, with it.
    let revision = host.apply(&inside("two")).await;
    host.reported(0, "services/counter", "Ready", revision).await;
    starts(&host, &["one counter", "two counter"]).await;
    // The same in other words: none.
    let revision = host.apply(&format!("# a remark\n{}", inside("two"))).await;
    host.reported(0, "services/counter", "Ready", revision).await;

    // It dies, and is started again. So it is when its instance stops, which the agent starts again.
    exec(&host, "read -r pid rest </run/agent-counter; kill -9 $pid");
    starts(&host, &["one counter", "two counter", "two counter"]).await;
    host.incus(0, &["stop", "--force", "web"]);
    starts(
        &host,
        &["one counter", "two counter", "two counter", "two counter"],
    )
    .await;

    host.agentctl(&["delete", "service", "counter"]).await;
    host.forgotten(0, "services/counter").await;
    assert_eq!(
        exec(&host, "ls /srv /etc/agent 2>&1 | grep -v 'No such'; true"),
        "",
        "nothing of ours is left"
    );
    assert_eq!(exec(&host, "ps | grep 'sleep 30[0]' || echo none"), "none\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_inside_an_instance() {
    let Some(host) = start().await else {
        return;
    };
    let file = |path: &str, content: &str| {
        format!("kind: file\nname: f\ninstance: web\nspec: {{path: {path}, content: \"{content}\\n\"}}\n")
    };
    let revision = host.apply(&file("/etc/inittab", "mine")).await;
    host.reported(0, "files/f", "Pending", revision).await;
    host.apply(INSTANCE).await;
    let status = host.reported(0, "files/f", "Conflict", revision).await;
    let message = status["message"].as_str().unwrap_or_default();
    assert!(message.contains("/etc/inittab is there already"), "{status}");
    assert!(
        exec(&host, "cat /etc/inittab").contains("sysinit"),
        "it is not touched"
    );

    let revision = host.apply(&file("/etc/app/motd", "hello")).await;
    host.reported(0, "files/f", "Ready", revision).await;
    assert_eq!(exec(&host, "cat /etc/app/motd"), "hello\n");
    exec(&host, "echo changed by hand >/etc/app/motd");
    wait::until("the file to be changed back", async || {
        (exec(&host, "cat /etc/app/motd") == "hello\n").then_some(())
    })
    .await;
    let revision = host.apply(&file("/etc/app/motd", "hello again")).await;
    host.reported(0, "files/f", "Ready", revision).await;
    assert_eq!(exec(&host, "cat /etc/app/motd"), "hello again\n");
    // Somebody else's beside it: the folder that we made stays for it.
    exec(&host, "echo theirs >/etc/app/other");
    host.agentctl(&["delete", "file", "f"]).await;
    host.forgotten(0, "files/f").await;
    assert_eq!(exec(&host, "ls /etc/app"), "other\n");

    // Nothing is put into an instance that is not ours.
    host.incus(0, &["launch", "busybox", "byhand"]);
    let theirs = file("/etc/app/motd", "hello").replace("instance: web", "instance: byhand");
    let revision = host.apply(&theirs).await;
    host.reported(0, "files/f", "Conflict", revision).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_on_the_host() {
    let Some(mut host) = start().await else {
        return;
    };
    let pids = host.root().join("pids");
    let service = |argument: &str| {
        let script = format!("echo $$ >>{}; exec sleep 300", pids.display());
        format!(
            "kind: service
name: sleeper
host: m0
spec:
  exec: /bin/sh
  args: [-c, '{script}', '{argument}']
  files: [{{path: /etc/sleeper/conf, content: x}}]
"
        )
    };
    let started = |count: usize| wait_for_lines(&pids, count);
    let revision = host.apply(&service("first")).await;
    host.reported(0, "services/sleeper", "Ready", revision).await;
    let first = started(1).await;
    assert_eq!(
        fs::read_to_string(host.root().join("etc/sleeper/conf")).expect("the file"),
        "x"
    );

    // An agent that goes, asked or not, takes nothing with it, and its successor starts nothing twice.
    host.cluster.kill(0);
    host.cluster.start(0);
    host.cluster.ready().await;
    host.cluster.terminate(0).await;
    host.cluster.start(0);
    host.cluster.ready().await;
    let revision = host.apply(&format!("# a remark\n{}", service("first"))).await;
    host.reported(0, "services/sleeper", "Ready", revision).await;
    assert_eq!(started(1).await, first);

    let revision = host.apply(&service("second")).await;
    host.reported(0, "services/sleeper", "Ready", revision).await;
    let both = started(2).await;
    assert!(!runs(first[0]), "the first one is gone");
    kill(both[1], Signal::SIGKILL).expect("it runs");
    let all = started(3).await;

    // What reaches root on a host is the operators' alone.
    let tenants = service("second").replace("name: sleeper", "name: sleeper\ntenant: t1");
    let refused = host
        .agentctl_says(&["apply", "-f", &host.file("tenants.yaml", &tenants)])
        .await;
    assert!(refused.contains("tenant default"), "{refused}");

    host.agentctl(&["delete", "service", "sleeper"]).await;
    host.forgotten(0, "services/sleeper").await;
    assert!(!runs(all[2]), "it is gone");
    assert!(!host.root().join("etc/sleeper").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_os_service_without_systemd() {
    let Some(host) = start().await else {
        return;
    };
    let document = "kind: os-service\nname: multipath\nhost: m0\nspec: {config: {enabled: true}}\n";
    host.apply(document).await;
    let status = host
        .reported(0, "os-services/multipath", "Unsupported", None)
        .await;
    assert_eq!(status["message"], "needs systemd on the host");
    let shown = host.agentctl(&["status"]).await;
    assert!(
        shown.contains("os-service") && shown.contains("Unsupported"),
        "{shown}"
    );
}

async fn wait_for_lines(path: &std::path::Path, count: usize) -> Vec<Pid> {
    wait::until(&format!("{count} starts"), async || {
        let text = fs::read_to_string(path).ok()?;
        let pids: Vec<Pid> = text
            .lines()
            .map(|line| Pid::from_raw(line.parse().expect("a pid")))
            .collect();
        assert!(pids.len() <= count, "started more often: {pids:?}");
        (pids.len() == count).then_some(pids)
    })
    .await
}

/// One that ended and was not waited for does not.
fn runs(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, state)| !state.starts_with('Z'))
}

/// One agent with an Incus, whose host is a folder; `None`, said aloud, where Incus cannot run.
async fn start() -> Option<Hosts> {
    Hosts::builder(1).with_root().start().await
}

/// Runs a line in the instance.
fn exec(host: &Hosts, line: &str) -> String {
    host.incus(0, &["exec", "web", "--", "/bin/sh", "-c", line])
}

async fn starts(host: &Hosts, lines: &[&str]) {
    let expected: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let what = format!("the starts to be {lines:?}");
    wait::until(&what, async || {
        let cat = ["exec", "web", "--", "/bin/sh", "-c", "cat /starts"];
        let text = host.daemon(0).incus(&cat).ok()?;
        assert!(text.len() <= expected.len(), "started more often: {text}");
        (text == expected).then_some(())
    })
    .await;
}
