//! Hosts from nothing: machines that are given user-data, and no other help, become a cluster that runs instances; one
//! that burns is replaced by another. Only the first gets its keys by hand.

use std::fs;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tests::machines::{Provider, sha256};
use tests::{notes, tools, wait};

/// For a machine to boot and to vote, on a busy one.
const JOIN_LIMIT: Duration = Duration::from_secs(240);

const HOSTS: [(&str, &str); 3] = [
    ("ovh", "10.91.0.10"),
    ("ionos", "10.91.0.11"),
    ("liquidweb", "10.91.0.12"),
];

/// What is on each host: an instance with all that it stands on, from an Incus that has nothing yet; on one of them a
/// service of the host itself.
const DOCUMENTS: &str = "\
kind: storage-pool
name: local
spec: {driver: dir}
---
kind: profile
name: base
spec:
  config: {security.privileged: true}
  devices: {root: {type: disk, path: /, pool: local}}
---
kind: image
name: busybox
spec:
  source: {type: file, path: /srv/busybox.tar.gz}
---
kind: service
name: beat
host: ionos
spec:
  exec: /bin/sh
  args: [-c, 'while sleep 1; do cat /etc/beat; done']
  files:
  - {path: /etc/beat, content: \"beat\\n\"}
---
kind: instance
name: guarded
placement: {hosts: [ovh], failover: fenced}
spec:
  type: container
  profiles: [base]
  source: {type: image, alias: busybox}
---
kind: volume
name: data
host: liquidweb
spec: {pool: local}
";

/// Once a year: the first, which is made at once.
const BACKUP: &str = "\
kind: backup
name: data
spec:
  volume: data
  pool: local
  exports: {schedule: '0 0 1 1 *', keep: {last: 1}, to: [ovh]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_come_from_user_data_alone_and_one_is_replaced() {
    let Some(provider) = Provider::open().await else {
        return;
    };
    let operator = Operator::new(&provider);
    let folder = tempfile::tempdir().expect("a folder");
    let image = tests::lab::build_image(folder.path()).expect("an image");
    let image = provider.serve("busybox.tar.gz", &image);

    operator.first_host(&[]).await;
    let mut third = Instant::now();
    for (host, address) in &HOSTS[1..] {
        let token = operator.ask(&["token", "create", "--host", host, "--address", address]);
        third = Instant::now();
        operator.rent(host, &["--join-token-file", &operator.keep("token", &token)]);
    }
    operator.three_voters("ovh").await;
    notes::measured(&format!(
        "from the start of the third machine to three voters: {:.1} s",
        third.elapsed().as_secs_f64()
    ));
    for (host, _) in HOSTS {
        provider.booted(host).await;
        bring_image(&provider, host, &image);
    }

    operator.ask(&["apply", "-f", &operator.keep("documents.yaml", &documents())]);
    operator.ask(&["status", "--wait=120s"]);
    for (host, _) in HOSTS {
        runs(&provider, host).await;
    }
    provider.on(
        "ionos",
        "systemctl is-active beat.service && systemctl is-enabled beat.service",
    );
    is_guarded(&provider).await;
    hardened(&provider);
    a_reset_changes_nothing(&provider, &operator).await;
    a_volume_has_a_copy_elsewhere(&provider, &operator).await;

    provider.destroy("liquidweb");
    operator.ask_of("ovh", &["kv", "put", "greeting", "still"]);
    let token = operator.ask_of("ovh", &["token", "create", "--host", "liquidweb", "--replace"]);
    let replaced = Instant::now();
    operator.rent(
        "liquidweb",
        &["--join-token-file", &operator.keep("token", &token)],
    );
    operator.three_voters("ionos").await;
    bring_image(&provider, "liquidweb", &image);
    runs(&provider, "liquidweb").await;
    notes::measured(&format!(
        "from a new machine to its instance: {:.1} s",
        replaced.elapsed().as_secs_f64()
    ));
    let restore = [
        "backup",
        "restore",
        "data",
        "--volume",
        "--to",
        "liquidweb",
        "--replace",
    ];
    operator.ask(&restore);
    runs(&provider, "liquidweb").await;
    let word = provider.on("liquidweb", "incus exec web-liquidweb -- busybox cat /data/word");
    assert_eq!(word, "precious\n");
    let kept = operator.ask_of("liquidweb", &["kv", "get", "greeting", "--print-value-only"]);
    assert_eq!(kept, "still\n");
}

/// A machine that runs already is made a host by a script, as over SSH, and again, and nothing changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_runs_joins_by_a_script() {
    let Some(provider) = Provider::open().await else {
        return;
    };
    let operator = Operator::new(&provider);
    let preseed = operator.keep("preseed.yaml", "config:\n  user.made: by-preseed\n");
    let key = operator.keep("eva.pub", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample eva\n");
    let extras = ["--incus-preseed", &preseed, "--ssh-key", &key];
    operator.first_host(&extras).await;
    provider.booted("ovh").await;

    let (host, address) = HOSTS[1];
    provider.rent(host, address, "#cloud-config\n");
    provider.booted(host).await;
    let token = operator.ask(&["token", "create", "--host", host, "--address", address]);
    let how = [
        "--format",
        "script",
        "--join-token-file",
        &operator.keep("token", &token),
    ];
    let script = operator.render(host, &[&how[..], &extras].concat());
    provider.put(host, "/srv/script", &script);
    let run = || provider.on(host, "sh -s < /srv/script");
    let said = run();
    assert!(said.contains("wrote /etc/systemd/system/agent.service"), "{said}");
    operator.voters("ovh", &["leader", "voter"]).await;
    for host in ["ovh", host] {
        let made = provider.on(host, "incus config get user.made");
        assert_eq!(made.trim(), "by-preseed", "{host}");
    }
    provider.on(host, "grep -q eva ~root/.ssh/authorized_keys");

    let process = || provider.on(host, "systemctl show --property MainPID agent.service; hostname");
    let before = process();
    assert!(before.ends_with(&format!("{host}\n")), "{before}");
    assert_eq!(run(), "nothing changed\n");
    // The program itself says the same of this host, and takes itself off it again.
    assert_eq!(
        provider.on(host, "/usr/local/bin/agent install --now"),
        "nothing changed\n"
    );
    assert_eq!(process(), before);
    let said = provider.on(host, "/usr/local/bin/agent uninstall");
    assert!(
        said.contains("removed /etc/systemd/system/agent.service"),
        "{said}"
    );
    provider.on(
        host,
        "! systemctl is-active agent.service && [ -d /var/lib/agent ] && [ -e /etc/agent/config.yaml ]",
    );
    let url = format!("http://{}/agent", "10.91.0.1");
    provider.on(host, &format!("curl --fail --silent --output /srv/agent {url} && chmod 0755 /srv/agent && /srv/agent install --now"));
    operator.voters(host, &["leader", "voter"]).await;
}

/// Whose cluster it is, at a machine of their own.
struct Operator<'a> {
    provider: &'a Provider,
    folder: TempDir,
    binary: [String; 4],
}

impl Operator<'_> {
    fn new(provider: &Provider) -> Operator<'_> {
        let agent = tools::agent();
        let url = provider.serve("agent", &agent);
        let sum = sha256(&agent).expect("a sum");
        let operator = Operator {
            provider,
            folder: tempfile::tempdir().expect("a folder"),
            binary: ["--binary-url".to_owned(), url, "--binary-sha256".to_owned(), sum],
        };
        let (host, address) = HOSTS[0];
        operator.ask(&["cluster", "init", "prod", "--host", &format!("{host}={address}")]);
        operator
    }

    /// The one that is told to begin: the operator copies its keys, as with rsync.
    async fn first_host(&self, extras: &[&str]) {
        let (host, _) = HOSTS[0];
        self.rent(host, &[&["--first"], extras].concat());
        self.provider
            .says(host, "systemctl is-active agent || true", |said| {
                said.trim() == "activating"
            })
            .await;
        let made = self.folder.path().join("agentctl/prod/hosts").join(host);
        let mut files: Vec<_> = fs::read_dir(made)
            .expect("the host's folder")
            .map(|file| file.expect("a file").path())
            .collect();
        files.sort_unstable();
        for file in files {
            let name = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let text = fs::read_to_string(&file).expect("a text");
            self.provider.put(host, &format!("/etc/agent/{name}"), &text);
        }
        let serves = wait::within(JOIN_LIMIT, "the first host to serve", async || {
            self.try_ask(host, &["kv", "put", "greeting", "hello"]).ok()
        });
        if let Err(vain) = serves.await {
            panic!("{vain}\n{}", self.provider.journal(host));
        }
    }

    /// A machine with the user-data of a host.
    fn rent(&self, host: &str, how: &[&str]) {
        let user_data = self.render(host, how);
        let (_, address) = HOSTS.iter().find(|(name, _)| *name == host).expect("a host");
        self.provider.rent(host, address, &user_data);
    }

    fn render(&self, host: &str, how: &[&str]) -> String {
        let binary: Vec<&str> = self.binary.iter().map(String::as_str).collect();
        let render = ["cloud-init", "render", "--host", host, "--provider", "A Provider"];
        self.ask(&[&render[..], how, &binary].concat())
    }

    /// `agentctl` at the first host.
    fn ask(&self, words: &[&str]) -> String {
        self.ask_of(HOSTS[0].0, words)
    }

    fn ask_of(&self, host: &str, words: &[&str]) -> String {
        let said = self.try_ask(host, words);
        said.unwrap_or_else(|error| panic!("agentctl {words:?} at {host}: {error}"))
    }

    /// `agentctl` with the operator's certificate.
    fn try_ask(&self, host: &str, words: &[&str]) -> Result<String, String> {
        let (_, address) = HOSTS.iter().find(|(name, _)| *name == host).expect("a host");
        let file = |name: &str| self.folder.path().join("agentctl/prod").join(name);
        let output = self
            .provider
            .elsewhere(&tools::agentctl())
            .args(words)
            .env("XDG_CONFIG_HOME", self.folder.path())
            .env("AGENTCTL_ENDPOINTS", format!("https://{address}:2379"))
            .env("AGENTCTL_CACERT", file("ca.pem"))
            .env("AGENTCTL_CERT", file("admin.pem"))
            .env("AGENTCTL_KEY", file("admin.key"))
            .output()
            .expect("run agentctl");
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Writes a file of the operator's own; its path.
    fn keep(&self, name: &str, text: &str) -> String {
        let file = self.folder.path().join(name);
        fs::write(&file, text).expect("write a file");
        file.to_string_lossy().into_owned()
    }

    async fn three_voters(&self, asked: &str) {
        self.voters(asked, &["leader", "voter", "voter"]).await;
    }

    async fn voters(&self, asked: &str, expected: &[&str]) {
        let waited = wait::within(JOIN_LIMIT, "all voters", async || {
            let said = self.try_ask(asked, &["endpoint", "status"]).ok()?;
            let lines = said.lines().skip(1);
            let mut roles: Vec<&str> = lines
                .flat_map(str::split_whitespace)
                .filter(|word| matches!(*word, "leader" | "voter" | "learner" | "lost"))
                .collect();
            roles.sort_unstable();
            (roles == expected).then_some(())
        });
        if let Err(vain) = waited.await {
            let said = self.try_ask(asked, &["endpoint", "status"]);
            let journals = HOSTS.map(|(host, _)| format!("---- {host}\n{}", self.provider.journal(host)));
            panic!("{vain}: {said:?}\n{}", journals.join("\n"));
        }
    }
}

fn documents() -> String {
    let instance = |(host, _): (&str, &str)| {
        let devices = match host {
            "liquidweb" => "  devices: {data: {type: disk, pool: local, source: data, path: /data}}\n",
            _ => "",
        };
        format!(
            "---\nkind: instance\nname: web-{host}\nhost: {host}\nrunning: true\nspec:\n  type: container\n  \
             profiles: [base]\n{devices}  source: {{type: image, alias: busybox}}\n"
        )
    };
    format!("{DOCUMENTS}{}", HOSTS.map(instance).concat())
}

/// What a document of kind image takes from the host's own disk.
fn bring_image(provider: &Provider, host: &str, url: &str) {
    provider.on(
        host,
        &format!("curl --fail --silent --output /srv/busybox.tar.gz {url}"),
    );
}

/// The instance of a host runs there.
async fn runs(provider: &Provider, host: &str) {
    let line = format!("incus list --format csv --columns ns web-{host}");
    provider
        .says(host, &line, |said| said.trim() == format!("web-{host},RUNNING"))
        .await;
}

/// What may be another host's by now is stopped by a unit of its own, which outlives the agent's.
async fn is_guarded(provider: &Provider) {
    let line = "incus list --format csv --columns ns guarded; systemctl is-active agent-fence.service";
    provider
        .says("ovh", line, |said| said.trim() == "guarded,RUNNING\nactive")
        .await;
}

/// 2.0 is what the unit of a program that holds Incus' socket can come to.
fn hardened(provider: &Provider) {
    let said = provider.on(
        "ovh",
        "systemd-analyze security agent.service --no-pager | tail -n 1",
    );
    let exposure = said.split_whitespace().find_map(|word| word.parse::<f64>().ok());
    assert!(exposure.is_some_and(|exposure| exposure <= 2.0), "{said}");
}

/// What is lost with the host is on another one by then.
async fn a_volume_has_a_copy_elsewhere(provider: &Provider, operator: &Operator<'_>) {
    provider.on(
        "liquidweb",
        "incus exec web-liquidweb -- sh -c 'echo precious >/data/word; busybox sync'",
    );
    operator.ask(&["apply", "-f", &operator.keep("backup.yaml", BACKUP)]);
    wait::until("the copy of the volume on ovh", async || {
        let listed = operator.try_ask("ovh", &["backup", "list", "data"]).ok()?;
        let is_there = listed.lines().any(|line| line.contains(" ovh "));
        is_there.then_some(())
    })
    .await;
}

/// The machine comes back with the instance that it had, not with another of the same name.
async fn a_reset_changes_nothing(provider: &Provider, operator: &Operator<'_>) {
    let made =
        |provider: &Provider| provider.on("ionos", "incus query /1.0/instances/web-ionos | grep created_at");
    let before = made(provider);
    provider.reset("ionos");
    operator.three_voters("ovh").await;
    runs(provider, "ionos").await;
    assert_eq!(made(provider), before);
    provider
        .says("ionos", "systemctl is-active beat.service", |said| {
            said.trim() == "active"
        })
        .await;
}
