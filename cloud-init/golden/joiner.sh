#!/bin/sh
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

if [ "$(cat /etc/hostname 2> /dev/null)" != ionos ]; then
  echo ionos > /etc/hostname
  hostname ionos
  changed=1
  echo 'this machine is ionos now'
fi

missing=
if command -v dpkg-query > /dev/null; then
  for package in ca-certificates curl incus-base incus-client; do
    dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q 'ok installed' || missing="$missing $package"
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
  put /etc/apt/sources.list.d/backports.list 0644 <<END_OF_THE_AGENTS_FILE
deb $mirror $release-backports main
END_OF_THE_AGENTS_FILE
  apt-get -q update < /dev/null
  DEBIAN_FRONTEND=noninteractive apt-get -q -y install $missing < /dev/null
fi

mkdir -p -m 0700 /root/.ssh
if ! grep -qsxF 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample eva@example.org' /root/.ssh/authorized_keys; then
  (umask 077; echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample eva@example.org' >> /root/.ssh/authorized_keys)
  echo 'added a key of SSH'
fi

put /etc/agent/token 0600 <<'END_OF_THE_AGENTS_FILE'
agent1.CAcQ
END_OF_THE_AGENTS_FILE

if command -v systemctl > /dev/null; then
put /etc/systemd/system/agent.service 0644 <<'END_OF_THE_AGENTS_FILE'
[Unit]
Description=Agent: this host's member of the cluster
Wants=network-online.target
After=network-online.target incus.service incus.socket
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=/usr/local/bin/agent join --token-file /etc/agent/token --keep-trying -- "--provider=IONOS"
Restart=always
RestartSec=2
# Leadership is handed over and requests are finished first.
TimeoutStopSec=30
KillMode=mixed
LimitNOFILE=65536
StateDirectory=agent
StateDirectoryMode=0700
UMask=0077
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER
LockPersonality=yes
MemoryDenyWriteExecute=yes
NoNewPrivileges=yes
PrivateDevices=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
# Where documents of kind file and service may put something.
ReadWritePaths=/etc /opt /srv /usr/local /var
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
END_OF_THE_AGENTS_FILE
fi

put /usr/local/bin/agentctl 0755 <<'END_OF_THE_AGENTS_FILE'
#!/bin/sh
exec /usr/local/bin/agent ctl "$@"
END_OF_THE_AGENTS_FILE

put /usr/local/sbin/agent-fetch 0755 <<'END_OF_THE_AGENTS_FILE'
#!/bin/sh
set -eu
target=/usr/local/bin/agent
holds() { echo 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 '" $1" | sha256sum --check --status; }
if [ -f "$target" ] && holds "$target"; then exit 0; fi
part=$(mktemp --tmpdir="${target%/*}")
trap 'rm -f "$part"' EXIT
curl --fail --silent --show-error --location --proto '=http,https' --connect-timeout 10 --max-time 600 \
  --retry 10 --retry-delay 3 --retry-connrefused --output "$part" 'https://example.org/agent-0.1.0?arch=amd64&static=1'
if ! holds "$part"; then
  echo 'agent: what was fetched is not what was promised (SHA-256 differs)' >&2
  exit 1
fi
chmod 0755 "$part"
mv "$part" "$target"
END_OF_THE_AGENTS_FILE

put /etc/agent/incus-preseed.yaml 0600 <<'END_OF_THE_AGENTS_FILE'
config:
  user.made: by-preseed
END_OF_THE_AGENTS_FILE
if ! cmp -s /etc/agent/incus-preseed.yaml /etc/agent/incus-preseed.yaml.done; then
  incus admin init --preseed < /etc/agent/incus-preseed.yaml
  cp -p /etc/agent/incus-preseed.yaml /etc/agent/incus-preseed.yaml.done
fi

/usr/local/sbin/agent-fetch < /dev/null

if command -v systemctl > /dev/null; then
  if [ -n "$changed" ] && systemctl is-active --quiet agent.service; then
    systemctl daemon-reload
    systemctl restart agent.service
  fi
  systemctl daemon-reload
  systemctl enable --now agent.service
else
  /usr/local/bin/agent install --now --join-token-file /etc/agent/token --provider "IONOS" < /dev/null
fi
[ -n "$changed" ] || echo 'nothing changed'
