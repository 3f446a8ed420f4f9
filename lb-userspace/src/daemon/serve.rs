//! HTTP over a listener, guarded against clients that are slow, half open or too many.
//!
//! A connection is for one request. `clients` has the places and says who gives way.
//!
//! The trap: a client that stops reading would hold its connection for ever, as HTTP has no timeout for that. Writing is therefore
//! given up when nothing moves for `WRITE_TIME`.

use super::clients::{Place, Places};
use axum::Router;
use hyper::body::Body as _;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

/// For a request's headers to come.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// For a client to read anything of its answer.
pub(super) const WRITE_TIME: Duration = Duration::from_secs(10);
/// For the same, before it gives way to another client.
const WRITE_GRACE: Duration = Duration::from_secs(1);
/// Largest headers.
const MAX_HEADERS: usize = 16 << 10;
/// For requests under way when the daemon ends.
const END_TIME: Duration = Duration::from_secs(2);

/// Who sent a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peer {
    /// A process of this machine.
    Process {
        /// Its user.
        uid: Option<u32>,
        /// Its number.
        pid: Option<i32>,
    },
    /// Somebody in the network.
    Network(SocketAddr),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { uid: Some(uid), pid: Some(pid) } => write!(f, "uid {uid} (process {pid})"),
            Self::Process { uid: Some(uid), pid: None } => write!(f, "uid {uid}"),
            Self::Process { .. } => f.write_str("an unknown user"),
            Self::Network(address) => address.fmt(f),
        }
    }
}

/// Where clients come from.
pub trait Listen: Send + Sync {
    /// Their connections.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next client.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Stream, Peer)>>;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, Peer)>> {
        TcpListener::poll_accept(self, cx).map_ok(|(stream, address)| (stream, Peer::Network(address)))
    }
}

/// A client that has not sent its whole request yet. A handler that reads a body says when it has it.
#[derive(Clone, Debug)]
pub(super) struct Asking(Arc<Place>);

impl Asking {
    pub(super) fn done(&self) {
        self.0.work();
    }
}

/// Serves up to `clients` at the same time until told to end, then finishes what is under way. `name` is for the log.
pub async fn serve(name: &str, listener: impl Listen, clients: u32, router: Router, mut end: watch::Receiver<bool>) {
    let places = Places::new(clients);
    loop {
        let (stream, peer) = tokio::select! {
            accepted = poll_fn(|cx| listener.poll_accept(cx)) => match accepted {
                Ok(client) => client,
                Err(e) => {
                    // Out of file descriptors, most likely: it passes.
                    tracing::warn!("{name}: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = ended(&mut end) => break,
        };
        let place = tokio::select! {
            place = places.take() => place,
            () = ended(&mut end) => break,
        };
        let Some(place) = place else { break };
        tokio::spawn(serve_client(stream, peer, Arc::new(place), router.clone(), end.clone()));
    }
    drop(listener);
    let _ = tokio::time::timeout(END_TIME, places.all_free()).await;
}

/// Waits until told to end, or until whoever would tell is gone.
async fn ended(end: &mut watch::Receiver<bool>) {
    let _ = end.wait_for(|&e| e).await;
}

async fn serve_client<S>(stream: S, peer: Peer, place: Arc<Place>, router: Router, mut end: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    place.wait(Duration::ZERO);
    let routes = TowerToHyperService::new(router);
    let service = service_fn(|mut request: hyper::Request<hyper::body::Incoming>| {
        if request.body().is_end_stream() {
            place.work();
        }
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(Asking(place.clone()));
        routes.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(MAX_HEADERS)
        .keep_alive(false)
        // Whoever says that nothing more comes may still want the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(Guarded { stream, place: place.clone(), waiting: None }), service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = place.cut_off() => {
            tracing::debug!("connection of {peer}: cut off, as all places are taken");
            return;
        }
        () = ended(&mut end) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = result {
        tracing::debug!("connection of {peer}: {}", super::load::chain(&e));
    }
}

/// A stream whose writes fail when nothing moves for `WRITE_TIME`.
struct Guarded<S> {
    stream: S,
    place: Arc<Place>,
    /// Since a write is waiting.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Guarded<S> {
    fn guard<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            if self.waiting.take().is_some() {
                self.place.work();
            }
            return poll;
        }
        let sleep = self.waiting.get_or_insert_with(|| {
            self.place.wait(WRITE_GRACE);
            Box::pin(tokio::time::sleep_until(Instant::now() + WRITE_TIME))
        });
        sleep.as_mut().poll(cx).map(|()| Err(ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
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
