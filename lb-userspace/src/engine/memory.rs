//! The connection table over mapped maps: [`lb_common::table::Memory`] with the atomics of this process.
//!
//! The XDP program changes the same words with the same instructions at the same time; everything that keeps the two apart is
//! in [`lb_common::table`].

use super::mapped::Mapped;
use super::maps::Maps;
use aya::Pod;
use lb_common::config::Config;
use lb_common::conn::Conn;
use lb_common::dest::{Dest, DestConns};
use lb_common::family::{Family, V4, V6};
use lb_common::stats::DestStats;
use lb_common::table::{Bucket, Hands, Memory, Shape};
use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering};

/// One family's table.
#[derive(Debug)]
pub(super) struct TableMemory<F: Family> {
    config: Mapped<Config>,
    index: Mapped<Bucket>,
    pub(super) conns: Mapped<Conn<F>>,
    hands: Mapped<Hands>,
    pub(super) dests: Mapped<Dest>,
    dest_conns: Mapped<DestConns>,
    pub(super) dest_stats: Mapped<DestStats>,
}

impl TableMemory<V4> {
    pub(super) fn v4(maps: &Maps) -> Self {
        Self {
            config: maps.config.clone(),
            index: maps.index4.clone(),
            conns: maps.conns4.clone(),
            hands: maps.hands.clone(),
            dests: maps.dests.clone(),
            dest_conns: maps.dest_conns.clone(),
            dest_stats: maps.dest_stats.clone(),
        }
    }
}

impl TableMemory<V6> {
    pub(super) fn v6(maps: &Maps) -> Self {
        Self {
            config: maps.config.clone(),
            index: maps.index6.clone(),
            conns: maps.conns6.clone(),
            hands: maps.hands.clone(),
            dests: maps.dests.clone(),
            dest_conns: maps.dest_conns.clone(),
            dest_stats: maps.dest_stats.clone(),
        }
    }
}

impl<F: Family> TableMemory<F>
where
    Conn<F>: Pod,
{
    /// Shape and keys of the table.
    pub(super) fn shape(&self) -> Shape {
        let seed = |i: usize| self.config.u64(0, offset_of!(Config, seed) + i * 8).load(Ordering::Relaxed);
        Shape { seed: [seed(0), seed(1)], mask: self.index.len().wrapping_sub(1), records: self.conns.len() }
    }

    /// The time that the packet path goes by.
    pub(super) fn now(&self) -> lb_common::time::Tick {
        now(&self.config)
    }
}

/// The time that the packet path goes by.
pub(super) fn now(config: &Mapped<Config>) -> lb_common::time::Tick {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    let ns = (t.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(t.tv_nsec as u64);
    let offset = config.u32(0, offset_of!(Config, clock_offset)).load(Ordering::Relaxed);
    lb_common::time::tick_of_ns(ns).wrapping_add(offset)
}

/// A word that the packet path changes too.
fn atomic<'a>(word: *const u64) -> &'a AtomicU64 {
    // SAFETY: `Memory`'s contract: words come from its own pointers, which are aligned and stay valid while it is borrowed; the
    // reference does not outlive the call that makes it.
    unsafe { AtomicU64::from_ptr(word.cast_mut()) }
}

// SAFETY: `Mapped` gives pointers to memory of the right type and size, valid as long as `self`; the maps of the table are
// changed by nothing but table routines.
unsafe impl<F: Family> Memory<F> for TableMemory<F>
where
    Conn<F>: Pod,
{
    fn bucket(&self, index: u32) -> Option<*mut Bucket> {
        self.index.pointer(index)
    }

    fn conn(&self, index: u32) -> Option<*mut Conn<F>> {
        self.conns.pointer(index)
    }

    fn hand(&self) -> Option<*mut u64> {
        let hands = self.hands.pointer(0)?;
        // SAFETY: within the element.
        Some(unsafe { &raw mut (*hands).hand[Config::slot(F::ID)][0] })
    }

    fn dest_conns(&self, index: u32) -> Option<*mut DestConns> {
        self.dest_conns.pointer(index)
    }

    fn dest(&self, index: u32) -> Option<*const Dest> {
        self.dests.pointer(index).map(<*mut Dest>::cast_const)
    }

    fn load(word: *const u64) -> u64 {
        atomic(word).load(Ordering::Acquire)
    }

    fn store(word: *mut u64, value: u64) {
        atomic(word).store(value, Ordering::Release);
    }

    fn swap_if(word: *mut u64, old: u64, new: u64) -> u64 {
        match atomic(word).compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(was) | Err(was) => was,
        }
    }

    fn add(word: *mut u64, value: u64) -> u64 {
        atomic(word).fetch_add(value, Ordering::AcqRel)
    }
}
