//! One run of QEMU: two serial lines into files, an end by power off or by time-out.
//!
//! Always software emulation: a `/dev/kvm` that opens need not work (nested virtual machines), and is found out by a guest that hangs.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Output;
use super::initramfs::STATUS;

/// What to boot, and where its output goes.
pub(super) struct Config<'a> {
    pub(super) kernel: &'a Path,
    pub(super) initramfs: &'a Path,
    /// What is written to it is forgotten.
    pub(super) disk: Option<&'a Path>,
    pub(super) directory: &'a Path,
    pub(super) memory_mb: u32,
    pub(super) timeout: Duration,
}

/// Ends the process if it still runs, whichever way its owner is left.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots, waits for the end, and reads what came out.
pub(super) fn run(config: &Config<'_>) -> Result<Output> {
    let console = config.directory.join("console");
    let script = config.directory.join("script");
    let messages = config.directory.join("messages");
    let errors = fs::File::create(&messages).with_context(|| format!("create {}", messages.display()))?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none"])
        .args(["-machine", "q35,usb=off,smbus=off,vmport=off", "-accel", "tcg,thread=multi"])
        .args(["-cpu", "Nehalem", "-smp", "2", "-m"])
        .arg(format!("{}M", config.memory_mb))
        .arg("-kernel")
        .arg(config.kernel)
        .arg("-initrd")
        .arg(config.initramfs)
        .args([
            "-append",
            "console=ttyS0 loglevel=4 panic=-1 mitigations=off tsc=unstable nmi_watchdog=0 nowatchdog audit=0 apparmor=0 net.ifnames=0 systemd.getty_auto=0",
        ])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-serial")
        .arg(format!("file:{}", script.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors);
    if let Some(disk) = config.disk {
        qemu.arg("-drive").arg(format!("file={},format=raw,if=virtio,snapshot=on", disk.display()));
    }
    let child = qemu.spawn().context("start qemu-system-x86_64: `cargo xtask setup --qemu` installs it")?;
    let mut running = Running(child);
    let started = Instant::now();
    let ended = loop {
        if let Some(status) = running.0.try_wait().context("wait for QEMU")? {
            break Some(status);
        }
        if started.elapsed() > config.timeout {
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    drop(running);
    let read = |path: &Path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let (console, script, messages) = (read(&console), read(&script), read(&messages));
    let status = script.rfind(STATUS).and_then(|at| {
        let digits = script[at + STATUS.len()..].split('>').next()?;
        Some((at, digits.parse().ok()?))
    });
    match (status, ended) {
        (Some((at, status)), _) => Ok(Output { status, text: script[..at].to_owned(), console }),
        (None, Some(ended)) => bail!("the guest ended without a status ({ended}): {messages}\n{script}\n{console}"),
        (None, None) => bail!("the guest was not done after {} s: {messages}\n{script}\n{console}", config.timeout.as_secs()),
    }
}
