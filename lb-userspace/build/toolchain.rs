//! How the XDP programs are compiled: which compiler, which flags, what environment. The build script and `cargo xtask` share
//! this file, so that what is linted and what is set up is what is built.
//!
//! `core` for the BPF target is built from source, so the compiler needs its library's sources, and its LLVM must be bpf-linker's.
//! Where rustup's toolchain has no sources, Debian's packages rustc-web and rust-web-src are an exact pair.
//!
//! The trap: cargo, rustup and clippy leave variables behind for whatever a build script starts. They are of this build, for the
//! host, and a BPF build that inherits them fails in ways that name something else.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The compilation target.
pub(crate) const TARGET: &str = "bpfel-unknown-none";
/// LLVM's major version, one for bpf-linker and rustc: bitcode of a newer one is not readable.
pub(crate) const LLVM: &str = "22";
const FLAGS: [&str; 4] =
    ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3", "-Ctarget-feature=+allows-misaligned-mem-access"];

/// A compiler that has its library's sources and bpf-linker's LLVM: the active one, else Debian's, else rustup's nightly.
/// `LVX_EBPF_RUSTC` names another one, unchecked. The error lists what was tried and why not.
pub(crate) fn compiler() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("LVX_EBPF_RUSTC") {
        return Ok(path.into());
    }
    let active = PathBuf::from(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let mut tried = Vec::new();
    for candidate in [Some(active), Some("/usr/bin/rustc".into()), nightly()].into_iter().flatten() {
        match usable(&candidate) {
            Ok(rustc) => return Ok(rustc),
            Err(reason) => tried.push(format!("{}: {reason}", candidate.display())),
        }
    }
    Err(format!("no Rust compiler that can build `core` for the BPF target ({})", tried.join("; ")))
}

/// The compiler's own path, past rustup's proxies, if it can build `core`.
fn usable(rustc: &Path) -> Result<PathBuf, String> {
    let ask = |args: &[&str]| {
        let output = Command::new(rustc).args(args).output().map_err(|e| e.to_string())?;
        Ok::<_, String>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?);
    if !sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
        return Err("no library sources (rust-src)".into());
    }
    let version = ask(&["-vV"])?;
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: ")).unwrap_or("unknown");
    if llvm.split('.').next() != Some(LLVM) {
        return Err(format!("LLVM {llvm}, not bpf-linker's {LLVM}"));
    }
    Ok(sysroot.join("bin/rustc"))
}

fn nightly() -> Option<PathBuf> {
    let output = Command::new("rustup").args(["which", "rustc", "--toolchain", "nightly"]).output().ok()?;
    output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// PATH with the places where bpf-linker and its LLVM are.
pub(crate) fn path() -> OsString {
    let mut paths = vec![PathBuf::from(format!("/usr/lib/llvm-{LLVM}/bin"))];
    if let Some(home) = env::var_os("CARGO_HOME") {
        paths.push(Path::new(&home).join("bin"));
    } else if let Some(home) = env::var_os("HOME") {
        paths.push(Path::new(&home).join(".cargo/bin"));
    }
    paths.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    env::join_paths(paths).unwrap_or_default()
}

/// bpf-linker's answer to `--version`, or why there is none.
pub(crate) fn linker() -> Result<String, String> {
    match Command::new("bpf-linker").env("PATH", path()).arg("--version").output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        Ok(output) => Err(format!("bpf-linker: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("bpf-linker: {error}")),
    }
}

/// `cargo VERB` for the programs, to be run in `lb-ebpf/`.
pub(crate) fn cargo(verb: &str, rustc: &Path, target_dir: &Path) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo, rustup and clippy set for the build around this one goes; what the user set about network and registries stays.
    let keep = ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "RUSTUP_HOME"];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if (text.starts_with("CARGO_") || text.starts_with("RUST")) && !keep.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    cargo
        .env_remove("CLIPPY_ARGS")
        .env("PATH", path())
        .env("RUSTC", rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .args([verb, "--release", "--locked", "--target", TARGET, "-Zbuild-std=core"])
        .arg("--target-dir")
        .arg(target_dir);
    cargo
}
