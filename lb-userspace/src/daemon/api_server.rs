//! The routes of [`crate::api`], over the core.

#[cfg(test)]
mod tests;

use super::core::{Core, Gone, Handle};
use super::load::chain;
use super::serve::Peer;
use crate::api::{ApiError, Connection, Edits, ErrorBody, Zero};
use crate::model::{EditError, EditErrorKind};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};

/// Largest body of a request: some 80,000 edits.
const MAX_BODY: usize = 16 << 20;
/// A body that is no larger waits for none.
const SMALL_BODY: usize = 64 << 10;
/// Bodies beyond that which are read at the same time, so that all of them together stay small.
const MAX_LARGE_BODIES: usize = 4;
/// For the whole body of a request to come.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Bytes of connections sent at a time, and how many such pieces wait for the client.
const PIECE: usize = 64 << 10;
const PIECES: usize = 4;

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    core: Handle,
    large_bodies: Arc<Semaphore>,
}

/// The routes.
pub fn router(core: Handle) -> Router {
    let shared = Shared { core, large_bodies: Arc::new(Semaphore::new(MAX_LARGE_BODIES)) };
    Router::new()
        .route("/v1/status", get(async |State(s): State<Shared>| s.read(|c| c.status()).await))
        .route("/v1/services", get(async |State(s): State<Shared>| s.read(|c| c.services()).await))
        .route("/v1/timeouts", get(async |State(s): State<Shared>| s.read(|c| c.timeouts()).await))
        .route("/v1/connections", get(connections))
        .route("/v1/edits", post(async |State(s): State<Shared>, r: Request| s.edits(r).await))
        .route("/v1/zero", post(async |State(s): State<Shared>, r: Request| s.zero(r).await))
        .fallback(async |r: Request| Refusal::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", r.uri().path())))
        .method_not_allowed_fallback(async |r: Request| {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {}", r.uri().path(), r.method()))
        })
        .layer(from_fn(log))
        .with_state(shared)
}

/// A request that was not carried out.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    error: ApiError,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, error: ApiError::Other { message: message.into() } }
    }
}

impl From<EditError> for Refusal {
    fn from(e: EditError) -> Self {
        use EditErrorKind as K;
        let status = match e.code {
            K::NoSuchService | K::ServiceNotDefined | K::NoSuchServer => StatusCode::NOT_FOUND,
            K::ServiceExists | K::ServerExists => StatusCode::CONFLICT,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self { status, error: ApiError::Edit(e) }
    }
}

impl From<Gone> for Refusal {
    fn from(e: Gone) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        json(self.status, &ErrorBody { error: self.error })
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(e) => {
            tracing::error!("an answer cannot be written as JSON: {e}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

impl Shared {
    async fn read<T>(&self, f: impl FnOnce(&Core) -> T + Send + 'static) -> Result<Response, Refusal>
    where
        T: Serialize + Send + 'static,
    {
        let value = self.core.with(|core| f(core)).await?;
        Ok(json(StatusCode::OK, &value))
    }

    /// The body of a request, as what it should be.
    async fn body<T: DeserializeOwned>(&self, request: Request) -> Result<T, Refusal> {
        let bytes = tokio::time::timeout(BODY_TIME, self.bytes(request.into_body())).await;
        let bytes = bytes.map_err(|_| {
            Refusal::new(StatusCode::REQUEST_TIMEOUT, format!("no whole body within {} s", BODY_TIME.as_secs()))
        })??;
        serde_json::from_slice(&bytes).map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, format!("body: {e}")))
    }

    /// All bytes of a body. What counts is what has come, not what is announced: a client that announces much and sends nothing
    /// keeps nobody waiting.
    async fn bytes(&self, mut body: Body) -> Result<Vec<u8>, Refusal> {
        let too_large = || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("body of more than {MAX_BODY} bytes"));
        if body.size_hint().lower() > MAX_BODY as u64 {
            return Err(too_large());
        }
        let (mut bytes, mut permit) = (Vec::new(), None);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, format!("body: {}", chain(&e))))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > MAX_BODY {
                return Err(too_large());
            }
            if bytes.len() + data.len() > SMALL_BODY && permit.is_none() {
                permit = self.large_bodies.acquire().await.ok();
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    }

    async fn edits(&self, request: Request) -> Result<StatusCode, Refusal> {
        let Edits { edits } = self.body(request).await?;
        self.core.with(move |core| core.edit(&edits)).await??;
        Ok(StatusCode::NO_CONTENT)
    }

    async fn zero(&self, request: Request) -> Result<StatusCode, Refusal> {
        let Zero { service } = self.body(request).await?;
        self.core.with(move |core| core.zero(service.as_ref())).await??;
        Ok(StatusCode::NO_CONTENT)
    }
}

/// All connections, one a line, while they are walked: a table of millions takes no memory for it.
async fn connections(State(shared): State<Shared>) -> Result<Response, Refusal> {
    let walk = shared.core.with(|core| core.connections()).await?;
    let (pieces, mut next) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    tokio::task::spawn_blocking(move || send_lines(walk, &pieces));
    let stream = futures_util::stream::poll_fn(move |cx| next.poll_recv(cx));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response())
}

/// Ends early when the client is gone.
fn send_lines(walk: impl Iterator<Item = Connection>, pieces: &mpsc::Sender<io::Result<Bytes>>) {
    let mut piece = Vec::with_capacity(PIECE + 512);
    for connection in walk {
        if let Err(e) = serde_json::to_writer(&mut piece, &connection) {
            let _ = pieces.blocking_send(Err(e.into()));
            return;
        }
        piece.push(b'\n');
        if piece.len() >= PIECE && pieces.blocking_send(Ok(std::mem::take(&mut piece).into())).is_err() {
            return;
        }
        if pieces.is_closed() {
            return;
        }
    }
    if !piece.is_empty() {
        let _ = pieces.blocking_send(Ok(piece.into()));
    }
}

/// One line a request: changes at info level, the rest at debug.
async fn log(peer: Option<Extension<Peer>>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let start = Instant::now();
    let response = next.run(request).await;
    let (status, took) = (response.status().as_u16(), start.elapsed());
    let peer = peer.map_or(Peer::default(), |Extension(p)| p);
    if method == Method::GET {
        tracing::debug!("{method} {path} by {peer}: {status}, {took:.1?}");
    } else {
        tracing::info!("{method} {path} by {peer}: {status}, {took:.1?}");
    }
    response
}
