//! `lblcr`, locality-based least connections with replication: connections to one destination go to a set of servers, of which the one
//! with the least overhead for its weight is taken. When that one has more active connections than its weight while another has
//! less than half of its own, the server that `wlc` would take joins the set. A set that did not change for a day loses its
//! most loaded server.

use super::least::{Heap, Load, Measure, least};
use super::locality::{EXPIRATION_S, Light, Memory, Place};
use super::{Flow, Pool, Scheduler, Server};
use crate::model::SchedulerKind;

/// The servers of one destination.
#[derive(Clone, Debug)]
struct Set {
    /// Newest first: the first wins a tie.
    places: Vec<Place>,
    changed_s: u64,
}

impl Set {
    fn positions(&self, pool: &Pool) -> impl Iterator<Item = usize> {
        self.places.iter().filter_map(|place| place.position(pool))
    }

    fn least(&self, pool: &Pool) -> Option<usize> {
        let usable = self.positions(pool).filter(|&at| pool.servers()[at].usable());
        usable.min_by_key(|&at| Load::of(Measure::Weighted, &pool.servers()[at]))
    }

    /// Drops the most loaded server if the set is due for it.
    fn shrink(&mut self, pool: &Pool, now_s: u64) {
        if self.places.len() < 2 || now_s.saturating_sub(self.changed_s) <= EXPIRATION_S {
            return;
        }
        let mut most: Option<(Load, usize)> = None;
        for at in self.positions(pool).filter(|&at| pool.servers()[at].weight > 0) {
            let load = Load::of(Measure::Weighted, &pool.servers()[at]);
            if most.is_none_or(|(m, _)| load > m) {
                most = Some((load, at));
            }
        }
        if let Some((_, at)) = most {
            self.places.retain(|place| !place.is(&pool.servers()[at]));
            self.changed_s = now_s;
        }
    }

    fn insert(&mut self, server: &Server, now_s: u64) -> bool {
        let new = !self.places.iter().any(|place| place.is(server));
        if new {
            self.places.insert(0, Place::of(server));
            self.changed_s = now_s;
        }
        new
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Lblcr {
    memory: Memory<Set>,
}

impl Lblcr {
    fn remember(&mut self, flow: &Flow, server: &Server) -> bool {
        match self.memory.get(flow.destination, flow.now_s) {
            Some(set) => set.insert(server, flow.now_s),
            None => {
                self.memory.put(flow.destination, flow.now_s, Set { places: vec![Place::of(server)], changed_s: flow.now_s });
                true
            }
        }
    }
}

impl Scheduler for Lblcr {
    fn kind(&self) -> SchedulerKind {
        SchedulerKind::Lblcr
    }

    fn boxed(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn start(&mut self, _pool: &Pool) {
        self.memory = Memory::default();
    }

    fn schedule(&mut self, pool: &Pool, flow: &Flow) -> Option<usize> {
        if let Some(set) = self.memory.get(flow.destination, flow.now_s) {
            let best = set.least(pool);
            set.shrink(pool, flow.now_s);
            let light = Light::new(pool);
            if let Some(at) = best.filter(|&at| !light.is_busy(&pool.servers()[at])) {
                return Some(at);
            }
        }
        let at = least(pool, Measure::Weighted)?;
        self.remember(flow, &pool.servers()[at]);
        Some(at)
    }

    fn plan(&mut self, pool: &mut Pool, flow: &Flow, n: usize, picks: &mut Vec<u32>) {
        if n == 0 {
            return;
        }
        // The first choice may shrink the set; after it, sets only grow within a plan.
        let Some(at) = self.schedule(pool, flow) else { return };
        picks.push(pool.servers()[at].key);
        pool.count(at);
        let mut light = Light::new(pool);
        let mut all = None;
        let mut set = None;
        for _ in 1..n {
            let of_set = set.get_or_insert_with(|| {
                let known = self.memory.get(flow.destination, flow.now_s);
                Heap::of(pool, Measure::Weighted, known.iter().flat_map(|set| set.positions(pool)))
            });
            let best = of_set.least(pool).filter(|&at| !light.is_busy(&pool.servers()[at]));
            let of_all = || all.get_or_insert_with(|| Heap::new(pool, Measure::Weighted)).least(pool);
            let Some(at) = best.or_else(of_all) else { return };
            if best.is_none() && self.remember(flow, &pool.servers()[at]) {
                set = None;
            }
            picks.push(pool.servers()[at].key);
            light.count(pool, at);
        }
    }
}
