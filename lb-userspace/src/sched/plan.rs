//! Plans: the choices that the daemon writes ahead for the packet path, and going on from any point of one.
//!
//! The packet path takes the picks of a plan one after the other and starts over at its end; a server that is gone, quiesced or
//! overloaded by then is passed over, and counts as taken. When the plan is replaced, the number taken is known exactly.
//! [`Planner::draft`] computes what follows without changing the planner, so that a draft can be thrown away when the
//! packet path took one more pick in the meantime; [`Planner::commit`] makes it true.
//!
//! Invariant: a scheduler's state stands exactly behind the last pick that was taken. Lengths:
//! * a scheduler that looks at weights alone (`rr`, `wrr`) gets whole cycles, which hold good for as long as the servers stay the same:
//!   nothing has to be replaced, and if the daemon dies the service goes on undisturbed. Overloaded servers have their turns in
//!   it, because the packet path passes over them by itself, and takes them again once they may be;
//! * a scheduler that looks at counters is simulated forward, each pick counting as one more active connection, far enough to last until
//!   the daemon has reacted; behind that stands a cycle by weights, for the time when it does not react (`aftermath`);
//! * a scheduler that hashes the client has a table instead.

use super::{Change, Flow, Pool, Scheduler, Server, Table, TableSize, aftermath, build_sized};
use crate::model::{SchedFlags, SchedulerKind};
use lb_common::limits::MAX_PICK_TRIES;
use std::sync::Arc;

/// Most picks of a plan, what follows it aside.
pub const MAX_PICKS: u32 = 4096;
/// Fewest picks of a plan that looks at counters.
const MIN_PICKS: u32 = 64;

/// Picks of a plan that looks at counters.
fn ahead_of(servers: usize) -> u32 {
    (servers as u32).saturating_mul(4).clamp(MIN_PICKS, MAX_PICKS)
}

/// What the packet path gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Plan {
    /// Keys of servers in order; none if every new connection is to be refused.
    Sequence {
        /// In order.
        picks: Vec<u32>,
        /// The number of taken picks at which the daemon wants to be asked for more; `None` if taking picks is no reason to.
        low_water: Option<u32>,
        /// Where it goes on after the last one.
        again: u32,
    },
    /// To look clients up in.
    Table(Table),
}

impl Plan {
    /// Keys in the order of the picks map.
    #[must_use]
    pub fn keys(&self) -> &[u32] {
        match self {
            Self::Sequence { picks, .. } => picks,
            Self::Table(table) => &table.slots,
        }
    }

    /// See [`Plan::Sequence`].
    #[must_use]
    pub const fn low_water(&self) -> Option<u32> {
        match self {
            Self::Sequence { low_water, .. } => *low_water,
            Self::Table(_) => None,
        }
    }

    /// See [`Plan::Sequence`].
    #[must_use]
    pub const fn again(&self) -> u32 {
        match self {
            Self::Sequence { again, .. } => *again,
            Self::Table(_) => 0,
        }
    }
}

/// A plan that is not in use yet.
#[derive(Debug)]
pub struct Draft {
    plan: Plan,
    scheduler: Box<dyn Scheduler>,
    pool: Pool,
    /// The pool as the picks were computed from it.
    basis: Pool,
    flow: Flow,
    /// What follows the plan, if anything does; the same for as long as no weight changes.
    afterwards: Option<Arc<[u32]>>,
}

impl Draft {
    /// To be written for the packet path.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }
}

/// Plans for one service.
#[derive(Debug)]
pub struct Planner {
    /// Everything as it was when the plan in use began.
    current: Draft,
    table_size: TableSize,
    /// Servers that were edited into what they were.
    touched: Vec<u32>,
}

impl Planner {
    /// For a service without servers.
    #[must_use]
    pub fn new(kind: SchedulerKind, flags: SchedFlags) -> Self {
        Self::sized(kind, flags, TableSize::default())
    }

    /// As [`Planner::new`], with a size for the tables of `mh`.
    #[must_use]
    pub fn sized(kind: SchedulerKind, flags: SchedFlags, table_size: TableSize) -> Self {
        Self { table_size, ..Self::with(build_sized(kind, flags, table_size)) }
    }

    /// For a service without servers, with this scheduler.
    #[must_use]
    pub fn with(scheduler: Box<dyn Scheduler>) -> Self {
        let flow = Flow::to(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
        let plan = Plan::Sequence { picks: Vec::new(), low_water: None, again: 0 };
        Self {
            current: Draft { plan, scheduler, pool: Pool::default(), basis: Pool::default(), flow, afterwards: None },
            table_size: TableSize::default(),
            touched: Vec::new(),
        }
    }

    /// A server was edited, and is as it was: the kernel's schedulers are told of that too (`upd_dest`), and so `wrr` starts at the
    /// front of the list again, with the next draft.
    pub fn touch(&mut self, server: u32) {
        self.touched.push(server);
    }

    /// The plan in use.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.current.plan
    }

    /// Name of the scheduler.
    #[must_use]
    pub fn kind(&self) -> SchedulerKind {
        self.current.scheduler.kind()
    }

    /// Room that plans and tables for that many servers need at most, in picks.
    #[must_use]
    pub fn capacity(&self, servers: &[Server]) -> u32 {
        use lb_common::sched_hash::MULTIPLY_SLOTS;
        match self.kind() {
            _ if servers.is_empty() => 0,
            SchedulerKind::Sh => MULTIPLY_SLOTS,
            SchedulerKind::Mh => self.table_size.slots(),
            SchedulerKind::Dh => 1,
            SchedulerKind::Rr => (servers.len() as u32).min(MAX_PICKS),
            SchedulerKind::Wrr => {
                let step = servers.iter().map(|s| s.weight).fold(0, super::wrr::gcd).max(1);
                let cycle = servers.iter().map(|s| u64::from(s.weight)).sum::<u64>() / u64::from(step);
                cycle.min(u64::from(MAX_PICKS)) as u32
            }
            _ if self.current.scheduler.afterwards().is_none() => ahead_of(servers.len()),
            _ => ahead_of(servers.len()) + aftermath::room(servers.len()),
        }
    }

    /// A new planner for a service whose plan in use another process wrote: with this the next draft goes on from where that plan got to.
    /// Picks of servers that are not there any more count for nothing.
    pub fn resume(&mut self, servers: &[Server], flow: &Flow, picks: Vec<u32>, again: u32) {
        let mut draft = self.draft(servers, flow, 0);
        if matches!(draft.plan, Plan::Sequence { .. }) && picks.iter().all(|p| draft.pool.get(*p).is_some()) {
            draft.basis = draft.pool.clone();
            draft.plan = Plan::Sequence { picks, low_water: None, again };
        }
        self.commit(draft);
    }

    /// The plan that follows when `taken` picks of the one in use were taken and `servers`, newest first, are there now with these
    /// counters. `flow` names the VIP and the time.
    #[must_use]
    pub fn draft(&self, servers: &[Server], flow: &Flow, taken: u32) -> Draft {
        let scheduler = self.settled(taken);
        self.go_on(scheduler, servers, flow)
    }

    /// Another scheduler, other flags or another size of table from here on, on the servers that are there (`-E`): the next draft is
    /// the first of it.
    pub fn change(&mut self, kind: SchedulerKind, flags: SchedFlags, table_size: TableSize) {
        if (kind, table_size) == (self.kind(), self.table_size) {
            self.current.scheduler.set_flags(flags);
            return;
        }
        self.table_size = table_size;
        let now = &mut self.current;
        now.scheduler = build_sized(kind, flags, table_size);
        now.scheduler.start(&now.pool);
        now.plan = Plan::Sequence { picks: Vec::new(), low_water: None, again: 0 };
        now.afterwards = None;
    }

    /// Size of the tables of `mh`.
    #[must_use]
    pub const fn table_size(&self) -> TableSize {
        self.table_size
    }

    /// `draft` is in use.
    pub fn commit(&mut self, draft: Draft) {
        self.current = draft;
        self.touched.clear();
    }

    /// The scheduler's state after `taken` picks of the plan in use.
    fn settled(&self, taken: u32) -> Box<dyn Scheduler> {
        let now = &self.current;
        let mut scheduler = now.scheduler.boxed();
        if let Plan::Sequence { picks, again, .. } = &now.plan
            && taken > 0
            && !picks.is_empty()
        {
            // A plan that was used more than once: what counts is the place in it.
            let whole = lb_common::service::Plan { base: 0, len: picks.len() as u32 };
            let taken = whole.position(taken - 1, *again) as usize + 1;
            scheduler.advance(&now.basis, &now.flow, &picks[..taken]);
        }
        scheduler
    }

    fn go_on(&self, mut scheduler: Box<dyn Scheduler>, servers: &[Server], flow: &Flow) -> Draft {
        let mut pool = self.current.pool.clone();
        let mut same = scheduler.kind() == self.kind();
        pool.update(servers, |pool, change| {
            same = false;
            scheduler.changed(pool, change);
        });
        for at in self.touched.iter().filter_map(|key| pool.position(*key)) {
            scheduler.changed(&pool, Change::Edited(at));
        }
        if !servers.is_empty()
            && let Some(table) = scheduler.table(&pool)
        {
            return Draft { plan: Plan::Table(table), scheduler, basis: Pool::default(), pool, flow: *flow, afterwards: None };
        }
        let ahead = |basis: &Pool, n: u64| {
            let mut picks = Vec::with_capacity(n as usize);
            scheduler.boxed().plan(&mut basis.clone(), flow, n as usize, &mut picks);
            picks
        };
        let mut basis = pool.clone();
        let mut afterwards = None;
        let plan = if let Some(cycle) = scheduler.cycle_len(&pool, flow) {
            let whole = cycle <= u64::from(MAX_PICKS);
            let len = cycle.min(u64::from(MAX_PICKS));
            basis.clear_overload();
            let mut picks = ahead(&basis, len);
            let mut low_water = (!whole).then_some(len as u32 / 2);
            let may_overload = |s: &Server| s.overloaded || s.upper > 0;
            if pool.servers().iter().any(|s| s.upper > 0) && hides_others(&picks, &pool, may_overload) {
                // Nobody else says that a server is overloaded by now.
                low_water = Some(0);
            }
            if hides_the_usable(&picks, &pool) {
                // So many turns in a row are an overloaded server's that the packet path would give up on the way to a usable
                // one: leave them out, and come back to see whether it still is.
                basis = pool.clone();
                picks = ahead(&basis, len);
                low_water = Some(1);
            }
            Plan::Sequence { picks, low_water, again: 0 }
        } else {
            let mut picks = ahead(&basis, u64::from(ahead_of(servers.len())));
            let mut again = 0;
            if let Some(shares) = scheduler.afterwards() {
                let kept = self.current.afterwards.clone().filter(|_| same);
                let cycle = kept.unwrap_or_else(|| aftermath::cycle(&pool, shares).into());
                again = picks.len() as u32;
                picks.extend_from_slice(&cycle);
                afterwards = Some(cycle);
            }
            // The packet path tells of every connection that it counted: taking picks is no reason of its own.
            Plan::Sequence { picks, low_water: None, again }
        };
        Draft { plan, scheduler, pool, basis, flow: *flow, afterwards }
    }
}

/// Whether, somewhere in the circle of picks, more overloaded servers follow each other than the packet path looks at, while
/// another one is usable.
fn hides_the_usable(picks: &[u32], pool: &Pool) -> bool {
    if pool.servers().iter().all(|s| !s.overloaded) || !pool.servers().iter().any(Server::usable) {
        return false;
    }
    hides_others(picks, pool, |s| s.overloaded)
}

/// Whether more servers of which `skipped` is true follow each other than the packet path looks at.
fn hides_others(picks: &[u32], pool: &Pool, skipped: impl Fn(&Server) -> bool) -> bool {
    let mut run = 0;
    for key in picks.iter().chain(picks) {
        run = if pool.get(*key).is_some_and(&skipped) { run + 1 } else { 0 };
        if run >= MAX_PICK_TRIES {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests;
