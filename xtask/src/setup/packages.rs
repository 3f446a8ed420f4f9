//! What comes from the distribution: which programs and files, and which Debian packages have them.

use anyhow::{Result, bail};
use std::path::Path;

use super::Need;
use crate::{shell, toolchain};

/// How to see that something is there.
enum Sign {
    Program(&'static str),
    File(&'static str),
    /// A Rust compiler that can build the XDP programs
    Compiler,
    /// bpf-linker, or what compiles it
    Linker,
}

/// Debian's packages, the need they are for, and the sign of their presence.
const PACKAGES: &[(Need, Sign, &[&str])] = &[
    (Need::Build, Sign::Program("cc"), &["gcc", "libc6-dev"]),
    (Need::Build, Sign::Compiler, &["rustc-web", "rust-web-src"]),
    (Need::Build, Sign::Linker, &["llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev"]),
    (Need::Network, Sign::Program("nginx"), &["nginx-light"]),
    (Need::Network, Sign::Program("curl"), &["curl"]),
    (Need::Network, Sign::Program("wrk"), &["wrk"]),
    (Need::Network, Sign::Program("ethtool"), &["ethtool"]),
    (Need::Network, Sign::Program("ip"), &["iproute2"]),
    (Need::Network, Sign::Program("ping"), &["iputils-ping"]),
    (Need::Network, Sign::Program("tcpdump"), &["tcpdump"]),
    (Need::Network, Sign::Program("iperf3"), &["iperf3"]),
    (Need::Network, Sign::Program("ps"), &["procps"]),
    (Need::Network, Sign::Program("nsenter"), &["util-linux"]),
    (Need::Network, Sign::File("/etc/services"), &["netbase"]),
    (Need::Network, Sign::Program("mandoc"), &["mandoc"]),
    // For promtool.
    (Need::Network, Sign::Program("promtool"), &["prometheus"]),
    (Need::Network, Sign::Program("systemd-analyze"), &["systemd"]),
    (Need::Network, Sign::Program("script"), &["bsdutils"]),
    (Need::Package, Sign::Program("dpkg-deb"), &["dpkg"]),
    (Need::Package, Sign::Program("objdump"), &["binutils"]),
    (Need::Package, Sign::Program("gzip"), &["gzip"]),
    (Need::Qemu, Sign::Program("qemu-system-x86_64"), &["qemu-system-x86"]),
    (Need::Qemu, Sign::File("/bin/busybox"), &["busybox-static"]),
    (Need::Qemu, Sign::Program("modprobe"), &["kmod"]),
    (Need::Qemu, Sign::Program("nft"), &["nftables"]),
    (Need::Qemu, Sign::Program("mmdebstrap"), &["mmdebstrap"]),
    (Need::Qemu, Sign::Program("mke2fs"), &["e2fsprogs"]),
];

/// The packages that would bring what is missing.
pub(super) fn missing(needs: &[Need]) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for (need, sign, names) in PACKAGES {
        let there = !needs.contains(need)
            || match sign {
                Sign::Program(name) => shell::has(name),
                Sign::File(path) => Path::new(path).exists(),
                Sign::Compiler => toolchain::compiler().is_ok(),
                Sign::Linker => toolchain::linker().is_ok() || super::rust::can_build_linker(),
            };
        if !there {
            packages.extend_from_slice(names);
        }
    }
    packages
}

/// Installs them with apt-get, as root on Debian; an error that names the command elsewhere.
pub(super) fn ensure(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let wanted = packages.join(" ");
    let command = format!("apt-get install --no-install-recommends {wanted}");
    if !is_debian() {
        bail!(
            "missing: {wanted} (names of Debian's packages). Install them with this system's package manager; instead of rustc-web \
             and rust-web-src, `rustup component add rust-src` does, and instead of compiling bpf-linker with LLVM {}, its prebuilt \
             releases do",
            toolchain::LLVM
        );
    }
    if !shell::is_root() {
        bail!("missing: {wanted}. Run `sudo apt-get update && sudo {command}`");
    }
    shell::say(&format!("missing, to be installed: {wanted}"));
    // A list of packages that is too old, or absent, is a reason for a failure; a mirror that is away is not yet one.
    if let Err(error) = shell::run(apt().args(["-qq", "update"])) {
        shell::say(&format!("{error}; going on with the lists that are there"));
    }
    if shell::run(install().args(packages)).is_ok() {
        return Ok(());
    }
    // One package that cannot be had must not keep back the others.
    let mut failed = Vec::new();
    for package in packages {
        if let Err(error) = shell::run(install().arg(package)).or_else(|_| super::backports::install(package)) {
            shell::say(&format!("{error:#}"));
            failed.push(*package);
        }
    }
    // A Rust compiler may still come from rustup: its absence is reported where that fails too.
    failed.retain(|package| !package.contains("rust"));
    if failed.is_empty() {
        return Ok(());
    }
    let hint = if failed.iter().any(|package| package.contains("-22-")) {
        ". LLVM 22 for Debian and Ubuntu is also at https://apt.llvm.org"
    } else {
        ""
    };
    bail!("could not install {0}. Run `apt-get install --no-install-recommends {0}`{hint}", failed.join(" "))
}

pub(super) fn apt() -> std::process::Command {
    let mut command = shell::command("apt-get");
    // Tests start what they need: no package is to start a service (systemd; other inits).
    command.env("DEBIAN_FRONTEND", "noninteractive").env("SYSTEMD_OFFLINE", "1").env("RUNLEVEL", "1");
    command.args(["-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]);
    command
}

/// Never at the cost of a package that is there.
fn install() -> std::process::Command {
    let mut command = apt();
    command.args(["install", "-q", "-y", "--no-install-recommends", "--no-remove"]);
    command
}

fn is_debian() -> bool {
    shell::has("apt-get") && Path::new("/etc/debian_version").exists()
}
