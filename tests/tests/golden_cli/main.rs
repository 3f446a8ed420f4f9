//! Every recorded command of ipvsadm against a real lvxd, byte for byte: standard output, standard error, exit status. In the
//! order of recording, since commands build on each other; under the name `ipvsadm`.

mod differences;
mod recorded;
mod steps;
mod traffic;

use anyhow::{Context, Result, ensure};
use differences::{Other, expected, other, without_refused};
use lvx_tests::lab::{Lvxd, Ns, possible, public_copy};
use recorded::Case;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};
use traffic::Wires;

/// A shell in the director, where `ipvsadm` is lvxadm.
struct Shell<'a> {
    bin: &'a Path,
    ns: &'a Ns,
    lvxd: &'a Lvxd,
}

impl Shell<'_> {
    fn run(&self, command: &str, stdin: &str) -> Result<Output> {
        let path = format!("{}:{}", self.bin.display(), std::env::var("PATH").unwrap_or_default());
        let mut c = self.ns.command("sh");
        c.args(["-c", command]).env("PATH", path).env("LVX_SOCKET", &self.lvxd.socket);
        let mut child = c.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        // A command that reads nothing may have ended.
        let _ = child.stdin.take().context("no stdin")?.write_all(stdin.as_bytes());
        Ok(child.wait_with_output()?)
    }

    fn rules(&self) -> Result<String> {
        Ok(String::from_utf8(self.run("ipvsadm -S -n; ipvsadm -L --timeout", "")?.stdout)?)
    }
}

/// `ipvsadm`, as it is installed: another name of lvxadm, which anybody may run.
fn ipvsadm() -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    public_copy("lvxadm", dir.path())?;
    std::os::unix::fs::symlink("lvxadm", dir.path().join("ipvsadm"))?;
    Ok(dir)
}

/// What is not the same from run to run.
fn normal(case: &Case, text: &str) -> Result<String> {
    if case.command.contains(" -c") {
        // In no order, and with timers.
        let (mut title, mut entries) = (String::new(), Vec::new());
        for line in text.split_inclusive('\n') {
            match line.split_once(':') {
                Some((minutes, rest)) if line.starts_with("TCP ") => {
                    let (minutes, seconds): (u32, u32) = (minutes[4..].parse()?, rest[..2].parse()?);
                    ensure!(minutes < 60 && seconds < 60, "{line}");
                    // To the next minute: the test may be slower than the recording was.
                    entries.push(format!("TCP {:02}{}", minutes + 1, &rest[2..]));
                }
                _ => title.push_str(line),
            }
        }
        entries.sort();
        return Ok(title + &entries.concat());
    }
    if case.command.contains("--rate") && !case.command.contains("--stats") {
        // Five numbers of nine columns each.
        let mut out = String::new();
        for line in text.split_inclusive('\n') {
            let numbers = line.trim_end().get(33..).filter(|n| n.trim_start().starts_with(|c: char| c.is_ascii_digit()));
            match numbers {
                Some(numbers) => {
                    ensure!(numbers.len() == 45, "{line}");
                    for i in 0..5 {
                        numbers[9 * i..9 * i + 9].trim_start().parse::<u64>().with_context(|| line.to_owned())?;
                    }
                    out.push_str(&line[..33]);
                    out.push('\n');
                }
                None => out.push_str(line),
            }
        }
        return Ok(out);
    }
    Ok(text.to_owned())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A case against LVX: the difference, if there is one.
fn replay(case: &Case, shell: &Shell<'_>) -> Result<()> {
    match other(case.name) {
        None => {
            let o = shell.run(case.command, &case.stdin)?;
            let (out, err) = (text(&o.stdout), text(&o.stderr));
            let wanted = expected(case.name, &case.stdout);
            let same = normal(case, &out)? == normal(case, &wanted)? && err == case.stderr;
            ensure!(
                same && o.status.code() == Some(case.status),
                "{}: {}\n--- status {:?}, recorded {}\n{out}--- recorded\n{wanted}--- stderr\n{err}--- recorded\n{}",
                case.name,
                case.command,
                o.status.code(),
                case.status,
                case.stderr
            );
        }
        Some(Other::NotRun(_)) => {}
        Some(difference) => {
            let before = shell.rules()?;
            let o = shell.run(case.command, &case.stdin)?;
            let (status, says) = match difference {
                Other::Says(status, says) => (status, says.to_owned()),
                Other::Refused(says) | Other::NotRun(says) => (2, format!("{says}\n")),
            };
            let (out, err) = (text(&o.stdout), text(&o.stderr));
            ensure!(o.status.code() == Some(status) && out.is_empty() && err == says, "{}: {:?} {out}{err}", case.name, o.status);
            ensure!(shell.rules()? == before, "{}: something changed", case.name);
        }
    }
    Ok(())
}

/// The recorded restore has lines that LVX refuses: it says which, and changes nothing. Without them it is restored.
fn restore(case: &Case, shell: &Shell<'_>) -> Result<()> {
    let before = shell.rules()?;
    let o = shell.run(case.command, &case.stdin)?;
    let err = text(&o.stderr);
    ensure!(o.status.code() == Some(2) && err == "line 23: LVX has no tunnel type gue (--tun-type)\n", "{err}");
    ensure!(shell.rules()? == before, "a refused restore changed something");
    let o = shell.run(case.command, &without_refused(&case.stdin))?;
    ensure!(o.status.success() && o.stdout.is_empty() && o.stderr.is_empty(), "{}", text(&o.stderr));
    Ok(())
}

#[test]
fn every_recorded_command() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let bin = ipvsadm()?;
    let wires = Wires::new()?;
    // Another namespace has another daemon, and a table of its own.
    let (other_ns, end) = (Ns::new()?, Ns::new()?);
    other_ns.cable("eth0", &end, "eth0", 1500)?;
    let config = tempfile::NamedTempFile::new()?;
    std::fs::write(config.path(), "[sizes]\nconnections = 4096\n")?;
    let more = ["--config", config.path().to_str().context("a temporary file's name")?];
    let other_lvxd = Lvxd::start(&other_ns, &["eth0"], &more)?;
    let shell = Shell { bin: bin.path(), ns: &wires.director, lvxd: &wires.lvxd };
    let other_shell = Shell { bin: bin.path(), ns: &other_ns, lvxd: &other_lvxd };

    let mut failures = Vec::new();
    let (mut run, mut differs) = (0, 0);
    for case in recorded::cases()? {
        steps::before(case.name, &wires).with_context(|| format!("before {}", case.name))?;
        let shell = if case.name.contains("netns-other") { &other_shell } else { &shell };
        let result = if case.name == "121-restore" { restore(&case, shell) } else { replay(&case, shell) };
        run += 1;
        differs += usize::from(other(case.name).is_some());
        if let Err(e) = result {
            failures.push(format!("{e:#}"));
        }
    }
    println!("{run} recorded commands, {differs} of them with another answer on purpose");
    ensure!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n========\n"));
    ensure!(run == 189, "{run} recorded commands");
    Ok(())
}
