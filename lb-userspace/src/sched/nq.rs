//! `nq`, never queue: the first server without an active connection, however small its weight; without one, as `sed`.

use super::least::{Heap, Measure, least};
use super::{Flow, Pool, Scheduler, Shares};
use crate::model::SchedulerKind;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nq;

fn idle_from(pool: &Pool, first: usize) -> Option<usize> {
    let servers = pool.servers();
    (first..servers.len()).find(|&at| servers[at].usable() && servers[at].active == 0)
}

impl Scheduler for Nq {
    fn kind(&self) -> SchedulerKind {
        SchedulerKind::Nq
    }

    fn boxed(&self) -> Box<dyn Scheduler> {
        Box::new(*self)
    }

    fn schedule(&mut self, pool: &Pool, _flow: &Flow) -> Option<usize> {
        idle_from(pool, 0).or_else(|| least(pool, Measure::Expected))
    }

    fn plan(&mut self, pool: &mut Pool, _flow: &Flow, n: usize, picks: &mut Vec<u32>) {
        let mut left = n;
        let mut first = 0;
        while left > 0
            && let Some(at) = idle_from(pool, first)
        {
            picks.push(pool.servers()[at].key);
            pool.count(at);
            first = at + 1;
            left -= 1;
        }
        if left > 0 {
            Heap::new(pool, Measure::Expected).plan(pool, left, picks);
        }
    }

    fn advance(&mut self, _pool: &Pool, _flow: &Flow, _picks: &[u32]) {}

    fn afterwards(&self) -> Option<Shares> {
        Some(Shares::Weighted)
    }
}
