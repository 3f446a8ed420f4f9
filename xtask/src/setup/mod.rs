//! `cargo xtask setup`, and the same before every other command: what is needed and missing is installed, saying what, or the
//! exact commands are named.
//!
//! Invariant: where nothing is missing nothing is started but a few `--version` queries, so that this can precede every command.
//! On Debian as root packages are installed; anywhere else nothing of the system is changed. Rust's own parts (components,
//! bpf-linker, cargo-deny) belong to the user, and are installed wherever rustup and cargo can.

mod backports;
mod packages;
mod rust;

use anyhow::{Result, bail};

use crate::shell;

/// Something that a command relies on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Compiling everything, the XDP programs included
    Build,
    /// Real servers, clients and tools for tests in network namespaces
    Network,
    /// Linters
    Lint,
    /// Booting other kernels
    Qemu,
    /// Making packages
    Package,
}

/// What to set up besides building and testing.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The linters too
    #[arg(long)]
    lint: bool,
    /// QEMU and what boots other kernels in it, too
    #[arg(long)]
    qemu: bool,
}

/// The command.
pub(crate) fn main(args: &Args) -> Result<()> {
    let mut needs = vec![Need::Build, Need::Network];
    if args.lint {
        needs.push(Need::Lint);
    }
    if args.qemu {
        needs.push(Need::Qemu);
    }
    ensure(&needs)?;
    shell::say("everything is there");
    Ok(())
}

/// Installs what is missing of `needs`.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let mut problems = Vec::new();
    if let Err(error) = packages::ensure(&packages::missing(needs)) {
        problems.push(format!("{error:#}"));
    }
    if needs.contains(&Need::Build) {
        // One after the other: bpf-linker is compiled against the LLVM that the packages bring.
        for step in [rust::compiler, rust::linker] {
            if let Err(error) = step() {
                problems.push(format!("{error:#}"));
            }
        }
    }
    if needs.contains(&Need::Lint) {
        for step in [rust::components, rust::deny] {
            if let Err(error) = step() {
                problems.push(format!("{error:#}"));
            }
        }
    }
    if !problems.is_empty() {
        bail!("set-up is incomplete:\n{}", problems.join("\n"));
    }
    Ok(())
}

/// Mounts the BPF file system where no one has: bare containers and virtual machines lack it.
pub(crate) fn bpffs() -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted = mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some("/sys/fs/bpf") && words.next() == Some("bpf")
    });
    if mounted {
        return Ok(());
    }
    shell::run(shell::command("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]))
}
