//! `cargo xtask demo` and `cargo xtask bench`: programs of the tests package, on the release build of the daemon.
//!
//! Both get the directory of `lvxd` and `lvxadm` in `LVX_BIN_DIR`.

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::setup::{self, Need};
use crate::{build, shell};

/// What to show.
#[derive(clap::Args)]
pub(crate) struct DemoArgs {
    /// Forwarding method
    #[arg(value_enum, default_value_t = Mode::Nat)]
    mode: Mode,
    /// Further arguments for the demo
    #[arg(last = true)]
    rest: Vec<String>,
}

/// A forwarding method, as the demo names it.
#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// Masquerading
    Nat,
    /// Direct routing (gatewaying)
    Dr,
    /// Tunnelling
    Tun,
}

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct BenchArgs {
    /// Arguments for the benchmark (`-- --help` lists them); `sched` first measures schedulers instead
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// The command `demo`.
pub(crate) fn demo(args: &DemoArgs) -> Result<()> {
    let mode = match args.mode {
        Mode::Nat => "nat",
        Mode::Dr => "dr",
        Mode::Tun => "tun",
    };
    let mut arguments = vec![mode.to_owned()];
    arguments.extend(args.rest.iter().cloned());
    on_packets("lvx-demo", &arguments)
}

/// The command `bench`.
pub(crate) fn bench(args: &BenchArgs) -> Result<()> {
    let rest = args.rest.strip_prefix(&["--".to_owned()]).unwrap_or(&args.rest);
    match rest.split_first() {
        Some((part, rest)) if part == "sched" => on_packets("lvx-bench-sched", rest),
        _ => on_packets("lvx-bench", rest),
    }
}

fn on_packets(program: &str, arguments: &[String]) -> Result<()> {
    setup::ensure(&[Need::Build, Need::Network])?;
    require_root()?;
    setup::bpffs()?;
    build::binaries(true, &[])?;
    shell::run(&mut shell::cargo(&["build", "--locked", "--release", "--package", "lvx-tests", "--bin", program]))?;
    let directory = shell::target_dir().join("release");
    shell::run(shell::command(directory.join(program)).args(arguments).env("LVX_BIN_DIR", &directory))
}

/// Network namespaces and XDP are root's.
pub(crate) fn require_root() -> Result<()> {
    if !shell::is_root() {
        bail!("this makes network namespaces and loads XDP programs: run it as root");
    }
    Ok(())
}
