//! From start to end: what is made in which order, and unmade in the reverse.
//!
//! Invariant: a start that fails leaves nothing behind that it made; what an earlier daemon left attached goes on balancing.
//! The program is put on the interfaces last, when maps and services are in place, so that the first packet is balanced.

use super::api_server::{self, Access};
use super::args::Args;
use super::attach::{AttachError, Attacher, index_of};
use super::bpffs::{self, BpffsError};
use super::core::{Core, Handle};
use super::interfaces::Interfaces;
use super::kernel::{self, KernelError};
use super::load::{self, LoadError, Loaded, chain};
use super::lock::{Lock, LockError};
use super::notify;
use super::serve::serve as serve_http;
use super::settings::Settings;
use super::socket::{Socket, SocketError};
use super::state::{self, Store};
use super::sweep::Sweeping;
use crate::api::read_only_socket;
use crate::engine::{Engine, Maps, MapsError};
use crate::model::{self, Desired, EditError};
use crate::net::Watcher;
use futures_util::future::OptionFuture;
use std::borrow::Cow;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// At most so long, readiness waits for next hops.
const SETTLE: Duration = Duration::from_millis(100);

/// Why the daemon does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The BPF file system.
    #[error(transparent)]
    Bpffs(#[from] BpffsError),
    /// Another daemon.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The listener for Prometheus.
    #[error("metrics: {0} cannot be listened on: {1}")]
    Metrics(SocketAddr, io::Error),
    /// `--object`.
    #[error("{}: {source}", path.display())]
    Object {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// Program or maps.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The maps' contents.
    #[error("{}", chain(.0))]
    Maps(#[from] MapsError),
    /// An interface.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The configured services do not fit.
    #[error("configured services: {0}")]
    Services(EditError),
    /// Netlink.
    #[error("links, routes and neighbours cannot be watched: {0}")]
    Watch(io::Error),
    /// Threads, signals.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
    /// The core's thread failed.
    #[error("the daemon has failed inside; packets are balanced as before, see the log")]
    Core,
}

/// Runs until a signal ends it.
///
/// # Errors
/// Why it could not start, or had to end.
pub fn run(settings: &Settings, configured: Desired) -> Result<(), DaemonError> {
    let start = Instant::now();
    kernel::check()?;
    for name in &settings.interfaces {
        index_of(name)?;
    }
    bpffs::prepare(&settings.pin_dir)?;
    let lock = Lock::take(&settings.pin_dir)?;
    let drained = match settings.drain {
        Some(limit) => load::drain(&settings.pin_dir, limit)?,
        None => false,
    };
    let mut pins = Pins { settings, keep: true };
    let sockets = Sockets::bind(settings)?;
    let object = match &settings.object {
        Some(path) => Cow::Owned(std::fs::read(path).map_err(|source| DaemonError::Object { path: path.clone(), source })?),
        None => Cow::Borrowed(crate::object::LVX),
    };
    let Loaded { mut ebpf, adopted } = load::load(&object, &settings.pin_dir, &settings.sizes, settings.discard || drained)?;
    pins.keep = adopted;
    let engine = Engine::new(Maps::take(&mut ebpf)?)?;
    tracing::debug!("program and maps are there, {:.1?} after the start", start.elapsed());

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("api")
        .enable_all()
        .build()
        .map_err(|e| DaemonError::System("threads", e))?;
    let _inside = runtime.enter();
    let (watcher, events) = Watcher::start().map_err(DaemonError::Watch)?;
    let mut core = Core::new(engine, Box::new(move |targets| watcher.set_targets(targets)));
    core.set_signals(load::signals(&mut ebpf)?);
    core.set_settings(Arc::new(settings.clone()));
    let store = Store::new(&settings.socket, load::identity(&settings.pin_dir)?);
    core.replace(wanted(settings, configured, &store, adopted)).map_err(DaemonError::Services)?;
    let path = store.path().to_owned();
    core.set_store(store);

    let attacher = Attacher::new(ebpf, crate::object::PROGRAM, &settings.pin_dir, settings.mode);
    core.set_interfaces(Interfaces::start(attacher, &settings.interfaces)?);
    let sweeping = Sweeping::start(core.sweeper()).map_err(|e| DaemonError::System("threads", e))?;
    let (handle, thread) = core.spawn(events).map_err(|e| DaemonError::System("threads", e))?;

    // From here on an end is a clean one, or the core has failed and packets shall go on.
    pins.keep = true;
    let result = runtime.block_on(serve(settings, &sockets, handle, thread, start));
    drop(sweeping);
    if result.is_ok() && !settings.stay_attached {
        pins.keep = false;
        state::remove(&path);
    }
    drop(pins);
    drop(sockets);
    drop(lock);
    result
}

/// Where requests come in.
struct Sockets {
    full: Socket,
    read_only: Option<Socket>,
    metrics: Option<TcpListener>,
}

/// Clients served at the same time. More wait in a socket's backlog.
const CLIENTS: u32 = 512;
/// The same of those who may only read.
const READERS: u32 = 64;
/// The same of those who come for metrics by the network.
const SCRAPERS: u32 = 16;

impl Sockets {
    fn bind(settings: &Settings) -> Result<Self, DaemonError> {
        let full = Socket::bind(&settings.socket, settings.socket_mode, settings.socket_group.as_deref())?;
        let read_only = settings.read_group.as_deref().map(|g| Socket::bind(&read_only_socket(&settings.socket), 0o660, Some(g)));
        let metrics = settings.metrics.listen.map(|at| TcpListener::bind(at).map_err(|e| DaemonError::Metrics(at, e)));
        Ok(Self { full, read_only: read_only.transpose()?, metrics: metrics.transpose()? })
    }

    /// Serves until told to end.
    fn serve(&self, core: &Handle, ended: watch::Receiver<bool>) -> io::Result<impl Future<Output = ()> + use<>> {
        let routes = api_server::router(core.clone(), Access::Full);
        let full = serve_http("control socket", self.full.listener()?, CLIENTS, routes, ended.clone());
        let access = Access::ReadOnly { full: self.full.path().into() };
        let read_only = match &self.read_only {
            Some(socket) => {
                let routes = api_server::router(core.clone(), access);
                Some(serve_http("socket for reading", socket.listener()?, READERS, routes, ended.clone()))
            }
            None => None,
        };
        let metrics = match &self.metrics {
            Some(listener) => {
                let listener = listener.try_clone()?;
                listener.set_nonblocking(true)?;
                let listener = tokio::net::TcpListener::from_std(listener)?;
                Some(serve_http("metrics", listener, SCRAPERS, api_server::metrics_router(core.clone()), ended))
            }
            None => None,
        };
        Ok(async move {
            tokio::join!(full, OptionFuture::from(read_only), OptionFuture::from(metrics));
        })
    }
}

/// Takes away what an ended daemon left in place.
///
/// # Errors
/// If one runs, or something cannot be removed.
pub fn detach(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let (dir, socket) = Settings::places(args)?;
    let nothing = || tracing::info!("nothing is pinned in {}", dir.display());
    if !dir.exists() {
        nothing();
        return Ok(());
    }
    let lock = Lock::take(&dir)?;
    let any = std::fs::read_dir(&dir)?.next().is_some();
    load::remove_pins(&dir)?;
    state::remove(&state::path(&socket));
    drop(lock);
    if any {
        tracing::info!("took away what was pinned in {}", dir.display());
    } else {
        nothing();
    }
    Ok(std::fs::remove_dir(&dir)?)
}

/// What to start with: what ran on adopted maps, or else what is configured.
fn wanted(settings: &Settings, configured: Desired, store: &Store, adopted: bool) -> Desired {
    if !adopted {
        return configured;
    }
    tracing::info!("took over the maps of an earlier lvxd, and its connections");
    match store.load() {
        Ok(Some(kept)) => {
            let differ = model::compare(&kept, &configured, &|_, _| 0).len();
            if differ > 0 {
                tracing::warn!(
                    "what ran goes on; {} differs from it in {differ} places: `lvxadm plan` shows them, SIGHUP or `lvxadm apply` makes \
                     it the running configuration",
                    settings.config_path.display()
                );
            }
            kept
        }
        Ok(None) => configured,
        Err(e) => {
            tracing::warn!("{}: {e}: starting with the configured services", store.path().display());
            configured
        }
    }
}

/// The pins; removed when this is dropped, unless they are to be kept.
struct Pins<'a> {
    settings: &'a Settings,
    keep: bool,
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        let dir = &self.settings.pin_dir;
        if !self.keep
            && let Err(e) = load::remove_pins(dir)
        {
            tracing::warn!("{e}");
        }
        // Whatever is left in it keeps it.
        if let Err(e) = std::fs::remove_dir(dir) {
            tracing::debug!("{}: {e}", dir.display());
        }
    }
}

/// Serves requests and signals.
async fn serve(
    settings: &Settings,
    sockets: &Sockets,
    core: Handle,
    thread: JoinHandle<Core>,
    start: Instant,
) -> Result<(), DaemonError> {
    let signals = |kind| signal(kind).map_err(|e| DaemonError::System("signals", e));
    let (mut terminate, mut interrupt) = (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    let mut hangup = signals(SignalKind::hangup())?;
    let (end, ended) = watch::channel(false);
    let served = sockets.serve(&core, ended).map_err(|e| DaemonError::System("control socket", e))?;
    let mut served = std::pin::pin!(served);
    let mut watchdog = notify::watchdog();

    settle(&core).await;
    notify::ready();
    tracing::debug!("ready {:.1?} after the start", start.elapsed());
    tracing::info!("ready");
    let failed = loop {
        tokio::select! {
            () = &mut served => break false,
            _ = terminate.recv() => break false,
            _ = interrupt.recv() => break false,
            _ = hangup.recv() => reload(settings, &core).await,
            _ = watchdog.tick() => {
                // A core that hangs is not reported alive.
                if core.with(|_| ()).await.is_err() {
                    break true;
                }
                notify::alive();
            }
        }
    };
    notify::stopping();
    tracing::info!("{}", if settings.stay_attached { "ending; packets go on being balanced" } else { "ending" });
    let _ = end.send(true);
    if tokio::time::timeout(Duration::from_secs(3), served).await.is_err() {
        tracing::debug!("requests under way were cut off");
    }
    let _ = core.with(Core::end).await;
    let joined = tokio::task::spawn_blocking(move || thread.join()).await;
    match joined {
        // The core goes here, and with it the last file descriptors of program and maps.
        Ok(Ok(core)) if !failed => {
            drop(core);
            Ok(())
        }
        _ => Err(DaemonError::Core),
    }
}

/// Waits a little for the next hops of the real servers. Those that take longer, because nobody answers, are the kernel's to
/// forward to meanwhile.
async fn settle(core: &Handle) {
    let wait = async {
        while matches!(core.with(|core| core.is_settled()).await, Ok(false)) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let _ = tokio::time::timeout(SETTLE, wait).await;
}

/// SIGHUP: as `lvxadm apply` with the daemon's own file.
async fn reload(settings: &Settings, core: &Handle) {
    notify::reloading();
    let good = read_again(settings, core).await;
    let _ = core.with(move |core| core.count_reload(good)).await;
    notify::ready();
}

/// Whether all of it was good; nothing changed if not.
async fn read_again(settings: &Settings, core: &Handle) -> bool {
    let path = settings.config_path.display();
    match settings.reread() {
        Ok((config, desired)) => match core.with(move |core| core.configure(&config, desired)).await {
            Ok(Ok(plan)) => {
                let cut: u64 = plan.changes.iter().map(|c| c.cut).sum();
                tracing::info!("{path}: read again, {} changes, {cut} connections cut", plan.changes.len());
                for s in &plan.restart {
                    tracing::warn!("{path}: {} stays {} until lvxd starts anew with {}", s.key, s.running, s.wanted);
                }
                return true;
            }
            Ok(Err(e)) => tracing::error!("{path}: {e}; nothing changed"),
            Err(e) => tracing::error!("{e}"),
        },
        Err(e) => tracing::error!("{e}; nothing changed"),
    }
    false
}
