//! The test image: a busybox whose `init` does nothing, made without any download.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::daemon::run;

/// Debian's `busybox-static`; the `busybox` package's one needs libraries that the image does not have.
const BUSYBOX: &str = "/bin/busybox";
const PACKAGE: &str = "/usr/share/doc/busybox-static";

/// What busybox' init runs: nothing, until it is asked to go.
const INITTAB: &str = "::sysinit:/bin/busybox true\n::ctrlaltdel:/bin/busybox poweroff\n";
const FOLDERS: [&str; 9] = ["bin", "sbin", "etc", "dev", "proc", "sys", "tmp", "run", "root"];

pub(super) fn available() -> Result<(), String> {
    if Path::new(BUSYBOX).exists() && Path::new(PACKAGE).exists() {
        Ok(())
    } else {
        Err(format!(
            "no static {BUSYBOX}: tests/install-incus installs busybox-static"
        ))
    }
}

/// Builds the image in `dir` and returns its path: one tar.gz of `metadata.yaml` and `rootfs/`.
pub fn build(dir: &Path) -> anyhow::Result<PathBuf> {
    let rootfs = dir.join("rootfs");
    for folder in FOLDERS {
        fs::create_dir_all(rootfs.join(folder))?;
    }
    fs::copy(BUSYBOX, rootfs.join("bin/busybox")).context("cannot copy busybox")?;
    symlink("busybox", rootfs.join("bin/sh"))?;
    symlink("../bin/busybox", rootfs.join("sbin/init"))?;
    fs::write(rootfs.join("etc/inittab"), INITTAB)?;
    let architecture = std::env::consts::ARCH;
    let metadata =
        format!("architecture: {architecture}\ncreation_date: 1\nproperties:\n  description: busybox\n");
    fs::write(dir.join("metadata.yaml"), metadata)?;
    let image = dir.join("busybox.tar.gz");
    let mut tar = std::process::Command::new("tar");
    tar.args(["--numeric-owner", "--owner=0", "--group=0", "-czf"])
        .arg(&image)
        .arg("-C")
        .arg(dir);
    run(tar.args(["metadata.yaml", "rootfs"]))?;
    Ok(image)
}
