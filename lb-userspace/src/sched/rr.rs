//! `rr`, round robin: each server in turn, whatever its weight unless that is 0.
//!
//! The state is the server chosen last; the next one after it in the list follows. When that server is removed, the place
//! passes to the one before it, so that the next choice is the one that came after.

use super::{Change, Flow, Pool, Scheduler};
use crate::model::SchedulerKind;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Rr {
    /// Key of the server chosen last; `None` before the first in the list.
    last: Option<u32>,
}

impl Scheduler for Rr {
    fn kind(&self) -> SchedulerKind {
        SchedulerKind::Rr
    }

    fn boxed(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn start(&mut self, _pool: &Pool) {
        self.last = None;
    }

    fn changed(&mut self, pool: &Pool, change: Change) {
        if let Change::Removed(at) = change
            && self.last == Some(pool.servers()[at].key)
        {
            self.last = at.checked_sub(1).map(|before| pool.servers()[before].key);
        }
    }

    fn schedule(&mut self, pool: &Pool, _flow: &Flow) -> Option<usize> {
        let servers = pool.servers();
        let first = self.last.and_then(|key| pool.position(key)).map_or(0, |at| at + 1);
        let found = (first..servers.len()).chain(0..first).find(|&at| servers[at].usable())?;
        self.last = Some(servers[found].key);
        Some(found)
    }

    fn advance(&mut self, _pool: &Pool, _flow: &Flow, picks: &[u32]) {
        if let Some(last) = picks.last() {
            self.last = Some(*last);
        }
    }

    fn cycle_len(&self, pool: &Pool, _flow: &Flow) -> Option<u64> {
        Some(pool.servers().iter().filter(|s| s.weight > 0).count() as u64)
    }
}
