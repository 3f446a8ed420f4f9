//! The running services, kept beside the socket so that a new daemon that takes over the maps has them too.
//!
//! Invariant: what is kept belongs to one set of maps, named by the seeds of their hash. With other maps it counts for nothing.

use crate::model::Desired;
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// What is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    maps: [u64; 2],
    desired: Desired,
}

/// Where it is kept, and for which maps.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
    maps: [u64; 2],
}

impl Store {
    /// For maps of this identity, beside this socket.
    #[must_use]
    pub fn new(socket: &Path, maps: [u64; 2]) -> Self {
        let mut name = socket.file_name().unwrap_or_default().to_os_string();
        name.push(".state");
        Self { path: socket.with_file_name(name), maps }
    }

    /// What an earlier daemon kept; `None` if it is not of these maps.
    ///
    /// # Errors
    /// If it cannot be read, or makes no sense.
    pub fn load(&self) -> io::Result<Option<Desired>> {
        let text = match std::fs::read(&self.path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let kept: Kept = serde_json::from_slice(&text)?;
        Ok((kept.maps == self.maps).then_some(kept.desired))
    }

    /// Keeps this, in place of what was kept, in one step.
    ///
    /// # Errors
    /// If it cannot be written; what was kept is then unchanged.
    pub fn save(&self, desired: &Desired) -> io::Result<()> {
        let text = serde_json::to_vec(&Kept { maps: self.maps, desired: desired.clone() })?;
        let next = self.path.with_extension("state.new");
        let mut file = std::fs::File::create(&next)?;
        file.write_all(&text)?;
        drop(file);
        std::fs::rename(&next, &self.path)
    }

    /// Keeps nothing.
    pub fn remove(&self) {
        if let Err(e) = std::fs::remove_file(&self.path)
            && e.kind() != ErrorKind::NotFound
        {
            tracing::warn!("{}: {e}", self.path.display());
        }
    }

    /// Where it is kept.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timeouts;

    #[test]
    fn it_comes_back_for_the_same_maps_alone() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("lvxd.sock");
        let store = Store::new(&socket, [1, u64::MAX]);
        assert_eq!(store.load().unwrap(), None);
        let desired = Desired { timeouts: Timeouts { tcp: 1, tcpfin: 2, udp: 3 }, ..Desired::default() };
        store.save(&desired).unwrap();
        assert_eq!(store.load().unwrap(), Some(desired));
        assert_eq!(Store::new(&socket, [1, 5]).load().unwrap(), None);
        std::fs::write(store.path(), "{").unwrap();
        assert!(store.load().is_err());
        store.remove();
        store.remove();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
