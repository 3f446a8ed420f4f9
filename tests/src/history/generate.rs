//! Random histories from a seed: the same seed gives the same histories, on every machine.
//!
//! Pools are small and busy rather than realistic: ties, quiesced and overloaded servers, lonely servers and changes in
//! unhandy moments are what schedulers differ in.

use super::{History, Schedule, Setting, Step};
use lb_userspace::model::{Protocol, SchedFlags, SchedulerKind};

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `from` to `to`, both included.
    pub fn within(&mut self, from: u32, to: u32) -> u32 {
        from + (self.next() % (u64::from(to - from) + 1)) as u32
    }

    /// True in `percent` of all cases.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.within(0, 99) < percent
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { of.get(self.within(0, of.len() as u32 - 1) as usize) }
    }
}

/// Schedulers of which every choice is determined.
pub const EXACT: [SchedulerKind; 13] = [
    SchedulerKind::Rr,
    SchedulerKind::Wrr,
    SchedulerKind::Lc,
    SchedulerKind::Wlc,
    SchedulerKind::Sed,
    SchedulerKind::Nq,
    SchedulerKind::Fo,
    SchedulerKind::Ovf,
    SchedulerKind::Sh,
    SchedulerKind::Dh,
    SchedulerKind::Mh,
    SchedulerKind::Lblc,
    SchedulerKind::Lblcr,
];

/// `count` histories with these numbers on.
#[must_use]
pub fn histories(seed: u64, first: u32, count: u32) -> Vec<History> {
    (first..first + count).map(|number| history(seed, number)).collect()
}

fn schedule(random: &mut Random, kind: SchedulerKind) -> Schedule {
    let flags = match kind {
        SchedulerKind::Sh | SchedulerKind::Mh => {
            let all = SchedFlags::PORT.0 | SchedFlags::FALLBACK.0;
            SchedFlags(random.next() as u8 & all)
        }
        _ => SchedFlags::default(),
    };
    Schedule { kind, flags }
}

fn setting(random: &mut Random, thresholds: bool) -> Setting {
    let weight = match random.within(0, 19) {
        0 | 1 => 0,
        2..=13 => random.within(1, 5),
        14..=18 => random.within(1, 100),
        _ => random.within(1, 65_535),
    };
    let upper = if thresholds && random.chance(40) { random.within(1, 8) } else { 0 };
    let lower = if upper > 0 && random.chance(50) { random.within(0, upper) } else { 0 };
    Setting { weight, upper, lower }
}

/// See the module. A service by mark is for the schedulers that look at the destination.
fn history(seed: u64, number: u32) -> History {
    let mut random = Random::new(seed ^ u64::from(number).wrapping_mul(0xd6e8_feb8_6659_fd93));
    random.next();
    let kind = EXACT[number as usize % EXACT.len()];
    let protocol = if random.chance(70) { Protocol::Tcp } else { Protocol::Udp };
    let by_destination = matches!(kind, SchedulerKind::Dh | SchedulerKind::Lblc | SchedulerKind::Lblcr);
    let mark = by_destination && random.chance(60);
    let first = schedule(&mut random, kind);
    let mut it = History { number, protocol, v6: random.chance(40), mark, schedule: first, steps: Vec::new() };
    // `mh` looks at the servers in the order of their addresses here, in that of their making in the kernel: they are one if servers
    // are only made from the lowest to the highest.
    let mut ordered = kind == SchedulerKind::Mh;
    let changes_scheduler = !mark && random.chance(25);
    ordered |= changes_scheduler;
    // The kernel's `lblc` does not look at the threshold of the server that it remembers; here nobody goes over one.
    let thresholds = kind != SchedulerKind::Lblc && random.chance(40);
    let mut live: Vec<u32> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let mut made = 0;
    let mut top = 0;
    let mut add = |random: &mut Random, live: &mut Vec<u32>| {
        let absent: Vec<u32> = (1..=9).filter(|n| !live.contains(n)).collect();
        let number = if ordered {
            top += random.within(1, 3);
            Some(top)
        } else {
            random.one(&absent).copied()
        };
        number.map(|number| {
            live.push(number);
            Step::Add(number, setting(random, thresholds))
        })
    };
    for _ in 0..random.within(0, 6) {
        it.steps.extend(add(&mut random, &mut live));
    }
    let mut waits = u32::from(protocol == Protocol::Tcp && random.chance(25));
    for _ in 0..random.within(20, 50) {
        let step = match random.within(0, 99) {
            0..=57 => {
                let to = if mark { random.within(0, 3) } else { 0 };
                open.push(made);
                made += 1;
                Some(Step::Connect { client: random.within(1, 40), to, got: None })
            }
            58..=67 => take(&mut random, &mut open).map(Step::Close),
            68..=75 => take(&mut random, &mut open).map(Step::Reset),
            76..=78 => random.one(&live).copied().map(Step::CloseAll),
            79..=84 => random.one(&live).copied().map(|n| Step::Edit(n, setting(&mut random, thresholds))),
            85..=88 => add(&mut random, &mut live),
            89..=91 => {
                let gone = random.one(&live).copied();
                live.retain(|n| Some(*n) != gone);
                gone.map(Step::Delete)
            }
            92..=94 if changes_scheduler => {
                let kind = EXACT[random.within(0, EXACT.len() as u32 - 1) as usize];
                let left_out = thresholds && kind == SchedulerKind::Lblc;
                (!left_out).then(|| Step::Schedule(schedule(&mut random, kind)))
            }
            95 if waits > 0 => {
                waits -= 1;
                Some(Step::Wait)
            }
            96..=97 => Some(Step::Counts(None)),
            // What fills the rest is what most of the others are asked about by.
            _ => {
                open.push(made);
                made += 1;
                Some(Step::Connect { client: random.within(1, 40), to: 0, got: None })
            }
        };
        let tcp_only = matches!(step, Some(Step::Close(_) | Step::Reset(_) | Step::CloseAll(_)));
        if protocol == Protocol::Tcp || !tcp_only {
            it.steps.extend(step);
        }
    }
    it.steps.push(Step::Counts(None));
    it
}

fn take(random: &mut Random, open: &mut Vec<usize>) -> Option<usize> {
    if open.is_empty() {
        return None;
    }
    let at = random.within(0, open.len() as u32 - 1) as usize;
    Some(open.swap_remove(at))
}

/// A history for `twos`: servers that stay, connections that come and go.
#[must_use]
pub fn for_law(seed: u64, number: u32, connections: u32) -> History {
    let mut random = Random::new(seed ^ u64::from(number));
    let schedule = Schedule { kind: SchedulerKind::Twos, flags: SchedFlags::default() };
    let mut it = History { number, protocol: Protocol::Tcp, v6: false, mark: false, schedule, steps: Vec::new() };
    for n in 1..=random.within(2, 6) {
        it.steps.push(Step::Add(n, Setting { weight: random.within(0, 5), upper: 0, lower: 0 }));
    }
    it.steps.push(Step::Add(7, Setting { weight: 2, upper: 0, lower: 0 }));
    let mut open = Vec::new();
    for made in 0..connections as usize {
        it.steps.push(Step::Connect { client: random.within(1, 40), to: 0, got: None });
        open.push(made);
        if random.chance(60) {
            it.steps.extend(take(&mut random, &mut open).map(Step::Close));
        }
    }
    it.steps.push(Step::Counts(None));
    it
}
