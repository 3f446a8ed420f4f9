//! Schedulers: which real server the next new connection goes to, chosen as the kernel's IPVS chooses.
//!
//! Everything here is pure: a [`Pool`] of servers with their counters goes in, choices come out; time and the packet's
//! addresses arrive in a [`Flow`]. One file holds one scheduler. [`Scheduler::schedule`] is the definition: one connection,
//! stated as plainly as the kernel states it. [`Scheduler::plan`] gives the next `n` choices ahead, counting each as one more
//! active connection; where the definition would be too slow for a thousand servers it is overridden, and a property test
//! holds the two together.
//!
//! Invariant: a scheduler never chooses a server of weight 0 or an overloaded one. The trap: servers are listed newest first,
//! and every tie goes to the first in the list.

pub mod plan;
pub mod pool;
pub mod simulate;

pub mod table;

mod aftermath;
mod arrivals;
mod dh;
mod fo;
mod lblc;
mod lblcr;
mod lc;
mod least;
mod locality;
mod mh;
mod nq;
mod ovf;
mod rr;
mod sed;
mod sh;
mod twos;
mod wlc;
mod wrr;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod laws;

pub use aftermath::Shares;
pub use dh::Dh;
pub use fo::Fo;
pub use lblc::Lblc;
pub use lblcr::Lblcr;
pub use lc::Lc;
pub use mh::{Mh, TableSize};
pub use nq::Nq;
pub use ovf::Ovf;
pub use pool::{Change, Pool, Server};
pub use rr::Rr;
pub use sed::Sed;
pub use sh::Sh;
pub use table::Table;
pub use twos::Twos;
pub use wlc::Wlc;
pub use wrr::Wrr;

use crate::model::{SchedFlags, SchedulerKind};
use std::net::{IpAddr, Ipv4Addr};

/// What a scheduler may know of the connection that it chooses for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// The client.
    pub client: IpAddr,
    /// Its port.
    pub client_port: u16,
    /// Where the packet is addressed to: the VIP.
    pub destination: IpAddr,
    /// Seconds on any clock that does not run backwards.
    pub now_s: u64,
}

impl Flow {
    /// A new connection to `destination` of a client that does not matter.
    #[must_use]
    pub const fn to(destination: IpAddr, now_s: u64) -> Self {
        Self { client: IpAddr::V4(Ipv4Addr::UNSPECIFIED), client_port: 0, destination, now_s }
    }
}

/// A scheduler of one service, with its state.
pub trait Scheduler: Send + Sync + std::fmt::Debug {
    /// Its name.
    fn kind(&self) -> SchedulerKind;

    /// A copy with the same state: what follows is computed on a copy, which is kept only once it came true.
    fn boxed(&self) -> Box<dyn Scheduler>;

    /// Starts on a pool that is there already (`-E -s`).
    fn start(&mut self, _pool: &Pool) {}

    /// The service's flags.
    fn set_flags(&mut self, _flags: SchedFlags) {}

    /// The pool changed. For a removal the pool still has the server.
    fn changed(&mut self, _pool: &Pool, _change: Change) {}

    /// The server, as a position in the pool, for one connection; `None` if there is no usable one.
    fn schedule(&mut self, pool: &Pool, flow: &Flow) -> Option<usize>;

    /// The next `n` choices, as keys; fewer if the usable servers run out. Counts them in the pool.
    fn plan(&mut self, pool: &mut Pool, flow: &Flow, n: usize, picks: &mut Vec<u32>) {
        for _ in 0..n {
            let Some(at) = self.schedule(pool, flow) else { return };
            picks.push(pool.servers()[at].key);
            pool.count(at);
        }
    }

    /// Moves the state past `picks`, a beginning of what [`Scheduler::plan`] gave from this state and this pool.
    fn advance(&mut self, pool: &Pool, flow: &Flow, picks: &[u32]) {
        let mut scratch = Vec::with_capacity(picks.len());
        self.plan(&mut pool.clone(), flow, picks.len(), &mut scratch);
    }

    /// Choices after which the same ones follow again for as long as no weight changes, whatever the counters do. `None`
    /// for schedulers that look at counters, at the client or at chance.
    fn cycle_len(&self, _pool: &Pool, _flow: &Flow) -> Option<u64> {
        None
    }

    /// How turns are shared behind a plan that was used up (see [`Shares`]); `None` if the plan itself is repeated.
    fn afterwards(&self) -> Option<Shares> {
        None
    }

    /// The table that the packet path looks clients up in, for schedulers that hash the client.
    fn table(&mut self, _pool: &Pool) -> Option<Table> {
        None
    }
}

/// The scheduler of that name in its first state.
#[must_use]
pub fn build(kind: SchedulerKind, flags: SchedFlags) -> Box<dyn Scheduler> {
    build_sized(kind, flags, TableSize::default())
}

/// As [`build`], with a size for the table of `mh`.
#[must_use]
pub fn build_sized(kind: SchedulerKind, flags: SchedFlags, size: TableSize) -> Box<dyn Scheduler> {
    let mut scheduler: Box<dyn Scheduler> = match kind {
        SchedulerKind::Rr => Box::new(Rr::default()),
        SchedulerKind::Wrr => Box::new(Wrr::default()),
        SchedulerKind::Lc => Box::new(Lc),
        SchedulerKind::Wlc => Box::new(Wlc),
        SchedulerKind::Sed => Box::new(Sed),
        SchedulerKind::Nq => Box::new(Nq),
        SchedulerKind::Fo => Box::new(Fo),
        SchedulerKind::Ovf => Box::new(Ovf),
        SchedulerKind::Twos => Box::new(Twos::default()),
        SchedulerKind::Sh => Box::new(Sh::default()),
        SchedulerKind::Dh => Box::new(Dh::default()),
        SchedulerKind::Mh => Box::new(Mh::sized(size)),
        SchedulerKind::Lblc => Box::new(Lblc::default()),
        SchedulerKind::Lblcr => Box::new(Lblcr::default()),
    };
    scheduler.set_flags(flags);
    scheduler
}
