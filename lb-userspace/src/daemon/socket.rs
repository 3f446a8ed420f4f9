//! The control sockets: who may connect is what their files' permissions say.
//!
//! One is for everything. A second one, for another group, is for reading only: the kernel decides who reaches which, and no request has to
//! be traced to the groups of its sender.

use super::serve::{Listen, Peer};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use tokio::net::{UnixListener, UnixStream};

/// Why the control socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon answers there.
    #[error("control socket {}: another daemon listens there", .0.display())]
    InUse(PathBuf),
    /// Something else is in the way.
    #[error("control socket {}: there is a file of that name, which is no socket", .0.display())]
    NotASocket(PathBuf),
    /// There is no such group.
    #[error("control socket {}: there is no group `{group}`", path.display())]
    NoGroup {
        /// The socket.
        path: PathBuf,
        /// The group.
        group: String,
    },
    /// Anything else.
    #[error("control socket {}: {what}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// The bound socket; its file is removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_file(&self.path)
            && e.kind() != ErrorKind::NotFound
        {
            tracing::warn!("{}: {e}", self.path.display());
        }
    }
}

impl Socket {
    /// Binds, with these permissions from the first moment on. A socket that nobody answers at is replaced.
    ///
    /// # Errors
    /// If another daemon answers there, something else is there, or it cannot be made.
    pub fn bind(path: &Path, mode: u32, group: Option<&str>) -> Result<Self, SocketError> {
        let failed = |what| move |source| SocketError::Io { path: path.into(), what, source };
        let group = group.map(|g| group_id(g).ok_or_else(|| SocketError::NoGroup { path: path.into(), group: g.into() }));
        let group = group.transpose()?;
        if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty() && !d.exists()) {
            std::fs::create_dir_all(dir).map_err(failed("its directory cannot be made"))?;
        }
        remove_stale(path)?;
        // Nobody may connect before owner and mode are set.
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o777));
        let listener = std::os::unix::net::UnixListener::bind(path);
        rustix::process::umask(before);
        let listener = listener.map_err(failed("cannot be bound"))?;
        let socket = Self { listener, path: path.into() };
        if let Some(group) = group {
            let group = rustix::fs::Gid::from_raw(group);
            rustix::fs::chown(path, None, Some(group)).map_err(|e| failed("its group cannot be set")(e.into()))?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed("its mode cannot be set"))?;
        socket.listener.set_nonblocking(true).map_err(failed("cannot be used"))?;
        Ok(socket)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket, to be served.
    ///
    /// # Errors
    /// If it cannot be waited on.
    pub fn listener(&self) -> io::Result<UnixListener> {
        UnixListener::from_std(self.listener.try_clone()?)
    }
}

impl Listen for UnixListener {
    type Stream = UnixStream;

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(UnixStream, Peer)>> {
        UnixListener::poll_accept(self, cx).map_ok(|(stream, _)| {
            let credentials = stream.peer_cred().ok();
            let peer = Peer::Process { uid: credentials.map(|c| c.uid()), pid: credentials.and_then(|c| c.pid()) };
            (stream, peer)
        })
    }
}

/// Removes a socket that nobody answers at.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |what| move |source| SocketError::Io { path: path.into(), what, source };
    let kind = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed("cannot be looked at"))?.file_type(),
    };
    if !kind.is_socket() {
        return Err(SocketError::NotASocket(path.into()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.into())),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed("a stale one cannot be removed"))
        }
        Err(e) => Err(failed("something is there, and cannot be asked")(e)),
    }
}

/// A group's number, by number or by its name in `/etc/group`.
fn group_id(group: &str) -> Option<u32> {
    if let Ok(id) = group.parse() {
        return Some(id);
    }
    std::fs::read_to_string("/etc/group").ok()?.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}
