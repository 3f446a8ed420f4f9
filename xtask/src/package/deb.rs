//! The Debian package: control files around the tree, put together by dpkg-deb.
//!
//! It does not stand in ipvsadm's way: `/usr/sbin/ipvsadm` is not in it, and its scripts start nothing that is not configured.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::tree::{self, SYSTEM, put};
use super::{Release, read};
use crate::shell;

/// Debian's revision of a version.
const REVISION: &str = "1";
/// A package must have one; LVX_MAINTAINER names another.
const MAINTAINER: &str = "LVX maintainers <lvx@packages.invalid>";

const POSTINST: &str = include_str!("scripts/postinst");
const PRERM: &str = include_str!("scripts/prerm");
const POSTRM: &str = include_str!("scripts/postrm");

/// Makes `lvx_VERSION_ARCHITECTURE.deb`.
pub(super) fn make(release: &Release, binaries: &Path, out: &Path) -> Result<PathBuf> {
    let version = format!("{}-{REVISION}", release.version);
    let root = out.join("deb");
    tree::make(&root, binaries)?;
    let maintainer = std::env::var("LVX_MAINTAINER").unwrap_or_else(|_| MAINTAINER.to_owned());
    documents(&root, release, &version, &maintainer)?;

    let (libc, size) = (glibc(&root.join(SYSTEM.binaries))?, installed_kib(&root)?);
    let control = format!(
        "Package: lvx\nVersion: {version}\nArchitecture: {}\nMaintainer: {maintainer}\nInstalled-Size: {size}\n\
         Depends: libc6 (>= {libc}), libgcc-s1, passwd\nRecommends: iproute2, bash-completion\nSuggests: ipvsadm\nSection: net\n\
         Priority: optional\nDescription: load balancer on XDP, compatible with Linux Virtual Server\n\
         \x20LVX is Linux Virtual Server done in XDP, before the network stack: an eBPF\n\
         \x20program forwards packets and holds the connection table, the daemon lvxd runs\n\
         \x20the schedulers, and lvxadm does what ipvsadm does, by the same options.\n\
         \x20.\n\
         \x20It masquerades (NAT), routes directly (DR) and tunnels (TUN), IPv4 and IPv6,\n\
         \x20TCP and UDP. Linux 6.1 or newer is needed.\n",
        release.architecture
    );
    let sums = read(shell::command("sh").current_dir(&root).args([
        "-c",
        "find . -path ./DEBIAN -prune -o -type f ! -path './etc/*' -printf '%P\\n' | LC_ALL=C sort | xargs -d '\\n' md5sum",
    ]))?;
    put(&root, "DEBIAN/control", control, 0o644)?;
    put(&root, "DEBIAN/conffiles", format!("/{}/lvx.toml\n", SYSTEM.config), 0o644)?;
    put(&root, "DEBIAN/md5sums", sums, 0o644)?;
    for (name, text) in [("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)] {
        put(&root, &format!("DEBIAN/{name}"), text, 0o755)?;
    }
    // Directories as everywhere, whatever the umask here is.
    read(shell::command("find").arg(&root).args(["-type", "d", "-exec", "chmod", "0755", "{}", "+"]))?;
    tree::set_times(&root, release)?;

    let package = out.join(format!("lvx_{version}_{}.deb", release.architecture));
    let mut dpkg = shell::command("dpkg-deb");
    dpkg.args(["--root-owner-group", "-Zxz", "--build"])
        .arg(&root)
        .arg(&package)
        .env("SOURCE_DATE_EPOCH", release.time.to_string());
    read(&mut dpkg)?;
    fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    Ok(package)
}

/// Changelogs and licences.
fn documents(root: &Path, release: &Release, version: &str, maintainer: &str) -> Result<()> {
    let directory = SYSTEM.documents;
    let date = read(shell::command("date").args(["-R", "-u", "-d"]).arg(format!("@{}", release.time)))?;
    let entry = format!(
        "lvx ({version}) unstable; urgency=medium\n\n  * See changelog.gz for what is new.\n\n -- {maintainer}  {}\n",
        date.trim()
    );
    tree::gzip(&put(root, &format!("{directory}/changelog.Debian"), entry, 0o644)?)?;
    let changes = fs::read(shell::root().join("CHANGELOG.md")).context("read CHANGELOG.md")?;
    tree::gzip(&put(root, &format!("{directory}/changelog"), changes, 0o644)?)?;
    let mit = fs::read_to_string(shell::root().join("LICENSE-MIT")).context("read LICENSE-MIT")?;
    let copyright = format!(
        "LVX is licensed under the MIT licence or the Apache License 2.0, at your option; the\n\
         eBPF programs in lvxd and lvxadm also under the GNU General Public License, version 2.\n\n\
         On Debian systems the Apache License 2.0 is in /usr/share/common-licenses/Apache-2.0,\n\
         the GPL in /usr/share/common-licenses/GPL-2. The MIT licence:\n\n{mit}\n\
         Libraries that are linked into the programs, and their licences:\n\n{}",
        tree::libraries()?
    );
    put(root, &format!("{directory}/copyright"), copyright, 0o644)?;
    Ok(())
}

/// The oldest glibc that both programs run with: the newest symbol version that they ask for.
fn glibc(binaries: &Path) -> Result<String> {
    let symbols = read(shell::command("objdump").arg("-T").arg(binaries.join("lvxd")).arg(binaries.join("lvxadm")))?;
    match newest(&symbols) {
        Some((major, minor)) => Ok(format!("{major}.{minor}")),
        None => bail!("{} asks for no version of glibc", binaries.display()),
    }
}

fn newest(symbols: &str) -> Option<(u32, u32)> {
    let version = |text: &str| {
        let text: String = text.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let (major, rest) = text.split_once('.')?;
        Some((major.parse().ok()?, rest.split('.').next()?.parse().ok()?))
    };
    symbols.split("GLIBC_").skip(1).filter_map(version).max()
}

fn installed_kib(root: &Path) -> Result<u64> {
    let text = read(shell::command("du").args(["-sk", "--apparent-size"]).arg(root))?;
    text.split_whitespace().next().and_then(|n| n.parse().ok()).with_context(|| format!("du says `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_glibc_wins() {
        assert_eq!(newest("x GLIBC_2.2.5 a\n y (GLIBC_2.34) b\n z GLIBC_2.9 c\n"), Some((2, 34)));
        assert_eq!(newest("nothing"), None);
    }
}
