//! The guest's files as the archive that the kernel unpacks at boot (cpio, "newc" form), and its first process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Content, File};

/// The first process: makes the guest usable, runs the script, reports, powers off. The script's output has a serial line of its own;
/// the status follows the output after [`STATUS`]. The script's shell is bash, because busybox's prefers its own programs (`ip`, say)
/// to those in PATH. Nothing is mounted on /tmp: files of the guest may be there.
pub(super) const INIT: &str = r#"#!/bin/busybox sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/busybox HOME=/ LANG=C.UTF-8 TERM=dumb
B=/bin/busybox
$B mkdir -p /proc /sys /dev /tmp /run /var/run /var/log /var/tmp /busybox /etc
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mount -t devtmpfs dev /dev
$B --install -s /busybox
mkdir -p /dev/pts /dev/shm /run/netns
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t bpf bpf /sys/fs/bpf
mount --make-rshared /
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
for m in $(cat /modules/order); do
    case $m in
    *.xz) xzcat "/modules/$m" > /tmp/module.ko && insmod /tmp/module.ko ;;
    *) insmod "/modules/$m" ;;
    esac || echo "init: no module $m"
    rm -f /tmp/module.ko
done
ip link set lo up
stty -F /dev/ttyS1 raw -echo
cd /
setsid /bin/bash /script < /dev/null > /dev/ttyS1 2>&1
printf '\n<script status %d>\n' "$?" > /dev/ttyS1
sync
poweroff -f
sleep 60
"#;

/// What stands before the script's status.
pub(super) const STATUS: &str = "\n<script status ";

/// The libraries and the loader of a program, as this machine's loader would find them. None for a static one.
pub(super) fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("start ldd")?;
    // A failure is how ldd says that the program is static.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(|path| PathBuf::from(path.trim_end_matches(':')))
        .filter(|path| path != program)
        .collect())
}

/// Writes the archive.
pub(super) fn write(at: &Path, files: &BTreeMap<PathBuf, File>) -> Result<()> {
    let archive = fs::File::create(at).with_context(|| format!("create {}", at.display()))?;
    let mut archive = Archive { out: BufWriter::new(archive), inode: 0 };
    let mut directories = BTreeSet::new();
    for path in files.keys() {
        directories.extend(path.ancestors().skip(1).filter(|directory| directory.parent().is_some()));
    }
    // Sorted, so that each comes after its parent.
    for directory in directories {
        archive.entry(directory, 0o040_755, &[])?;
    }
    for (path, file) in files {
        let mode = 0o100_000 | file.mode;
        match &file.content {
            Content::Bytes(bytes) => archive.entry(path, mode, bytes)?,
            Content::Copy(from) => {
                let bytes = fs::read(from).with_context(|| format!("read {}", from.display()))?;
                archive.entry(path, mode, &bytes)?;
            }
        }
    }
    archive.entry(Path::new("/TRAILER!!!"), 0, &[])?;
    archive.out.flush().with_context(|| format!("write {}", at.display()))
}

struct Archive<W: Write> {
    out: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) -> Result<()> {
        self.inode += 1;
        let name = path.to_string_lossy();
        let name = name.trim_start_matches('/');
        let size = u32::try_from(content.len()).with_context(|| format!("{name} is too large"))?;
        let mut header = String::from("070701");
        // inode, mode, uid, gid, links, mtime, size, device and special device (major, minor), length of the name with its NUL, sum
        for field in [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name.len() as u32 + 1, 0] {
            header.push_str(&format!("{field:08x}"));
        }
        header.push_str(name);
        header.push('\0');
        self.padded(header.as_bytes())?;
        self.padded(content)
    }

    fn padded(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).context("write the initramfs")?;
        let padding = bytes.len().next_multiple_of(4) - bytes.len();
        self.out.write_all(&[0; 3][..padding]).context("write the initramfs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_named() -> Result<()> {
        let mut archive = Archive { out: Vec::new(), inode: 0 };
        archive.entry(Path::new("/a/bc"), 0o100_644, b"hello")?;
        assert_eq!(archive.out.len(), 116 + 8, "110 of header, 5 of name and its NUL, then the content, each to 4 bytes");
        assert_eq!(&archive.out[110..116], b"a/bc\0\0");
        assert_eq!(&archive.out[116..], b"hello\0\0\0");
        Ok(())
    }

    #[test]
    fn a_dynamic_program_has_a_loader() -> Result<()> {
        let libraries = libraries(&std::env::current_exe()?)?;
        assert!(libraries.iter().any(|path| path.to_string_lossy().contains("ld-linux")), "{libraries:?}");
        Ok(())
    }
}
