//! The recordings: what a real IPVS answered, command by command.

use anyhow::{Context, Result, bail};

/// One recorded command.
#[derive(Debug)]
pub(crate) struct Case {
    /// `018-add-rr`
    pub name: &'static str,
    /// The command, for a shell.
    pub command: &'static str,
    /// Its standard input.
    pub stdin: String,
    /// Exit status.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// All of them, in the order of recording.
///
/// # Errors
/// The file is not as it is expected to be.
pub(crate) fn cases() -> Result<Vec<Case>> {
    let text = include_str!("../../golden/cli.txt");
    text.split("\n=== ").skip(1).map(|block| case(block).with_context(|| block.lines().next().unwrap_or_default())).collect()
}

fn case(block: &'static str) -> Result<Case> {
    let (name, mut rest) = block.split_once('\n').context("no name")?;
    let mut case = Case { name, command: "", stdin: String::new(), status: -1, stdout: String::new(), stderr: String::new() };
    while let Some(line) = rest.strip_prefix("# ") {
        let (line, after) = line.split_once('\n').context("cut off")?;
        rest = after;
        match line.split_once(": ") {
            Some(("cmd", command)) => case.command = command,
            Some(("rc", n)) => case.status = n.parse()?,
            Some(("stdin", quoted)) => case.stdin = quoted.trim_matches('\'').replace("\\n", "\n"),
            Some(("note", _)) => {}
            None if line == "--- stdout" => {
                // The separator of cases took the last line's end.
                let (out, err) = rest.split_once("# --- stderr").context("no stderr")?;
                case.stdout = out.to_owned();
                case.stderr = err.strip_prefix('\n').map(|e| e.trim_end_matches('\n').to_owned() + "\n").unwrap_or_default();
                if case.stderr == "\n" {
                    case.stderr.clear();
                }
                return Ok(case);
            }
            _ => bail!("unknown line {line}"),
        }
    }
    bail!("no output")
}
