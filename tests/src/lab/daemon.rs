//! lvxd and lvxadm as an operator runs them.

use super::ns::{finished, until};
use super::{Ns, Running};
use crate::director::bpffs;
use crate::table::Tables;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A running lvxd; it and all that it pinned are gone when this is dropped.
#[derive(Debug)]
pub struct Lvxd {
    /// The process.
    pub process: Running,
    /// Its control socket.
    pub socket: PathBuf,
    /// Where it pins.
    pub pins: PathBuf,
    /// How long it took until it was ready.
    pub ready_after: Duration,
    log: Arc<Mutex<String>>,
    decap: Mutex<Vec<PathBuf>>,
    ns: Ns,
    arguments: Vec<OsString>,
    files: tempfile::TempDir,
}

/// Where the programs under test are: `LVX_BIN_DIR`, or beside the test.
///
/// # Errors
/// They were not built.
pub fn binary(name: &str) -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("LVX_BIN_DIR") {
        return Ok(Path::new(&dir).join(name));
    }
    let test = std::env::current_exe()?;
    for dir in test.ancestors().skip(1).take(3) {
        let path = dir.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!("{name} is not built: run `cargo xtask build`, or set LVX_BIN_DIR")
}

/// A copy of a program where anybody may run it; where it was built need not be open to others.
///
/// Another process writes it: a program that is open for writing cannot be started, and whatever another test starts at the moment has
/// the files of this process open until it is another program itself.
///
/// # Errors
/// It was not built, or cannot be copied.
pub fn public_copy(name: &str, dir: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))?;
    let copy = dir.join(name);
    let mut c = std::process::Command::new("install");
    finished("install", &c.args(["-m", "755"]).arg(binary(name)?).arg(&copy).output()?)?;
    Ok(copy)
}

/// Starts lvxd; what it logs goes to `log`, and a message comes when it is ready.
fn run(ns: &Ns, arguments: &[OsString], log: &Arc<Mutex<String>>) -> Result<(Running, Receiver<()>)> {
    let mut c = ns.command(binary("lvxd")?);
    c.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = ns.start(&mut c)?;
    let stderr = process.child.stderr.take().context("no stderr")?;
    let (ready, became_ready) = channel();
    let log = log.clone();
    // Ends with the process.
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if let Ok(mut log) = log.lock() {
                log.push_str(&line);
                log.push('\n');
            }
            if line.ends_with("ready") {
                let _ = ready.send(());
            }
        }
    });
    Ok((process, became_ready))
}

impl Lvxd {
    /// Starts it on these interfaces and waits until it is ready.
    ///
    /// # Errors
    /// It does not become ready; with its log.
    pub fn start(ns: &Ns, interfaces: &[&str], more: &[&str]) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let pins = bpffs()?.join(format!("lvx-lab-{}-{n}", std::process::id()));
        Self::start_at(ns, interfaces, more, &pins)
    }

    /// The same, with pins in a directory of the caller's choice.
    ///
    /// # Errors
    /// As [`Lvxd::start`].
    pub fn start_at(ns: &Ns, interfaces: &[&str], more: &[&str], pins: &Path) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let socket = files.path().join("lvxd.sock");
        let mut arguments: Vec<OsString> = vec!["--socket".into(), (&socket).into(), "--pin-dir".into(), pins.into()];
        // A file that the machine may have is not this test's.
        let config = files.path().join("lvx.toml");
        if !more.contains(&"--config") {
            std::fs::write(&config, "")?;
            arguments.extend(["--config".into(), config.into()]);
        }
        for i in interfaces {
            arguments.extend(["--interface".into(), i.into()]);
        }
        arguments.extend(more.iter().map(OsString::from));
        let log = Arc::new(Mutex::new(String::new()));
        let (process, became_ready) = run(ns, &arguments, &log)?;
        let mut lvxd = Self {
            process,
            socket,
            pins: pins.to_owned(),
            ready_after: Duration::ZERO,
            log,
            decap: Mutex::new(Vec::new()),
            ns: ns.clone(),
            arguments,
            files,
        };
        lvxd.wait_ready(&became_ready)?;
        Ok(lvxd)
    }

    fn wait_ready(&mut self, became_ready: &Receiver<()>) -> Result<()> {
        let began = Instant::now();
        // Large tables take the kernel a while.
        if became_ready.recv_timeout(Duration::from_secs(60)).is_err() {
            bail!("lvxd is not ready: {}", self.log());
        }
        self.ready_after = began.elapsed();
        Ok(())
    }

    /// Kills it as nothing else could, in the middle of whatever it does, and starts it again as before.
    ///
    /// # Errors
    /// It does not become ready again.
    pub fn kill_and_start_again(&mut self) -> Result<()> {
        self.process.signal(Signal::KILL)?;
        self.process.wait(Duration::from_secs(10))?;
        let (process, became_ready) = run(&self.ns, &self.arguments, &self.log)?;
        self.process = process;
        self.wait_ready(&became_ready)
    }

    /// Ends it by this signal and starts it again, with more words on its command line.
    ///
    /// # Errors
    /// It does not end, or does not become ready again.
    pub fn restart(&mut self, signal: Signal, more: &[&str]) -> Result<()> {
        self.end(signal)?;
        self.start_again(more)
    }

    /// Ends it by this signal; what it leaves behind stays.
    ///
    /// # Errors
    /// It does not end.
    pub fn end(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)?;
        self.process.wait(Duration::from_secs(10)).map(drop)
    }

    /// Starts it again after [`Lvxd::end`], with more words on its command line.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_again(&mut self, more: &[&str]) -> Result<()> {
        let words: Vec<OsString> = self.arguments.iter().cloned().chain(more.iter().map(OsString::from)).collect();
        let (process, ready) = run(&self.ns, &words, &self.log)?;
        self.process = process;
        self.wait_ready(&ready)
    }

    /// What another lvxd with the same command line and more words comes to; it must end by itself.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn another(&self, more: &[&str]) -> Result<Output> {
        let mut c = self.ns.command(binary("lvxd")?);
        Ok(c.args(&self.arguments).args(more).output()?)
    }

    /// A directory that is removed with it.
    #[must_use]
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// What it logged until now.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().map(|l| l.clone()).unwrap_or_default()
    }

    /// lvxadm with these words; whatever comes of it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn try_adm(&self, words: &str) -> Result<Output> {
        let mut c = std::process::Command::new(binary("lvxadm")?);
        c.env("LVX_SOCKET", &self.socket).args(words.split_whitespace());
        Ok(c.output()?)
    }

    /// lvxadm with these words, which must succeed; what it printed.
    ///
    /// # Errors
    /// It fails; with what it said.
    pub fn adm(&self, words: &str) -> Result<String> {
        finished(&format!("lvxadm {words}"), &self.try_adm(words)?)
    }

    /// Packets that had a verdict.
    ///
    /// # Errors
    /// As [`Lvxd::adm`].
    pub fn verdict(&self, name: &str) -> Result<u64> {
        let status: serde_json::Value = serde_json::from_str(&self.adm("status --json")?)?;
        let all = status["verdicts"].as_array().context("no verdicts")?;
        let one = all.iter().find(|v| v["name"] == name).with_context(|| format!("no verdict {name}"))?;
        one["packets"].as_u64().context("no number")
    }

    /// Its connection tables, from outside.
    ///
    /// # Errors
    /// The pins cannot be opened.
    pub fn tables(&self) -> Result<Tables> {
        Tables::open(&self.pins)
    }

    /// Waits until nothing moves any more, and compares real servers' counts with a full scan of the tables. The end of every test does so,
    /// when this is stopped or dropped.
    ///
    /// # Errors
    /// They differ.
    pub fn assert_counts_exact(&self) -> Result<()> {
        let tables = self.tables()?;
        // What the sweeper or a late packet is at work on is not at rest yet. The daemon's own audit would take longer than this.
        until(Duration::from_secs(4), || tables.check())?;
        let healed = self.status()?.sweeper.healed;
        ensure!(healed == 0, "the audit had to put {healed} counts right: {}", self.log());
        Ok(())
    }

    /// `GET /v1/status`.
    ///
    /// # Errors
    /// As [`Lvxd::adm`].
    pub fn status(&self) -> Result<lb_userspace::api::Status> {
        Ok(serde_json::from_str(&self.adm("status --json")?)?)
    }

    /// Puts the decapsulating program on a server's interface.
    ///
    /// # Errors
    /// As [`Lvxd::adm`].
    pub fn decap(&self, server: &Ns, interface: &str, number: usize) -> Result<()> {
        let dir = PathBuf::from(format!("{}-decap-{number}", self.pins.display()));
        let mut c = server.command(binary("lvxadm")?);
        c.args(["decap", interface, "--mode", "native", "--pin-dir"]).arg(&dir);
        finished("lvxadm decap", &c.output()?)?;
        if let Ok(mut list) = self.decap.lock() {
            list.push(dir);
        }
        Ok(())
    }

    /// Ends it by SIGTERM.
    ///
    /// # Errors
    /// It does not end, or not well.
    pub fn stop(mut self) -> Result<String> {
        self.assert_counts_exact()?;
        self.process.signal(Signal::TERM)?;
        let status = self.process.wait(Duration::from_secs(10))?;
        let log = self.log();
        if !status.success() {
            bail!("lvxd ended with {status}: {log}");
        }
        Ok(log)
    }
}

fn remove_pins(dir: &Path) {
    for e in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let _ = std::fs::remove_file(e.path());
    }
    let _ = std::fs::remove_dir(dir);
}

impl Drop for Lvxd {
    fn drop(&mut self) {
        // A test that failed while it had this stopped must not wait for it for ever.
        let _ = self.process.signal(Signal::CONT);
        // One that never became ready is on its way out: its maps may be gone before it is.
        let runs = !self.ready_after.is_zero() && matches!(self.process.child.try_wait(), Ok(None));
        let counts = if runs && !std::thread::panicking() { self.assert_counts_exact() } else { Ok(()) };
        if self.process.signal(Signal::TERM).is_ok() {
            let _ = self.process.wait(Duration::from_secs(10));
        }
        remove_pins(&self.pins);
        let lock = PathBuf::from(format!("{}.lock", self.pins.display()));
        let _ = std::fs::remove_file(lock);
        if let Ok(list) = self.decap.lock() {
            for dir in list.iter() {
                remove_pins(dir);
            }
        }
        if let Err(e) = counts {
            panic!("at the end of the test: {e:#}");
        }
    }
}
