//! A host without systemd: a script in `/etc/rc.d` that keeps the member running, and where it is called. Pure.

/// Before and after what is ours in a script of the host's own.
const BEGIN: &str = "# agent: begin";
const END: &str = "# agent: end";

/// What its log does not outgrow; the script appends, so that the file can be emptied under it.
pub(super) const LOGROTATE: &str = "\
/var/log/agent.log {
    size 16M
    rotate 4
    compress
    copytruncate
    missingok
    notifempty
}
";

/// The script. `$AGENT_ROOT` stands before every path, for disks that are looked at from elsewhere.
pub(super) fn script(start: &str) -> String {
    let below_root = start.replace(" /etc/", " $root/etc/");
    format!(
        r#"#!/bin/sh
# The agent: this host's member of the cluster. Written by `agent install`.
# Starts: {start}
# start|stop|restart|status

root=${{AGENT_ROOT:-}}
pid_file=$root/var/run/agent.pid
log=$root/var/log/agent.log

# The supervisor's id, while it runs: an id that somebody else has by now does not count.
supervisor() {{
  [ -s "$pid_file" ] || return 1
  pid=$(cat "$pid_file")
  grep -qs 'rc.agent' "/proc/$pid/cmdline" || return 1
  echo "$pid"
}}

# Keeps the member running until it is told to stop, which lets it hand over and finish first.
supervise() {{
  stopping=
  child=
  trap 'stopping=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM INT
  trap '' HUP
  echo $$ > "$pid_file"
  umask 077
  ulimit -n 65536 2>/dev/null
  while [ -z "$stopping" ]; do
    $root{below_root} >> "$log" 2>&1 < /dev/null &
    child=$!
    # A signal ends the wait, not the member.
    while kill -0 "$child" 2>/dev/null; do wait "$child"; done
    child=
    [ -z "$stopping" ] || break
    echo "rc.agent: the agent has ended and is started again in 2 s" >> "$log"
    sleep 2 &
    wait $!
  done
  rm -f "$pid_file"
}}

start() {{
  if pid=$(supervisor); then echo "agent runs already ($pid)"; return 0; fi
  mkdir -p "${{pid_file%/*}}" "${{log%/*}}" && rm -f "$pid_file" || return 1
  if command -v setsid > /dev/null; then
    setsid /bin/sh "$0" supervise > /dev/null 2>&1 < /dev/null &
  else
    /bin/sh "$0" supervise > /dev/null 2>&1 < /dev/null &
  fi
  tries=50
  until supervisor > /dev/null; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || {{ echo "agent did not start: see $log" >&2; return 1; }}
    sleep 0.1 2>/dev/null || sleep 1
  done
  echo "agent started ($(supervisor)), its log is $log"
}}

stop() {{
  if ! pid=$(supervisor); then echo "agent does not run"; return 0; fi
  kill -TERM "$pid" 2>/dev/null
  tries=40
  while supervisor > /dev/null; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || {{ echo "agent ($pid) does not stop: see $log" >&2; return 1; }}
    sleep 1
  done
  echo "agent stopped"
}}

case "${{1:-}}" in
  start) start ;;
  stop) stop ;;
  restart) stop && start ;;
  status)
    if pid=$(supervisor); then echo "agent runs ($pid)"; else echo "agent does not run"; exit 3; fi ;;
  supervise) supervise ;;
  *) echo "usage: $0 start|stop|restart|status" >&2; exit 2 ;;
esac
"#
    )
}

/// Lines for a script of the host's own.
pub(super) fn block(action: &str) -> String {
    format!("{BEGIN}\nif [ -x /etc/rc.d/rc.agent ]; then /etc/rc.d/rc.agent {action}; fi\n{END}\n")
}

/// A text with the block in it, at its end unless it is there. A script that is empty begins as one.
pub(super) fn with_block(text: &str, block: &str) -> String {
    if text.contains(block) {
        return text.to_owned();
    }
    let text = without_block(text);
    match text.is_empty() {
        true => format!("#!/bin/sh\n{block}"),
        false if text.ends_with('\n') => format!("{text}{block}"),
        false => format!("{text}\n{block}"),
    }
}

/// A text without any block of ours.
pub(super) fn without_block(text: &str) -> String {
    let Some((before, rest)) = text.split_once(&format!("{BEGIN}\n")) else {
        return text.to_owned();
    };
    match rest.split_once(&format!("{END}\n")) {
        Some((_, after)) => format!("{before}{after}"),
        // Somebody has changed it: it is theirs now.
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_once_and_goes_without_a_trace() {
        let block = block("start");
        for text in ["#!/bin/sh\necho hello\n", "#!/bin/sh\n"] {
            let with = with_block(text, &block);
            assert_eq!(with, format!("{text}{block}"));
            assert_eq!(with_block(&with, &block), with);
            assert_eq!(without_block(&with), text);
        }
        assert_eq!(with_block("", &block), format!("#!/bin/sh\n{block}"));
        assert_eq!(with_block("a", &block), format!("a\n{block}"));
        let cut = format!("a\n{BEGIN}\nb\n");
        assert_eq!(without_block(&cut), cut);
    }
}
