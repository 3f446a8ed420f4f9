//! Cost of the sweeper: CPU time an entry, over tables that are full of what lives and of what is past its time.

use super::{Args, Bed};
use anyhow::{Result, ensure};
use lb_userspace::model::Forwarding;
use std::time::Duration;

/// Most that an entry may cost, ns.
const TARGET_NS: f64 = 300.0;
/// Ticks after which every connection is past its time.
const LATER: u32 = 500_000;

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// A round of the sweeper: nanoseconds of a CPU for each of `n` entries, and how many it took down.
fn round(bed: &mut Bed, n: u32) -> (f64, u64) {
    let mut sweeper = bed.d.engine.sweeper();
    // What is done once, at a daemon's start, is not a part of it.
    sweeper.step(0);
    let (began, mut expired) = (cpu_time(), 0);
    loop {
        let swept = sweeper.step(16_384);
        expired += u64::from(swept.expired);
        if swept.round {
            break;
        }
    }
    ((cpu_time() - began).as_nanos() as f64 / f64::from(n), expired)
}

/// Measures tables of each of these sizes.
pub(super) fn run(args: &Args, sizes: &[u32]) -> Result<Vec<serde_json::Value>> {
    println!("nanoseconds of a CPU an entry (target {TARGET_NS}); connections under NAT have two index entries, under DR one");
    println!("{:<8}{:<6}{:>12}{:>10}{:>10}{:>10}", "family", "way", "entries", "live", "expired", "audit");
    let mut rows = Vec::new();
    for &n in sizes {
        for v6 in [false, true] {
            for method in [Forwarding::Nat, Forwarding::Dr] {
                let mut bed = Bed::with_floor(v6, method, n, 1, args)?;
                bed.establish(n - 1)?;
                let (live, none) = round(&mut bed, n);
                let sweeper = &mut bed.d.engine.sweeper();
                let began = cpu_time();
                ensure!(sweeper.audit(|| true) == 0, "counts differed");
                let audit = (cpu_time() - began).as_nanos() as f64 / f64::from(n);
                bed.d.engine.set_clock_offset(LATER);
                let (expired, all) = round(&mut bed, n);
                ensure!((none, all) == (0, u64::from(n)), "expired {none} and {all} of {n}");
                let (family, way) = (if v6 { "IPv6" } else { "IPv4" }, if method == Forwarding::Nat { "NAT" } else { "DR" });
                let missed = if live.max(expired) > TARGET_NS { "  missed" } else { "" };
                println!("{family:<8}{way:<6}{n:>12}{live:>10.1}{expired:>10.1}{audit:>10.1}{missed}");
                rows.push(serde_json::json!({
                    "case": format!("sweep, {family} {way}, {n} entries"), "live_ns": live, "expired_ns": expired, "audit_ns": audit,
                    "target": TARGET_NS,
                }));
            }
        }
    }
    Ok(rows)
}
