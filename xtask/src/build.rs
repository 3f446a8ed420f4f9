//! `cargo xtask build`: the daemon and the command line tool.

use anyhow::Result;

use crate::setup::{self, Need};
use crate::shell;

/// What to build.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Optimized, into target/release (the default)
    #[arg(long, conflicts_with = "debug")]
    release: bool,
    /// Unoptimized, into target/debug
    #[arg(long)]
    debug: bool,
    /// With aya-log in the packet path, for debugging only
    #[arg(long)]
    ebpf_log: bool,
}

/// The command.
pub(crate) fn main(args: &Args) -> Result<()> {
    setup::ensure(&[Need::Build])?;
    let mut extra = Vec::new();
    if args.ebpf_log {
        extra.extend(["--features", "ebpf-log"]);
    }
    binaries(!args.debug, &extra)?;
    let directory = shell::target_dir().join(if args.debug { "debug" } else { "release" });
    for name in ["lvxd", "lvxadm"] {
        println!("{}", directory.join(name).display());
    }
    Ok(())
}

/// Builds both binaries.
pub(crate) fn binaries(release: bool, extra: &[&str]) -> Result<()> {
    let mut cargo = shell::cargo(&["build", "--locked", "--package", "lb-userspace", "--bins"]);
    if release {
        cargo.arg("--release");
    }
    shell::run(cargo.args(extra))
}
