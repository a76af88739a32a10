//! The document cloud-init reads: packages, files, and what to run once.

use serde::Serialize;
use serde_saphyr::{FlowSeq, LitString};

use crate::files;
use crate::host::{Binary, First, Host, Joiner};

const START: &str = "systemctl enable --now agent.service";
/// The boot does not wait for what the operator will bring.
const START_WAITING: &str = "systemctl enable --now --no-block agent.service";

#[derive(Serialize)]
struct UserData {
    /// The machine's own name, too: documents say `host: NAME`.
    hostname: String,
    apt: Apt,
    package_update: bool,
    packages: Vec<&'static str>,
    write_files: Vec<File>,
    runcmd: Vec<FlowSeq<Vec<String>>>,
}

#[derive(Serialize)]
struct Apt {
    sources: Sources,
}

#[derive(Serialize)]
struct Sources {
    #[serde(rename = "backports.list")]
    backports: Source,
}

#[derive(Serialize)]
struct Source {
    source: &'static str,
}

#[derive(Serialize)]
struct File {
    path: &'static str,
    permissions: &'static str,
    content: LitString,
}

/// The user-data of a host: paste it where the provider asks for it, or give it to cloud-init in any other way.
///
/// # Panics
/// Never: texts and numbers can always be written as YAML.
#[must_use]
pub fn render(host: &Host) -> String {
    #[expect(clippy::expect_used, reason = "no value here is one that YAML cannot hold")]
    let config = files::config(host).expect("texts and numbers are YAML");
    let own = [
        // Nobody else reads it: credentials will be in it.
        file(files::CONFIG_PATH, "0600", config),
        file(files::UNIT_PATH, "0644", files::unit(&files::run_line(""))),
    ];
    text(&user_data(&host.seed.name, &host.seed.binary, own.into(), START))
}

/// The user-data of the first host of a cluster with certificates: all but those, which the operator copies there.
///
/// # Panics
/// Never, as [`render`].
#[must_use]
pub fn render_first(first: &First) -> String {
    let own = vec![file(files::UNIT_PATH, "0644", files::first_unit(&first.provider))];
    text(&user_data(&first.name, &first.binary, own, START_WAITING))
}

/// The user-data of a host that joins a cluster by a token.
///
/// # Panics
/// Never, as [`render`].
#[must_use]
pub fn render_joiner(joiner: &Joiner) -> String {
    let own = [
        file(files::TOKEN_PATH, "0600", format!("{}\n", joiner.token)),
        file(
            files::UNIT_PATH,
            "0644",
            files::unit(&files::join_line(&joiner.provider)),
        ),
    ];
    text(&user_data(&joiner.name, &joiner.binary, own.into(), START))
}

fn text(data: &UserData) -> String {
    #[expect(clippy::expect_used, reason = "no value here is one that YAML cannot hold")]
    let yaml = serde_saphyr::to_string(data).expect("texts and numbers are YAML");
    format!("#cloud-config\n{yaml}")
}

fn file(path: &'static str, permissions: &'static str, content: String) -> File {
    File {
        path,
        permissions,
        content: LitString(content),
    }
}

fn user_data(name: &str, binary: &Binary, mut write_files: Vec<File>, start: &str) -> UserData {
    write_files.push(file(files::CTL_PATH, "0755", files::CTL.to_owned()));
    let mut steps = format!("systemctl daemon-reload && {start}");
    if let Some(script) = files::fetch(binary) {
        write_files.push(file(files::FETCH_PATH, "0755", script));
        steps = format!("{} && {steps}", files::FETCH_PATH);
    }
    UserData {
        hostname: name.to_owned(),
        // cloud-init knows the mirror and the release; Incus is in Debian's backports.
        apt: Apt {
            sources: Sources {
                backports: Source {
                    source: "deb $MIRROR $RELEASE-backports main",
                },
            },
        },
        package_update: true,
        packages: vec!["ca-certificates", "curl", "incus-base", "incus-client"],
        write_files,
        // One step after the other: without the binary there is nothing to start, and cloud-init says that it failed.
        runcmd: vec![FlowSeq(vec!["sh".into(), "-c".into(), steps])],
    }
}

#[cfg(test)]
mod tests;
