//! Least connection at speed, against an oracle that sees every event.
//!
//! Connections end by chance, so the exact choice does not keep servers at the mean either: what is held against the bound is how much
//! further from the mean the most and the least loaded server ever are than the oracle's.

use super::*;

/// A connection's packets in time.
struct Stream {
    /// Seconds and event.
    events: Vec<(f64, u64)>,
}

/// 90 % short connections (50 ms on average), 10 % long ones (2.5 s): exponential.
fn stream(rate: f64, seconds: f64) -> Stream {
    let mut state = 7u64;
    let mut unit = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 11) + 1) as f64 / (1u64 << 53) as f64
    };
    let mut events = Vec::new();
    let (mut now, mut client) = (0.0, 0);
    while now < seconds {
        now += -unit().ln() / rate;
        let mean = if unit() < 0.9 { 0.05 } else { 2.5 };
        let hold = 0.001 - unit().ln() * mean;
        events.push((now, event(client, flag::SYN)));
        events.push((now + 0.0005, event(client, flag::ACK)));
        if now + hold < seconds {
            events.push((now + hold, event(client, flag::RST)));
        }
        client += 1;
    }
    events.retain(|e| e.0 < seconds);
    events.sort_by(|a, b| a.0.total_cmp(&b.0));
    Stream { events }
}

/// Sees every event, in order, and asks the scheduler's definition at each.
struct Oracle {
    scheduler: Box<dyn Scheduler>,
    pool: Pool,
    place: Vec<u32>,
}

impl Oracle {
    fn take(&mut self, event: u64) {
        let (client, flags) = (event as u32 as usize, (event >> 32) as u8);
        if flags == flag::RST {
            self.count(self.place[client] as usize, -1, 1);
        } else if flags == flag::SYN {
            let at = self.scheduler.schedule(&self.pool, &Flow::to(IpAddr::V4(VIP), 0)).expect("a server");
            self.place.push(at as u32);
            self.count(at, 1, 0);
        }
    }

    fn count(&mut self, at: usize, active: i64, inactive: i64) {
        let s = self.pool.servers()[at];
        let (active, inactive) = (s.active.wrapping_add_signed(active), s.inactive.wrapping_add_signed(inactive));
        self.pool.set_counters(at, active, inactive, false);
    }
}

/// Sums of deviations.
#[derive(Default)]
struct Deviation {
    sum: f64,
    n: f64,
    worst: f64,
}

impl Deviation {
    fn add(&mut self, d: f64) {
        self.sum += d;
        self.n += 1.0;
        self.worst = self.worst.max(d);
    }

    fn text(&self) -> String {
        format!("mean {:.2}, worst {:.1}", self.sum / self.n.max(1.0), self.worst)
    }
}

/// `lc` at speed against the oracle.
pub(super) fn at_speed(args: &Args) -> Result<()> {
    let n = args.servers;
    let Stream { events } = stream(args.rate, args.seconds + 2.0);
    let words: Vec<u64> = events.iter().map(|e| e.1).collect();
    let flows = words.iter().filter(|e| (**e >> 32) as u8 == flag::SYN).count();
    let text = on_a_wire(|peer| {
        let rig = Rig::new(peer, &desired(args.scheduler, n)?, &words)?;
        // Newest first, as the engine has them.
        let servers: Vec<Server> = (0..n).rev().map(|k| Server::new(k, address(k), 80, 1)).collect();
        let mut oracle =
            Oracle { scheduler: build(args.scheduler, SchedFlags::default()), pool: Pool::new(&servers), place: Vec::new() };
        let (mut to_mean, mut oracle_to_mean, mut to_oracle) = (Deviation::default(), Deviation::default(), Deviation::default());
        let (mut load, mut samples, mut over) = (0.0, 0.0, 0u32);
        let (start, cpu, first) = (Instant::now(), Rig::core_time()?, epoch(&rig.element()?));
        let (mut fed, mut sampled) = (0, 0.0);
        let mut late = 0.0f64;
        while fed < events.len() {
            let now = start.elapsed().as_secs_f64();
            let due = fed + events[fed..].iter().take(512).take_while(|e| e.0 <= now).count();
            if due == fed {
                std::thread::sleep(Duration::from_micros(200));
                continue;
            }
            late = late.max(now - events[fed].0);
            rig.feed((due - fed) as u32)?;
            for (_, e) in &events[fed..due] {
                oracle.take(*e);
            }
            fed = due;
            // The first two seconds fill the servers up.
            if now > 2.0 && now - sampled > 0.01 {
                sampled = now;
                let active = rig.active(n)?;
                let mut exact = vec![0; n as usize];
                for s in oracle.pool.servers() {
                    exact[s.key as usize] = s.active;
                }
                // Elements were given out newest server first or last: compare in order of load.
                let mean = active.iter().sum::<u64>() as f64 / f64::from(n);
                let (mut ours, mut theirs) = (active.clone(), exact.clone());
                ours.sort_unstable();
                theirs.sort_unstable();
                for (a, e) in ours.iter().zip(&theirs) {
                    let d = (*a as f64 - mean).abs();
                    to_mean.add(d);
                    over += u32::from(d > (mean * 0.02).max(2.0));
                    oracle_to_mean.add((*e as f64 - mean).abs());
                    to_oracle.add((*a as f64 - *e as f64).abs());
                }
                load += mean;
                samples += 1.0;
            }
        }
        let took = start.elapsed().as_secs_f64();
        let plans = epoch(&rig.element()?).wrapping_sub(first) & EPOCH;
        let cpu = (Rig::core_time()? - cpu).as_secs_f64();
        let (mean, bound) = (load / samples, (load / samples * 0.02).max(2.0));
        Ok(format!(
            "  {n} servers, {:.0} new flows a second for {took:.1} s (fed at most {:.0} ms late), mean load {mean:.0} active connections\n  \
             deviation from the mean: {} ({:.2} % of it; bound {bound:.1}; beyond it {:.3} % of samples)\n  \
             of the oracle from the mean: {}: {:+.1} connections at worst\n  of us from the oracle, in order of load: {}\n  \
             {:.0} plans a second, core thread {:.0} % of a CPU{}",
            flows as f64 / took,
            late * 1e3,
            to_mean.text(),
            to_mean.worst * 100.0 / mean,
            f64::from(over) * 100.0 / to_mean.n,
            oracle_to_mean.text(),
            to_mean.worst - oracle_to_mean.worst,
            to_oracle.text(),
            plans as f64 / took,
            cpu * 100.0 / took,
            verdict(to_mean.worst - oracle_to_mean.worst <= bound),
        ))
    })?;
    println!("{text}");
    Ok(())
}
