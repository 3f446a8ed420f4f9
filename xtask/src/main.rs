//! Developer commands: `cargo xtask setup|build|test|lint|demo|bench|package`.
//!
//! Each command installs what it needs before it goes on (see [`setup`]), so each works as the first one on a fresh machine.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod build;
mod lint;
mod package;
mod run;
mod setup;
mod shell;
mod test;
#[path = "../../lb-userspace/build/toolchain.rs"]
mod toolchain;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Developer commands of LVX", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building and testing need, or say how to
    Setup(setup::Args),
    /// Build the daemon and the command line tool into target/release
    Build(build::Args),
    /// Run all tests, those on real packets included (needs root)
    Test(test::Args),
    /// Check format, lints, licences, documentation and the repository's own rules
    Lint,
    /// Balance real HTTP traffic between network namespaces and show who served it (needs root)
    Demo(run::DemoArgs),
    /// Make a Debian package and a tarball of static binaries, in target/package
    Package(package::Args),
    /// Measure the cost of each packet path (needs root)
    Bench(run::BenchArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup(args) => setup::main(&args),
        Command::Build(args) => build::main(&args),
        Command::Test(args) => test::main(&args),
        Command::Lint => lint::main(),
        Command::Demo(args) => run::demo(&args),
        Command::Package(args) => package::main(&args),
        Command::Bench(args) => run::bench(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Not main's own way of it, which adds a backtrace where RUST_BACKTRACE is set.
        Err(error) => {
            shell::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
