//! Virtual services in the maps: element, filter bit and key; and the change from one plan to the next.
//!
//! A service comes to life from the inside out, so that no packet ever sees half of it: servers, plan, element, filter bit, key. It
//! goes the other way round.

use super::dests::Dests;
use super::filter::Filter;
use super::mapped::Mapped;
use super::maps::Table;
use super::picks::{Picks, Region};
use super::plan;
use super::slots::Slots;
use super::stats::{Estimator, five};
use crate::api::Stats;
use crate::model::{ServiceId, ServiceSpec, ServiceState};
use crate::sched::Server;
use crate::sched::plan::Planner;
use lb_common::family::{FAMILY_V4, wide_of};
use lb_common::note::ServiceNote;
use lb_common::service::{CURSOR_PLAN, ONE_PACKET, PERSISTENT, Plan, Service, ServiceKey};
use lb_common::time::ticks_of_seconds;
use std::io;
use std::mem::offset_of;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Attempts to change plans between two picks, before the change is made between any two.
const SWAP_TRIES: u32 = 64;
/// The same for plans of the least loaded servers, which then stay while half of them is left: a plan of a thousand takes half a
/// millisecond, and counts of that age are better than a plan that was used up.
const LEAST_TRIES: u32 = 3;
/// Epochs; the bit between them and [`CURSOR_PLAN`] stays free, so that no count of picks ever carries into that.
const EPOCHS: u64 = (1 << 30) - 1;

/// A service in the maps.
#[derive(Debug)]
pub(super) struct Running {
    /// Its element.
    pub(super) slot: u32,
    /// As it was asked for.
    pub(super) state: Arc<ServiceState>,
    /// Elements of its servers, in the order of `state.servers`.
    pub(super) servers: Vec<u32>,
    /// Distinguishes it from an earlier service of the same name.
    pub(super) incarnation: u64,
    pub(super) planner: Planner,
    /// Room for its two plans; both of one size, large enough for all its servers, or none at all.
    pub(super) regions: Option<[Region; 2]>,
    /// What servers that left had counted since the last zeroing.
    pub(super) gone: Stats,
    /// What it had counted before the last zeroing.
    pub(super) zeroed: Stats,
    pub(super) estimator: Estimator,
    /// Active and inactive connections of its servers when they were last compared.
    pub(super) basis: Vec<(u64, u64)>,
    /// Of an earlier daemon, whose plan is still in use; with what room it may have besides `regions`.
    pub(super) inherited: Option<Vec<Region>>,
}

impl Running {
    /// Its servers for the scheduler.
    pub(super) fn candidates(&self, dests: &Dests) -> Vec<Server> {
        self.servers.iter().zip(&self.state.servers).map(|(&dest, s)| plan::server(dest, s, dests)).collect()
    }
}

/// The service maps.
#[derive(Debug)]
pub(super) struct Services {
    pub(super) memory: Mapped<Service>,
    pub(super) notes: Mapped<ServiceNote>,
    pub(super) keys: Table<ServiceKey, u32>,
    pub(super) filter: Filter,
    pub(super) picks_memory: Mapped<u32>,
    pub(super) slots: Slots,
    pub(super) picks: Picks,
    pub(super) planned: Planned,
}

/// Why a plan is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Why {
    /// The service or its servers are others: what was planned does not hold.
    Configured,
    /// Counts changed.
    Counts,
}

/// Plans made so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Planned {
    pub(super) plans: u64,
    pub(super) took: Duration,
}

/// A service's key.
pub(super) fn key_of(id: &ServiceId) -> ServiceKey {
    let (addr, family) = wide_of(id.address);
    ServiceKey { addr, port: id.port.to_be(), proto: id.protocol.number(), family, zero: 0 }
}

/// The service of a key; `None` if no daemon wrote it.
pub(super) fn id_of(key: &ServiceKey) -> Option<ServiceId> {
    use crate::model::Protocol;
    let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|p| p.number() == key.proto)?;
    Some(ServiceId { protocol, address: lb_common::family::ip_of(key.addr, key.family)?, port: u16::from_be(key.port) })
}

/// Flags, persistence timeout and mask of a service's element.
fn element(spec: &ServiceSpec) -> (u32, u32, [u64; 2]) {
    let mut flags = 0;
    if spec.one_packet {
        flags |= ONE_PACKET;
    }
    let Some(p) = spec.persistence else { return (flags, 0, [0; 2]) };
    flags |= PERSISTENT;
    let whole = if wide_of(spec.id.address).1 == FAMILY_V4 { IpAddr::from([0xff; 4]) } else { IpAddr::from([0xff; 16]) };
    (flags, ticks_of_seconds(p.timeout_s), wide_of(p.netmask.unwrap_or(whole)).0)
}

fn plan_word(plan: Plan) -> u64 {
    let (b, l) = (plan.base.to_ne_bytes(), plan.len.to_ne_bytes());
    u64::from_ne_bytes([b[0], b[1], b[2], b[3], l[0], l[1], l[2], l[3]])
}

const CURSOR: usize = offset_of!(Service, cursor);
const PLANS: usize = offset_of!(Service, plans);

/// The cursor at the start of the plan that `seen` does not name.
fn flipped(seen: u64) -> u64 {
    let epoch = ((seen >> 32) + 1) & EPOCHS;
    ((seen ^ CURSOR_PLAN) & CURSOR_PLAN) | epoch << 32
}

impl Services {
    /// Notes what no packet needs, for the daemon after this one.
    pub(super) fn note(&self, service: &Running, stepped_ns: u64) {
        let note = ServiceNote {
            incarnation: service.incarnation,
            gone: five(&service.gone),
            zeroed: five(&service.zeroed),
            last: five(&service.estimator.last),
            average: five(&service.estimator.average),
            stepped_ns,
            regions: service.regions.map_or([0; 2], |r| r.map(|r| r.base)),
            order: service.regions.map_or(0, |[r, _]| u32::from(r.order) + 1),
            zero: 0,
        };
        self.notes.write(service.slot, &note);
    }

    /// When the estimator took its last step.
    pub(super) fn note_step(&self, service: &Running, stepped_ns: u64) {
        self.notes.u64(service.slot, offset_of!(ServiceNote, stepped_ns)).store(stepped_ns, Ordering::Release);
    }

    /// The plan that is in use, as far as it can be read, and where it goes on after its last pick.
    pub(super) fn plan_in_use(&self, slot: u32) -> (Vec<u32>, u32) {
        let Some(s) = self.memory.read(slot) else { return (Vec::new(), 0) };
        let plan = s.plans[Service::plan_of(s.cursor)];
        let picks = (plan.base..plan.base.saturating_add(plan.len)).map_while(|at| self.picks_memory.read(at)).collect();
        (picks, s.again[Service::plan_of(s.cursor)])
    }

    /// Two regions for plans of up to `len` picks, instead of `old`; `None` if `old` will do.
    ///
    /// # Errors
    /// If there is no room; nothing is taken then.
    pub(super) fn room(&mut self, len: u32, old: Option<[Region; 2]>) -> Result<Option<[Region; 2]>, ()> {
        let fits = old.map_or(len == 0, |[r, _]| r.len() >= len);
        // Much too large is given back, if it can be.
        let wasteful = old.is_some_and(|[r, _]| r.len() / 8 > len.max(1));
        if fits && !wasteful {
            return Ok(None);
        }
        let first = self.picks.take(len);
        let second = self.picks.take(len);
        match (first, second) {
            (Some(a), Some(b)) => Ok(Some([a, b])),
            (a, b) => {
                for region in [a, b].into_iter().flatten() {
                    self.picks.untake(region);
                }
                if fits { Ok(None) } else { Err(()) }
            }
        }
    }

    /// Writes a new service's element and makes it reachable. Its servers are in place.
    ///
    /// # Errors
    /// If the kernel refuses the key; the service is then not reachable.
    pub(super) fn install(&mut self, service: &mut Running, dests: &Dests) -> io::Result<()> {
        let (flags, persist_ticks, persist_mask) = element(&service.state.spec);
        let low_water = u32::MAX;
        self.memory.write(service.slot, &Service { flags, persist_ticks, persist_mask, low_water, ..Service::default() });
        self.replan(service, dests, Why::Configured);
        let key = key_of(&service.state.spec.id);
        self.filter.add(&key);
        self.keys.insert(key, service.slot).inspect_err(|_| self.filter.remove(&key))
    }

    /// Makes a service unreachable.
    pub(super) fn uninstall(&mut self, service: &Running) {
        let key = key_of(&service.state.spec.id);
        if let Err(error) = self.keys.remove(&key) {
            // It then leads to an element without picks, or to a later service's; the filter still hides it.
            tracing::error!(service = %service.state.spec.id, %error, "the key of a removed service stays behind");
        }
        self.filter.remove(&key);
    }

    /// Gives back what an uninstalled service had. Its servers are out already.
    pub(super) fn retire(&mut self, service: &Running) {
        for region in service.regions.into_iter().flatten().chain(service.inherited.iter().flatten().copied()) {
            self.picks.retire(region);
        }
        self.notes.write(service.slot, &ServiceNote::default());
        self.slots.retire(service.slot);
    }

    /// Writes what an edited service changes beside its servers.
    pub(super) fn edit(&mut self, service: &Running) {
        let (flags, ticks, mask) = element(&service.state.spec);
        let (m, slot) = (&self.memory, service.slot);
        m.u64(slot, offset_of!(Service, persist_mask)).store(mask[0], Ordering::Release);
        m.u64(slot, offset_of!(Service, persist_mask) + 8).store(mask[1], Ordering::Release);
        m.u32(slot, offset_of!(Service, persist_ticks)).store(ticks, Ordering::Release);
        self.set_flags(slot, !plan::FLAGS, flags);
    }

    /// Sets those flags of an element that are in `mask`. Nobody else writes them.
    fn set_flags(&self, slot: u32, mask: u32, flags: u32) {
        let word = self.memory.u32(slot, offset_of!(Service, flags));
        word.store((word.load(Ordering::Relaxed) & !mask) | (flags & mask), Ordering::Release);
    }

    /// Asks the scheduler for a new plan and puts it in the place of the one in use.
    ///
    /// The plan goes into the region that is not in use, then the cursor is swapped. If packets took picks meanwhile, the swap fails and the
    /// plan is made again from where they got to, so that no pick is repeated or left out. Under a flood that never leaves a
    /// gap the swap is forced in the end: the count of picks is exact even then, only a few picks are repeated.
    ///
    /// A plan of the least loaded servers is as good as a new one while there is enough left of it, for vacancies keep it so: it stays where
    /// packets leave no gap. Vacancies that the new plan's counts knew are cleared after the swap, and one that was filled while it was made is as
    /// good a reason to make it again as a pick.
    ///
    /// A packet that read the cursor before the last change but one may find its position overwritten: it gets another pick of the
    /// same service.
    pub(super) fn replan(&mut self, service: &mut Running, dests: &Dests, why: Why) {
        let began = Instant::now();
        self.planned.plans += u64::from(self.make_plan(service, dests, why));
        self.planned.took += began.elapsed();
    }

    /// Whether a new plan is in use.
    fn make_plan(&self, service: &mut Running, dests: &Dests, why: Why) -> bool {
        let flow = plan::flow(&service.state.spec);
        let m = |offset| self.memory.u64(service.slot, offset);
        let (cursor, vacated, filled) = (m(CURSOR), m(offset_of!(Service, vacated)), m(offset_of!(Service, filled)));
        // First, so that whatever changes from here on is signalled again.
        self.memory.u32(service.slot, offset_of!(Service, signalled)).store(0, Ordering::SeqCst);
        let mut tries = 0;
        loop {
            let seen = cursor.load(Ordering::Acquire);
            let taken = Service::taken(seen);
            let (ended, begun) = (vacated.load(Ordering::SeqCst), filled.load(Ordering::SeqCst));
            // After these: what they do not tell until the swap, the counts do.
            let candidates = service.candidates(dests);
            let draft = service.planner.draft(&candidates, &flow, taken);
            let next = 1 - Service::plan_of(seen);
            self.write_plan(service, next, draft.plan());
            let flags = plan::flags(service.planner.kind(), draft.plan());
            self.set_flags(service.slot, plan::FLAGS, flags);
            let least = Service::measure(flags).is_some();
            let start = flipped(seen);
            let undisturbed = !least || filled.load(Ordering::SeqCst) == begun;
            if undisturbed && cursor.compare_exchange(seen, start, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                // If it fails, one more was looked at meanwhile.
                let _ = filled.compare_exchange(begun, ended, Ordering::AcqRel, Ordering::Acquire);
                service.planner.commit(draft);
                return true;
            }
            tries += 1;
            if least && why == Why::Counts && tries >= LEAST_TRIES && taken < service.planner.plan().again() / 2 {
                return false;
            }
            if tries >= if least { LEAST_TRIES } else { SWAP_TRIES } {
                let last = cursor.swap(start, Ordering::AcqRel);
                filled.store(ended, Ordering::Release);
                // What was taken meanwhile belongs to the plan before: the place in the schedule is that, if not the plan.
                let settled = service.planner.draft(&candidates, &flow, Service::taken(last));
                service.planner.commit(if Service::taken(last) == taken { draft } else { settled });
                return true;
            }
        }
    }

    fn write_plan(&self, service: &Running, which: usize, made: &crate::sched::plan::Plan) {
        let picks = made.keys();
        // Connections that are not kept never change a count: there the picks themselves are what is looked at.
        let uncounted = service.state.spec.one_packet && plan::is_counted(service.planner.kind());
        let low_water = if uncounted { 0 } else { made.low_water().unwrap_or(u32::MAX) };
        let again = made.again();
        let plan = match service.regions {
            Some(regions) if !picks.is_empty() => {
                let region = regions[which];
                let picks = &picks[..picks.len().min(region.len() as usize)];
                for (at, &dest) in (region.base..).zip(picks) {
                    self.picks_memory.u32(at, 0).store(dest, Ordering::Relaxed);
                }
                Plan { base: region.base, len: picks.len() as u32 }
            }
            _ => Plan::default(),
        };
        self.memory.u64(service.slot, PLANS + which * size_of::<Plan>()).store(plan_word(plan), Ordering::Release);
        let again = if again < plan.len { again } else { 0 };
        self.memory.u32(service.slot, offset_of!(Service, again) + which * 4).store(again, Ordering::Release);
        // One for both plans: a packet that still goes by the old one may tell the daemon once in vain.
        self.memory.u32(service.slot, offset_of!(Service, low_water)).store(low_water, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_flips_without_carrying_into_the_plan() {
        assert_eq!(flipped(0), CURSOR_PLAN | 1 << 32);
        assert_eq!(flipped(CURSOR_PLAN | 5 << 32 | 77), 6 << 32);
        assert_eq!(flipped(EPOCHS << 32 | 3), CURSOR_PLAN);
        // A count of picks that overflows into the largest epoch leaves the plan's bit alone.
        assert_eq!(Service::plan_of((EPOCHS << 32) + (1 << 32)), 0);
    }

    #[test]
    fn keys_give_their_service_back() {
        for id in ["192.0.2.1", "2001:db8::1"] {
            for protocol in [crate::model::Protocol::Tcp, crate::model::Protocol::Udp] {
                let id = ServiceId { protocol, address: id.parse().unwrap(), port: 80 };
                assert_eq!(id_of(&key_of(&id)), Some(id));
            }
        }
        assert_eq!(
            key_of(&ServiceId { protocol: crate::model::Protocol::Tcp, address: [0, 0, 0, 1].into(), port: 80 })
                .port
                .to_ne_bytes(),
            [0, 80]
        );
    }
}
