//! `lvxd`: configuration, attachment, the control socket, life and death.
//!
//! [`lifecycle`] puts the pieces together: [`load`] has program and maps, [`attach`] puts the program on interfaces, [`core`] owns
//! the engine, [`serve`] and [`api_server`] answer requests.

pub mod api_server;
pub mod args;
pub mod attach;
mod audit;
pub mod bpffs;
mod clients;
pub mod config;
pub mod core;
pub mod interfaces;
pub mod kernel;
pub mod lifecycle;
pub mod load;
pub mod lock;
mod notify;
pub mod serve;
pub mod settings;
pub mod socket;
pub mod state;
pub mod sweep;
#[cfg(test)]
mod tests;

use args::Args;
use clap::Parser;
use config::LogLevel;
use settings::Settings;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// The whole of `lvxd`.
#[must_use]
pub fn main() -> ExitCode {
    run(&Args::parse())
}

/// Runs with these arguments; errors are told in one line on stderr.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let (settings, desired) = match Settings::new(args) {
        Ok(s) => s,
        Err(e) => return fail(&e),
    };
    if args.check {
        let _ = writeln!(
            std::io::stdout(),
            "{}: in order: {} interfaces, {} services, {} real servers",
            settings.config_path.display(),
            settings.interfaces.len(),
            desired.services.len(),
            desired.services.iter().map(|s| s.servers.len()).sum::<usize>(),
        );
        return ExitCode::SUCCESS;
    }
    log(settings.log);
    match lifecycle::run(&settings, desired) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&e),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "lvxd: {error}");
    ExitCode::FAILURE
}

/// Logs to stderr; the journal has its own clock.
fn log(level: LogLevel) {
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let format = tracing_subscriber::fmt()
        // A log that cannot be written must not end the daemon, and a complaint about it on stderr would.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::from(level))
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    // One subscriber a process: a second daemon in one process (tests) keeps the first's.
    let _ = if journal { format.without_time().try_init() } else { format.try_init() };
}
