//! The least loaded server: what `lc`, `wlc`, `sed` and `nq` share.
//!
//! Loads are fractions, load over weight, compared by cross multiplication; a tie goes to the first in the list.
//! [`least`] is the definition. [`Heap`] finds the same server over and over while only [`Pool::count`] changes the pool: loads
//! then only grow and servers only drop out, so an entry that is out of date is at most too small, and is put right when it
//! comes up. That is its trap: it must not outlive a plan.

use super::{Pool, Server};
use lb_common::load;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

pub(super) use lb_common::load::Measure;

/// Load over weight, in an order that no count and no weight upsets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load(load::Load);

impl Load {
    /// Of a server with weight.
    pub(super) fn of(measure: Measure, s: &Server) -> Self {
        let active = s.active.min(u64::MAX - 1);
        Self(load::Load::of(measure, s.overhead(), active, s.weight))
    }
}

impl Ord for Load {
    fn cmp(&self, other: &Self) -> Ordering {
        let across = |a: load::Load, b: load::Load| u128::from(a.over) * u128::from(b.under);
        across(self.0, other.0).cmp(&across(other.0, self.0))
    }
}

impl PartialOrd for Load {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Load {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Load {}

/// Position of the least loaded usable server.
pub(super) fn least(pool: &Pool, measure: Measure) -> Option<usize> {
    let usable = pool.servers().iter().enumerate().filter(|(_, s)| s.usable());
    usable.min_by_key(|(_, s)| Load::of(measure, s)).map(|(at, _)| at)
}

/// See the module.
pub(super) struct Heap {
    measure: Measure,
    /// Load when last looked at, rank among equals, position.
    entries: BinaryHeap<Reverse<(Load, usize, usize)>>,
}

impl Heap {
    /// Of all usable servers.
    pub(super) fn new(pool: &Pool, measure: Measure) -> Self {
        Self::of(pool, measure, 0..pool.servers().len())
    }

    /// Of the usable ones among these positions; the first wins a tie.
    pub(super) fn of(pool: &Pool, measure: Measure, positions: impl IntoIterator<Item = usize>) -> Self {
        let servers = pool.servers();
        let entries = positions
            .into_iter()
            .enumerate()
            .filter(|(_, at)| servers[*at].usable())
            .map(|(rank, at)| Reverse((Load::of(measure, &servers[at]), rank, at)))
            .collect();
        Self { measure, entries }
    }

    /// Position of the least loaded usable server; it stays.
    pub(super) fn least(&mut self, pool: &Pool) -> Option<usize> {
        loop {
            let mut top = self.entries.peek_mut()?;
            let (load, _, at) = top.0;
            let server = &pool.servers()[at];
            if !server.usable() {
                PeekMut::pop(top);
                continue;
            }
            let now = Load::of(self.measure, server);
            if now == load {
                return Some(at);
            }
            top.0.0 = now;
        }
    }

    /// The next `n` choices.
    pub(super) fn plan(&mut self, pool: &mut Pool, n: usize, picks: &mut Vec<u32>) {
        for _ in 0..n {
            let Some(at) = self.least(pool) else { return };
            picks.push(pool.servers()[at].key);
            pool.count(at);
        }
    }
}
