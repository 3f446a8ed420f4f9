//! The audit: real servers' connection counts against the tables, on the sweeper's thread.
//!
//! The counts are kept by additions and never counted anew, so an error in them would stay for ever; only a daemon killed in the middle of
//! taking a connection down can have made one. An audit goes through both tables without a pause, because it can only judge a server whose
//! counts stood still meanwhile: that is some ten milliseconds for a million connections. What differs twice in a row is put right
//! ([`lb_common::table::Audit`]).

use super::memory::TableMemory;
use aya::Pod;
use lb_common::conn::Conn;
use lb_common::dest::PRESENT;
use lb_common::family::{Family, V4, V6, ip_of};
use lb_common::stats::DestStats;
use lb_common::table::{Audit, Healed, touched};
use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Records gone through before asking whether to go on.
const PIECE: u32 = 1 << 16;

/// Audits, one after the other.
#[derive(Debug)]
pub(super) struct Auditor {
    table4: Arc<TableMemory<V4>>,
    table6: Arc<TableMemory<V6>>,
    audit: Audit,
}

/// Goes through a whole table; false if told to stop.
fn go_through<F: Family>(audit: &mut Audit, table: &TableMemory<F>, go_on: &impl Fn() -> bool) -> bool
where
    Conn<F>: Pod,
{
    let shape = table.shape();
    let end = touched(table, &shape);
    let mut at = 0;
    while at < end {
        if !go_on() {
            return false;
        }
        let n = PIECE.min(end - at);
        audit.go_through(table, &shape, at, n);
        at += n;
    }
    true
}

impl Auditor {
    pub(super) fn new(table4: Arc<TableMemory<V4>>, table6: Arc<TableMemory<V6>>) -> Self {
        Self { table4, table6, audit: Audit::default() }
    }

    /// One audit; `None` if it was told to stop.
    pub(super) fn run(&mut self, go_on: impl Fn() -> bool) -> Option<Vec<Healed>> {
        let Self { table4, table6, audit } = self;
        let made = |dest| Some(made(table4, dest));
        audit.begin(&**table4, table4.dests.len(), made);
        if !go_through(audit, table4, &go_on) || !go_through(audit, table6, &go_on) {
            return None;
        }
        Some(audit.finish(&**table4, made))
    }

    /// What an operator knows a server by.
    pub(super) fn name(&self, dest: u32) -> String {
        let name = self.table4.dests.read(dest).and_then(|d| {
            let address = ip_of(d.real, d.family)?;
            Some(std::net::SocketAddr::new(address, u16::from_be(d.port)).to_string())
        });
        name.unwrap_or_else(|| format!("number {dest}"))
    }
}

/// Connections ever made to a server. One that is gone from its service gets none.
fn made(table: &TableMemory<V4>, dest: u32) -> u64 {
    if table.dests.u32(dest, offset_of!(lb_common::dest::Dest, flags)).load(Ordering::Acquire) & PRESENT == 0 {
        return 0;
    }
    let (servers, stats) = (table.dests.len(), &table.dest_stats);
    (0..stats.len() / servers)
        .map(|cpu| stats.u64(cpu * servers + dest, offset_of!(DestStats, connections)).load(Ordering::Relaxed))
        .fold(0, u64::wrapping_add)
}
