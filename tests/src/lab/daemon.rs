//! lvxd and lvxadm as an operator runs them.

use super::ns::finished;
use super::{Ns, Running};
use crate::director::bpffs;
use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
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
    _files: tempfile::TempDir,
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
        let mut c = ns.command(binary("lvxd")?);
        c.arg("--socket").arg(&socket).arg("--pin-dir").arg(pins);
        // A file that the machine may have is not this test's.
        let config = files.path().join("lvx.toml");
        if !more.contains(&"--config") {
            std::fs::write(&config, "")?;
            c.arg("--config").arg(&config);
        }
        for i in interfaces {
            c.args(["--interface", i]);
        }
        c.args(more).stdout(Stdio::null()).stderr(Stdio::piped());
        let began = Instant::now();
        let mut process = ns.start(&mut c)?;
        let stderr = process.child.stderr.take().context("no stderr")?;
        let log = Arc::new(Mutex::new(String::new()));
        let (ready, became_ready) = std::sync::mpsc::channel();
        let kept = log.clone();
        // Ends with the process.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.ends_with("ready") {
                    let _ = ready.send(());
                }
                if let Ok(mut log) = kept.lock() {
                    log.push_str(&line);
                    log.push('\n');
                }
            }
        });
        let lvxd = |process, ready_after| Self {
            process,
            socket,
            pins: pins.to_owned(),
            ready_after,
            log,
            decap: Mutex::new(Vec::new()),
            _files: files,
        };
        match became_ready.recv_timeout(Duration::from_secs(20)) {
            Ok(()) => Ok(lvxd(process, began.elapsed())),
            Err(_) => {
                let failed = lvxd(process, began.elapsed());
                bail!("lvxd is not ready: {}", failed.log());
            }
        }
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
    }
}
