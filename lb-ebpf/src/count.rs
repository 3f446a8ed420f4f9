//! Counters: verdicts, and packets and bytes of real servers. Each CPU has its own, so additions are plain.

use crate::maps;
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use lb_common::config::Config;
use lb_common::stats::{Cpu, DestStats};
use lb_common::table::Reclaimed;

/// This CPU's number.
#[inline(always)]
pub fn cpu() -> u32 {
    // SAFETY: no arguments.
    unsafe { bpf_get_smp_processor_id() }
}

/// This CPU's counters.
#[inline(always)]
pub fn of_cpu() -> Option<*mut Cpu> {
    maps::LVX_CPUS.get_ptr_mut(cpu())
}

/// Counts a packet under the number of its verdict.
#[inline(always)]
pub fn verdict(v: u8) {
    if let Some(c) = of_cpu() {
        // SAFETY: a map value; the number of a verdict is below 64.
        unsafe { (*c).verdicts[v as usize & 63] += 1 }
    }
}

/// Counts what gave way to a new connection or template of a family.
#[inline(always)]
pub fn reclaimed(family: u8, reclaimed: Reclaimed) {
    if reclaimed == Reclaimed::Nothing {
        return;
    }
    if let Some(c) = of_cpu() {
        // SAFETY: this CPU's map value.
        let counts = unsafe { &mut (*c).gave_way[Config::slot(family)] };
        if let Some(n) = counts.of(reclaimed) {
            *n += 1;
        }
    }
}

/// This CPU's counters of a real server. `servers` is the size of the dests map.
#[inline(always)]
pub fn of_dest(dest: u32, servers: u32) -> Option<*mut DestStats> {
    maps::LVX_DEST_STATS.get_ptr_mut(cpu().wrapping_mul(servers).wrapping_add(dest))
}
