//! `cargo xtask package`: a Debian package, and a tarball of static binaries, into target/package.
//!
//! Both hold the same tree ([`tree`]); how it is laid out is said there alone. Times are the last commit's, owners root:
//! nothing of the machine that packages is in it.

mod deb;
mod tarball;
mod tree;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::setup::{self, Need};
use crate::{build, shell};

/// What to package.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The Debian package alone
    #[arg(long, conflicts_with = "tarball")]
    deb: bool,
    /// The tarball alone
    #[arg(long)]
    tarball: bool,
    /// Directory with lvxd and lvxadm to package, instead of building them
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Where the packages go [default: target/package]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// What everything in a package has in common.
pub(crate) struct Release {
    /// As in Cargo.toml
    version: String,
    /// Seconds since 1970: of the last commit, or SOURCE_DATE_EPOCH
    time: u64,
    /// Debian's name of the machine
    architecture: &'static str,
}

/// The command.
pub(crate) fn main(args: &Args) -> Result<()> {
    let mut needs = vec![Need::Package];
    if args.bin_dir.is_none() {
        needs.push(Need::Build);
    }
    setup::ensure(&needs)?;
    let out = args.out.as_ref().map_or_else(|| shell::target_dir().join("package"), |dir| shell::root().join(dir));
    std::fs::create_dir_all(&out).with_context(|| format!("make {}", out.display()))?;
    let release = Release { version: env!("CARGO_PKG_VERSION").to_owned(), time: time(), architecture: architecture() };
    if !args.tarball {
        let binaries = match &args.bin_dir {
            Some(dir) => dir.clone(),
            None => {
                build::binaries(true, &[])?;
                shell::target_dir().join("release")
            }
        };
        println!("{}", deb::make(&release, &binaries, &out)?.display());
    }
    if !args.deb {
        let binaries = match &args.bin_dir {
            Some(dir) => dir.clone(),
            None => tarball::build(&out)?,
        };
        println!("{}", tarball::make(&release, &binaries, &out)?.display());
    }
    Ok(())
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Without a repository (a tarball of the source), the beginning of time.
fn time() -> u64 {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|t| t.trim().parse().ok());
    given.or_else(|| read(shell::command("git").args(["log", "-1", "--format=%ct"])).ok()?.trim().parse().ok()).unwrap_or(0)
}

/// What a command prints.
fn read(command: &mut Command) -> Result<String> {
    let line = shell::line(command);
    let output = command.output().with_context(|| format!("start `{line}`"))?;
    anyhow::ensure!(output.status.success(), "`{line}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
