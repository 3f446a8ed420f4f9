//! `cargo xtask lint`: every rule that a machine can check. All of them run, whichever fails.

mod rules;

use std::process::Command;

use anyhow::{Result, bail};

use crate::setup::{self, Need};
use crate::{shell, toolchain};

type Check = fn() -> Result<()>;

/// The command.
pub(crate) fn main() -> Result<()> {
    setup::ensure(&[Need::Build, Need::Lint])?;
    let checks: [(&str, Check); 7] = [
        ("own rules", rules::check),
        ("format", || shell::run(&mut shell::cargo(&["fmt", "--all", "--check"]))),
        ("clippy", || shell::run(&mut shell::cargo(&["clippy", "--locked", "--all-targets", "--", "-D", "warnings"]))),
        ("clippy for BPF", clippy_for_bpf),
        ("dependencies", dependencies),
        ("advisories", advisories),
        ("documentation", || {
            shell::run(
                shell::cargo(&["doc", "--locked", "--no-deps", "--document-private-items"]).env("RUSTDOCFLAGS", "-D warnings"),
            )
        }),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        shell::say(&format!("== {name}"));
        if let Err(error) = check() {
            shell::say(&format!("{name}: {error:#}"));
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("lint failed: {}", failed.join(", "));
    }
    shell::say("lint: all clean");
    Ok(())
}

/// lb-ebpf compiles for BPF alone, with a compiler that need not be the host's: so its clippy is the one beside that compiler,
/// started the way `cargo clippy` would start it.
fn clippy_for_bpf() -> Result<()> {
    let rustc = toolchain::compiler().map_err(anyhow::Error::msg)?;
    let mut cargo = toolchain::cargo("check", &rustc, &shell::target_dir().join("clippy-bpf"));
    cargo
        .current_dir(shell::root().join("lb-ebpf"))
        .env("RUSTC_WORKSPACE_WRAPPER", rustc.with_file_name("clippy-driver"))
        .env("CLIPPY_ARGS", ["-D", "warnings"].map(|arg| format!("{arg}__CLIPPY_HACKERY__")).concat());
    shell::run(&mut cargo)
}

fn deny(args: &[&str]) -> Command {
    let mut cargo = shell::cargo(&["deny", "--workspace"]);
    cargo.args(args);
    cargo
}

fn dependencies() -> Result<()> {
    shell::run(&mut deny(&["check", "bans", "licenses", "sources"]))
}

/// Known vulnerabilities. Where their database cannot be had there is nothing to compare with: said, not failed.
fn advisories() -> Result<()> {
    let fetch = Command::new("timeout").arg("120").arg(deny(&[]).get_program()).args(deny(&["fetch", "db"]).get_args()).output();
    if !fetch.is_ok_and(|output| output.status.success()) {
        shell::say("advisories: NOT CHECKED, their database is out of reach from here");
        return Ok(());
    }
    shell::run(&mut deny(&["check", "--disable-fetch", "advisories"]))
}
