//! The routes of [`crate::api`], over the core.
//!
//! Each socket has routes of its own, with bounds of its own: who may only read cannot keep out who may change.

#[cfg(test)]
mod tests;

use super::audit::{self, Change, printable};
use super::config::Config;
use super::core::{Core, Gone, Handle};
use super::load::chain;
use super::metrics::{self, Page};
use super::serve::{Asking, WRITE_TIME};
use crate::api::{ApiError, Configure, Connection, Edits, ErrorBody, Wanted, Zero};
use crate::engine::Connections;
use crate::model::{EditError, EditErrorKind};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, SizeHint};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Largest body of a request: some 80,000 edits.
const MAX_BODY: usize = 16 << 20;
/// A body that is no larger waits for none.
const SMALL_BODY: usize = 64 << 10;
/// Bodies beyond that which are read at the same time, so that all of them together stay small.
const MAX_LARGE_BODIES: usize = 4;
/// For the whole body of a request to come.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Bytes of a long answer that are made and sent at a time.
const PIECE: usize = 64 << 10;
/// Answers of any length that are under way at the same time: some megabytes each, for a reader that does not read.
const MAX_LARGE_ANSWERS: usize = 16;
/// For one of these to become possible: the readers before it end, or are cut off.
const LARGE_ANSWER_TIME: Duration = Duration::from_secs(2 * WRITE_TIME.as_secs());
/// The same of metrics over the network.
const MAX_SCRAPES: usize = 4;
/// For a daemon that is well to answer.
const HEALTH_TIME: Duration = Duration::from_secs(5);
/// Longest reason in an error, as it may quote the request.
const MAX_MESSAGE: usize = 1000;

/// What a socket's clients may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Access {
    /// Everything.
    Full,
    /// Reading.
    ReadOnly {
        /// The socket for the rest, for errors.
        full: PathBuf,
    },
}

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    core: Handle,
    access: Access,
    large_bodies: Arc<Semaphore>,
    large_answers: Arc<Semaphore>,
}

/// The routes.
pub fn router(core: Handle, access: Access) -> Router {
    let shared = Shared {
        core,
        access,
        large_bodies: Arc::new(Semaphore::new(MAX_LARGE_BODIES)),
        large_answers: Arc::new(Semaphore::new(MAX_LARGE_ANSWERS)),
    };
    Router::new()
        .route("/v1/status", get(async |State(s): State<Shared>| s.read(|c| c.status()).await))
        .route("/v1/services", get(async |State(s): State<Shared>| s.services().await))
        .route("/v1/timeouts", get(async |State(s): State<Shared>| s.read(|c| c.timeouts()).await))
        .route("/v1/connections", get(connections))
        .route("/metrics", get(async |State(s): State<Shared>| s.metrics().await))
        .route("/v1/config", get(export).post(async |State(s): State<Shared>, r: Request| s.configure(r).await))
        .route("/v1/edits", post(async |State(s): State<Shared>, r: Request| s.edits(r).await))
        .route("/v1/zero", post(async |State(s): State<Shared>, r: Request| s.zero(r).await))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(shared.clone(), permit))
        .layer(from_fn(audit::log))
        .with_state(shared)
}

/// The routes for the network: metrics, and whether the daemon works.
pub fn metrics_router(core: Handle) -> Router {
    let access = Access::ReadOnly { full: PathBuf::new() };
    let shared =
        Shared { core, access, large_bodies: Arc::new(Semaphore::new(0)), large_answers: Arc::new(Semaphore::new(MAX_SCRAPES)) };
    Router::new()
        .route("/metrics", get(async |State(s): State<Shared>| s.metrics().await))
        .route("/-/healthy", get(async |State(s): State<Shared>| s.healthy().await))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn(audit::log))
        .with_state(shared)
}

async fn not_found(r: Request) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", r.uri().path()))
}

async fn not_allowed(r: Request) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {}", r.uri().path(), r.method()))
}

/// A request that was not carried out.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    error: ApiError,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE));
            message.push_str(" ...");
        }
        Self { status, error: ApiError::Other { message } }
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
        let reason = audit::Reason(printable(match &self.error {
            ApiError::Edit(e) => &e.message,
            ApiError::Other { message } => message,
        }));
        let mut response = json(self.status, &ErrorBody { error: self.error });
        response.extensions_mut().insert(reason);
        response
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

    /// Room for a long answer.
    async fn large_answer(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let permit = tokio::time::timeout(LARGE_ANSWER_TIME, self.large_answers.clone().acquire_owned()).await;
        permit.ok().and_then(Result::ok).ok_or_else(|| {
            let reason = format!("{MAX_LARGE_ANSWERS} long answers are being read by other clients; try again");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason)
        })
    }

    async fn services(&self) -> Result<Response, Refusal> {
        let permit = self.large_answer().await?;
        let reading = self.core.with(|core| core.reading()).await?;
        // Some megabytes for thousands of services: not for a thread that other clients need.
        let text = tokio::task::spawn_blocking(move || serde_json::to_vec(&reading.services())).await;
        let text = text.map_err(|e| internal(&e))?.map_err(|e| internal(&e))?;
        let body = Long { rest: text.into(), _permit: permit };
        Ok(([(header::CONTENT_TYPE, "application/json")], Body::new(body)).into_response())
    }

    async fn healthy(&self) -> Result<&'static str, Refusal> {
        match tokio::time::timeout(HEALTH_TIME, self.core.with(|_| ())).await {
            Ok(answer) => Ok(answer.map(|()| "healthy\n")?),
            Err(_) => Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("the daemon did not answer within {} s; packets are balanced as before", HEALTH_TIME.as_secs()),
            )),
        }
    }

    async fn metrics(&self) -> Result<Response, Refusal> {
        let permit = self.large_answer().await?;
        let figures = self.core.with(|core| core.figures()).await?;
        let page = tokio::task::spawn_blocking(move || Page::new(figures)).await.map_err(|e| internal(&e))?;
        let pieces = futures_util::stream::iter(page.map(move |piece| {
            // Until the last piece is made.
            let _ = &permit;
            Ok::<_, Infallible>(piece)
        }));
        Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], Body::from_stream(pieces)).into_response())
    }

    /// The body of a request, as what it should be.
    async fn body<T: DeserializeOwned>(&self, request: Request) -> Result<T, Refusal> {
        let asking = request.extensions().get::<Asking>().cloned();
        let bytes = tokio::time::timeout(BODY_TIME, self.bytes(request.into_body())).await;
        let bytes = bytes.map_err(|_| {
            Refusal::new(StatusCode::REQUEST_TIMEOUT, format!("no whole body within {} s", BODY_TIME.as_secs()))
        })??;
        if let Some(asking) = asking {
            asking.done();
        }
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

    async fn edits(&self, request: Request) -> Result<Response, Refusal> {
        let Edits { edits } = self.body(request).await?;
        let change = audit::edits(&edits);
        self.change(change, move |core| core.edit(&edits)).await
    }

    async fn configure(&self, request: Request) -> Result<Response, Refusal> {
        let Configure { name, text, dry_run } = self.body(request).await?;
        let file = name.clone();
        let parsed = tokio::task::spawn_blocking(move || Config::parse(&text, Path::new(&name))).await;
        let (config, desired) = match parsed {
            Ok(Ok(parsed)) => parsed,
            Ok(Err(e)) => return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, e.to_string())),
            Err(e) => return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string())),
        };
        if dry_run {
            let plan = self.core.with(move |core| core.plan(&config, &desired)).await?;
            return Ok(json(StatusCode::OK, &plan));
        }
        let (mut response, changes) = match self.core.with(move |core| core.configure(&config, desired)).await? {
            Ok(plan) => (json(StatusCode::OK, &plan), format!(", {} changes", plan.changes.len())),
            Err(e) => (Refusal::from(e).into_response(), String::new()),
        };
        response.extensions_mut().insert(Change(format!("apply configuration {}{changes}", printable(&file))));
        Ok(response)
    }

    async fn zero(&self, request: Request) -> Result<Response, Refusal> {
        let Zero { service } = self.body(request).await?;
        let change = service.map_or_else(|| "zero all counters".into(), |s| format!("zero the counters of service {s}"));
        self.change(change, move |core| core.zero(service.as_ref())).await
    }

    /// Has the core do something that is to be logged as this.
    async fn change<F>(&self, what: String, f: F) -> Result<Response, Refusal>
    where
        F: FnOnce(&mut Core) -> Result<(), EditError> + Send + 'static,
    {
        let mut response = match self.core.with(f).await.map_err(Refusal::from).and_then(|r| r.map_err(Refusal::from)) {
            Ok(()) => StatusCode::NO_CONTENT.into_response(),
            Err(refusal) => refusal.into_response(),
        };
        response.extensions_mut().insert(Change(what));
        Ok(response)
    }
}

fn internal(e: &dyn std::error::Error) -> Refusal {
    tracing::error!("an answer cannot be made: {}", chain(e));
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer cannot be made: {}", chain(e)))
}

/// Refuses what a socket is not for.
async fn permit(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    match shared.access {
        Access::ReadOnly { full } if method != Method::GET && method != Method::HEAD => {
            let full = full.display();
            let reason = format!("{method} {path}: this socket is for reading only; changes go through {full}");
            Refusal::new(StatusCode::FORBIDDEN, reason).into_response()
        }
        _ => next.run(request).await,
    }
}

/// A body that keeps its place among the long ones until it is sent.
struct Long {
    rest: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl hyper::body::Body for Long {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let len = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(len);
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// The running configuration.
async fn export(State(shared): State<Shared>) -> Result<Response, Refusal> {
    let text = shared.core.with(|core| core.export()).await?;
    Ok(([(header::CONTENT_TYPE, "application/toml")], text).into_response())
}

/// All connections, one a line, while they are walked: a table of millions takes no memory for it, and a client that does not read
/// on takes no thread.
async fn connections(State(shared): State<Shared>, wanted: Result<Query<Wanted>, QueryRejection>) -> Result<Response, Refusal> {
    let Query(wanted) = wanted.map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, e.body_text()))?;
    let walk = shared.core.with(|core| core.connections()).await?;
    let pieces = async |walk: Option<(Connections, Wanted)>| {
        let (mut walk, mut wanted) = walk?;
        match tokio::task::spawn_blocking(move || (lines(&mut walk, &mut wanted), (walk, wanted))).await {
            Ok((Ok(piece), _)) if piece.is_empty() => None,
            Ok((Ok(piece), walk)) => Some((Ok(piece), Some(walk))),
            // An answer that ends so is seen to be no whole one.
            Ok((Err(e), _)) => Some((Err(io::Error::from(e)), None)),
            Err(e) => Some((Err(io::Error::other(e)), None)),
        }
    };
    let stream = futures_util::stream::unfold(Some((walk, wanted)), pieces);
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream)).into_response())
}

/// The next connections of those that are wanted, each as a line; none at the end.
fn lines(walk: &mut impl Iterator<Item = Connection>, wanted: &mut Wanted) -> serde_json::Result<Bytes> {
    let mut piece = Vec::with_capacity(PIECE + 512);
    while wanted.limit != Some(0)
        && let Some(connection) = walk.find(|c| wanted.has(c))
    {
        wanted.limit = wanted.limit.map(|n| n - 1);
        serde_json::to_writer(&mut piece, &connection)?;
        piece.push(b'\n');
        if piece.len() >= PIECE {
            break;
        }
    }
    Ok(piece.into())
}
