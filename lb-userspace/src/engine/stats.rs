//! Counters: sums over CPUs, differences since the last zeroing, and rates.
//!
//! The packet path only ever adds, each CPU to its own element, and nobody resets: a counter's start is a *base* that is taken
//! off when it is shown. A service's counters are the sum of its servers' since each joined, and of what the servers that
//! left had counted, so that they survive a server's removal, as the kernel's do.

use super::mapped::Mapped;
use crate::api::{Stats, VerdictView};
use lb_common::note::Five;
use lb_common::stats::{Cpu, DestStats, GaveWay};
use lb_common::verdict::NAMES;
use std::mem::offset_of;
use std::sync::atomic::Ordering;

/// The counters in the maps. Clones read the same.
#[derive(Clone, Debug)]
pub(super) struct Counters {
    stats: Mapped<DestStats>,
    cpus: Mapped<Cpu>,
    dests: u32,
}

impl Counters {
    pub(super) fn new(stats: Mapped<DestStats>, cpus: Mapped<Cpu>, dests: u32) -> Self {
        Self { stats, cpus, dests }
    }

    /// What all CPUs counted for a dest since the map was made.
    pub(super) fn dest(&self, dest: u32) -> Stats {
        (0..self.cpus.len()).fold(Stats::default(), |sum, cpu| plus(&sum, &self.of_cpu(cpu, dest)))
    }

    /// The same of many dests. CPU by CPU, so that memory is read in one direction: neighbours on the list are neighbours there, mostly.
    pub(super) fn dests(&self, dests: &[u32]) -> Vec<Stats> {
        let mut sums = vec![Stats::default(); dests.len()];
        for cpu in 0..self.cpus.len() {
            for (sum, &dest) in sums.iter_mut().zip(dests) {
                *sum = plus(sum, &self.of_cpu(cpu, dest));
            }
        }
        sums
    }

    fn of_cpu(&self, cpu: u32, dest: u32) -> Stats {
        let Some(s) = self.stats.read(cpu * self.dests + dest) else { return Stats::default() };
        Stats {
            connections: s.connections,
            in_packets: s.in_packets,
            out_packets: s.out_packets,
            in_bytes: s.in_bytes,
            out_bytes: s.out_bytes,
        }
    }

    /// What gave way to new connections, IPv4 and IPv6.
    pub(super) fn gave_way(&self) -> [GaveWay; 2] {
        [0, 1].map(|slot| {
            let sum = |field: usize| {
                let offset = offset_of!(Cpu, gave_way) + slot * size_of::<GaveWay>() + field;
                (0..self.cpus.len()).fold(0u64, |sum, cpu| sum.wrapping_add(self.cpus.u64(cpu, offset).load(Ordering::Relaxed)))
            };
            GaveWay {
                expired: sum(offset_of!(GaveWay, expired)),
                embryonic: sum(offset_of!(GaveWay, embryonic)),
                closing: sum(offset_of!(GaveWay, closing)),
            }
        })
    }

    /// All packets that the program has seen: where these are no more than before, nothing else is either.
    pub(super) fn packets(&self) -> u64 {
        let verdicts = offset_of!(Cpu, verdicts);
        let of_cpu = |cpu| (0..NAMES.len()).map(move |i| self.cpus.u64(cpu, verdicts + i * 8).load(Ordering::Relaxed));
        (0..self.cpus.len()).flat_map(of_cpu).fold(0, u64::wrapping_add)
    }

    /// Packets by verdict.
    pub(super) fn verdicts(&self) -> Vec<VerdictView> {
        let count = |i: usize| {
            let offset = offset_of!(Cpu, verdicts) + i * 8;
            (0..self.cpus.len()).fold(0u64, |sum, cpu| sum.wrapping_add(self.cpus.u64(cpu, offset).load(Ordering::Relaxed)))
        };
        NAMES
            .iter()
            .enumerate()
            .map(|(i, (name, meaning))| VerdictView { name: (*name).into(), meaning: (*meaning).into(), packets: count(i) })
            .collect()
    }
}

fn each(a: &Stats, b: &Stats, f: impl Fn(u64, u64) -> u64) -> Stats {
    Stats {
        connections: f(a.connections, b.connections),
        in_packets: f(a.in_packets, b.in_packets),
        out_packets: f(a.out_packets, b.out_packets),
        in_bytes: f(a.in_bytes, b.in_bytes),
        out_bytes: f(a.out_bytes, b.out_bytes),
    }
}

/// The sum.
pub(super) fn plus(a: &Stats, b: &Stats) -> Stats {
    each(a, b, u64::wrapping_add)
}

/// The difference.
pub(super) fn minus(a: &Stats, b: &Stats) -> Stats {
    each(a, b, u64::wrapping_sub)
}

/// The kernel's estimator: every two seconds an average moves a quarter of the way to the rate seen, in fixed point
/// (`ip_vs_est.c`). Its rounding is kept, so that numbers agree to the last digit.
#[derive(Clone, Debug, Default)]
pub(super) struct Estimator {
    pub(super) last: Stats,
    /// Connections and packets a second in units of 2^-10, bytes in units of 2^-5.
    pub(super) average: Stats,
}

/// Nanoseconds of a step.
const STEP_NS: u64 = 2_000_000_000;

/// As it is noted in maps.
pub(super) fn five(s: &Stats) -> Five {
    [s.connections, s.in_packets, s.out_packets, s.in_bytes, s.out_bytes]
}

/// Back from [`five`].
pub(super) fn stats(f: Five) -> Stats {
    let [connections, in_packets, out_packets, in_bytes, out_bytes] = f;
    Stats { connections, in_packets, out_packets, in_bytes, out_bytes }
}

const PACKETS_SHIFT: u32 = 9;
const BYTES_SHIFT: u32 = 4;

impl Estimator {
    /// Two seconds later.
    pub(super) fn tick(&mut self, now: &Stats) {
        self.tick_after(now, STEP_NS);
    }

    /// A step that took another time, as the first after a restart does: what was seen counts for as much as it was in two seconds.
    pub(super) fn tick_after(&mut self, now: &Stats, ns: u64) {
        let mut seen = minus(now, &self.last);
        if ns != STEP_NS {
            let in_a_step = |n: u64, _| (u128::from(n) * u128::from(STEP_NS) / u128::from(ns.max(1))) as u64;
            seen = each(&seen, &seen, in_a_step);
        }
        self.last = *now;
        let step = |average: u64, seen: u64, shift: u32| {
            let rate = (seen << shift) as i64;
            (average as i64 + ((rate - average as i64) >> 2)) as u64
        };
        let a = self.average;
        self.average = Stats {
            connections: step(a.connections, seen.connections, PACKETS_SHIFT),
            in_packets: step(a.in_packets, seen.in_packets, PACKETS_SHIFT),
            out_packets: step(a.out_packets, seen.out_packets, PACKETS_SHIFT),
            in_bytes: step(a.in_bytes, seen.in_bytes, BYTES_SHIFT),
            out_bytes: step(a.out_bytes, seen.out_bytes, BYTES_SHIFT),
        };
    }

    /// Whether a step at these counters would change nothing.
    pub(super) fn rests_at(&self, now: &Stats) -> bool {
        self.last == *now && self.average == Stats::default()
    }

    /// Per second.
    pub(super) fn rates(&self) -> Stats {
        let packets = |v: u64| (v + 0x1ff) >> 10;
        let bytes = |v: u64| (v + 0xf) >> 5;
        Stats {
            connections: packets(self.average.connections),
            in_packets: packets(self.average.in_packets),
            out_packets: packets(self.average.out_packets),
            in_bytes: bytes(self.average.in_bytes),
            out_bytes: bytes(self.average.out_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(n: u64) -> Stats {
        Stats { connections: n, in_packets: n, out_packets: n, in_bytes: n, out_bytes: n }
    }

    #[test]
    fn sums_over_cpus_keep_dests_apart() {
        let stats = Mapped::<DestStats>::heap(6);
        for (i, n) in [(0, 1), (1, 10), (2, 100), (3, 1000), (4, 10_000), (5, 100_000)] {
            stats.write(i, &DestStats { in_packets: n, ..Default::default() });
        }
        let c = Counters::new(stats, Mapped::heap(2), 3);
        assert_eq!(c.dest(0).in_packets, 1001);
        assert_eq!(c.dest(2).in_packets, 100_100);
        assert_eq!(c.dests(&[2, 0]).iter().map(|s| s.in_packets).collect::<Vec<_>>(), [100_100, 1001]);
    }

    #[test]
    fn verdicts_are_summed_under_their_names() {
        let cpus = Mapped::<Cpu>::heap(2);
        cpus.u64(0, 8).store(3, Ordering::Relaxed);
        cpus.u64(1, 8).store(4, Ordering::Relaxed);
        let v = Counters::new(Mapped::heap(2), cpus, 1).verdicts();
        assert_eq!(v.len(), NAMES.len());
        assert_eq!((v[1].name.as_str(), v[1].packets, v[0].packets), (NAMES[1].0, 7, 0));
    }

    #[test]
    fn what_gave_way_is_summed_by_family_and_reason() {
        let cpus = Mapped::<Cpu>::heap(2);
        let gave_way =
            |n| [GaveWay { expired: n, embryonic: 10 * n, closing: 100 * n }, GaveWay { expired: 7, ..Default::default() }];
        cpus.write(0, &Cpu { gave_way: gave_way(1), ..Default::default() });
        cpus.write(1, &Cpu { gave_way: gave_way(2), ..Default::default() });
        let got = Counters::new(Mapped::heap(2), cpus, 1).gave_way();
        assert_eq!(got[0], GaveWay { expired: 3, embryonic: 30, closing: 300 });
        assert_eq!(got[1], GaveWay { expired: 14, embryonic: 0, closing: 0 });
    }

    /// A steady 100 a second approaches 100 as 1 - (3/4)^n does, and falls off alike.
    #[test]
    fn rates_rise_and_fall_by_quarters() {
        let mut e = Estimator::default();
        let mut total = 0;
        let mut seen = Vec::new();
        for _ in 0..4 {
            total += 200;
            e.tick(&all(total));
            seen.push(e.rates().connections);
        }
        assert_eq!(seen, [25, 44, 58, 68]);
        assert_eq!(e.rates().in_bytes, 68);
        for _ in 0..60 {
            total += 200;
            e.tick(&all(total));
        }
        assert_eq!(e.rates(), all(100));
        e.tick(&all(total));
        assert_eq!(e.rates().in_packets, 75);
        for _ in 0..60 {
            e.tick(&all(total));
        }
        assert_eq!(e.rates(), all(0));
    }
}
