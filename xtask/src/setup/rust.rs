//! What comes through cargo and rustup: library sources, bpf-linker, linters.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::{shell, toolchain};

const LINKER: &str = "0.13.0";
const DENY: &str = "0.20.2";

/// A compiler for the XDP programs. Debian's packages came first; what they did not bring is rustup's to bring.
pub(super) fn compiler() -> Result<()> {
    let Err(reason) = toolchain::compiler() else { return Ok(()) };
    shell::say(&reason);
    let command = "rustup component add rust-src";
    if shell::has("rustup") && shell::run(shell::command("rustup").args(["component", "add", "rust-src"])).is_ok() {
        match toolchain::compiler() {
            Ok(_) => return Ok(()),
            Err(reason) => bail!("{reason}"),
        }
    }
    bail!(
        "{reason}. As root on Debian run `apt-get install --no-install-recommends rustc-web rust-web-src`, elsewhere `{command}` for a \
         toolchain with LLVM {}; LVX_EBPF_RUSTC names another compiler",
        toolchain::LLVM
    )
}

/// Whether LLVM is there to compile bpf-linker against.
pub(super) fn can_build_linker() -> bool {
    Path::new(&format!("/usr/lib/llvm-{}/bin/llvm-config", toolchain::LLVM)).exists()
        && Path::new(&format!("/usr/lib/llvm-{}/lib/libPolly.a", toolchain::LLVM)).exists()
}

/// bpf-linker, compiled against Debian's LLVM.
pub(super) fn linker() -> Result<()> {
    let Err(reason) = toolchain::linker() else { return Ok(()) };
    shell::say(&format!("{reason}; compiling it (a minute)"));
    let feature = format!("llvm-{}", toolchain::LLVM);
    let mut cargo = install(&["bpf-linker", "--version", LINKER, "--no-default-features", "--features", &feature, "--force"]);
    shell::run(&mut cargo)?;
    match toolchain::linker() {
        Ok(_) => Ok(()),
        Err(reason) => bail!("{reason}, although it was just installed: is cargo's bin directory in PATH?"),
    }
}

/// rustfmt and clippy for the host's toolchain, and clippy for the compiler of the XDP programs.
pub(super) fn components() -> Result<()> {
    let mut wanted = Vec::new();
    for (component, verb) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        if !shell::succeeds(&mut shell::cargo(&[verb, "--version"])) {
            wanted.push(component);
        }
    }
    if !wanted.is_empty() {
        if !shell::has("rustup") {
            bail!("missing: {}. They come with the toolchain that cargo is from", wanted.join(", "));
        }
        shell::run(shell::command("rustup").args(["component", "add"]).args(wanted))?;
    }
    let Ok(rustc) = toolchain::compiler() else { return Ok(()) };
    if !rustc.with_file_name("clippy-driver").exists() {
        if rustc == Path::new("/usr/bin/rustc") {
            super::packages::ensure(&["rust-web-clippy"])?;
        } else {
            bail!("missing: clippy beside {}. Run `rustup component add clippy` for its toolchain", rustc.display());
        }
    }
    Ok(())
}

/// cargo-deny.
pub(super) fn deny() -> Result<()> {
    if shell::succeeds(&mut shell::cargo(&["deny", "--version"])) {
        return Ok(());
    }
    shell::say("missing: cargo-deny; compiling it (some minutes, once)");
    shell::run(&mut install(&["cargo-deny", "--version", DENY]))
}

/// `cargo install`, away from this workspace's target directory and flags.
fn install(args: &[&str]) -> Command {
    let mut cargo = shell::cargo(&["install", "--locked"]);
    for name in ["CARGO_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        cargo.env_remove(name);
    }
    cargo.args(args).env("PATH", toolchain::path());
    cargo
}
