//! A whole Debian for a guest: its base system with systemd, made by mmdebstrap from Debian's packages and kept in the target
//! directory; for each run a disk with it and with the guest's own files.
//!
//! The trap: what Debian has stays as it is there. A library of this machine must not take the place of one that all of the
//! guest's programs use.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::kernel::{cache, run};
use super::{Content, File};

/// Packages besides those of the base system.
const PACKAGES: &str = "systemd,systemd-sysv,iproute2,ethtool,curl,procps";

/// The unit that runs the script, once everything else is there.
const UNIT: &str = "[Unit]\nAfter=basic.target\n[Service]\nType=exec\nExecStart=/run-script\nStandardOutput=null\n";

const RUN_SCRIPT: &str = r#"#!/bin/bash
stty -F /dev/ttyS1 raw -echo
/bin/bash /script < /dev/null > /dev/ttyS1 2>&1
printf '\n<script status %d>\n' "$?" > /dev/ttyS1
systemctl poweroff -ff
"#;

/// The first process, until the disk is there; the modules as in the other one.
pub(super) const INIT: &str = r#"#!/bin/busybox sh
B=/bin/busybox
$B mkdir -p /proc /sys /dev /root
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mount -t devtmpfs dev /dev
for m in $($B cat /modules/order); do
    case $m in
    *.xz) $B xzcat "/modules/$m" > /module.ko && $B insmod /module.ko ;;
    *) $B insmod "/modules/$m" ;;
    esac || echo "init: no module $m"
done
$B mkdir -p /disk
$B mount -t ext4 /dev/vda /disk || $B poweroff -f
for d in proc sys dev; do $B mount --move /$d /disk/$d; done
exec $B switch_root /disk /lib/systemd/systemd
"#;

/// What it takes to get at the disk.
pub(super) const MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "ext4", "crc32c_generic"];

/// This machine's release of Debian, so that its programs find the libraries that they were made for; on another system, the kernels'.
fn release() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).map(|v| v.trim_matches('"').to_owned());
    match (value("ID=").as_deref(), value("VERSION_CODENAME=")) {
        (Some("debian"), Some(name)) => name,
        _ => "bookworm".to_owned(),
    }
}

/// The base system, made unless it is there.
fn base() -> Result<PathBuf> {
    let cache = cache()?;
    let lock = cache.join("lock");
    let lock = fs::File::create(&lock).with_context(|| format!("create {}", lock.display()))?;
    lock.lock().context("lock the kernels' directory")?;
    let release = release();
    let tar = cache.join(format!("{release}.tar"));
    if !tar.exists() {
        let part = cache.join(format!("{release}.part.tar"));
        // Of a run that was ended in the middle.
        let _ = fs::remove_file(&part);
        let mut mmdebstrap = Command::new("mmdebstrap");
        mmdebstrap
            .args(["--mode=root", "--variant=minbase", "--quiet", &format!("--include={PACKAGES}"), &release])
            .arg(&part)
            .arg(format!("deb http://deb.debian.org/debian {release} main"));
        run(&mut mmdebstrap)?;
        fs::rename(&part, &tar).with_context(|| format!("rename {}", part.display()))?;
    }
    Ok(tar)
}

/// A disk with the base system, these files, and what runs the script.
pub(super) fn disk(scratch: &Path, files: &BTreeMap<PathBuf, File>) -> Result<PathBuf> {
    ensure!(rustix::process::geteuid().is_root(), "a system with systemd can only be made by root");
    let root = scratch.join("root");
    fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    run(Command::new("tar").arg("-xf").arg(base()?).arg("-C").arg(&root).args(["--numeric-owner", "--exclude=./dev/*"]))?;
    for (path, file) in files {
        put(&root, path, file)?;
    }
    for (path, text) in [("/etc/systemd/system/lvx-script.service", UNIT), ("/run-script", RUN_SCRIPT), ("/etc/fstab", "")] {
        put(&root, Path::new(path), &File { mode: 0o755, content: Content::Bytes(text.into()) })?;
    }
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).context("make a directory of units")?;
    symlink("../lvx-script.service", wants.join("lvx-script.service")).context("enable the script's unit")?;
    let disk = scratch.join("disk");
    let mut mke2fs = Command::new("mke2fs");
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    run(mke2fs.env("PATH", path).args(["-q", "-t", "ext4", "-O", "^has_journal", "-d"]).arg(&root).arg(&disk).arg("1G"))?;
    fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    Ok(disk)
}

fn put(root: &Path, path: &Path, file: &File) -> Result<()> {
    let at = root.join(path.strip_prefix("/").unwrap_or(path));
    let directory = at.parent().context("a file without a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    // A link in the guest that leads to this machine's files.
    let real = directory.canonicalize().with_context(|| format!("look at {}", directory.display()))?;
    ensure!(
        real.starts_with(root.canonicalize().context("look at the guest's root")?),
        "{} leads out of the guest",
        path.display()
    );
    match &file.content {
        Content::Bytes(bytes) => {
            // Not through a link, for the same reason.
            let _ = fs::remove_file(&at);
            fs::write(&at, bytes).with_context(|| format!("write {}", at.display()))?;
        }
        Content::Copy(_) if at.symlink_metadata().is_ok() => return Ok(()),
        Content::Copy(from) => {
            fs::copy(from, &at).with_context(|| format!("copy {}", from.display()))?;
        }
    }
    fs::set_permissions(&at, fs::Permissions::from_mode(file.mode)).with_context(|| format!("change {}", at.display()))
}
