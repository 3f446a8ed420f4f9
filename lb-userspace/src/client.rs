//! The control socket, from the other side: HTTP/1.1 over a Unix socket.
//!
//! Who may not use it reads through the socket for reading beside it, if that is there for them.

use crate::api::{ApiError, ErrorBody, read_only_socket};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("cannot reach the daemon at {path}: {source}{hint}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The connection broke.
    #[error("talking to the daemon at {path}: {message}")]
    Transport {
        /// The socket.
        path: PathBuf,
        /// What happened.
        message: String,
    },
    /// The daemon refused.
    #[error("{}", text(.0))]
    Refused(ApiError),
}

impl ClientError {
    /// Whether the socket's permissions keep us out.
    #[must_use]
    pub fn denied(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

fn text(e: &ApiError) -> &str {
    match e {
        ApiError::Edit(e) => &e.message,
        ApiError::Other { message } => message,
    }
}

/// A client of one daemon. Requests block.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// Of the daemon behind this socket; nothing is sent yet.
    ///
    /// # Errors
    /// No runtime: out of file descriptors or memory.
    pub fn new(path: &Path) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        Ok(Self { path: path.to_owned(), runtime })
    }

    /// Whether somebody listens, and lets us in.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub fn reach(&self) -> Result<(), ClientError> {
        self.runtime.block_on(self.connect(true)).map(drop)
    }

    async fn connect(&self, to_read: bool) -> Result<UnixStream, ClientError> {
        let source = match UnixStream::connect(&self.path).await {
            Ok(stream) => return Ok(stream),
            Err(e) => e,
        };
        let denied = source.kind() == io::ErrorKind::PermissionDenied;
        if denied
            && to_read
            && let Ok(stream) = UnixStream::connect(read_only_socket(&self.path)).await
        {
            return Ok(stream);
        }
        let hint = match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => " (is lvxd running?)",
            io::ErrorKind::PermissionDenied => " (you must be root, or in the socket's group)",
            _ => "",
        };
        Err(ClientError::Connect { path: self.path.clone(), source, hint })
    }

    fn broken(&self, e: impl std::fmt::Display) -> ClientError {
        ClientError::Transport { path: self.path.clone(), message: e.to_string() }
    }

    async fn send(&self, method: Method, route: &str, body: Vec<u8>) -> Result<Response<Incoming>, ClientError> {
        let stream = self.connect(method == Method::GET).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(e))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(route)
            .header("host", "lvxd")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| self.broken(e))?;
        let response = sender.send_request(request).await.map_err(|e| self.broken(e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|e| self.broken(e))?.to_bytes();
        Err(refusal(status, &body))
    }

    /// Asks for something.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn get<T: DeserializeOwned>(&self, route: &str) -> Result<T, ClientError> {
        self.runtime.block_on(async {
            let body = self.send(Method::GET, route, Vec::new()).await?.into_body();
            let bytes = body.collect().await.map_err(|e| self.broken(e))?.to_bytes();
            serde_json::from_slice(&bytes).map_err(|e| self.broken(e))
        })
    }

    /// Asks for text.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn text(&self, route: &str) -> Result<String, ClientError> {
        self.runtime.block_on(async {
            let body = self.send(Method::GET, route, Vec::new()).await?.into_body();
            let bytes = body.collect().await.map_err(|e| self.broken(e))?.to_bytes();
            String::from_utf8(bytes.into()).map_err(|e| self.broken(e))
        })
    }

    /// Has something done that answers.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn ask<T: Serialize, A: DeserializeOwned>(&self, route: &str, body: &T) -> Result<A, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| self.broken(e))?;
        self.runtime.block_on(async {
            let body = self.send(Method::POST, route, body).await?.into_body();
            let bytes = body.collect().await.map_err(|e| self.broken(e))?.to_bytes();
            serde_json::from_slice(&bytes).map_err(|e| self.broken(e))
        })
    }

    /// Has something done.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn post<T: Serialize>(&self, route: &str, body: &T) -> Result<(), ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| self.broken(e))?;
        self.runtime.block_on(async { self.send(Method::POST, route, body).await.map(drop) })
    }

    /// Asks for one JSON value a line, and passes each on as it comes, until `each` says false.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn lines<T: DeserializeOwned>(&self, route: &str, mut each: impl FnMut(T) -> bool) -> Result<(), ClientError> {
        self.runtime.block_on(async {
            let mut body = self.send(Method::GET, route, Vec::new()).await?.into_body();
            let mut pending = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|e| self.broken(e))?;
                let Some(data) = frame.data_ref() else { continue };
                pending.extend_from_slice(data);
                let mut start = 0;
                while let Some(end) = pending[start..].iter().position(|b| *b == b'\n') {
                    let line = &pending[start..start + end];
                    start += end + 1;
                    if !line.is_empty() && !each(serde_json::from_slice(line).map_err(|e| self.broken(e))?) {
                        return Ok(());
                    }
                }
                pending.drain(..start);
            }
            if pending.is_empty() { Ok(()) } else { Err(self.broken("the answer ended within a line")) }
        })
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(e) => ClientError::Refused(e.error),
        Err(_) => ClientError::Refused(ApiError::Other { message: format!("the daemon answered {status}") }),
    }
}
