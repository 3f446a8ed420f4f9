//! Debian's kernels: downloaded with apt-get, unpacked (not installed) and kept in the target directory.
//!
//! The trap: tests run in parallel processes. A file lock makes one of them download; a directory appears under its name only
//! when it is complete.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A kernel of Debian 12.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// The release's own
    V6_1,
    /// From backports
    V6_12,
}

/// An unpacked kernel.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// The bootable file.
    pub(super) image: PathBuf,
    root: PathBuf,
    release: String,
}

/// Where kernels are kept: `qemu/` in cargo's target directory, which is the one that has this program.
pub(super) fn cache() -> Result<PathBuf> {
    let program = std::env::current_exe().context("find the path of this program")?;
    let target = program.ancestors().find(|directory| directory.join("CACHEDIR.TAG").exists());
    let cache = target.map_or_else(|| std::env::temp_dir().join("lvx-qemu"), |target| target.join("qemu"));
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    Ok(cache)
}

/// The right to run a guest: one has all the machine. Tests run in parallel, within a process and beside others.
pub(super) fn turn() -> Result<fs::File> {
    let path = cache()?.join("turn");
    let turn = fs::File::create(&path).with_context(|| format!("create {}", path.display()))?;
    turn.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(turn)
}

impl Kernel {
    /// Its meta package, and the directory it is kept in.
    fn package(self) -> &'static str {
        match self {
            Kernel::V6_1 => "linux-image-amd64",
            Kernel::V6_12 => "linux-image-6.12-amd64",
        }
    }

    /// The kernel, downloaded unless it is there.
    pub(super) fn fetch(self) -> Result<Unpacked> {
        let cache = cache()?;
        let path = cache.join("lock");
        let lock = fs::File::create(&path).with_context(|| format!("create {}", path.display()))?;
        lock.lock().with_context(|| format!("lock {}", path.display()))?;
        let root = cache.join(self.package());
        if !root.exists() {
            let part = cache.join(format!("{}.part", self.package()));
            // Of a run that was ended in the middle.
            let _ = fs::remove_dir_all(&part);
            fs::create_dir_all(&part).with_context(|| format!("create {}", part.display()))?;
            download(self.package(), &cache, &part)?;
            fs::rename(&part, &root).with_context(|| format!("rename {}", part.display()))?;
        }
        Unpacked::open(&root)
    }
}

/// Downloads what the meta package depends on, and unpacks it into `part`.
fn download(meta: &str, cache: &Path, part: &Path) -> Result<()> {
    let apt = Apt::new(cache)?;
    let depends = apt.run("apt-cache", &["depends", meta], cache)?;
    let Some(package) = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image").map(str::to_owned))
    else {
        bail!("{meta} depends on no kernel: {depends}");
    };
    apt.run("apt-get", &["download", &format!("linux-image{package}")], part)?;
    let deb = fs::read_dir(part)
        .context("list the downloads")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get downloaded no package for {meta}"))?;
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(part))?;
    fs::remove_file(&deb).with_context(|| format!("remove {}", deb.display()))?;
    let release = only(&part.join("lib/modules"))?;
    run(Command::new("depmod").env("PATH", path()).arg("-b").arg(part).arg(release.file_name().unwrap_or_default()))?;
    Ok(())
}

/// apt with its own list of sources: kernels of Debian 12 and its backports, whatever this machine has.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(cache: &Path) -> Result<Apt> {
        let directory = cache.join("apt");
        let parts = directory.join("parts");
        let lists = directory.join("lists");
        for path in [&parts, &lists] {
            fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
        }
        let sources: String = ["debian bookworm", "debian bookworm-backports", "debian-security bookworm-security"]
            .map(|suite| format!("deb http://deb.debian.org/{suite} main\n"))
            .concat();
        fs::write(parts.join("kernels.list"), sources).context("write the list of sources")?;
        let mut options = Vec::new();
        for option in [
            "Dir::Etc::sourcelist=/dev/null".to_owned(),
            format!("Dir::Etc::sourceparts={}", parts.display()),
            format!("Dir::State::lists={}", lists.display()),
            format!("Dir::Cache={}", directory.display()),
            "APT::Sandbox::User=root".to_owned(),
        ] {
            options.extend(["-o".to_owned(), option]);
        }
        let apt = Apt { options };
        apt.run("apt-get", &["-qq", "update"], cache)?;
        Ok(apt)
    }

    fn run(&self, program: &str, args: &[&str], directory: &Path) -> Result<String> {
        run(Command::new(program).args(&self.options).args(args).current_dir(directory))
    }
}

impl Unpacked {
    fn open(root: &Path) -> Result<Unpacked> {
        let modules = only(&root.join("lib/modules"))?;
        let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let image = root.join("boot").join(format!("vmlinuz-{release}"));
        Ok(Unpacked { image, root: root.to_owned(), release })
    }

    /// The files of these modules and of what they depend on, in the order to load them.
    pub(super) fn modules(&self, names: &[String]) -> Result<Vec<PathBuf>> {
        let mut files: Vec<PathBuf> = Vec::new();
        for name in names {
            let mut modprobe = Command::new("modprobe");
            modprobe.env("PATH", path()).arg("-d").arg(&self.root).args(["-S", &self.release, "--show-depends", name]);
            for line in run(&mut modprobe)?.lines() {
                // The other kind of line is "builtin NAME".
                let Some(file) = line.strip_prefix("insmod ").and_then(|rest| rest.split_whitespace().next()) else { continue };
                let file = PathBuf::from(file);
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        Ok(files)
    }
}

/// The one entry of a directory.
fn only(directory: &Path) -> Result<PathBuf> {
    let entry = fs::read_dir(directory).with_context(|| format!("read directory {}", directory.display()))?.next();
    Ok(entry.with_context(|| format!("{} is empty", directory.display()))??.path())
}

/// PATH with the administrator's programs.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// Its output; an error with its messages unless it succeeds.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output =
        command.output().with_context(|| format!("start {program}: `cargo xtask setup --qemu` installs what is missing"))?;
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
