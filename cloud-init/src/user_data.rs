//! The document cloud-init reads: packages, files, and what to run once.

use serde::Serialize;
use serde_saphyr::{FlowSeq, LitString};

use crate::files;
use crate::host::Host;

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
    let rendered = files::config(host).and_then(|config| serde_saphyr::to_string(&user_data(host, config)));
    #[expect(clippy::expect_used, reason = "no value here is one that YAML cannot hold")]
    let yaml = rendered.expect("texts and numbers are YAML");
    format!("#cloud-config\n{yaml}")
}

fn user_data(host: &Host, config: String) -> UserData {
    let file = |path, permissions, content| File {
        path,
        permissions,
        content: LitString(content),
    };
    let mut write_files = vec![
        // Nobody else reads it: credentials will be in it.
        file(files::CONFIG_PATH, "0600", config),
        file(files::UNIT_PATH, "0644", files::unit()),
        file(files::CTL_PATH, "0755", files::CTL.to_owned()),
    ];
    let mut steps = "systemctl daemon-reload && systemctl enable --now agent.service".to_owned();
    if let Some(script) = files::fetch(&host.seed.binary) {
        write_files.push(file(files::FETCH_PATH, "0755", script));
        steps = format!("{} && {steps}", files::FETCH_PATH);
    }
    UserData {
        hostname: host.seed.name.clone(),
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
