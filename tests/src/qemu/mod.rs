//! Other kernels than this machine's: Debian's, booted in QEMU with an initramfs that holds a few of this machine's programs.
//!
//! A [`Guest`] runs one shell script as root, in a system of nothing but the files given to it: bash, busybox, the programs with their
//! libraries, the kernel's modules asked for; or, if it is to have systemd, in Debian's base system with those files. It has no network but
//! its own namespaces, and keeps no disk.
//!
//! Invariant: a guest leaves nothing behind; its process ends with [`Guest::run`], whichever way that returns. Kernels are kept in the
//! target directory.
//!
//! The trap: this is software emulation, ten times slower than the machine. Right for behaviour, not for times: give
//! the script's own time-outs room.

mod initramfs;
mod kernel;
mod machine;
mod system;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub use kernel::Kernel;

/// A virtual machine to be.
#[derive(Debug, Clone)]
pub struct Guest {
    kernel: Kernel,
    modules: Vec<String>,
    files: BTreeMap<PathBuf, File>,
    memory_mb: u32,
    timeout: Duration,
    systemd: bool,
}

/// A file of the guest.
#[derive(Debug, Clone)]
struct File {
    mode: u32,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Bytes(Vec<u8>),
    /// A file of the machine, read when the guest starts
    Copy(PathBuf),
}

/// What a guest's script did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The script's exit status.
    pub status: i32,
    /// What it printed, on stdout and stderr.
    pub text: String,
    /// The kernel's console.
    pub console: String,
}

impl Guest {
    /// A guest with bash and busybox, 1 GB of memory and two minutes for everything.
    pub fn new(kernel: Kernel) -> Result<Guest> {
        let (modules, files, timeout) = (Vec::new(), BTreeMap::new(), Duration::from_secs(120));
        let guest = Guest { kernel, modules, files, memory_mb: 1024, timeout, systemd: false };
        guest.program("/bin/busybox")?.program("/bin/bash")
    }

    /// A module that is loaded before the script runs, with what it depends on. Modules built in are fine.
    #[must_use]
    pub fn module(mut self, name: &str) -> Guest {
        self.modules.push(name.to_owned());
        self
    }

    /// A program of this machine with the libraries it needs, all under the paths they have here. `program` is a path, or a name
    /// to be found in PATH. Data that a program reads is for [`Guest::copy`].
    pub fn program(mut self, program: impl AsRef<Path>) -> Result<Guest> {
        let path = find(program.as_ref())?;
        for library in initramfs::libraries(&path)? {
            self.files.entry(library.clone()).or_insert(File { mode: 0o755, content: Content::Copy(library) });
        }
        self.files.insert(path.clone(), File { mode: 0o755, content: Content::Copy(path) });
        Ok(self)
    }

    /// A file of this machine, or all files below a directory, at `to`.
    pub fn copy(mut self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Guest> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let meta = fs::metadata(from).with_context(|| format!("look at {}", from.display()))?;
        if meta.is_dir() {
            for entry in fs::read_dir(from).with_context(|| format!("read directory {}", from.display()))? {
                let entry = entry.with_context(|| format!("read directory {}", from.display()))?;
                self = self.copy(entry.path(), to.join(entry.file_name()))?;
            }
            return Ok(self);
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777;
        self.files.insert(absolute(to)?, File { mode, content: Content::Copy(from.to_owned()) });
        Ok(self)
    }

    /// A file with this content.
    pub fn file(mut self, at: impl AsRef<Path>, content: impl Into<Vec<u8>>) -> Result<Guest> {
        self.files.insert(absolute(at.as_ref())?, File { mode: 0o755, content: Content::Bytes(content.into()) });
        Ok(self)
    }

    /// Debian's base system around the files, with systemd as its first process; the script runs once it is up.
    #[must_use]
    pub fn systemd(mut self) -> Guest {
        self.systemd = true;
        self.modules.extend(system::MODULES.map(str::to_owned));
        self
    }

    /// Memory, in megabytes. The files take their size of it.
    #[must_use]
    pub fn memory_mb(mut self, memory: u32) -> Guest {
        self.memory_mb = memory;
        self
    }

    /// Time for everything, from power on to power off.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Guest {
        self.timeout = timeout;
        self
    }

    /// Boots, runs `script` with bash as root, powers off; after other guests of this target directory. The script finds `/proc`, `/sys`, `/dev`, bpffs, writable
    /// `/tmp` and `/run`, and lo up; `set -eu` is its own business.
    ///
    /// # Errors
    /// The kernel cannot be had, QEMU is absent, the guest died or its time is over. A script that fails is no error: see
    /// [`Output::status`].
    pub fn run(&self, script: &str) -> Result<Output> {
        let kernel = self.kernel.fetch()?;
        let scratch = Scratch::new(&kernel::cache()?)?;
        let mut guest = self.clone().file("/script", script)?;
        let mut disk = None;
        if self.systemd {
            disk = Some(system::disk(&scratch.0, &guest.files)?);
            guest.files.clear();
            guest = guest.program("/bin/busybox")?;
        }
        let mut order = String::new();
        for module in kernel.modules(&self.modules)? {
            let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
            order.push_str(&name);
            order.push('\n');
            guest = guest.copy(&module, Path::new("/modules").join(&name))?;
        }
        let init = if self.systemd { system::INIT } else { initramfs::INIT };
        let guest = guest.file("/modules/order", order)?.file("/init", init)?;
        let image = scratch.0.join("initramfs");
        initramfs::write(&image, &guest.files)?;
        // Until the guest is done.
        let _turn = kernel::turn()?;
        machine::run(&machine::Config {
            kernel: &kernel.image,
            initramfs: &image,
            disk: disk.as_deref(),
            directory: &scratch.0,
            memory_mb: self.memory_mb,
            timeout: self.timeout,
        })
    }
}

/// A directory of one guest's run, removed on drop.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> Result<Scratch> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = parent.join(format!("run-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing is left to be done about a directory that stays.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    if !path.is_absolute() {
        bail!("{}: the path of a file in the guest must be absolute", path.display());
    }
    Ok(path.to_owned())
}

fn find(program: &Path) -> Result<PathBuf> {
    if program.is_absolute() {
        return Ok(program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("no program {} in PATH", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "slow: QEMU"]
    fn debians_kernel_boots_with_tunnels_and_programs() -> Result<()> {
        for (kernel, release) in [(Kernel::V6_1, "6.1."), (Kernel::V6_12, "6.12")] {
            let guest = Guest::new(kernel)?.program("ip")?.module("ipip").module("ip6_tunnel").module("veth");
            let output = guest.run("uname -r\nip link add v0 type veth peer name v1\nip -br link\nls /sys/fs/bpf\nexit 3\n")?;
            assert_eq!(output.status, 3, "{output:?}");
            assert!(output.text.starts_with(release), "{output:?}");
            for device in ["tunl0", "ip6tnl0", "v1@v0"] {
                assert!(output.text.contains(device), "{device}: {output:?}");
            }
        }
        Ok(())
    }

    #[test]
    #[ignore = "slow: QEMU"]
    fn a_guest_that_hangs_is_ended() -> Result<()> {
        let guest = Guest::new(Kernel::V6_1)?.timeout(Duration::from_secs(15));
        let error = guest.run("echo before\nsleep 1000\n").expect_err("ends by time-out");
        assert!(format!("{error:#}").contains("before"), "{error:#}");
        Ok(())
    }

    /// The verifier of the kernel that this runs on accepts the programs; also what the guests of the next test run.
    #[test]
    fn the_programs_load_here() -> Result<()> {
        use crate::director::{Director, small};
        use lb_userspace::object::{DECAP, DECAP_PROGRAM, LVX, PROGRAM};
        Director::load(LVX, &small()?, &[PROGRAM], &[]).context("the balancer")?;
        let mut decap = aya::EbpfLoader::new().load(DECAP).context("the decapsulator's object")?;
        let program: &mut aya::programs::Xdp =
            decap.program_mut(DECAP_PROGRAM).context("no such program")?.try_into().context("not an XDP program")?;
        program.load().context("the decapsulator")
    }

    #[test]
    #[ignore = "slow: QEMU"]
    fn the_programs_load_on_debians_kernels() -> Result<()> {
        let this = std::env::current_exe()?;
        for kernel in [Kernel::V6_1, Kernel::V6_12] {
            let guest = Guest::new(kernel)?.program(&this)?;
            let output = guest.run(&format!("{} --exact qemu::tests::the_programs_load_here\n", this.display()))?;
            assert!(output.status == 0 && output.text.contains("1 passed"), "{kernel:?}: {}", output.text);
        }
        Ok(())
    }
}
