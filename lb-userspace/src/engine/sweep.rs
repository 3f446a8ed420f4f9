//! The sweeper: takes expired connections down, on a thread of its own, a bounded number of records at a time.
//!
//! The packet path reuses expired records on its own when it needs them; the sweeper is there so that counters fall when connections end.
//!
//! What a daemon that was killed left half done is put right before the first step; nothing else may end connections until then.

use super::Engine;
use super::audit::Auditor;
use super::memory::TableMemory;
use super::occupancy::{Occupancy, Tell};
use super::view::connections_for;
use crate::api::SweeperView;
use aya::Pod;
use lb_common::conn::Conn;
use lb_common::family::{Family, V4, V6};
use lb_common::table::{recover, sweep_range, touched};
use lb_common::tcp::{STATE_NAMES, STATES, TEMPLATE};
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The families as they are named to users, in the order of [`lb_common::config::Config::slot`].
pub(super) const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];

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

/// What the sweeper did so far, for whoever shows it. Written by the sweeper alone.
#[derive(Debug, Default)]
pub(super) struct Figures {
    rounds: AtomicU64,
    records: AtomicU64,
    round_us: AtomicU64,
    cpu_us: AtomicU64,
    expired: [AtomicU64; 2],
    states: [[AtomicU64; STATES]; 2],
    audits: AtomicU64,
    healed: AtomicU64,
    orphans: AtomicU64,
}

fn add(word: &AtomicU64, n: u64) {
    word.fetch_add(n, Ordering::Relaxed);
}

impl Figures {
    /// Connections taken down in one family's table.
    pub(super) fn expired(&self, slot: usize) -> u64 {
        self.expired[slot].load(Ordering::Relaxed)
    }

    /// Grows whenever the sweeper's thread changed a count.
    pub(super) fn changes(&self) -> u64 {
        self.expired(0).wrapping_add(self.expired(1)).wrapping_add(self.healed.load(Ordering::Relaxed))
    }

    /// Connections of one family by state, in the last round.
    pub(super) fn states(&self, slot: usize) -> BTreeMap<String, u64> {
        let all = STATE_NAMES.iter().zip(&self.states[slot]).enumerate();
        // Templates are no connections, and were not counted.
        all.filter(|(state, _)| *state != usize::from(TEMPLATE))
            .map(|(_, (name, n))| ((*name).into(), n.load(Ordering::Relaxed)))
            .collect()
    }

    pub(super) fn view(&self) -> SweeperView {
        let get = |word: &AtomicU64| word.load(Ordering::Relaxed);
        SweeperView {
            rounds: get(&self.rounds),
            records: get(&self.records),
            round_us: get(&self.round_us),
            cpu_us: get(&self.cpu_us),
            audits: get(&self.audits),
            healed: get(&self.healed),
            orphans: get(&self.orphans),
        }
    }
}

/// The round under way.
#[derive(Debug, Default)]
struct Round {
    /// Since its first step.
    began: Option<Instant>,
    cpu: Duration,
    seen: u64,
    live: [u64; 2],
    states: [[u64; STATES]; 2],
}

/// Takes expired connections down.
#[derive(Debug)]
pub struct Sweeper {
    table4: Arc<TableMemory<V4>>,
    table6: Arc<TableMemory<V6>>,
    figures: Arc<Figures>,
    /// Next record: table and number.
    at: (usize, u32),
    /// See [`recover`].
    recovered: bool,
    round: Round,
    occupancy: [Occupancy; 2],
    auditor: Auditor,
}

impl Engine {
    /// The sweeper of these tables; one is enough.
    #[must_use]
    pub fn sweeper(&self) -> Sweeper {
        Sweeper {
            table4: self.table4.clone(),
            table6: self.table6.clone(),
            figures: self.swept.clone(),
            at: (0, 0),
            recovered: false,
            round: Round::default(),
            occupancy: Default::default(),
            auditor: Auditor::new(self.table4.clone(), self.table6.clone()),
        }
    }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

impl Sweeper {
    /// Looks at the next records, `max_records` at most, and takes down those that are past their time.
    pub fn step(&mut self, max_records: u32) -> Swept {
        self.recover();
        let began = cpu_time();
        self.round.began.get_or_insert_with(Instant::now);
        let mut swept = Swept::default();
        while swept.seen < max_records && !swept.round {
            let left = max_records - swept.seen;
            let (slot, from) = self.at;
            let (got, end) = if slot == 0 { sweep(&*self.table4, from, left) } else { sweep(&*self.table6, from, left) };
            swept.seen += got.examined;
            swept.live += got.live;
            swept.expired += got.expired;
            self.round.live[slot] += u64::from(got.live);
            for (sum, n) in self.round.states[slot].iter_mut().zip(got.states) {
                *sum += u64::from(n);
            }
            add(&self.figures.expired[slot], got.expired.into());
            self.at.1 += got.examined;
            if self.at.1 >= end {
                swept.round = slot == 1;
                self.at = (1 - slot, 0);
            }
        }
        self.round.seen += u64::from(swept.seen);
        self.round.cpu += cpu_time().saturating_sub(began);
        if swept.round {
            self.end_round();
        }
        swept
    }

    /// Compares real servers' counts with the tables and puts right what is certainly wrong, unless told to stop; how many servers' counts
    /// were. It takes two audits to be certain.
    pub fn audit(&mut self, go_on: impl Fn() -> bool) -> usize {
        self.recover();
        let Some(healed) = self.auditor.run(go_on) else { return 0 };
        add(&self.figures.audits, 1);
        add(&self.figures.healed, healed.len() as u64);
        for h in &healed {
            let show = |n: lb_common::dest::DestConns| {
                format!("{} active, {} inactive, {} persistent", n.active as i64, n.inactive as i64, n.templates as i64)
            };
            tracing::warn!(
                "real server {}: {} connections were counted, {} are in the table; the counts are put right",
                self.auditor.name(h.dest),
                show(h.was),
                show(h.is)
            );
        }
        healed.len()
    }

    /// Puts right what a killed daemon left, once.
    fn recover(&mut self) {
        if self.recovered {
            return;
        }
        self.recovered = true;
        let left = [recover(&*self.table4, &self.table4.shape()), recover(&*self.table6, &self.table6.shape())];
        for (family, orphans) in FAMILIES.into_iter().zip(left.map(|r| r.orphans)).filter(|(_, n)| *n != 0) {
            add(&self.figures.orphans, orphans.into());
            tracing::warn!("{family}: {orphans} connections that an earlier daemon left half taken down are gone");
        }
    }

    fn end_round(&mut self) {
        let round = std::mem::take(&mut self.round);
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let f = &self.figures;
        f.records.store(round.seen, Ordering::Relaxed);
        f.round_us.store(round.began.map_or(0, |began| micros(began.elapsed())), Ordering::Relaxed);
        f.cpu_us.store(micros(round.cpu), Ordering::Relaxed);
        for (to, n) in f.states.iter().flatten().zip(round.states.iter().flatten()) {
            to.store(*n, Ordering::Relaxed);
        }
        add(&f.rounds, 1);
        let records = [self.table4.conns.len(), self.table6.conns.len()];
        for (slot, occupancy) in self.occupancy.iter_mut().enumerate() {
            let (family, live, size) = (FAMILIES[slot], round.live[slot], connections_for(records[slot]));
            match occupancy.note(live, size) {
                Some(Tell::High(percent)) => tracing::warn!(
                    "{family} connection table {percent} % full: {live} of {size}; once it is full, handshakes and closing \
                     connections give way to new ones: raise `connections` in [sizes], and start with --discard"
                ),
                Some(Tell::Low(percent)) => tracing::info!("{family} connection table {percent} % full: {live} of {size}"),
                None => {}
            }
        }
    }
}

/// Sweeps up to `max` records of one table from `start` on; and where the table ends, as far as it was ever used.
fn sweep<F: Family>(table: &TableMemory<F>, start: u32, max: u32) -> (lb_common::table::Swept, u32)
where
    Conn<F>: Pod,
{
    let shape = table.shape();
    let end = touched(table, &shape);
    (sweep_range(table, &shape, table.now(), start, max.min(end.saturating_sub(start))), end)
}
