//! What LVX's schedulers would have chosen: a history lived through without packets, by the definition of its scheduler
//! and by plans as the packet path takes them.

use super::player::Connection;
use super::{Count, History, Schedule, Setting, Step};
use lb_common::limits::MAX_PICK_TRIES;
use lb_userspace::model::{Protocol, SchedulerKind};
use lb_userspace::sched::plan::{Plan, Planner};
use lb_userspace::sched::{Change, Flow, Pool, Scheduler, Server, build};
use std::collections::BTreeMap;
use std::fmt;

/// Where a model and a recorded history part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// The history up to the first step that differs, with the answers that were recorded.
    pub prefix: History,
    /// Who differs.
    pub who: &'static str,
    /// Its answer.
    pub ours: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let theirs = self.prefix.steps.last().map(ToString::to_string).unwrap_or_default();
        write!(f, "recorded {theirs}, {} gives {}, after\n  {}", self.who, self.ours, self.prefix)
    }
}

/// A service and what is known about it.
struct Model<'a> {
    history: &'a History,
    schedule: Schedule,
    servers: Vec<Server>,
    /// Removed ones, with the connections that they still have.
    trash: BTreeMap<u32, Server>,
    plain: Box<dyn Scheduler>,
    pool: Pool,
    planner: Planner,
    taken: u32,
    /// The packet path asked for another plan.
    signalled: bool,
    connections: Vec<Connection>,
    /// Servers of connections that a pause ends.
    reset: Vec<u32>,
}

/// Lives through a history that was recorded.
///
/// # Errors
/// The first step where the recorded answer is another.
pub fn check(history: &History) -> Result<(), Mismatch> {
    let mut model = Model::new(history);
    for (at, step) in history.steps.iter().enumerate() {
        let wrong = |who, ours| Mismatch { prefix: history.prefix(at), who, ours };
        match step {
            Step::Connect { client, to, got } => {
                let flow = model.flow(*client, *to);
                let (defined, planned) = model.choose(&flow);
                let theirs = got.unwrap_or_default();
                for (who, ours) in [("the definition", defined), ("the plan", planned)] {
                    if ours != theirs {
                        return Err(wrong(who, Step::Connect { client: *client, to: *to, got: Some(ours) }.to_string()));
                    }
                }
                model.connected(*client, *to, theirs);
            }
            Step::Counts(counts) => {
                let ours = model.counts();
                if counts.as_ref() != Some(&ours) {
                    return Err(wrong("the model", Step::Counts(Some(ours)).to_string()));
                }
            }
            other => model.step(other),
        }
    }
    Ok(())
}

/// The history with the choices that plans give.
#[must_use]
pub fn live(history: &History) -> History {
    let mut lived = history.clone();
    let mut model = Model::new(history);
    for step in &mut lived.steps {
        match step {
            Step::Connect { client, to, got } => {
                let flow = model.flow(*client, *to);
                let (_, server) = model.choose(&flow);
                *got = Some(server);
                model.connected(*client, *to, server);
            }
            Step::Counts(counts) => *counts = Some(model.counts()),
            other => model.step(other),
        }
    }
    lived
}

/// Each choice of a recorded history with the pool before it, for schedulers that draw lots.
pub fn choices(history: &History, mut each: impl FnMut(&Pool, Option<u32>)) {
    let mut model = Model::new(history);
    for step in &history.steps {
        if let Step::Connect { client, to, got } = step {
            let server = got.unwrap_or_default();
            each(&model.pool, server);
            model.connected(*client, *to, server);
        } else {
            model.step(step);
        }
    }
}

impl<'a> Model<'a> {
    fn new(history: &'a History) -> Self {
        let Schedule { kind, flags } = history.schedule;
        Self {
            history,
            schedule: history.schedule,
            servers: Vec::new(),
            trash: BTreeMap::new(),
            plain: build(kind, flags),
            pool: Pool::default(),
            planner: Planner::new(kind, flags),
            taken: 0,
            signalled: false,
            connections: Vec::new(),
            reset: Vec::new(),
        }
    }

    fn flow(&self, client: u32, to: u32) -> Flow {
        let client_port = History::client_port(self.connections.len());
        Flow { client: self.history.client(client), client_port, ..Flow::to(self.history.vip(to), 0) }
    }

    fn connected(&mut self, client: u32, to: u32, server: Option<u32>) {
        self.connections.push(Connection { client, to, server });
        if let Some(server) = server {
            self.count(server, 1, 0);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Add(n, setting) => {
                let mut server = match self.trash.remove(n) {
                    Some(back) => edited(back, *setting),
                    None => edited(Server::new(*n, self.history.server(*n), super::SERVER_PORT, 0), *setting),
                };
                server.key = *n;
                self.servers.insert(0, server);
                self.configured();
            }
            Step::Edit(n, setting) => {
                let mut same = false;
                if let Some(server) = self.servers.iter_mut().find(|s| s.key == *n) {
                    let before = *server;
                    *server = edited(before, *setting);
                    same = (before.weight, before.upper, before.lower) == (server.weight, server.upper, server.lower);
                }
                self.told();
                if same && let Some(at) = self.pool.position(*n) {
                    self.plain.changed(&self.pool, Change::Edited(at));
                    self.planner.touch(*n);
                }
                self.replan();
            }
            Step::Delete(n) => {
                if let Some(at) = self.servers.iter().position(|s| s.key == *n) {
                    let gone = self.servers.remove(at);
                    self.trash.insert(*n, gone);
                }
                self.configured();
            }
            Step::Schedule(schedule) => {
                if schedule.kind == self.schedule.kind {
                    self.plain.set_flags(schedule.flags);
                } else {
                    self.plain = build(schedule.kind, schedule.flags);
                    self.plain.start(&self.pool);
                }
                self.schedule = *schedule;
                let flow = Flow::to(self.history.vip(0), 0);
                let size = self.planner.table_size();
                self.planner.change(schedule.kind, schedule.flags, size);
                let draft = self.planner.draft(&self.servers, &flow, self.taken);
                self.planner.commit(draft);
                self.taken = 0;
            }
            Step::Close(k) => self.end(*k, false),
            Step::Reset(k) => self.end(*k, true),
            Step::CloseAll(n) => {
                for k in 0..self.connections.len() {
                    if self.connections[k].server == Some(*n) {
                        self.end(k, false);
                    }
                }
            }
            Step::Wait => {
                for server in std::mem::take(&mut self.reset) {
                    self.count(server, 0, -1);
                }
            }
            Step::Connect { .. } | Step::Counts(_) => {}
        }
    }

    fn counts(&self) -> Vec<Count> {
        let count = |s: &Server| Count { server: s.key, active: s.active, inactive: s.inactive };
        self.servers.iter().map(count).collect()
    }

    /// The servers are others, or other than they were.
    fn configured(&mut self) {
        self.told();
        self.replan();
    }

    fn told(&mut self) {
        let plain = &mut self.plain;
        self.pool.update(&self.servers, |pool, change| plain.changed(pool, change));
    }

    fn replan(&mut self) {
        self.replan_for(&Flow::to(self.history.vip(0), 0));
    }

    fn replan_for(&mut self, flow: &Flow) {
        let draft = self.planner.draft(&self.servers, flow, self.taken);
        self.planner.commit(draft);
        (self.taken, self.signalled) = (0, false);
    }

    /// The choice of the definition, and that of the packet path.
    fn choose(&mut self, flow: &Flow) -> (Option<u32>, Option<u32>) {
        let defined = self.plain.schedule(&self.pool, flow).map(|at| self.servers[at].key);
        let counted = !matches!(self.planner.kind(), SchedulerKind::Rr | SchedulerKind::Wrr);
        if counted || self.signalled {
            self.replan_for(flow);
        }
        self.signalled = self.planner.plan().low_water().is_some_and(|low| self.taken >= low);
        let planned = match self.planner.plan() {
            Plan::Table(table) => table.choose(&self.pool, flow).map(|at| self.servers[at].key),
            Plan::Sequence { picks, .. } if picks.is_empty() => None,
            Plan::Sequence { picks, .. } => {
                let usable = |key: &u32| self.pool.get(*key).is_some_and(Server::usable);
                let tries = picks.len().min(MAX_PICK_TRIES as usize);
                let place = |n: usize| picks[(self.taken as usize + n) % picks.len()];
                let found = (0..tries).find(|n| usable(&place(*n)));
                let key = found.map(place);
                self.taken += found.map_or(1, |n| n as u32 + 1);
                key
            }
        };
        (defined, planned)
    }

    fn end(&mut self, connection: usize, reset: bool) {
        let Some(Connection { server, .. }) = self.connections.get_mut(connection) else { return };
        let there = |key: &u32| self.servers.iter().any(|s| s.key == *key);
        let Some(key) = server.filter(there).filter(|_| self.history.protocol == Protocol::Tcp) else { return };
        *server = None;
        if reset {
            self.reset.push(key);
        }
        self.count(key, -1, 1);
    }

    /// A connection comes (`active` is 1), ends (it is -1, `inactive` is 1), or is forgotten.
    fn count(&mut self, key: u32, active: i64, inactive: i64) {
        let udp = self.history.protocol == Protocol::Udp;
        let (active, inactive) = if udp { (0, active + inactive) } else { (active, inactive) };
        let there = self.servers.iter_mut().find(|s| s.key == key);
        let Some(server) = there.or_else(|| self.trash.get_mut(&key)) else { return };
        server.active = server.active.saturating_add_signed(active);
        server.inactive = server.inactive.saturating_add_signed(inactive);
        let all = server.active + server.inactive;
        server.overloaded = lb_common::dest::overloaded(server.overloaded, all, server.upper, server.lower);
        self.told();
    }
}

/// A server with another weight and other thresholds.
fn edited(server: Server, setting: Setting) -> Server {
    let all = server.active + server.inactive;
    let overloaded = lb_common::dest::overloaded(server.overloaded, all, setting.upper, setting.lower);
    Server { weight: setting.weight, upper: setting.upper, lower: setting.lower, overloaded, ..server }
}
