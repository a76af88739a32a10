//! The same host by a script: for machines that run already, over SSH. Again, it changes nothing.

use crate::user_data::{File, UserData};

/// Ends the text of a file. No file has such a line.
pub(crate) const END: &str = "END_OF_THE_AGENTS_FILE";

const HEAD: &str = r#"#!/bin/sh
# Makes this machine a host: ssh root@ADDRESS sh -s < FILE. Again, it changes nothing.
set -eu
[ "$(id -u)" = 0 ] || { echo 'this needs root' >&2; exit 1; }
changed=

# Writes standard input to a file, unless it has it already.
put() { # PATH MODE
  mkdir -p "${1%/*}"
  (umask 077; cat > "$1.new")
  chmod "$2" "$1.new"
  if cmp -s "$1.new" "$1" && [ "$(stat -c %a "$1")" = "${2#0}" ]; then rm "$1.new"; return 0; fi
  mv "$1.new" "$1"
  changed=1
  echo "wrote $1"
}
"#;

const TAIL: &str = r#"
if command -v systemctl > /dev/null; then
  if [ -n "$changed" ] && systemctl is-active --quiet agent.service; then
    systemctl daemon-reload
    systemctl restart agent.service
  fi
"#;

impl UserData {
    /// As a shell runs it.
    #[must_use]
    pub fn script(&self) -> String {
        let mut text = HEAD.to_owned();
        let name = &self.hostname;
        text.push_str(&format!(
            "\nif [ \"$(cat /etc/hostname 2> /dev/null)\" != {name} ]; then\n  echo {name} > /etc/hostname\n  hostname {name}\n  changed=1\n  echo \
             'this machine is {name} now'\nfi\n"
        ));
        text.push_str(&packages(&self.packages));
        for key in &self.ssh_authorized_keys {
            text.push_str(&format!(
                "\nmkdir -p -m 0700 /root/.ssh\nif ! grep -qsxF '{key}' /root/.ssh/authorized_keys; then\n  (umask 077; echo '{key}' >> \
                 /root/.ssh/authorized_keys)\n  echo 'added a key of SSH'\nfi\n"
            ));
        }
        for file in &self.write_files {
            text.push_str(&self.put(file));
        }
        if let Some(fetch) = self.steps.fetch {
            text.push_str(&format!("\n{fetch} < /dev/null\n"));
        }
        text.push_str(&format!(
            "{TAIL}  systemctl daemon-reload\n  {start}\nelse\n  /usr/local/bin/agent install {install} < /dev/null\nfi\n[ -n \"$changed\" ] || echo \
             'nothing changed'\n",
            start = self.steps.start,
            install = self.steps.install.trim_start(),
        ));
        text
    }

    /// Writes a file, and does what is to be done when it has changed.
    fn put(&self, file: &File) -> String {
        let File {
            path, permissions, ..
        } = file;
        let content = &file.content.0;
        let put = format!("put {path} {permissions} <<'{END}'\n{content}{END}\n");
        if *path == crate::files::UNIT_PATH {
            return format!("\nif command -v systemctl > /dev/null; then\n{put}fi\n");
        }
        match &self.steps.preseed {
            Some(preseed) if *path == crate::files::PRESEED_PATH => {
                // Marked once it is done: what was cut off is done again.
                format!(
                    "\n{put}if ! cmp -s {path} {path}.done; then\n  {preseed}\n  cp -p {path} {path}.done\nfi\n"
                )
            }
            _ => format!("\n{put}"),
        }
    }
}

/// Where apt is and something is missing. Other systems have their own ways to an Incus.
fn packages(names: &[&str]) -> String {
    let names = names.join(" ");
    format!(
        r#"
missing=
if command -v dpkg-query > /dev/null; then
  for package in {names}; do
    dpkg-query -W -f '${{Status}}' "$package" 2> /dev/null | grep -q 'ok installed' || missing="$missing $package"
  done
elif ! command -v incus > /dev/null; then
  echo 'there is no Incus here, and no apt to get it with: install it first' >&2
  exit 1
fi
if [ -n "$missing" ]; then
  release=$(. /etc/os-release; echo "$VERSION_CODENAME")
  # From where the machine has its own release: no mirror is named here. The script itself is on standard input: nobody
  # else reads from there.
  apt-get -q update < /dev/null
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $release" < /dev/null | head -n 1)
  if [ -z "$mirror" ]; then
    echo "apt does not say where $release comes from: put its URI into /etc/apt/sources.list first" >&2
    exit 1
  fi
  put /etc/apt/sources.list.d/backports.list 0644 <<{END}
deb $mirror $release-backports main
{END}
  apt-get -q update < /dev/null
  DEBIAN_FRONTEND=noninteractive apt-get -q -y install $missing < /dev/null
fi
"#
    )
}
