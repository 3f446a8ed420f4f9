//! One daemon to a pin directory: a lock on the directory itself, which no file outlives and no stale one can block.
//!
//! The trap: a daemon that ends removes the directory while another waits for its lock, which then holds that of a directory
//! that is gone. The lock therefore counts only if the path still leads to the same directory.

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error("another lvxd{} uses the pin directory {}: stop it, or give this one another --pin-dir", holder(*pid), dir.display())]
    Held {
        /// The directory.
        dir: PathBuf,
        /// Whose.
        pid: Option<u32>,
    },
    /// It cannot be locked.
    #[error("pin directory {}: {source}", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |p| format!(" (process {p})"))
}

/// The lock; given up when dropped.
#[derive(Debug)]
pub struct Lock {
    _dir: File,
}

impl Lock {
    /// Locks an existing directory.
    ///
    /// # Errors
    /// If another process has it, or it cannot be opened.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { dir: dir.into(), source };
        let file = File::open(dir).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(LockError::Held { dir: dir.into(), pid: pid_of_holder(&file) }),
            Err(e) => return Err(failed(e.into())),
        }
        let (ours, theirs) = (file.metadata().map_err(failed)?, std::fs::metadata(dir).map_err(failed)?);
        if (ours.dev(), ours.ino()) != (theirs.dev(), theirs.ino()) {
            return Err(failed(io::Error::other("it was replaced in this moment; try again")));
        }
        Ok(Self { _dir: file })
    }
}

/// Who holds the lock, by `/proc/locks`: `1: FLOCK  ADVISORY  WRITE 1234 00:20:17 0 EOF`.
fn pid_of_holder(file: &File) -> Option<u32> {
    let wanted = file.metadata().ok()?;
    std::fs::read_to_string("/proc/locks").ok()?.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().filter(|w| *w != "->");
        let (kind, pid, place) = (words.nth(1)?, words.nth(2)?, words.next()?);
        let mut place = place.split(':');
        let (major, minor) = (place.next()?, place.next()?);
        let (major, minor) = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
        let same =
            kind == "FLOCK" && rustix::fs::makedev(major, minor) == wanted.dev() && place.next()?.parse() == Ok(wanted.ino());
        same.then(|| pid.parse().ok().filter(|&p| p != 0)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_by_name_and_has_it_after_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let error = Lock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&dir.path().display().to_string()), "{error}");
        assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
        drop(first);
        Lock::take(dir.path()).unwrap();
        assert!(matches!(Lock::take(&dir.path().join("absent")), Err(LockError::Io { .. })));
    }
}
