//! The running configuration, kept beside the socket so that a new daemon that takes over the maps has it too.
//!
//! The file's first line is a snapshot, every line after it the edits of one request. A line is written before its request is answered, so
//! that a change that somebody was told of is known to the next daemon however this one ends; it costs one small write. The file is
//! written anew, in one step, when the edits outgrow the snapshot. It is not flushed to a disk: maps do not outlive the machine
//! either.
//!
//! Invariant: what is kept belongs to one set of maps, named by the seeds of their hash. With other maps it counts for nothing.

use crate::model::{Desired, Edit};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Edits of fewer bytes are never worth a new snapshot.
const SMALL: usize = 1 << 20;

/// The first line.
#[derive(Serialize, Deserialize)]
struct Kept<D> {
    maps: [u64; 2],
    desired: D,
}

/// Where it is kept, and for which maps.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    maps: [u64; 2],
    /// The file, for more edits; `None` until a snapshot was written, or after a write that failed.
    file: Option<File>,
    /// Bytes of the snapshot, and of the edits after it.
    sizes: (usize, usize),
}

impl Store {
    /// For maps of this identity, beside this socket.
    #[must_use]
    pub fn new(socket: &Path, maps: [u64; 2]) -> Self {
        Self { path: path(socket), maps, file: None, sizes: (0, 0) }
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
        // What follows the last end of a line was cut off while it was written: nobody was told of it.
        let whole = text.iter().rposition(|b| *b == b'\n').map_or(&text[..], |end| &text[..end]);
        let mut lines = whole.split(|b| *b == b'\n');
        let Kept::<Desired> { maps, mut desired } = serde_json::from_slice(lines.next().unwrap_or_default())?;
        if maps != self.maps {
            return Ok(None);
        }
        for line in lines {
            let edits: Vec<Edit> = serde_json::from_slice(line)?;
            desired.apply(&edits).map_err(io::Error::other)?;
        }
        Ok(Some(desired))
    }

    /// Keeps this, in place of what was kept, in one step.
    ///
    /// # Errors
    /// If it cannot be written; what was kept is then unchanged.
    pub fn save(&mut self, desired: &Desired) -> io::Result<()> {
        self.file = None;
        let mut text = serde_json::to_vec(&Kept { maps: self.maps, desired })?;
        text.push(b'\n');
        let next = self.path.with_extension("state.new");
        let mut file = File::create(&next)?;
        file.write_all(&text)?;
        std::fs::rename(&next, &self.path)?;
        (self.file, self.sizes) = (Some(file), (text.len(), 0));
        Ok(())
    }

    /// Keeps edits that made `desired` of what was kept.
    ///
    /// # Errors
    /// If they cannot be written; then the next call keeps everything.
    pub fn append(&mut self, edits: &[Edit], desired: &Desired) -> io::Result<()> {
        let (snapshot, added) = self.sizes;
        let Some(file) = self.file.as_mut().filter(|_| added < snapshot.max(SMALL)) else { return self.save(desired) };
        let mut line = serde_json::to_vec(edits)?;
        line.push(b'\n');
        if let Err(e) = file.write_all(&line) {
            self.file = None;
            return Err(e);
        }
        self.sizes.1 += line.len();
        Ok(())
    }

    /// Where it is kept.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Where the state of a daemon with this socket is kept.
#[must_use]
pub fn path(socket: &Path) -> PathBuf {
    let mut name = socket.file_name().unwrap_or_default().to_os_string();
    name.push(".state");
    socket.with_file_name(name)
}

/// Keeps nothing any more.
pub fn remove(path: &Path) {
    if let Err(e) = std::fs::remove_file(path)
        && e.kind() != ErrorKind::NotFound
    {
        tracing::warn!("{}: {e}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timeouts;

    fn udp(udp: u32) -> Edit {
        Edit::SetTimeouts { timeouts: Timeouts { tcp: 0, tcpfin: 0, udp } }
    }

    #[test]
    fn it_comes_back_for_the_same_maps_alone() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("lvxd.sock");
        let mut store = Store::new(&socket, [1, u64::MAX]);
        assert_eq!(store.load().unwrap(), None);
        let desired = Desired { timeouts: Timeouts { tcp: 1, tcpfin: 2, udp: 3 }, ..Desired::default() };
        store.save(&desired).unwrap();
        assert_eq!(store.load().unwrap(), Some(desired));
        assert_eq!(Store::new(&socket, [1, 5]).load().unwrap(), None);
        std::fs::write(store.path(), "{").unwrap();
        assert!(store.load().is_err());
        remove(store.path());
        remove(store.path());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn edits_follow_and_one_that_was_cut_off_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::new(&dir.path().join("s"), [1, 1]);
        let mut desired = Desired::default();
        for n in 1..20_000 {
            desired.apply(&[udp(n)]).unwrap();
            store.append(&[udp(n)], &desired).unwrap();
        }
        assert_eq!(store.load().unwrap(), Some(desired.clone()));
        assert!(std::fs::metadata(store.path()).unwrap().len() < 2 * SMALL as u64, "it is written anew now and then");
        let mut text = std::fs::read(store.path()).unwrap();
        text.extend_from_slice(b"[{\"op\":\"cle");
        std::fs::write(store.path(), &text).unwrap();
        assert_eq!(store.load().unwrap(), Some(desired));
    }
}
