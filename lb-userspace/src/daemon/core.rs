//! The one owner of engine and desired state: a thread that takes commands, network events and timers in turn.
//!
//! Invariant: the desired state is what the maps were last made equal to. An edit is tried on a copy, which becomes the desired
//! state once the maps took it; all edits of a request are seen at once or not at all.
//!
//! The trap: this thread may work for some hundred milliseconds on a large edit. Nothing that must answer at once (accepting
//! connections, signals) waits for it except through [`Handle`].

use super::config::{self, Config};
use super::interfaces::Interfaces;
use super::settings::Settings;
use super::signals::{Ring, Signals};
use super::state::Store;
use crate::api::{Plan, Status};
use crate::engine::{Connections, Engine, Reading, Sweeper};
use crate::model::{self, Desired, Edit, EditError, ServiceId, Timeouts};
use crate::net::{Event, Reach};
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// Step of the kernel's estimator.
const ESTIMATE: Duration = Duration::from_secs(2);
/// Until the state is kept after all, where that failed.
const SAVE_AGAIN: Duration = Duration::from_secs(1);
/// Requests waiting for the core.
const QUEUE: usize = 256;

/// A request, and the answering of it.
type Job = Box<dyn FnOnce(&mut Core) + Send>;

/// Tells whoever resolves next hops which addresses are wanted.
pub type SetTargets = Box<dyn Fn(Vec<IpAddr>) + Send>;

/// The core is gone.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the daemon is ending")]
pub struct Gone;

/// The owner.
pub struct Core {
    engine: Engine,
    desired: Desired,
    interfaces: Option<Interfaces>,
    store: Option<Store>,
    set_targets: SetTargets,
    targets: Vec<IpAddr>,
    /// Targets that were never reached yet.
    unknown: HashSet<IpAddr>,
    /// When keeping the state is tried again.
    save_at: Option<Instant>,
    settings: Option<Arc<Settings>>,
    ending: bool,
    signals: Option<Ring>,
    reloads: Reloads,
    started: SystemTime,
}

/// What readings of the configuration after the start came to.
#[derive(Clone, Copy, Debug)]
pub struct Reloads {
    /// Good ones.
    pub succeeded: u64,
    /// Those that changed nothing.
    pub failed: u64,
    /// Whether the last one, or else the start, was good.
    pub last_good: bool,
    /// When the last good one was.
    pub last_success: Option<SystemTime>,
}

/// A picture of everything that is counted.
#[derive(Debug)]
pub struct Figures {
    /// The daemon as a whole.
    pub status: Status,
    /// Services, yet to be read.
    pub reading: Reading,
    /// Configuration.
    pub reloads: Reloads,
    /// When the daemon started.
    pub started: SystemTime,
}

/// A way to ask the core, for any thread.
#[derive(Clone, Debug)]
pub struct Handle {
    jobs: mpsc::Sender<Job>,
}

impl Handle {
    /// Has the core do something between its other work, and gives the result.
    ///
    /// # Errors
    /// If the core has ended.
    pub async fn with<T, F>(&self, f: F) -> Result<T, Gone>
    where
        T: Send + 'static,
        F: FnOnce(&mut Core) -> T + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |core| {
            // Whoever asked may have gone meanwhile.
            let _ = answer.send(f(core));
        });
        self.jobs.send(job).await.map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)
    }
}

impl Core {
    /// Of an engine without services.
    #[must_use]
    pub fn new(engine: Engine, set_targets: SetTargets) -> Self {
        Self {
            engine,
            desired: Desired::default(),
            interfaces: None,
            store: None,
            set_targets,
            targets: Vec::new(),
            unknown: HashSet::new(),
            save_at: None,
            settings: None,
            ending: false,
            signals: None,
            reloads: Reloads { succeeded: 0, failed: 0, last_good: true, last_success: None },
            started: SystemTime::now(),
        }
    }

    /// Also listens to the packet path.
    pub fn set_signals(&mut self, signals: Ring) {
        self.signals = Some(signals);
    }

    /// Also looks after these interfaces.
    pub fn set_interfaces(&mut self, interfaces: Interfaces) {
        self.interfaces = Some(interfaces);
    }

    /// Also keeps the state there, from now on.
    pub fn set_store(&mut self, store: Store) {
        self.store = Some(store);
        self.keep(None);
    }

    /// What it was started with.
    pub fn set_settings(&mut self, settings: Arc<Settings>) {
        self.settings = Some(settings);
    }

    /// Runs on a thread of its own, until [`Core::end`] or until every handle is gone; the thread gives the core back.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub fn spawn(mut self, events: mpsc::UnboundedReceiver<Event>) -> std::io::Result<(Handle, JoinHandle<Self>)> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().enable_io().build()?;
        let thread = std::thread::Builder::new().name("core".into()).spawn(move || {
            runtime.block_on(self.run(queue, events));
            self
        })?;
        Ok((Handle { jobs }, thread))
    }

    async fn run(&mut self, mut jobs: mpsc::Receiver<Job>, mut events: mpsc::UnboundedReceiver<Event>) {
        let mut estimate = interval(ESTIMATE);
        estimate.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Its first tick is at once.
        estimate.tick().await;
        let mut watching = true;
        let mut signals = Signals::new(self.signals.take());
        while !self.ending {
            let save_at = self.save_at;
            tokio::select! {
                slots = signals.next() => {
                    let began = Instant::now();
                    self.engine.replan(&slots);
                    signals.done(began);
                }
                _ = estimate.tick() => {
                    self.engine.estimate();
                    if let Some(interfaces) = &mut self.interfaces {
                        interfaces.check();
                    }
                }
                event = events.recv(), if watching => match event {
                    Some(event) => self.take_events(event, &mut events),
                    None => watching = false,
                },
                job = jobs.recv() => match job {
                    Some(job) => job(self),
                    None => return,
                },
                () = async { sleep_until(save_at.unwrap_or_else(Instant::now)).await }, if save_at.is_some() => self.keep(None),
            }
        }
    }

    /// Takes this event and those that wait behind it.
    fn take_events(&mut self, first: Event, more: &mut mpsc::UnboundedReceiver<Event>) {
        let mut moved = false;
        let mut next = Some(first);
        while let Some(event) = next {
            match event {
                Event::Reach { address, reach } => {
                    tracing::debug!("{address}: {reach:?}");
                    if !matches!(reach, Reach::Unresolved(_)) {
                        self.unknown.remove(&address);
                    }
                    self.engine.set_reach(address, reach);
                }
                Event::Link(link) => {
                    self.engine.set_link(&link);
                    if let Some(interfaces) = &mut self.interfaces {
                        interfaces.set_link(&link);
                    }
                }
                Event::NextHopsChanged => moved = true,
            }
            next = more.try_recv().ok();
        }
        if moved {
            self.engine.bump_next_hops();
        }
    }

    /// Makes the maps equal to this; it is the desired state then.
    ///
    /// # Errors
    /// If there is no room; nothing changed then.
    pub fn replace(&mut self, desired: Desired) -> Result<(), EditError> {
        self.make(desired)?;
        self.keep(None);
        Ok(())
    }

    fn make(&mut self, desired: Desired) -> Result<(), EditError> {
        self.engine.reconcile(&desired)?;
        self.engine.set_flags(desired.behaviour.tcp.flags());
        for (state, _, seconds) in desired.behaviour.timeouts.each() {
            self.engine.set_timeout(state, seconds);
        }
        self.desired = desired;
        let mut targets = self.engine.targets();
        targets.sort_unstable();
        if targets != self.targets {
            (self.set_targets)(targets.clone());
            self.unknown.retain(|t| targets.binary_search(t).is_ok());
            self.unknown.extend(targets.iter().filter(|t| self.targets.binary_search(t).is_err()));
            self.targets = targets;
        }
        Ok(())
    }

    /// Applies all edits. When this returns they are kept: the daemon may end in any way.
    ///
    /// # Errors
    /// The first that is refused; nothing changed then.
    pub fn edit(&mut self, edits: &[Edit]) -> Result<(), EditError> {
        let mut next = self.desired.clone();
        next.apply(edits)?;
        // No difference, but the schedulers are told.
        let touched = self.desired.edited_in_vain(edits, &next);
        self.make(next)?;
        for (service, server) in &touched {
            self.engine.touch(service, server);
        }
        self.keep(Some(edits));
        Ok(())
    }

    /// What a configuration would change.
    #[must_use]
    pub fn plan(&self, config: &Config, desired: &Desired) -> Plan {
        let live = |service: &ServiceId, server: &_| self.engine.live(service, server);
        Plan {
            changes: model::compare(&self.desired, desired, &live),
            restart: self.settings.as_ref().map(|s| s.waiting(config)).unwrap_or_default(),
        }
    }

    /// Makes a configuration the running one, as far as that is possible without a new start; what that changed.
    ///
    /// # Errors
    /// If something is refused; nothing changed then.
    pub fn configure(&mut self, config: &Config, desired: Desired) -> Result<Plan, EditError> {
        let plan = self.plan(config, &desired);
        if !plan.changes.is_empty() {
            self.replace(desired)?;
        }
        Ok(plan)
    }

    /// The running configuration as a file.
    #[must_use]
    pub fn export(&self) -> String {
        let none = toml::Table::new();
        config::write(self.settings.as_ref().map_or(&none, |s| &s.fixed), &self.desired)
    }

    /// The running configuration.
    #[must_use]
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// Services with their counters, to be read on another thread.
    #[must_use]
    pub fn reading(&self) -> Reading {
        self.engine.reading()
    }

    /// Everything for Prometheus.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures { status: self.status(), reading: self.engine.reading(), reloads: self.reloads, started: self.started }
    }

    /// The configuration was read again, and was good or not.
    pub fn count_reload(&mut self, good: bool) {
        let r = &mut self.reloads;
        r.last_good = good;
        if good {
            r.succeeded += 1;
            r.last_success = Some(SystemTime::now());
        } else {
            r.failed += 1;
        }
    }

    /// The three timeouts of `--set`.
    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        self.desired.timeouts
    }

    /// A walk over the connections.
    #[must_use]
    pub fn connections(&self) -> Connections {
        self.engine.connections()
    }

    /// What takes expired connections down.
    #[must_use]
    pub fn sweeper(&self) -> Sweeper {
        self.engine.sweeper()
    }

    /// Sets counters to 0, of one service or of all.
    ///
    /// # Errors
    /// If there is no such service.
    pub fn zero(&mut self, service: Option<&ServiceId>) -> Result<(), EditError> {
        self.engine.zero(service)
    }

    /// The daemon as a whole.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            interfaces: self.interfaces.as_ref().map(Interfaces::views).unwrap_or_default(),
            tables: self.engine.tables(),
            sweeper: self.engine.sweeper_view(),
            planner: self.engine.planner_view(),
            verdicts: self.engine.verdicts(),
        }
    }

    /// Whether the way to every real server is, or once was, known.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.unknown.is_empty()
    }

    /// Ends the thread after this job.
    pub fn end(&mut self) {
        self.ending = true;
    }

    /// Keeps these edits, which led to the desired state, or else the whole of it.
    fn keep(&mut self, edits: Option<&[Edit]>) {
        self.save_at = None;
        let Some(store) = &mut self.store else { return };
        let kept = match edits {
            Some(edits) => store.append(edits, &self.desired),
            None => store.save(&self.desired),
        };
        if let Err(e) = kept {
            tracing::error!("{}: {e}: until this succeeds a new lvxd will not know the latest changes", store.path().display());
            self.save_at = Some(Instant::now() + SAVE_AGAIN);
        }
    }
}
