//! What a scheduler does with a pool and a stream of connections, without a packet: for choosing a scheduler before production
//! meets it. It runs the daemon's own scheduler code.
//!
//! A connection is active for its holding time, then inactive for as long as its entry lingers (`TIME_WAIT`), then gone; thresholds
//! act as they do on packets. Time is in microseconds from the start.

use super::arrivals::{SECOND_US, micros};
use super::{Flow, Pool, Scheduler, Server};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;

pub use super::arrivals::{Arrival, Generated, Holding, MAX_ARRIVALS, ParseHoldingError, TraceError, parse_trace};

/// What came of one server.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ServerOutcome {
    /// The server's key.
    pub key: u32,
    /// Its weight.
    pub weight: u32,
    /// Connections that it got.
    pub connections: u64,
    /// Most active ones at a time.
    pub peak_active: u64,
    /// Most inactive ones at a time.
    pub peak_inactive: u64,
    /// Active ones, averaged over the time in which connections arrived.
    pub mean_active: f64,
    /// Time over the threshold, seconds.
    pub overloaded_s: f64,
}

/// What came of all.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// In the order of the pool that was given.
    pub servers: Vec<ServerOutcome>,
    /// Connections that came.
    pub arrivals: u64,
    /// Of these, those without a usable server.
    pub refused: u64,
    /// Most active connections at a time, all servers together.
    pub peak_active: u64,
    /// When the last one came, seconds.
    pub duration_s: f64,
    /// Samples of the load of servers: how often (in sampled servers) active connections were so many per cent of what their weight entitles
    /// them to, in steps of [`Outcome::STEP`]; the last step is everything above.
    pub histogram: Vec<u64>,
}

impl Outcome {
    /// Per cent a step of the histogram.
    pub const STEP: u64 = 20;
    /// Steps of the histogram.
    pub const STEPS: usize = 16;
}

/// The end of an active or of an inactive phase: time, then the order of beginning, so that the run is the same each time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct End {
    at_us: u64,
    order: u64,
    server: usize,
    active: bool,
}

/// Counters of one server besides those in the pool.
#[derive(Clone, Copy, Default)]
struct Tally {
    connections: u64,
    peak_active: u64,
    peak_inactive: u64,
    active_us: u128,
    overloaded_us: u64,
    since_us: u64,
}

struct Run {
    pool: Pool,
    tallies: Vec<Tally>,
    ends: BinaryHeap<Reverse<End>>,
    active: u64,
    peak_active: u64,
}

impl Run {
    /// Books the time up to now at the present counters, before they change.
    fn settle(&mut self, at: usize, now_us: u64) {
        let (s, t) = (&self.pool.servers()[at], &mut self.tallies[at]);
        let passed = now_us.saturating_sub(t.since_us);
        t.active_us += u128::from(passed) * u128::from(s.active);
        t.overloaded_us += if s.overloaded { passed } else { 0 };
        t.since_us = now_us;
    }

    fn add(&mut self, at: usize, now_us: u64, active: i8, inactive: i8) {
        self.settle(at, now_us);
        let mut s = self.pool.servers()[at];
        s.active = s.active.saturating_add_signed(active.into());
        s.inactive = s.inactive.saturating_add_signed(inactive.into());
        s.overloaded = lb_common::dest::overloaded(s.overloaded, s.active + s.inactive, s.upper, s.lower);
        self.pool.set_counters(at, s.active, s.inactive, s.overloaded);
        let t = &mut self.tallies[at];
        t.peak_active = t.peak_active.max(s.active);
        t.peak_inactive = t.peak_inactive.max(s.inactive);
        self.active = self.active.saturating_add_signed(active.into());
        self.peak_active = self.peak_active.max(self.active);
    }

    /// Ends what ends until `now_us`.
    fn pass(&mut self, now_us: u64, linger_us: u64) {
        while let Some(Reverse(end)) = self.ends.peek().copied()
            && end.at_us <= now_us
        {
            self.ends.pop();
            if end.active {
                self.add(end.server, end.at_us, -1, 1);
                let at_us = end.at_us.saturating_add(linger_us);
                self.ends.push(Reverse(End { at_us, active: false, ..end }));
            } else {
                self.add(end.server, end.at_us, 0, -1);
            }
        }
    }

    /// Adds each server's load, against its fair share of all active connections, to the histogram.
    fn sample(&self, histogram: &mut [u64]) {
        let weights: u128 = self.pool.servers().iter().map(|s| u128::from(s.weight)).sum();
        if self.active == 0 {
            return;
        }
        for s in self.pool.servers().iter().filter(|s| s.weight > 0) {
            let per_cent = u128::from(s.active) * 100 * weights / (u128::from(self.active) * u128::from(s.weight));
            let step = (per_cent / u128::from(Outcome::STEP)).min(Outcome::STEPS as u128 - 1) as usize;
            histogram[step] += 1;
        }
    }
}

/// Runs `arrivals`, in order of time, through `scheduler` on `servers` (newest first), with entries lingering for `linger_s` seconds.
pub fn run(
    scheduler: &mut dyn Scheduler,
    servers: &[Server],
    arrivals: impl IntoIterator<Item = Arrival>,
    destination: IpAddr,
    linger_s: f64,
) -> Outcome {
    let linger_us = micros(linger_s.max(0.0));
    let mut pool = Pool::default();
    pool.update(servers, |pool, change| scheduler.changed(pool, change));
    let mut run =
        Run { tallies: vec![Tally::default(); pool.servers().len()], pool, ends: BinaryHeap::new(), active: 0, peak_active: 0 };
    let mut histogram = vec![0; Outcome::STEPS];
    let (mut count, mut refused, mut now_us) = (0u64, 0u64, 0);
    for arrival in arrivals {
        now_us = arrival.at_us.max(now_us);
        run.pass(now_us, linger_us);
        let flow = Flow { client: arrival.client, client_port: arrival.port, destination, now_s: now_us / SECOND_US };
        match scheduler.schedule(&run.pool, &flow) {
            Some(at) => {
                run.add(at, now_us, 1, 0);
                run.tallies[at].connections += 1;
                let at_us = now_us.saturating_add(arrival.hold_us);
                run.ends.push(Reverse(End { at_us, order: count, server: at, active: true }));
            }
            None => refused += 1,
        }
        count += 1;
        // Often enough for a histogram, seldom enough for a thousand servers.
        if count.is_multiple_of(1 + servers.len() as u64) {
            run.sample(&mut histogram);
        }
    }
    for at in 0..run.pool.servers().len() {
        run.settle(at, now_us);
    }
    let outcome = |(s, t): (&Server, &Tally)| ServerOutcome {
        key: s.key,
        weight: s.weight,
        connections: t.connections,
        peak_active: t.peak_active,
        peak_inactive: t.peak_inactive,
        mean_active: if now_us == 0 { 0.0 } else { t.active_us as f64 / now_us as f64 },
        overloaded_s: t.overloaded_us as f64 / SECOND_US as f64,
    };
    Outcome {
        servers: run.pool.servers().iter().zip(&run.tallies).map(outcome).collect(),
        arrivals: count,
        refused,
        peak_active: run.peak_active,
        duration_s: now_us as f64 / SECOND_US as f64,
        histogram,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SchedFlags, SchedulerKind};
    use crate::sched::build;

    fn pool(weights: &[u32]) -> Vec<Server> {
        let server = |(i, w): (usize, &u32)| Server::new(i as u32, IpAddr::from([10, 2, 0, i as u8]), 80, *w);
        weights.iter().enumerate().map(server).collect()
    }

    fn simulate(kind: SchedulerKind, servers: &[Server], arrivals: impl IntoIterator<Item = Arrival>, linger_s: f64) -> Outcome {
        let mut scheduler = build(kind, SchedFlags::default());
        run(&mut *scheduler, servers, arrivals, IpAddr::from([192, 0, 2, 1]), linger_s)
    }

    fn stream(holding: Holding) -> impl Iterator<Item = Arrival> {
        Generated { rate: 200.0, holding, duration_s: 60.0, clients: 5000, seed: 1 }.arrivals()
    }

    #[test]
    fn a_trace_by_hand() {
        let trace = parse_trace("# time holding\n0 10\n1 1 192.0.2.7\n1,10,[2001:db8::1]:99\n\n3 1 # the last").unwrap();
        assert_eq!((trace[1].client, trace[2].port), (IpAddr::from([192, 0, 2, 7]), 99));
        let o = simulate(SchedulerKind::Lc, &pool(&[1, 1]), trace, 0.0);
        // 0: first; 1: second, tie then at one each goes to the first; 3: the second one is idle again.
        assert_eq!(o.servers.iter().map(|s| (s.connections, s.peak_active)).collect::<Vec<_>>(), [(2, 2), (2, 1)]);
        assert_eq!((o.arrivals, o.refused, o.peak_active), (4, 0, 3));
        assert!((o.servers[0].mean_active - 5.0 / 3.0).abs() < 1e-9, "1 for a second and 2 for two");
    }

    #[test]
    fn schedulers_that_count_spread_better_than_those_that_do_not() {
        let servers = pool(&[1; 10]);
        let long_tail = Holding::Pareto { shape: 1.2, least: 0.5 };
        let worst = |kind| simulate(kind, &servers, stream(long_tail), 0.0).servers.iter().map(|s| s.peak_active).max().unwrap();
        let (lc, twos, rr, sh) =
            (worst(SchedulerKind::Lc), worst(SchedulerKind::Twos), worst(SchedulerKind::Rr), worst(SchedulerKind::Sh));
        assert!(lc <= twos && twos < rr && rr < sh, "{lc} {twos} {rr} {sh}");
    }

    #[test]
    fn thresholds_refuse_and_shares_follow_weights() {
        let o = simulate(SchedulerKind::Wrr, &pool(&[3, 1]), stream(Holding::Fixed(1.0)), 60.0);
        assert!(o.servers[0].connections.abs_diff(3 * o.servers[1].connections) <= 4);
        let mut limited = pool(&[1]);
        limited[0].upper = 50;
        let o = simulate(SchedulerKind::Wlc, &limited, stream(Holding::Fixed(1.0)), 0.0);
        assert_eq!(o.servers[0].peak_active, 50);
        assert!(o.refused > 0 && o.refused + o.servers[0].connections == o.arrivals && o.servers[0].overloaded_s > 1.0);
        assert_eq!(simulate(SchedulerKind::Wlc, &[], stream(Holding::Fixed(1.0)), 0.0).servers, []);
    }
}
