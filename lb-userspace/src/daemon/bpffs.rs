//! The BPF file system that maps and links are pinned in.

use rustix::fs::statfs;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use std::io;
use std::path::{Path, PathBuf};

/// Where a BPF file system is mounted by custom.
const CUSTOMARY: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of `linux/magic.h`.
const MAGIC: u64 = 0xcafe_4a11;

/// Why there is no pin directory.
#[derive(Debug, thiserror::Error)]
pub enum BpffsError {
    /// The place is on another file system.
    #[error("{0} is not on a BPF file system: mount one there (mount -t bpf bpf {0})")]
    Other(PathBufShown),
    /// None at the customary place, and none could be mounted.
    #[error("no BPF file system at {CUSTOMARY}, and it cannot be mounted: {0} (mount -t bpf bpf {CUSTOMARY})")]
    Mount(io::Error),
    /// The kernel has no `/sys/fs/bpf`.
    #[error("there is no {CUSTOMARY}: either /sys is not mounted, or this kernel has no BPF")]
    NoBpf,
    /// The directory cannot be made.
    #[error("pin directory {0}: {1}")]
    Directory(PathBufShown, io::Error),
    /// A name that a BPF file system refuses.
    #[error("pin directory {0}: a BPF file system takes no names with dots")]
    Dots(PathBufShown),
}

/// A path in an error.
#[derive(Debug)]
pub struct PathBufShown(PathBuf);

impl std::fmt::Display for PathBufShown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.display().fmt(f)
    }
}

fn shown(path: &Path) -> PathBufShown {
    PathBufShown(path.into())
}

fn is_bpffs(path: &Path) -> io::Result<bool> {
    Ok(statfs(path)?.f_type as u64 == MAGIC)
}

/// The longest part of a path that exists.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"))
}

/// Makes the pin directory, and mounts a BPF file system at the customary place if that is where it shall be and none is there.
///
/// # Errors
/// If there is none and none can be had.
pub fn prepare(dir: &Path) -> Result<(), BpffsError> {
    let failed = |e| BpffsError::Directory(shown(dir), e);
    let dir = std::path::absolute(dir).map_err(failed)?;
    let failed = |e| BpffsError::Directory(shown(&dir), e);
    if !is_bpffs(existing(&dir)).map_err(failed)? {
        if !dir.starts_with(CUSTOMARY) {
            return Err(BpffsError::Other(shown(&dir)));
        }
        if !Path::new(CUSTOMARY).exists() {
            return Err(BpffsError::NoBpf);
        }
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("bpf", CUSTOMARY, "bpf", flags, c"mode=0700").map_err(|e| match e {
            Errno::NODEV => BpffsError::NoBpf,
            e => BpffsError::Mount(e.into()),
        })?;
        tracing::info!("mounted a BPF file system at {CUSTOMARY}");
    }
    std::fs::create_dir_all(&dir).map_err(|e| match e.raw_os_error() {
        Some(code) if Errno::from_raw_os_error(code) == Errno::PERM && dir.to_string_lossy().contains('.') => {
            BpffsError::Dots(shown(&dir))
        }
        _ => failed(e),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_elsewhere_is_refused_and_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let pins = dir.path().join("lvx/pins");
        let error = prepare(&pins).unwrap_err().to_string();
        assert!(error.contains("not on a BPF file system"), "{error}");
        assert!(error.contains(&pins.display().to_string()), "{error}");
        assert!(!dir.path().join("lvx").exists());
    }
}
