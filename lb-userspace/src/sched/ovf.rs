//! `ovf`, weighted overflow: the server with the greatest weight until its active connections exceed its weight, then the
//! next one.

use super::fo::{heaviest, plan_lasting};
use super::{Flow, Pool, Scheduler, Server};
use crate::model::SchedulerKind;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ovf;

fn has_room(s: &Server) -> bool {
    s.active <= u64::from(s.weight)
}

impl Scheduler for Ovf {
    fn kind(&self) -> SchedulerKind {
        SchedulerKind::Ovf
    }

    fn boxed(&self) -> Box<dyn Scheduler> {
        Box::new(*self)
    }

    fn schedule(&mut self, pool: &Pool, _flow: &Flow) -> Option<usize> {
        heaviest(pool, has_room)
    }

    fn plan(&mut self, pool: &mut Pool, _flow: &Flow, n: usize, picks: &mut Vec<u32>) {
        plan_lasting(pool, n, picks, has_room, |pool| heaviest(pool, has_room));
    }

    fn advance(&mut self, _pool: &Pool, _flow: &Flow, _picks: &[u32]) {}
}
