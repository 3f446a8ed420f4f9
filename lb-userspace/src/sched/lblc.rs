//! `lblc`, locality-based least connections: connections to one destination go to the same server, chosen as `wlc` does, until it
//! has more active connections than its weight while another has less than half of its own.
//!
//! One departure from the kernel, which looks at the upper threshold only when it chooses anew: here an overloaded server is left
//! at once.

use super::least::{Heap, Measure, least};
use super::locality::{Light, Memory, Place};
use super::{Flow, Pool, Scheduler};
use crate::model::SchedulerKind;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Lblc {
    memory: Memory<Place>,
}

impl Lblc {
    fn choose(&mut self, pool: &Pool, flow: &Flow, light: &Light, least: impl FnOnce(&Pool) -> Option<usize>) -> Option<usize> {
        let known = self.memory.get(flow.destination, flow.now_s).and_then(|place| place.position(pool));
        let stays = known.filter(|&at| pool.servers()[at].usable() && !light.is_busy(&pool.servers()[at]));
        if stays.is_some() {
            return stays;
        }
        let at = least(pool)?;
        self.memory.put(flow.destination, flow.now_s, Place::of(&pool.servers()[at]));
        Some(at)
    }
}

impl Scheduler for Lblc {
    fn kind(&self) -> SchedulerKind {
        SchedulerKind::Lblc
    }

    fn boxed(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn start(&mut self, _pool: &Pool) {
        self.memory = Memory::default();
    }

    fn schedule(&mut self, pool: &Pool, flow: &Flow) -> Option<usize> {
        self.choose(pool, flow, &Light::new(pool), |pool| least(pool, Measure::Weighted))
    }

    fn plan(&mut self, pool: &mut Pool, flow: &Flow, n: usize, picks: &mut Vec<u32>) {
        let mut light = Light::new(pool);
        let mut heap = None;
        for _ in 0..n {
            let of_all = |pool: &Pool| heap.get_or_insert_with(|| Heap::new(pool, Measure::Weighted)).least(pool);
            let Some(at) = self.choose(pool, flow, &light, of_all) else { return };
            picks.push(pool.servers()[at].key);
            light.count(pool, at);
        }
    }

    fn advance(&mut self, pool: &Pool, flow: &Flow, picks: &[u32]) {
        if let Some(last) = picks.last().and_then(|key| pool.get(*key)) {
            self.memory.put(flow.destination, flow.now_s, Place::of(last));
        }
    }
}
