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
mod journal;
pub mod kernel;
pub mod lifecycle;
pub mod load;
pub mod lock;
mod metrics;
mod notify;
pub mod serve;
pub mod settings;
pub mod signals;
pub mod socket;
pub mod state;
pub mod sweep;
#[cfg(test)]
mod tests;

use args::Args;
use clap::Parser;
use settings::Settings;
use std::io::Write;
use std::process::ExitCode;

/// The whole of `lvxd`.
#[must_use]
pub fn main() -> ExitCode {
    run(&Args::parse())
}

/// Runs with these arguments; errors are told in one line on stderr.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    if args.detach {
        journal::start(args.log.unwrap_or_default());
        return match lifecycle::detach(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => fail(&*e),
        };
    }
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
    journal::start(settings.log);
    match lifecycle::run(&settings, desired) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(&e),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    journal::fail(error);
    ExitCode::FAILURE
}
