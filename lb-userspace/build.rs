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

/// A compiler that has its library's sources.
fn rustc() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("LVX_EBPF_RUSTC") {
        return Ok(path.into());
    }
    let default = PathBuf::from(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let mut tried = Vec::new();
    for candidate in [Path::new("/usr/bin/rustc"), &default] {
        let Ok(output) = Command::new(candidate).args(["--print", "sysroot"]).output() else { continue };
        let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir() {
            return Ok(candidate.to_owned());
        }
        tried.push(candidate.display().to_string());
    }
    Err(format!("no Rust compiler with the sources of `core` (tried {}); {SETUP}", tried.join(", ")))
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
    // What cargo and clippy set for this crate is not for that one.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_") && text != "CARGO_HOME" || text.starts_with("RUST") && text != "RUSTUP_HOME" {
            cargo.env_remove(&name);
        }
    }
    cargo
        .env("PATH", path)
        .env("RUSTC", rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
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
