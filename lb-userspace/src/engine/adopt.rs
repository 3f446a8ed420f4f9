//! Taking over maps: fresh ones, or those of an earlier daemon, whose services go on while this happens.
//!
//! What packets use is left as it is: keys, filter, elements, plans, next hops, ports. What this process must know about it is read
//! from the elements and from the notes beside them. The first [`Engine::reconcile`] then finds every inherited service different from
//! what is asked for (see [`INHERITED`]), plans it anew from where its schedule stood, and changes nothing else that is the same.
//!
//! Invariant: at every moment of a take-over, and after one that was cut off at any point, each packet meets either what was there before or
//! what is there after.

use super::answerers::{self, Answerers};
use super::dests::{Dests, Members};
use super::filter::Filter;
use super::hops::Hops;
use super::mapped::Mapped;
use super::maps::{Maps, MapsError, Table};
use super::memory::TableMemory;
use super::picks::{Picks, Region};
use super::plan::planner;
use super::ports::Ports;
use super::services::{Running, Services, id_of};
use super::slots::Slots;
use super::stats::{Counters, Estimator, stats};
use super::{Engine, set_up};
use crate::model::{Desired, Persistence, SchedFlags, SchedulerKind, ServiceId, ServiceSpec, ServiceState};
use crate::sched::TableSize;
use lb_common::dest::LOCAL;
use lb_common::limits::map;
use lb_common::note::ServiceNote;
use lb_common::proto::{ANSWERER, UDP};
use lb_common::service::{ONE_PACKET, PERSISTENT, Service, ServiceKey};
use std::collections::HashMap;
use std::sync::Arc;

/// Flags that no service can be asked for: elements do not tell their scheduler, so an inherited service is never what is wanted yet.
const INHERITED: SchedFlags = SchedFlags(u8::MAX);

/// What was found of a service: its element, its name, and its note.
struct Found {
    slot: u32,
    id: ServiceId,
    note: ServiceNote,
}

/// Keys that stay.
#[derive(Default)]
struct Keys {
    services: Vec<ServiceKey>,
    /// With what each leads to.
    answerers: HashMap<ServiceKey, u32>,
}

/// The services that can be reached. Keys that lead nowhere are removed.
fn services(keys: &mut Table<ServiceKey, u32>, notes: &Mapped<ServiceNote>) -> std::io::Result<(Vec<Found>, Keys)> {
    let (mut found, mut live) = (HashMap::new(), Keys::default());
    for (key, slot) in keys.entries()? {
        if key.proto == UDP | ANSWERER {
            live.answerers.insert(key, slot);
            continue;
        }
        match (id_of(&key), notes.read(slot)) {
            (Some(id), Some(note)) if !found.contains_key(&slot) => {
                found.insert(slot, Found { slot, id, note });
                live.services.push(key);
            }
            _ => keys.remove(&key)?,
        }
    }
    let mut found: Vec<Found> = found.into_values().collect();
    // Those whose note was never written are numbered after all others.
    let mut last = found.iter().map(|f| f.note.incarnation).max().unwrap_or(0);
    for f in found.iter_mut().filter(|f| f.note.incarnation == 0) {
        last += 1;
        f.note.incarnation = last;
    }
    found.sort_by_key(|f| f.note.incarnation);
    Ok((found, live))
}

/// A service as its element has it; for comparison only.
fn spec_of(id: ServiceId, element: &Service) -> ServiceSpec {
    let persistence = (element.flags & PERSISTENT != 0).then_some(Persistence { timeout_s: 0, netmask: None });
    let one_packet = element.flags & ONE_PACKET != 0;
    ServiceSpec { id, scheduler: SchedulerKind::DEFAULT, sched_flags: INHERITED, persistence, one_packet }
}

/// The room of a service's plans: by its note, and what is in use besides, if a change was cut off.
fn room(element: &Service, note: &ServiceNote, picks: &mut Picks) -> (Option<[Region; 2]>, Vec<Region>) {
    let mut noted = None;
    if let Some(order) = note.order.checked_sub(1).filter(|o| *o < 31) {
        let [a, b] = note.regions.map(|base| picks.reserve(base, 1 << order));
        noted = match (a, b) {
            (Some(a), Some(b)) => Some([a, b]),
            (one, other) => {
                for region in [one, other].into_iter().flatten() {
                    picks.untake(region);
                }
                None
            }
        };
    }
    let known = |base| noted.is_some_and(|regions: [Region; 2]| regions.iter().any(|r| r.base == base));
    let others: Vec<_> = element.plans.iter().filter(|p| p.len > 0 && !known(p.base)).collect();
    (noted, others.into_iter().filter_map(|p| picks.reserve(p.base, p.len)).collect())
}

impl Engine {
    /// Takes over the maps. In fresh ones the configuration is written; in those of an earlier daemon connections and services go on, and
    /// the first [`Engine::reconcile`] changes what is not as desired.
    ///
    /// # Errors
    /// Maps of another version, no random numbers, or a map that cannot be read.
    pub fn new(maps: Maps) -> Result<Self, MapsError> {
        let barrier = maps.barrier();
        let (table4, table6) = (Arc::new(TableMemory::v4(&maps)), Arc::new(TableMemory::v6(&maps)));
        set_up(&maps)?;
        let Maps { config, mut service_keys, services: memory, service_notes, picks, .. } = maps;
        let access = |map| move |source| MapsError::Access { map, source };
        let (found, keys) = services(&mut service_keys, &service_notes).map_err(access(map::SERVICE_KEYS))?;
        let by_slot: HashMap<u32, ServiceId> = found.iter().map(|f| (f.slot, f.id)).collect();
        for slot in (0..memory.len()).filter(|slot| !by_slot.contains_key(slot)) {
            memory.write(slot, &Service::default());
        }
        let counters = Counters::new(maps.dest_stats, maps.cpus, maps.dests.len());
        let live = found.iter().map(|f| (f.slot, (f.id, f.note.incarnation))).collect();
        let elements = (maps.dests, maps.dest_conns, maps.dest_notes);
        let (dests, members) = Dests::adopt(elements, &counters, &live, || barrier.settle());
        let ports = Ports::new(maps.ports, maps.port_of, maps.devices).map_err(access(map::PORTS))?;
        let services = Services {
            slots: Slots::adopt(memory.len(), |slot| by_slot.contains_key(&slot)),
            memory,
            notes: service_notes,
            keys: service_keys,
            filter: Filter::adopt(maps.filter, keys.services.iter().chain(keys.answerers.keys())),
            picks: Picks::new(picks.len()),
            picks_memory: picks,
            planned: super::services::Planned::default(),
        };
        let stepped_ns = found.iter().map(|f| f.note.stepped_ns).max().unwrap_or(0);
        let mut engine = Self {
            config,
            services,
            running: HashMap::new(),
            by_slot,
            answerers: Answerers::default(),
            dests,
            counters,
            hops: Hops::default(),
            ports,
            barrier,
            applied: Desired::default(),
            incarnation: found.iter().map(|f| f.note.incarnation).max().unwrap_or(0),
            mh_table: TableSize::default(),
            mh_differ: true,
            stepped_ns,
            resumed: stepped_ns != 0,
            at_rest: None,
            planned_at: None,
            table4,
            table6,
            swept: Arc::default(),
            signals: 0,
        };
        engine.inherit(&found, members);
        let inherited = engine.running.iter().map(|(id, r)| (*id, answerers::of(&r.state, r.servers.iter().copied()))).collect();
        engine.answerers.adopt(&mut engine.services, &engine.config, inherited, &keys.answerers);
        Ok(engine)
    }

    /// Takes in the services that were found.
    fn inherit(&mut self, found: &[Found], mut members: HashMap<u32, Members>) {
        for f in found {
            let Some(element) = self.services.memory.read(f.slot) else { continue };
            let (servers, specs): (Vec<u32>, Vec<_>) = members.remove(&f.slot).unwrap_or_default().into_iter().unzip();
            for (&slot, server) in servers.iter().zip(&specs) {
                let known = self.dests.memory.read(slot).is_some_and(|d| d.next_hop != 0 || d.flags & LOCAL != 0);
                if known {
                    self.hops.hold(server.id.address, slot);
                } else {
                    self.hops.add(server.id.address, slot);
                }
            }
            // A table that is in place has the size that its daemon was told.
            let table = TableSize::new(element.plans[Service::plan_of(element.cursor)].len).unwrap_or_default();
            let (regions, more) = room(&element, &f.note, &mut self.services.picks);
            let state = Arc::new(ServiceState { spec: spec_of(f.id, &element), servers: specs });
            self.applied.services.push(state.clone());
            if state.spec.scheduler == SchedulerKind::Mh {
                self.mh_table = table;
            }
            let running = Running {
                slot: f.slot,
                planner: planner(&state.spec, table),
                state,
                servers,
                incarnation: f.note.incarnation,
                regions,
                gone: stats(f.note.gone),
                zeroed: stats(f.note.zeroed),
                estimator: Estimator { last: stats(f.note.last), average: stats(f.note.average) },
                basis: Vec::new(),
                inherited: Some(more),
            };
            self.running.insert(f.id, running);
        }
    }
}
