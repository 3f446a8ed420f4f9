//! A director without a daemon: the XDP object and the engine in this process, packets by BPF_PROG_TEST_RUN.
//!
//! The trap: aya pins the maps by name, so each director has a directory of its own in a BPF file system, from which the pins are
//! removed as soon as the maps are open.

use anyhow::{Context, Result, bail};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use lb_userspace::engine::{Engine, Maps, Sizes};
use lb_userspace::model::Desired;
use lb_userspace::net::{LinkInfo, NextHop, Reach};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Interface that test runs come in by: the loopback's index.
pub const INGRESS: u32 = 1;
/// MAC of the director's interface.
pub const DIRECTOR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// XDP's actions.
pub mod action {
    /// The packet is dropped.
    pub const DROP: u32 = 1;
    /// The packet goes to the kernel.
    pub const PASS: u32 = 2;
    /// The packet leaves by the interface that it came by.
    pub const TX: u32 = 3;
    /// The packet leaves by another interface.
    pub const REDIRECT: u32 = 4;
}

/// Number of possible CPUs, which arrays by CPU are sized for.
///
/// # Errors
/// The kernel's list cannot be read.
pub fn possible_cpus() -> Result<u32> {
    Ok(aya::util::nr_cpus().map_err(|(file, e)| anyhow::anyhow!("{file}: {e}"))? as u32)
}

/// Sizes for tests.
///
/// # Errors
/// As [`possible_cpus`].
pub fn small() -> Result<Sizes> {
    Ok(Sizes { connections: 1024, services: 64, servers: 256, picks: 4096, cpus: possible_cpus()? })
}

/// Mounts the BPF file system where it is missing.
///
/// # Errors
/// It cannot be mounted: no privilege, or no /sys/fs/bpf.
pub fn bpffs() -> Result<PathBuf> {
    let dir = Path::new("/sys/fs/bpf");
    let mounted =
        std::fs::read_to_string("/proc/self/mountinfo")?.lines().any(|l| l.contains(" /sys/fs/bpf ") && l.contains(" - bpf "));
    if !mounted {
        rustix::mount::mount("bpf", dir, "bpf", rustix::mount::MountFlags::empty(), None).context("mounting bpffs")?;
    }
    Ok(dir.to_owned())
}

/// A directory for pins, removed with what is in it.
pub(crate) struct Pins(pub(crate) PathBuf);

impl Pins {
    pub(crate) fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = bpffs()?.join(format!("lvx-test-{}-{n}", std::process::id()));
        std::fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if let Ok(entries) = std::fs::read_dir(&self.0) {
            for e in entries.flatten() {
                let _ = std::fs::remove_file(e.path());
            }
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// What a program made of a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// See [`action`].
    pub action: u32,
    /// The frame after it.
    pub frame: Vec<u8>,
}

/// A director without a daemon.
pub struct Director {
    /// The loaded object; its maps are the engine's.
    pub ebpf: Ebpf,
    /// The engine.
    pub engine: Engine,
}

impl Director {
    /// Loads `object` with maps of these sizes, and each of `programs`.
    ///
    /// # Errors
    /// Anything that the kernel or the engine refuses.
    pub fn load(object: &[u8], sizes: &Sizes, programs: &[&str], more: &[(&str, u32)]) -> Result<Self> {
        let pins = Pins::new()?;
        let mut loader = EbpfLoader::new();
        loader.default_map_pin_directory(&pins.0);
        for (name, n) in sizes.max_entries() {
            loader.map_max_entries(name, n);
        }
        for (name, n) in more {
            loader.map_max_entries(name, *n);
        }
        let mut ebpf = loader.load(object).context("loading the object")?;
        drop(pins);
        for name in programs {
            let program: &mut Xdp = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
            program.load().with_context(|| format!("loading {name}"))?;
        }
        let engine = Engine::new(Maps::take(&mut ebpf)?)?;
        Ok(Self { ebpf, engine })
    }

    /// The balancer with small tables, on one interface.
    ///
    /// # Errors
    /// As [`Director::load`].
    pub fn new() -> Result<Self> {
        let mut d = Self::load(lb_userspace::object::LVX, &small()?, &[lb_userspace::object::PROGRAM], &[])?;
        d.link(INGRESS, DIRECTOR_MAC, 1500);
        Ok(d)
    }

    /// An interface is there.
    pub fn link(&mut self, index: u32, mac: [u8; 6], mtu: u32) {
        let link = LinkInfo { index, name: format!("eth{index}"), mac, mtu, up: true, present: true };
        self.engine.set_link(&link);
    }

    /// Makes the configuration `desired`.
    ///
    /// # Errors
    /// The engine's.
    pub fn configure(&mut self, desired: &Desired) -> Result<()> {
        self.engine.reconcile(desired).map_err(|e| anyhow::anyhow!("{e}"))
    }

    /// A server is reached by `mac` on the ingress interface.
    pub fn reach(&mut self, server: IpAddr, mac: [u8; 6], source: IpAddr) {
        self.engine.set_reach(server, Reach::Resolved(NextHop { mac, ifindex: INGRESS, source, mtu: 1500 }));
    }

    /// Passes a frame through a program once.
    ///
    /// # Errors
    /// The kernel's.
    pub fn run(&mut self, program: &str, frame: &[u8]) -> Result<Answer> {
        let mut out = vec![0; frame.len().max(64) + 256 + 1500];
        let p: &Xdp = self.ebpf.program(program).with_context(|| format!("no program {program}"))?.try_into()?;
        let r = p.test_run(TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), repeat: 1, ..Default::default() })?;
        let len = r.data_size_out as usize;
        if len > out.len() {
            bail!("the frame grew to {len} bytes");
        }
        out.truncate(len);
        Ok(Answer { action: r.return_value, frame: out })
    }

    /// Passes a frame through a program `repeat` times; the mean duration of one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn time(&mut self, program: &str, frame: &[u8], repeat: u32) -> Result<(Duration, u32)> {
        let p: &Xdp = self.ebpf.program(program).with_context(|| format!("no program {program}"))?.try_into()?;
        let r = p.test_run(TestRunOptions { data_in: Some(frame), repeat, ..Default::default() })?;
        Ok((r.duration, r.return_value))
    }
}
