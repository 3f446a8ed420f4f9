//! The control socket: bound, accepted from, and guarded against clients that are slow, half open or too many.
//!
//! The trap: a client that stops reading would hold its connection for ever, as HTTP has no timeout for that. Writing is therefore
//! given up when nothing moves for `WRITE_TIME`.

use axum::Router;
use axum::extract::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, Sleep};

/// Clients served at the same time; more wait in the socket's backlog.
const MAX_CLIENTS: usize = 512;
/// For a request's headers to come; an idle client is let go after that too.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// For a client to read anything of its answer.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// Largest headers.
const MAX_HEADERS: usize = 16 << 10;
/// For requests under way when the daemon ends.
const END_TIME: Duration = Duration::from_secs(2);

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

/// Who sent a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer {
    uid: Option<u32>,
    pid: Option<i32>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.uid, self.pid) {
            (Some(uid), Some(pid)) => write!(f, "uid {uid} (process {pid})"),
            (Some(uid), None) => write!(f, "uid {uid}"),
            _ => f.write_str("an unknown user"),
        }
    }
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

    /// Serves until told to end, then finishes what is under way.
    ///
    /// # Errors
    /// If the socket cannot be waited on.
    pub async fn serve(&self, router: Router, mut end: watch::Receiver<bool>) -> io::Result<()> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let place = tokio::select! {
                place = places.clone().acquire_owned() => place.map_err(io::Error::other)?,
                () = ended(&mut end) => break,
            };
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(e) => {
                        // Out of file descriptors, most likely: it passes.
                        tracing::warn!("control socket: {e}");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
                () = ended(&mut end) => break,
            };
            let (router, end) = (router.clone(), end.clone());
            tokio::spawn(async move {
                serve_client(stream, router, end).await;
                drop(place);
            });
        }
        // All places free: all are done.
        let all = u32::try_from(MAX_CLIENTS).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(END_TIME, places.acquire_many(all)).await;
        Ok(())
    }
}

/// Waits until told to end, or until whoever would tell is gone.
async fn ended(end: &mut watch::Receiver<bool>) {
    let _ = end.wait_for(|&e| e).await;
}

async fn serve_client(stream: UnixStream, router: Router, mut end: watch::Receiver<bool>) {
    let credentials = stream.peer_cred().ok();
    let peer = Peer { uid: credentials.map(|c| c.uid()), pid: credentials.and_then(|c| c.pid()) };
    let service = TowerToHyperService::new(router.layer(Extension(peer)));
    let io = TokioIo::new(Guarded::new(stream));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(MAX_HEADERS)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = ended(&mut end) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = result {
        tracing::debug!("control connection of {peer}: {}", super::load::chain(&e));
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

/// A stream whose writes fail when nothing moves for `WRITE_TIME`.
struct Guarded {
    stream: UnixStream,
    /// Since a write is waiting.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Guarded {
    fn new(stream: UnixStream) -> Self {
        Self { stream, waiting: None }
    }

    fn guard<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.waiting = None;
            return poll;
        }
        let sleep = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + WRITE_TIME)));
        sleep.as_mut().poll(cx).map(|()| Err(ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, data);
        self.guard(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        self.guard(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
