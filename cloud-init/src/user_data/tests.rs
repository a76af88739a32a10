//! Golden files: `UPDATE_EXPECT=1 cargo test -p cloud-init` rewrites them.

use std::io::Write;
use std::process::{Command, Stdio};

use expect_test::{ExpectFile, expect_file};
use serde_json::Value;

use super::{UserData, render, render_first, render_joiner};
use crate::extras::Extras;
use crate::host::{Binary, First, Flags, Host, HostError, Joiner, Peer, Seed};

fn seed() -> Seed {
    let cluster = "ovh=http://10.0.0.1:2380,ionos=http://10.0.0.2:2380,liquidweb=http://10.0.0.3:2380";
    Seed {
        name: "ovh".into(),
        provider: "OVH".into(),
        address: None,
        cluster: Peer::parse_list(cluster).unwrap(),
        binary: Binary::Fetch {
            url: "https://example.org/agent-0.1.0?arch=amd64&static=1".into(),
            sha256: "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855".into(),
        },
        allow_plaintext: true,
        rebuilds: false,
    }
}

fn of(provider: &str) -> Flags {
    Flags {
        provider: provider.into(),
        ..Flags::default()
    }
}

/// The text is as before, it is YAML, its scripts are scripts, its configuration is YAML again.
fn check(seed: Seed, golden: &ExpectFile) {
    let text = render(&Host::new(seed).unwrap());
    golden.assert_eq(&text);
    assert!(text.starts_with("#cloud-config\n"));
    let document: Value = serde_saphyr::from_str(&text).unwrap();
    for file in document["write_files"].as_array().unwrap() {
        let (path, content) = (file["path"].as_str().unwrap(), file["content"].as_str().unwrap());
        assert!(content.ends_with('\n'), "{path}");
        if content.starts_with("#!/bin/sh\n") {
            assert_eq!(file["permissions"], "0755", "{path}");
            assert_is_a_script(content);
        }
    }
    let config = document["write_files"][0]["content"].as_str().unwrap();
    let config: Value = serde_saphyr::from_str(config).unwrap();
    assert_eq!(config["name"], document["hostname"]);
    for command in document["runcmd"].as_array().unwrap() {
        assert_is_a_script(command[2].as_str().unwrap());
    }
}

fn assert_is_a_script(text: &str) {
    let mut shell = Command::new("sh")
        .arg("-n")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success(), "{text}");
}

#[test]
fn a_host_that_fetches_the_binary() {
    check(seed(), &expect_file!["../../golden/fetch.yaml"]);
}

#[test]
fn a_host_with_an_address_and_the_binary_in_its_image() {
    let seed = Seed {
        name: "ionos".into(),
        provider: String::new(),
        address: Some("fd00::2".parse().unwrap()),
        cluster: Peer::parse_list("ovh=http://[fd00::1]:2380,ionos=http://[fd00::2]:2390/").unwrap(),
        binary: Binary::Present,
        ..seed()
    };
    check(seed, &expect_file!["../../golden/present.yaml"]);
}

/// The same host by a script, with all that may be asked for beside.
#[test]
fn a_machine_that_runs_already() {
    let keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample eva@example.org".to_owned()];
    let extras = Extras::new(Some("config:\n  user.made: by-preseed\n"), &keys).unwrap();
    let joiner = || Joiner::new("ionos", of("IONOS"), "agent1.CAcQ", seed().binary).unwrap();
    let data = |joiner: &Joiner| UserData::from(joiner).with(&extras);
    let text = data(&joiner()).script();
    expect_file!["../../golden/joiner.sh"].assert_eq(&text);
    assert_is_a_script(&text);
    let text = data(&joiner()).cloud_config();
    let document: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(document["ssh_authorized_keys"][0], keys[0].as_str());
    let steps = document["runcmd"][0][2].as_str().unwrap();
    expect_test::expect![[r#"/usr/local/sbin/agent-fetch && incus admin init --preseed < /etc/agent/incus-preseed.yaml && systemctl daemon-reload && systemctl enable --now agent.service"#]].assert_eq(steps);
    for text in [
        UserData::from(&Host::new(seed()).unwrap()).script(),
        UserData::from(&First::new("ovh", of(""), Binary::Present).unwrap()).script(),
    ] {
        assert_is_a_script(&text);
    }
}

/// cloud-init reads YAML 1.1, where a bare `no` is no text.
#[test]
fn names_that_look_like_something_else_stay_names() {
    for name in ["no", "on", "y", "null", "12", "012", "1e3", "0x1f", "true", "NO"] {
        let cluster = vec![Peer {
            name: name.into(),
            url: "http://10.0.0.1:2380".into(),
        }];
        let text = render(
            &Host::new(Seed {
                name: name.into(),
                cluster,
                ..seed()
            })
            .unwrap(),
        );
        assert!(
            text.contains(&format!("hostname: \"{name}\"\n")),
            "{name}: {}",
            &text[..40]
        );
        assert!(text.contains(&format!("    name: \"{name}\"\n")), "{name}");
    }
}

/// The script is run, with a file as its server: the right binary is installed, a wrong one never.
#[test]
fn the_fetch_script_installs_only_what_was_promised() {
    let dir = tempfile::tempdir().unwrap();
    let served = dir.path().join("served");
    std::fs::write(&served, "the agent").unwrap();
    let target = dir.path().join("agent");
    for (sum, installed) in [("0".repeat(64), false), (sha256_of(&served), true)] {
        let url = "https://example.org/agent".to_owned();
        let script = crate::files::fetch(&Binary::Fetch {
            url: url.clone(),
            sha256: sum,
        })
        .unwrap();
        let script = script
            .replace("/usr/local/bin/agent", target.to_str().unwrap())
            .replace(&url, &format!("file://{}", served.display()))
            .replace("=http,https", "=file");
        let output = Command::new("sh").arg("-c").arg(script).output();
        let Ok(output) = output else { panic!("no shell") };
        let missing_curl = String::from_utf8_lossy(&output.stderr).contains("curl: not found");
        if missing_curl {
            eprintln!("skipped: curl is not installed");
            return;
        }
        assert_eq!(
            output.status.success(),
            installed,
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(target.exists(), installed);
        let left: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left.len(), 1 + usize::from(installed), "{left:?}");
    }
}

fn sha256_of(path: &std::path::Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

/// Nothing but a token that ends by itself: no key, no address of anybody.
#[test]
fn a_host_that_joins() {
    let token = "agent1.CAcQ-_9x";
    let joiner = Joiner::new(
        "liquidweb",
        of("Liquid Web"),
        &format!("{token}\n"),
        seed().binary,
    )
    .unwrap();
    let text = render_joiner(&joiner);
    expect_file!["../../golden/joiner.yaml"].assert_eq(&text);
    let document: Value = serde_saphyr::from_str(&text).unwrap();
    let files = document["write_files"].as_array().unwrap();
    assert_eq!(files[0]["content"], format!("{token}\n"));
    assert_eq!(files[0]["permissions"], "0600");
    let unit = files[1]["content"].as_str().unwrap();
    assert!(unit.contains(
        "ExecStart=/usr/local/bin/agent join --token-file /etc/agent/token --keep-trying -- \"--provider=Liquid Web\"\n"
    ));
    assert!(
        unit.contains("ReadWritePaths=/etc "),
        "certificates are renewed in place: {unit}"
    );
    for wrong in ["", "agent1.a'b", "a\nb"] {
        let joiner = Joiner::new("liquidweb", of(""), wrong, seed().binary);
        assert_eq!(joiner.unwrap_err(), HostError::Token);
    }
}

/// Neither key nor certificate: its unit waits for them.
#[test]
fn the_first_host() {
    let first = First::new("ovh", of("OVH"), seed().binary).unwrap();
    let text = render_first(&first);
    expect_file!["../../golden/first.yaml"].assert_eq(&text);
    let document: Value = serde_saphyr::from_str(&text).unwrap();
    let unit = document["write_files"][0]["content"].as_str().unwrap();
    assert!(unit.contains(
        "\nExecStart=/usr/local/bin/agent run --config /etc/agent/config.yaml \"--provider=OVH\"\n"
    ));
    assert!(unit.contains("\nExecStartPre=/bin/sh -c 'until "), "{unit}");
    assert!(document["runcmd"][0][2].as_str().unwrap().contains("--no-block"));
    assert_eq!(
        First::new("o vh", of(""), seed().binary).unwrap_err(),
        HostError::Name("o vh".into())
    );
}

/// In the settings, in the unit, and where there is no systemd.
#[test]
fn a_host_may_make_its_instances_anew() {
    let flags = |provider: &str| Flags {
        rebuilds: true,
        ..of(provider)
    };
    let rebuilds = Host::new(Seed {
        rebuilds: true,
        ..seed()
    });
    let config = render(&rebuilds.unwrap());
    assert!(config.contains("\n    on-restart: rebuild\n"), "{config}");
    let lines = |data: UserData| {
        let script = data.script();
        let starts = script.lines().filter(|line| line.contains("on-restart"));
        starts
            .map(|line| line.trim().to_owned())
            .collect::<Vec<_>>()
            .join("\n")
    };
    let joiner = Joiner::new("ionos", flags("A Provider"), "agent1.CAcQ", Binary::Present).unwrap();
    expect_test::expect![[r#"
        ExecStart=/usr/local/bin/agent join --token-file /etc/agent/token --keep-trying -- "--provider=A Provider" --on-restart=rebuild
        /usr/local/bin/agent install --now --join-token-file /etc/agent/token --provider "A Provider" --on-restart rebuild < /dev/null"#]].assert_eq(&lines(UserData::from(&joiner)));
    let nameless = Joiner::new("ionos", flags(""), "agent1.CAcQ", Binary::Present).unwrap();
    expect_test::expect![[r#"
        ExecStart=/usr/local/bin/agent join --token-file /etc/agent/token --keep-trying -- --on-restart=rebuild
        /usr/local/bin/agent install --now --join-token-file /etc/agent/token --on-restart rebuild < /dev/null"#]].assert_eq(&lines(UserData::from(&nameless)));
    let first = First::new("ovh", flags(""), Binary::Present).unwrap();
    expect_test::expect![[r#"
        ExecStart=/usr/local/bin/agent run --config /etc/agent/config.yaml --on-restart=rebuild
        /usr/local/bin/agent install --on-restart rebuild < /dev/null"#]]
    .assert_eq(&lines(UserData::from(&first)));
}
