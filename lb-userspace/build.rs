//! Builds the XDP programs (package lb-ebpf) for the BPF target, for `object.rs` to include.
//!
//! `core` for that target is built from source, so the compiler needs its library's sources and LLVM must be bpf-linker's. Where
//! rustup's toolchain has no sources, Debian's packages rustc-web and rust-web-src are an exact pair. `cargo xtask setup`
//! installs what is missing.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAMS: [&str; 3] = ["lvx", "lvx-decap", "lvx-bench"];
const FLAGS: [&str; 4] =
    ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3", "-Ctarget-feature=+allows-misaligned-mem-access"];
/// LLVM's major version, one for bpf-linker and rustc: bitcode of a newer one is not readable.
const LLVM: &str = "22";
const SETUP: &str = "run `cargo xtask setup`, which installs what is missing or says how to";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for dir in ["../lb-ebpf", "../lb-common"] {
        println!("cargo:rerun-if-changed={dir}/src");
        println!("cargo:rerun-if-changed={dir}/Cargo.toml");
    }
    println!("cargo:rerun-if-env-changed=LVX_EBPF_RUSTC");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    if env::var_os("DOCS_RS").is_some() {
        for name in PROGRAMS {
            std::fs::write(out.join(name), []).expect("OUT_DIR is writable");
        }
        return;
    }
    if let Err(message) = build(&out) {
        eprintln!("error: {message}");
        std::process::exit(1);
    }
}

/// A compiler that has its library's sources and bpf-linker's LLVM: the one this build uses, else Debian's, else nightly.
/// `LVX_EBPF_RUSTC` names another one, unchecked.
fn rustc() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("LVX_EBPF_RUSTC") {
        return Ok(path.into());
    }
    let default = PathBuf::from(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let mut tried = Vec::new();
    for candidate in [Some(default), Some("/usr/bin/rustc".into()), nightly()].into_iter().flatten() {
        match usable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(reason) => tried.push(format!("{}: {reason}", candidate.display())),
        }
    }
    Err(format!("no Rust compiler can build `core` for the BPF target ({}); {SETUP}", tried.join("; ")))
}

fn usable(rustc: &Path) -> Result<(), String> {
    let ask = |args: &[&str]| {
        let output = Command::new(rustc).args(args).output().map_err(|e| e.to_string())?;
        Ok::<_, String>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let sysroot = ask(&["--print", "sysroot"])?;
    if !Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir() {
        return Err("no library sources (rust-src)".into());
    }
    let version = ask(&["-vV"])?;
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: ")).unwrap_or("unknown");
    if llvm.split('.').next() != Some(LLVM) {
        return Err(format!("LLVM {llvm}, not bpf-linker's {LLVM}"));
    }
    Ok(())
}

/// rustup's nightly compiler by its path: rustup's proxies would obey the RUSTUP_TOOLCHAIN of this build.
fn nightly() -> Option<PathBuf> {
    let output = Command::new("rustup").args(["which", "rustc", "--toolchain", "nightly"]).output().ok()?;
    output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// PATH with the places where bpf-linker and its LLVM are.
fn path() -> std::ffi::OsString {
    let mut paths: Vec<PathBuf> = vec!["/usr/lib/llvm-22/bin".into()];
    if let Some(home) = env::var_os("CARGO_HOME") {
        paths.push(Path::new(&home).join("bin"));
    } else if let Some(home) = env::var_os("HOME") {
        paths.push(Path::new(&home).join(".cargo/bin"));
    }
    paths.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    env::join_paths(paths).unwrap_or_default()
}

fn build(out: &Path) -> Result<(), String> {
    let rustc = rustc()?;
    let path = path();
    Command::new("bpf-linker").env("PATH", &path).arg("--version").output().map_err(|e| format!("bpf-linker: {e}; {SETUP}"))?;
    let target = out.join("ebpf");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir("../lb-ebpf")
        .args(["build", "--release", "--locked", "--bins", "--target", "bpfel-unknown-none", "-Zbuild-std=core"])
        .arg("--target-dir")
        .arg(&target);
    if env::var_os("CARGO_FEATURE_EBPF_LOG").is_some() {
        cargo.args(["--features", "log"]);
    }
    // What cargo and clippy set for this crate is not for that one; what the user set about the network and registries is.
    let keep = ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "RUSTUP_HOME"];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if (text.starts_with("CARGO_") || text.starts_with("RUST")) && !keep.iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    cargo.env("PATH", path).env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1").env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    let output = cargo.output().map_err(|e| format!("cargo for the XDP programs: {e}"))?;
    if !output.status.success() {
        return Err(format!(
            "the XDP programs do not build ({}); {SETUP}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    for name in PROGRAMS {
        let from = target.join("bpfel-unknown-none/release").join(name);
        std::fs::copy(&from, out.join(name)).map_err(|e| format!("{}: {e}", from.display()))?;
    }
    Ok(())
}
