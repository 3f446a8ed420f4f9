//! `wlc`, weighted least connections: the server with the least overhead for each unit of weight. The default.

use super::least::{Heap, Measure, least};
use super::{Flow, Pool, Scheduler, Shares};
use crate::model::SchedulerKind;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wlc;

impl Scheduler for Wlc {
    fn kind(&self) -> SchedulerKind {
        SchedulerKind::Wlc
    }

    fn boxed(&self) -> Box<dyn Scheduler> {
        Box::new(*self)
    }

    fn schedule(&mut self, pool: &Pool, _flow: &Flow) -> Option<usize> {
        least(pool, Measure::Weighted)
    }

    fn plan(&mut self, pool: &mut Pool, _flow: &Flow, n: usize, picks: &mut Vec<u32>) {
        Heap::new(pool, Measure::Weighted).plan(pool, n, picks);
    }

    fn advance(&mut self, _pool: &Pool, _flow: &Flow, _picks: &[u32]) {}

    fn afterwards(&self) -> Option<Shares> {
        Some(Shares::Weighted)
    }
}
