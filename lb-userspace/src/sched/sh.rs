//! `sh`, source hashing: the client's address, with `sh-port` its port too, decides.
//!
//! The 256 slots are filled by going round the list, each server taking as many slots in a row as its weight says, and one if it is
//! quiesced: quiescing a server of weight 1 moves no other's clients.

use super::table::{NO_SERVER, Table};
use super::{Change, Flow, Pool, Scheduler};
use crate::model::{SchedFlags, SchedulerKind};
use lb_common::sched_hash::{Kind, MULTIPLY_SLOTS};
use std::sync::Arc;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Sh {
    flags: SchedFlags,
    slots: Option<Arc<[u32]>>,
}

/// The slots for a pool; `by_weight` or one each.
pub(super) fn fill(pool: &Pool, by_weight: bool) -> Arc<[u32]> {
    let runs = || pool.servers().iter().map(|s| (s.key, if by_weight { s.weight.max(1) } else { 1 }));
    if pool.servers().is_empty() {
        return Arc::new([NO_SERVER; MULTIPLY_SLOTS as usize]);
    }
    let round = runs().cycle().flat_map(|(key, n)| std::iter::repeat_n(key, n as usize));
    round.take(MULTIPLY_SLOTS as usize).collect()
}

impl Scheduler for Sh {
    fn kind(&self) -> SchedulerKind {
        SchedulerKind::Sh
    }

    fn boxed(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn start(&mut self, _pool: &Pool) {
        self.slots = None;
    }

    fn set_flags(&mut self, flags: SchedFlags) {
        self.flags = flags;
    }

    fn changed(&mut self, _pool: &Pool, _change: Change) {
        self.slots = None;
    }

    fn schedule(&mut self, pool: &Pool, flow: &Flow) -> Option<usize> {
        self.table(pool)?.choose(pool, flow)
    }

    fn table(&mut self, pool: &Pool) -> Option<Table> {
        Some(Table {
            kind: Kind::Multiply,
            by_destination: false,
            port: self.flags.contains(SchedFlags::PORT),
            fallback: self.flags.contains(SchedFlags::FALLBACK),
            slots: Arc::clone(self.slots.get_or_insert_with(|| fill(pool, true))),
        })
    }
}
