//! `cargo xtask test`: every test of the workspace, with a summary at the end.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::setup::{self, Need};
use crate::{build, run, shell};

/// Which tests.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The slow ones as well (QEMU)
    #[arg(long)]
    all: bool,
    /// Further arguments for `cargo test`, such as `-p lb-common` or part of a test's name
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// What the test programs reported.
#[derive(Default, Debug, PartialEq, Eq)]
struct Summary {
    passed: u64,
    failed: u64,
    ignored: u64,
    failures: Vec<String>,
}

/// The command.
pub(crate) fn main(args: &Args) -> Result<()> {
    let mut needs = vec![Need::Build, Need::Network, Need::Package];
    if args.all {
        needs.push(Need::Qemu);
    }
    setup::ensure(&needs)?;
    run::require_root()?;
    setup::bpffs()?;
    build::binaries(true, &[])?;
    let started = Instant::now();
    let mut cargo = shell::cargo(&["test", "--locked", "--no-fail-fast"]);
    let split = args.rest.iter().position(|arg| arg == "--").unwrap_or(args.rest.len());
    let (ours, theirs) = args.rest.split_at(split);
    cargo.args(ours).arg("--").args(theirs.get(1..).unwrap_or_default());
    if args.all {
        cargo.arg("--include-ignored");
    }
    cargo.env("LVX_BIN_DIR", shell::target_dir().join("release")).stdout(Stdio::piped());
    shell::say(&shell::line(&cargo));
    let mut child = cargo.spawn().context("start cargo test")?;
    let mut summary = Summary::default();
    let mut stdout = std::io::stdout().lock();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("read the tests' output")?;
            let line = String::from_utf8_lossy(&line);
            writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("print the tests' output")?;
            summary.take(&line);
        }
    }
    let status = child.wait().context("wait for cargo test")?;
    writeln!(stdout, "{}", summary.text(started.elapsed().as_secs())).context("print the summary")?;
    if !status.success() || summary.failed > 0 {
        bail!("tests failed ({status})");
    }
    if summary.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

impl Summary {
    /// One line of libtest's output.
    fn take(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.push(name.to_owned());
        }
        let Some(result) = line.strip_prefix("test result: ") else { return };
        for part in result.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(count), Some(what)) = (words.next(), words.next()) else { continue };
            let Ok(count) = count.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }

    fn text(&self, seconds: u64) -> String {
        let mut text = format!("summary: {} passed, {} failed, {} ignored", self.passed, self.failed, self.ignored);
        if self.ignored > 0 {
            text.push_str(" (slow ones: cargo xtask test --all)");
        }
        text.push_str(&format!(", {seconds} s"));
        for name in &self.failures {
            text.push_str(&format!("\n  failed: {name}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_programs_add_up() {
        let mut summary = Summary::default();
        for line in [
            "test a::b ... ok",
            "test a::c ... FAILED",
            "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.05s",
            "test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.00s",
        ] {
            summary.take(line);
        }
        assert_eq!(summary, Summary { passed: 7, failed: 1, ignored: 2, failures: vec!["a::c".to_owned()] });
    }
}
