//! `fo`, weighted failover: all connections to the server with the greatest weight.

use super::{Flow, Pool, Scheduler};
use crate::model::SchedulerKind;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fo;

/// Position of the usable server with the greatest weight for which `also` holds; the first of equals.
pub(super) fn heaviest(pool: &Pool, also: impl Fn(&super::Server) -> bool) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (at, s) in pool.servers().iter().enumerate() {
        if s.usable() && also(s) && best.is_none_or(|b| s.weight > pool.servers()[b].weight) {
            best = Some(at);
        }
    }
    best
}

/// Plans with `choose` where a choice stands for as long as `holds`.
pub(super) fn plan_lasting(
    pool: &mut Pool,
    n: usize,
    picks: &mut Vec<u32>,
    holds: impl Fn(&super::Server) -> bool,
    choose: impl Fn(&Pool) -> Option<usize>,
) {
    let mut chosen: Option<usize> = None;
    for _ in 0..n {
        let stands = chosen.filter(|&at| pool.servers()[at].usable() && holds(&pool.servers()[at]));
        let Some(at) = stands.or_else(|| choose(pool)) else { return };
        chosen = Some(at);
        picks.push(pool.servers()[at].key);
        pool.count(at);
    }
}

impl Scheduler for Fo {
    fn kind(&self) -> SchedulerKind {
        SchedulerKind::Fo
    }

    fn boxed(&self) -> Box<dyn Scheduler> {
        Box::new(*self)
    }

    fn schedule(&mut self, pool: &Pool, _flow: &Flow) -> Option<usize> {
        heaviest(pool, |_| true)
    }

    fn plan(&mut self, pool: &mut Pool, _flow: &Flow, n: usize, picks: &mut Vec<u32>) {
        plan_lasting(pool, n, picks, |_| true, |pool| heaviest(pool, |_| true));
    }

    fn advance(&mut self, _pool: &Pool, _flow: &Flow, _picks: &[u32]) {}

    fn cycle_len(&self, pool: &Pool, _flow: &Flow) -> Option<u64> {
        let greatest = pool.servers().iter().map(|s| s.weight).max().unwrap_or(0);
        if greatest == 0 {
            return Some(0);
        }
        // A threshold on the way to the server that is always there would make the choice depend on counters.
        let first = pool.servers().iter().find(|s| s.weight == greatest);
        first.is_some_and(|s| s.upper == 0).then_some(1)
    }
}
