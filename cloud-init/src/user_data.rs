//! The document cloud-init reads: packages, files, and what to run once.

use serde::Serialize;
use serde_saphyr::{FlowSeq, LitString};

use crate::extras::Extras;
use crate::files;
use crate::host::{Binary, First, Flags, Host, Joiner};

const START: &str = "systemctl enable --now agent.service";
/// The boot does not wait for what the operator will bring.
const START_WAITING: &str = "systemctl enable --now --no-block agent.service";

/// What makes a bare machine a host: as user-data ([`UserData::cloud_config`]), or as a script ([`UserData::script`]).
#[derive(Serialize)]
pub struct UserData {
    /// The machine's own name, too: documents say `host: NAME`.
    pub(crate) hostname: String,
    apt: Apt,
    package_update: bool,
    pub(crate) packages: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ssh_authorized_keys: Vec<String>,
    pub(crate) write_files: Vec<File>,
    runcmd: Vec<FlowSeq<Vec<String>>>,
    /// What is done once the files are there, one after the other.
    #[serde(skip)]
    pub(crate) steps: Steps,
}

/// What is done once the files are there.
#[derive(Clone, Default)]
pub(crate) struct Steps {
    /// The program is fetched by this.
    pub(crate) fetch: Option<&'static str>,
    /// Incus is told what it should have by this.
    pub(crate) preseed: Option<String>,
    /// The member is started by this.
    pub(crate) start: &'static str,
    /// And by this, as words after `agent install`, where there is no systemd.
    pub(crate) install: String,
}

impl std::fmt::Debug for UserData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A token may be in a file.
        f.debug_struct("UserData")
            .field("hostname", &self.hostname)
            .finish_non_exhaustive()
    }
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
pub(crate) struct File {
    pub(crate) path: &'static str,
    pub(crate) permissions: &'static str,
    pub(crate) content: LitString,
}

impl From<&Host> for UserData {
    /// A host whose settings are all known.
    fn from(host: &Host) -> UserData {
        #[expect(clippy::expect_used, reason = "no value here is one that YAML cannot hold")]
        let config = files::config(host).expect("texts and numbers are YAML");
        let own = [
            // Nobody else reads it: credentials will be in it.
            file(files::CONFIG_PATH, "0600", config),
            file(
                files::UNIT_PATH,
                "0644",
                files::unit(&files::run_line(&Flags::default())),
            ),
        ];
        UserData::new(
            &host.seed.name,
            &host.seed.binary,
            own.into(),
            START,
            "--now".to_owned(),
        )
    }
}

impl From<&First> for UserData {
    /// The first host of a cluster with certificates: all but those, which the operator copies there.
    fn from(first: &First) -> UserData {
        let own = vec![file(files::UNIT_PATH, "0644", files::first_unit(&first.flags))];
        let install = options(&first.flags);
        UserData::new(&first.name, &first.binary, own, START_WAITING, install)
    }
}

impl From<&Joiner> for UserData {
    /// A host that joins a cluster by a token.
    fn from(joiner: &Joiner) -> UserData {
        let own = [
            file(files::TOKEN_PATH, "0600", format!("{}\n", joiner.token)),
            file(
                files::UNIT_PATH,
                "0644",
                files::unit(&files::join_line(&joiner.flags)),
            ),
        ];
        let install = format!(
            "--now --join-token-file {}{}",
            files::TOKEN_PATH,
            options(&joiner.flags)
        );
        UserData::new(&joiner.name, &joiner.binary, own.into(), START, install)
    }
}

/// The flags as `agent install` takes them.
fn options(flags: &Flags) -> String {
    let provider = match flags.provider.as_str() {
        "" => String::new(),
        provider => format!(" --provider \"{provider}\""),
    };
    let on_restart = if flags.rebuilds {
        " --on-restart rebuild"
    } else {
        ""
    };
    format!("{provider}{on_restart}")
}

/// The user-data of a host: paste it where the provider asks for it, or give it to cloud-init in any other way.
#[must_use]
pub fn render(host: &Host) -> String {
    UserData::from(host).cloud_config()
}

/// The user-data of the first host of a cluster with certificates.
#[must_use]
pub fn render_first(first: &First) -> String {
    UserData::from(first).cloud_config()
}

/// The user-data of a host that joins a cluster by a token.
#[must_use]
pub fn render_joiner(joiner: &Joiner) -> String {
    UserData::from(joiner).cloud_config()
}

fn file(path: &'static str, permissions: &'static str, content: String) -> File {
    File {
        path,
        permissions,
        content: LitString(content),
    }
}

impl UserData {
    fn new(
        name: &str,
        binary: &Binary,
        mut write_files: Vec<File>,
        start: &'static str,
        install: String,
    ) -> UserData {
        write_files.push(file(files::CTL_PATH, "0755", files::CTL.to_owned()));
        let mut steps = Steps {
            start,
            install,
            ..Steps::default()
        };
        if let Some(script) = files::fetch(binary) {
            write_files.push(file(files::FETCH_PATH, "0755", script));
            steps.fetch = Some(files::FETCH_PATH);
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
            ssh_authorized_keys: Vec::new(),
            write_files,
            runcmd: Vec::new(),
            steps,
        }
    }

    /// With what else the machine is to have.
    #[must_use]
    pub fn with(mut self, extras: &Extras) -> UserData {
        self.ssh_authorized_keys.clone_from(&extras.ssh_keys);
        if let Some(preseed) = &extras.incus_preseed {
            self.write_files
                .push(file(files::PRESEED_PATH, "0600", preseed.clone()));
            self.steps.preseed = Some(format!("incus admin init --preseed < {}", files::PRESEED_PATH));
        }
        self
    }

    /// As cloud-init reads it.
    ///
    /// # Panics
    /// Never: texts and numbers can always be written as YAML.
    #[must_use]
    pub fn cloud_config(mut self) -> String {
        let Steps {
            fetch,
            preseed,
            start,
            ..
        } = self.steps.clone();
        let start = format!("systemctl daemon-reload && {start}");
        let steps: Vec<String> = fetch
            .map(str::to_owned)
            .into_iter()
            .chain(preseed)
            .chain([start])
            .collect();
        // One step after the other: without the binary there is nothing to start, and cloud-init says that it failed.
        self.runcmd = vec![FlowSeq(vec!["sh".into(), "-c".into(), steps.join(" && ")])];
        #[expect(clippy::expect_used, reason = "no value here is one that YAML cannot hold")]
        let yaml = serde_saphyr::to_string(&self).expect("texts and numbers are YAML");
        format!("#cloud-config\n{yaml}")
    }
}

#[cfg(test)]
mod tests;
