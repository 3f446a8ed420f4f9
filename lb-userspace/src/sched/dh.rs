//! `dh`, destination hashing: the address that the client asked for decides. A service has one such address, so that its plan is
//! a single server; the table matters to services that span many addresses.
//!
//! The 256 slots are filled by going round the list, one each, whatever the weight.

use super::sh::fill;
use super::table::Table;
use super::{Change, Flow, Pool, Scheduler};
use crate::model::SchedulerKind;
use lb_common::sched_hash::Kind;
use std::sync::Arc;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Dh {
    slots: Option<Arc<[u32]>>,
}

impl Dh {
    /// The table, for a service of many addresses.
    pub fn destinations(&mut self, pool: &Pool) -> Table {
        Table {
            kind: Kind::Multiply,
            by_destination: true,
            port: false,
            fallback: false,
            slots: Arc::clone(self.slots.get_or_insert_with(|| fill(pool, false))),
        }
    }
}

impl Scheduler for Dh {
    fn kind(&self) -> SchedulerKind {
        SchedulerKind::Dh
    }

    fn boxed(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn start(&mut self, _pool: &Pool) {
        self.slots = None;
    }

    fn changed(&mut self, _pool: &Pool, change: Change) {
        if !matches!(change, Change::Edited(_)) {
            self.slots = None;
        }
    }

    fn schedule(&mut self, pool: &Pool, flow: &Flow) -> Option<usize> {
        self.destinations(pool).choose(pool, flow)
    }

    fn advance(&mut self, _pool: &Pool, _flow: &Flow, _picks: &[u32]) {}

    fn cycle_len(&self, pool: &Pool, flow: &Flow) -> Option<u64> {
        // The server itself may be overloaded now: then its turn is refused, and nobody else's.
        let mut pool = pool.clone();
        pool.clear_overload();
        Some(u64::from(self.clone().schedule(&pool, flow).is_some()))
    }
}
