//! The socket in the data directory: this machine's root gets in whatever became of users and passwords, and the log
//! says so.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use tests::{agentctl, notes};

use crate::{Guarded, members};

/// Of nobody, on any Linux.
const NOBODY: u32 = 65_534;

async fn says(socket: &Path, args: &[&str]) -> String {
    let endpoint = format!("unix://{}", socket.display());
    agentctl::says(&agentctl::run(agentctl::command(&endpoint, args), b"").await)
}

#[tokio::test]
async fn root_gets_in_by_the_local_socket_and_the_log_says_so() {
    let guarded = Guarded::start(members(1)).await;
    let member = guarded.cluster.member(0);
    let socket = member.data_dir.join("agent.sock");
    let mode = fs::metadata(&socket).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // Nobody remembers the password; without one no other port answers.
    let outside = agentctl::command(&member.client_url, &["user", "list"]);
    let outside = agentctl::says(&agentctl::run(outside, b"").await);
    assert!(outside.contains("user name is empty"), "{outside}");
    assert_eq!(says(&socket, &["user", "list"]).await, "ann\nroot\n");
    let endpoint = format!("unix://{}", socket.display());
    let passwd = ["user", "passwd", "root", "--interactive=false"];
    let changed = agentctl::run(agentctl::command(&endpoint, &passwd), b"remembered\n").await;
    assert_eq!(agentctl::says(&changed), "Password updated\n");
    let user = [
        "kv",
        "get",
        "secret",
        "--print-value-only",
        "--user",
        "root:remembered",
    ];
    let outside = agentctl::command(&member.client_url, &user);
    let found = agentctl::says(&agentctl::run(outside, b"").await);
    assert_eq!(found, "1\n");
    // Who says who it is, is that one.
    let ann = says(&socket, &["user", "list", "--user", "ann:ann-password"]).await;
    assert!(ann.contains("permission denied"), "{ann}");
    assert!(member.log().contains("a connection by the local socket"));
}

#[tokio::test]
async fn another_user_of_the_machine_does_not() {
    if !nix::unistd::geteuid().is_root() {
        notes::skipped("only root can become another user");
        return;
    }
    let guarded = Guarded::start(members(1)).await;
    let member = guarded.cluster.member(0);
    let socket = member.data_dir.join("agent.sock");
    // As if somebody had opened the file to all.
    for (path, mode) in [
        (guarded.cluster.folder(), 0o755),
        (member.data_dir.as_path(), 0o755),
        (socket.as_path(), 0o666),
    ] {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("change a mode");
    }
    let ask = |uid: u32| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", "10", "--unix-socket"])
            .arg(&socket)
            .arg("http://localhost/version")
            .uid(uid)
            .gid(uid);
        let said = curl.output().expect("run curl");
        (
            said.status.success(),
            String::from_utf8_lossy(&said.stdout).into_owned(),
        )
    };
    let (answered, said) = ask(0);
    assert!(answered && said.contains("etcdserver"), "{said}");
    let (answered, said) = ask(NOBODY);
    assert!(!answered && said.is_empty(), "{said}");
    let refused = format!("the local socket is refused: it is not root's uid={NOBODY}");
    let log = member.log();
    assert!(log.contains(&refused), "{log}");
}
