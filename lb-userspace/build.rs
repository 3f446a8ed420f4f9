//! Builds the XDP programs (package lb-ebpf) for the BPF target, for `object.rs` to include.
//!
//! `cargo xtask setup` installs what that needs. Documentation alone (`DOCS_RS` set) needs nothing: the programs are empty then.

use std::env;
use std::path::{Path, PathBuf};

#[path = "build/toolchain.rs"]
mod toolchain;

const PROGRAMS: [&str; 4] = ["lvx", "lvx-next", "lvx-decap", "lvx-bench"];
const SETUP: &str = "run `cargo xtask setup`, which installs what is missing or says how to";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=build/toolchain.rs");
    for dir in ["../lb-ebpf", "../lb-common"] {
        println!("cargo:rerun-if-changed={dir}/src");
        println!("cargo:rerun-if-changed={dir}/Cargo.toml");
    }
    println!("cargo:rerun-if-env-changed=LVX_EBPF_RUSTC");
    println!("cargo:rerun-if-env-changed=DOCS_RS");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    if let Err(message) = if env::var_os("DOCS_RS").is_some() { empty(&out) } else { build(&out) } {
        eprintln!("error: {message}");
        std::process::exit(1);
    }
}

fn empty(out: &Path) -> Result<(), String> {
    println!("cargo:warning=DOCS_RS is set: this build is for documentation only, without XDP programs");
    for name in PROGRAMS {
        std::fs::write(out.join(name), []).map_err(|e| format!("{}: {e}", out.join(name).display()))?;
    }
    Ok(())
}

/// The workspace's target directory, which every profile's build shares: `core` for the BPF target takes longer to compile than all that
/// is built on it. Cargo locks it while it builds.
fn shared(out: &Path) -> &Path {
    out.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file()).unwrap_or(out)
}

fn build(out: &Path) -> Result<(), String> {
    let rustc = toolchain::compiler().map_err(|e| format!("{e}; {SETUP}"))?;
    toolchain::linker().map_err(|e| format!("{e}; {SETUP}"))?;
    let log = env::var_os("CARGO_FEATURE_EBPF_LOG").is_some();
    let target = shared(out).join(if log { "ebpf-log" } else { "ebpf" });
    let mut cargo = toolchain::cargo("build", &rustc, &target);
    cargo.current_dir("../lb-ebpf").arg("--bins");
    if log {
        cargo.args(["--features", "log"]);
    }
    let output = cargo.output().map_err(|e| format!("cargo for the XDP programs: {e}"))?;
    if !output.status.success() {
        return Err(format!("the XDP programs do not build ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    for name in PROGRAMS {
        let from = target.join(toolchain::TARGET).join("release").join(name);
        std::fs::copy(&from, out.join(name)).map_err(|e| format!("{}: {e}", from.display()))?;
    }
    Ok(())
}
