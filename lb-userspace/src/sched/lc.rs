//! `lc`, least connections: the server with the least overhead (256 for an active connection, 1 for an inactive one),
//! whatever its weight unless that is 0.

use super::least::{Heap, Measure, least};
use super::{Flow, Pool, Scheduler, Shares};
use crate::model::SchedulerKind;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lc;

impl Scheduler for Lc {
    fn kind(&self) -> SchedulerKind {
        SchedulerKind::Lc
    }

    fn boxed(&self) -> Box<dyn Scheduler> {
        Box::new(*self)
    }

    fn schedule(&mut self, pool: &Pool, _flow: &Flow) -> Option<usize> {
        least(pool, Measure::Plain)
    }

    fn plan(&mut self, pool: &mut Pool, _flow: &Flow, n: usize, picks: &mut Vec<u32>) {
        Heap::new(pool, Measure::Plain).plan(pool, n, picks);
    }

    fn advance(&mut self, _pool: &Pool, _flow: &Flow, _picks: &[u32]) {}

    fn afterwards(&self) -> Option<Shares> {
        Some(Shares::Equal)
    }
}
