//! A tarball for any distribution: binaries with glibc linked in.
//!
//! glibc's static form loads modules for names of hosts at run time; `lvxadm` is told to use the built-in ones (see its
//! `cli/nss.rs`), and nothing else in LVX asks for names: ports and groups are read from their files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::tree::{self, put};
use super::{Release, read};
use crate::shell;

const INSTALL: &str = include_str!("scripts/INSTALL");

/// Builds both binaries with nothing to load; the directory that they are put into.
///
/// Rust's libraries are the same for both ways of linking: only the last step is done differently, and then again as usual, so that
/// target/release has what `cargo xtask build` leaves there.
pub(super) fn build(out: &Path) -> Result<PathBuf> {
    let directory = out.join("static");
    for program in ["lvxd", "lvxadm"] {
        let mut cargo = shell::cargo(&["rustc", "--locked", "--release", "--package", "lb-userspace", "--bin", program]);
        shell::run(cargo.args(["--", "-C", "target-feature=+crt-static"]))?;
        let built = shell::target_dir().join("release").join(program);
        put(&directory, program, fs::read(&built).with_context(|| format!("read {}", built.display()))?, 0o755)?;
    }
    crate::build::binaries(true, &[])?;
    Ok(directory)
}

/// Makes `lvx-VERSION-linux-MACHINE.tar.gz`.
pub(super) fn make(release: &Release, binaries: &Path, out: &Path) -> Result<PathBuf> {
    let name = format!("lvx-{}-linux-{}", release.version, std::env::consts::ARCH);
    let root = out.join(&name);
    tree::make(&root, binaries)?;
    for program in ["lvxd", "lvxadm"] {
        let path = root.join(tree::SYSTEM.binaries).join(program);
        if let Some(needed) = needs(&path)? {
            bail!("{} is not static: it loads {needed}", path.display());
        }
    }
    put(&root, "INSTALL", INSTALL, 0o644)?;
    for license in ["LICENSE-MIT", "LICENSE-APACHE", "LICENSE-GPL", "CHANGELOG.md"] {
        let text = fs::read(shell::root().join(license)).with_context(|| format!("read {license}"))?;
        put(&root, license, text, 0o644)?;
    }
    put(&root, "LICENSES-LIBRARIES", tree::libraries()?, 0o644)?;
    let tarball = out.join(format!("{name}.tar.gz"));
    let mut tar = shell::command("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mode=u+rwX,go+rX,go-w"]);
    tar.arg(format!("--mtime=@{}", release.time)).args(["--use-compress-program=gzip -9 -n", "-C"]).arg(out);
    tar.arg("-cf").arg(&tarball).arg(&name);
    read(&mut tar)?;
    let sum = read(shell::command("sha256sum").current_dir(out).arg(format!("{name}.tar.gz")))?;
    put(out, &format!("{name}.tar.gz.sha256"), sum, 0o644)?;
    fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    Ok(tarball)
}

/// What a program loads when it starts, if anything.
fn needs(program: &Path) -> Result<Option<String>> {
    let headers = read(shell::command("objdump").arg("-p").arg(program))?;
    let loads = |l: &&str| l.trim_start().starts_with("NEEDED") || l.trim_start().starts_with("INTERP");
    Ok(headers.lines().find(loads).map(|l| l.trim().to_owned()))
}
