//! The sweeper: takes expired connections down, on a thread of its own, a bounded number of records at a time.
//!
//! The packet path reuses expired records on its own when it needs them; the sweeper is there so that counters fall when connections end.
//!
//! What a daemon that was killed left half done is put right before the first step; nothing else may end connections until then.

use super::Engine;
use super::memory::TableMemory;
use aya::Pod;
use lb_common::conn::Conn;
use lb_common::family::{Family, V4, V6};
use lb_common::table::{recover, sweep_range};
use std::sync::Arc;

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
    /// See [`recover`].
    recovered: bool,
}

impl Engine {
    /// The sweeper of these tables; one is enough.
    #[must_use]
    pub fn sweeper(&self) -> Sweeper {
        Sweeper { table4: self.table4.clone(), table6: self.table6.clone(), at: 0, recovered: false }
    }
}

impl Sweeper {
    /// Looks at the next records, `max_records` at most, and takes down those that are past their time.
    pub fn step(&mut self, max_records: u32) -> Swept {
        let mut swept = Swept::default();
        if !self.recovered {
            let left = [recover(&*self.table4, &self.table4.shape()), recover(&*self.table6, &self.table6.shape())];
            for orphans in left.map(|r| r.orphans).into_iter().filter(|&n| n != 0) {
                tracing::warn!(orphans, "connections that an earlier daemon left half taken down are gone");
            }
            self.recovered = true;
        }
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
    let got = sweep_range(table, &table.shape(), table.now(), start, max);
    swept.seen += got.examined;
    swept.live += got.live;
    swept.expired += got.expired;
    got.examined
}
