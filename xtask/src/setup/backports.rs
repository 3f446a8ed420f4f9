//! Packages from Debian's backports, for machines whose installed packages are from there already: what must match those is to be
//! had nowhere else.
//!
//! The system's list of sources stays as it is: apt-get gets its own one, and its own lists, in the target directory.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::shell;

/// Installs `package` from backports; removes and downgrades nothing.
pub(super) fn install(package: &str) -> Result<()> {
    let release = release().context("which release of Debian is this")?;
    let directory = shell::target_dir().join("apt");
    let parts = directory.join("parts");
    let lists = directory.join("lists");
    for path in [&parts, &lists] {
        fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
    }
    let sources = format!(
        "deb http://deb.debian.org/debian {release} main\ndeb http://deb.debian.org/debian {release}-updates main\n\
         deb http://deb.debian.org/debian-security {release}-security main\ndeb http://deb.debian.org/debian {release}-backports main\n"
    );
    let list = parts.join("backports.list");
    fs::write(&list, sources).with_context(|| format!("write {}", list.display()))?;
    let apt = |args: &[&str]| {
        let mut command = super::packages::apt();
        command
            .args(["-o", "Dir::Etc::sourcelist=/dev/null", "-o", "APT::Sandbox::User=root"])
            .arg("-o")
            .arg(format!("Dir::Etc::sourceparts={}", parts.display()))
            .arg("-o")
            .arg(format!("Dir::State::lists={}", lists.display()))
            .args(args);
        shell::run(&mut command)
    };
    apt(&["-qq", "update"])?;
    let suite = format!("{release}-backports");
    apt(&["install", "-q", "-y", "--no-install-recommends", "--no-remove", "-t", &suite, package])
}

/// The release's code name.
fn release() -> Result<String> {
    let path = Path::new("/etc/os-release");
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let Some(name) = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")) else {
        bail!("{} has no VERSION_CODENAME", path.display());
    };
    Ok(name.trim_matches('"').to_owned())
}
