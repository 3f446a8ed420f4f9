//! The files of an installation, and where each of them goes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Release, read};
use crate::shell;

/// Directories of an installation, relative to its root.
pub(super) struct Layout {
    pub(super) binaries: &'static str,
    pub(super) config: &'static str,
    pub(super) units: &'static str,
    pub(super) sysusers: &'static str,
    pub(super) tmpfiles: &'static str,
    pub(super) manual: &'static str,
    pub(super) bash: &'static str,
    pub(super) zsh: &'static str,
    pub(super) fish: &'static str,
    pub(super) documents: &'static str,
}

/// Where distributions put them.
pub(super) const SYSTEM: Layout = Layout {
    binaries: "usr/sbin",
    config: "etc/lvx",
    units: "usr/lib/systemd/system",
    sysusers: "usr/lib/sysusers.d",
    tmpfiles: "usr/lib/tmpfiles.d",
    manual: "usr/share/man",
    bash: "usr/share/bash-completion/completions",
    zsh: "usr/share/zsh/vendor-completions",
    fish: "usr/share/fish/vendor_completions.d",
    documents: "usr/share/doc/lvx",
};

/// Lines of configs/lvx.toml that are comments there and active in a package: the groups that it makes may use the sockets.
const GROUPS: [&str; 2] = ["#group = \"lvx\"\n", "#read_group = \"lvx-read\"\n"];

/// Writes a file, and its directories.
pub(super) fn put(root: &Path, place: &str, content: impl AsRef<[u8]>, mode: u32) -> Result<PathBuf> {
    let path = root.join(place);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).with_context(|| format!("permissions of {}", path.display()))?;
    Ok(path)
}

fn source(name: &str) -> Result<String> {
    let path = shell::root().join(name);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// Compressed as Debian wants it, the same every time.
pub(super) fn gzip(path: &Path) -> Result<()> {
    read(shell::command("gzip").args(["-9", "-n", "-f"]).arg(path)).map(drop)
}

/// Makes the tree in an empty directory.
pub(super) fn make(root: &Path, binaries: &Path) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("remove {}", root.display()))?;
    }
    let l = &SYSTEM;
    for name in ["lvxd", "lvxadm"] {
        let from = binaries.join(name);
        let bytes = fs::read(&from).with_context(|| format!("read {}", from.display()))?;
        let to = put(root, &format!("{}/{name}", l.binaries), bytes, 0o755)?;
        read(shell::command("strip").args(["--strip-unneeded", "--remove-section=.comment"]).arg(&to))?;
    }
    let mut config = source("configs/lvx.toml")?;
    for line in GROUPS {
        if !config.contains(line) {
            bail!("configs/lvx.toml has no line `{}` for the package to make active", line.trim_end());
        }
        config = config.replacen(line, &line[1..], 1);
    }
    put(root, &format!("{}/lvx.toml", l.config), config, 0o644)?;
    put(root, &format!("{}/lvxd.service", l.units), source("configs/lvxd.service")?, 0o644)?;
    put(root, &format!("{}/lvx.conf", l.sysusers), source("configs/lvx.sysusers")?, 0o644)?;
    put(root, &format!("{}/lvx.conf", l.tmpfiles), source("configs/lvx.tmpfiles")?, 0o644)?;
    for entry in fs::read_dir(shell::root().join("configs")).context("read configs")? {
        let name = entry.context("read configs")?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".toml") {
            put(root, &format!("{}/examples/{name}", l.documents), source(&format!("configs/{name}"))?, 0o644)?;
        }
    }
    for name in ["README.md", "ARCHITECTURE.md"] {
        put(root, &format!("{}/{name}", l.documents), source(name)?, 0o644)?;
    }

    // What lvxadm itself writes: by the very binary that is packaged.
    let lvxadm = root.join(l.binaries).join("lvxadm");
    let pages = root.join("manual");
    read(shell::command(&lvxadm).arg("manual").arg(&pages))?;
    for entry in fs::read_dir(&pages).with_context(|| format!("read {}", pages.display()))? {
        let name = entry.context("read manual pages")?.file_name().to_string_lossy().into_owned();
        let section = name.rsplit('.').next().unwrap_or("8").to_owned();
        let text = fs::read(pages.join(&name)).with_context(|| format!("read {name}"))?;
        gzip(&put(root, &format!("{}/man{section}/{name}", l.manual), text, 0o644)?)?;
    }
    fs::remove_dir_all(&pages).context("remove manual pages")?;
    for (shell_name, place) in [
        ("bash", format!("{}/lvxadm", l.bash)),
        ("zsh", format!("{}/_lvxadm", l.zsh)),
        ("fish", format!("{}/lvxadm.fish", l.fish)),
    ] {
        put(root, &place, read(shell::command(&lvxadm).args(["completions", shell_name]))?, 0o644)?;
    }
    Ok(())
}

/// Licences of everything that is linked in, one line a library.
pub(super) fn libraries() -> Result<String> {
    let mut cargo = shell::cargo(&["tree", "--locked", "--offline", "-p", "lb-userspace", "-e", "normal", "--prefix", "none"]);
    cargo.args(["--format", "{p}: {l}"]);
    let text = read(&mut cargo)?;
    // Without the paths of this machine, and what is marked as shown before.
    let clean = |l: &str| l.replace(" (*)", "").split(" (/").next().map(|name| (name.to_owned(), l.to_owned()));
    let mut lines: Vec<String> = text
        .lines()
        .filter_map(clean)
        .filter(|(name, _)| !name.starts_with("lb-"))
        .map(|(_, line)| line.replace(" (*)", "").replace(" (proc-macro)", ""))
        .filter(|l| !l.trim().is_empty())
        .collect();
    lines.sort();
    lines.dedup();
    Ok(lines.join("\n") + "\n")
}

/// Sets the times of everything to the release's.
pub(super) fn set_times(root: &Path, release: &Release) -> Result<()> {
    let date = format!("@{}", release.time);
    read(shell::command("find").arg(root).args(["-depth", "-exec", "touch", "-h", "-d", &date, "{}", "+"])).map(drop)
}
