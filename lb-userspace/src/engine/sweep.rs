//! The sweeper: takes expired connections down, on a thread of its own, a bounded number of records at a time.
//!
//! The packet path reuses expired records on its own when it needs them; the sweeper is there so that counters fall when connections end.
//!
//! The trap: a packet may refresh the deadline between the look at it and the claim, without touching the control word. The
//! deadline is therefore read once more just before; what is left is an instant at the very end of an idle connection's life,
//! in which the kernel's timer would not have waited either.

use super::Engine;
use super::memory::TableMemory;
use aya::Pod;
use lb_common::conn::{self, Conn, LIVE};
use lb_common::family::{Family, V4, V6};
use lb_common::table::{Memory, claim, release, take_down};
use lb_common::time::reached;
use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a step of the sweeper did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Records looked at.
    pub seen: u32,
    /// Connections that were live and stay.
    pub live: u32,
    /// Connections taken down.
    pub expired: u32,
    /// The step ended at the end of both tables: a round is complete.
    pub round: bool,
}

/// Takes expired connections down.
#[derive(Debug)]
pub struct Sweeper {
    table4: Arc<TableMemory<V4>>,
    table6: Arc<TableMemory<V6>>,
    /// Next record, counted through both tables.
    at: u64,
}

impl Engine {
    /// The sweeper of these tables; one is enough.
    #[must_use]
    pub fn sweeper(&self) -> Sweeper {
        Sweeper { table4: self.table4.clone(), table6: self.table6.clone(), at: 0 }
    }
}

impl Sweeper {
    /// Looks at the next records, `max_records` at most, and takes down those that are past their time.
    pub fn step(&mut self, max_records: u32) -> Swept {
        let mut swept = Swept::default();
        let (first, second) = (self.table4.conns.len(), self.table6.conns.len());
        let all = u64::from(first) + u64::from(second);
        while swept.seen < max_records && !swept.round {
            let left = max_records - swept.seen;
            let n = if self.at < u64::from(first) {
                sweep(&*self.table4, self.at as u32, left, &mut swept)
            } else {
                sweep(&*self.table6, (self.at - u64::from(first)) as u32, left, &mut swept)
            };
            self.at += u64::from(n);
            if self.at >= all {
                self.at = 0;
                swept.round = true;
            }
        }
        swept
    }
}

/// Sweeps up to `max` records of one table from `start` on; how many it looked at.
fn sweep<F: Family>(table: &TableMemory<F>, start: u32, max: u32, swept: &mut Swept) -> u32
where
    Conn<F>: Pod,
{
    let (shape, now) = (table.shape(), table.now());
    let end = start.saturating_add(max).min(table.conns.len());
    for index in start..end {
        swept.seen += 1;
        let ctl = table.conns.u64(index, offset_of!(Conn<F>, ctl)).load(Ordering::Acquire);
        if conn::phase(ctl) != LIVE {
            continue;
        }
        let expired = || reached(now, table.conns.u32(index, offset_of!(Conn<F>, expires)).load(Ordering::Acquire));
        let Some(record) = table.conn(index) else { continue };
        if !(expired() && expired() && claim::<F, TableMemory<F>>(record, ctl)) {
            swept.live += 1;
            continue;
        }
        // SAFETY: just claimed; `ctl` is the control word before.
        unsafe {
            take_down(table, &shape, index, record, ctl);
            release::<F, TableMemory<F>>(record, ctl);
        }
        swept.expired += 1;
    }
    end - start
}
