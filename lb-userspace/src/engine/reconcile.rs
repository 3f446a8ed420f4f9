//! Making the maps equal to the desired state.
//!
//! What changed is found by comparing the shared services of two [`Desired`]s, so that one edit costs one edit's work. Then everything
//! that the change needs is taken from the free lists; only when all of it is there is anything written. Should the maps be so full that
//! there is room only after what goes has gone, that goes first; it comes back if the room does not suffice even then.

use super::dests::Claim;
use super::diff::{Diff, State, common_ends, diff, places, remainder};
use super::picks::Region;
use super::plan::{self, planner};
use super::services::{Running, Why};
use super::{Engine, answerers, stats};
use crate::api::Stats;
use crate::model::{Desired, EditError, EditErrorKind, SchedulerKind, ServerId, ServerSpec, ServiceId, ServiceState, Timeouts};
use crate::sched::TableSize;
use crate::sched::plan::Planner;
use lb_common::config::Config;
use lb_common::tcp;
use lb_common::time::ticks_of_seconds;
use std::collections::{HashMap, HashSet};
use std::mem::offset_of;
use std::sync::atomic::Ordering;

/// A server's element in the new list.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// It has one.
    Kept(u32),
    /// It gets one.
    New(Claim),
}

impl Place {
    fn slot(self) -> u32 {
        match self {
            Self::Kept(slot) | Self::New(Claim { slot, .. }) => slot,
        }
    }
}

/// Everything that a new or changed service needs.
#[derive(Debug)]
struct Prepared {
    state: State,
    /// Element of a new service.
    slot: Option<u32>,
    places: Vec<Place>,
    /// Elements of servers that go.
    gone: Vec<u32>,
    /// New room for plans.
    regions: Option<[Region; 2]>,
    /// New scheduler; that of a service that runs already is changed in its place.
    planner: Option<Planner>,
    /// The scheduler has to be asked again.
    replan: bool,
}

fn full(message: String) -> EditError {
    EditError::new(EditErrorKind::Full, message)
}

fn no_service_left(id: &ServiceId, limit: u32) -> EditError {
    full(format!("service {id}: all {limit} services are in use"))
}

fn no_server_left(service: &ServiceId, server: &ServerId, limit: u32, lingering: usize) -> EditError {
    full(format!(
        "server {server} of service {service}: all {limit} servers are in use, {lingering} of them removed ones that still have connections"
    ))
}

impl Engine {
    /// Makes the maps equal to the desired state.
    ///
    /// # Errors
    /// If a table has no room, or the kernel refuses a service; the maps are then as before.
    pub fn reconcile(&mut self, desired: &Desired) -> Result<(), EditError> {
        let before = std::mem::take(&mut self.applied);
        let size = desired.behaviour.schedulers.mh_tab_index;
        let was = std::mem::replace(&mut self.mh_table, size);
        self.mh_differ |= size != was;
        let result = self.converge(&before.services, &desired.services, was);
        if result.is_ok() {
            self.mh_differ = false;
            self.applied = desired.clone();
        } else {
            self.mh_table = was;
            self.applied = before;
        }
        self.set_timeouts(self.applied.timeouts);
        result
    }

    /// What makes `new` of `old`; services of `mh` whose table has another size than it shall have are changed too.
    fn difference(&self, old: &[State], new: &[State]) -> Diff {
        let mut change = diff(old, new);
        if self.mh_differ {
            let known: HashSet<ServiceId> = change.changed.iter().map(|s| s.spec.id).collect();
            let other = |s: &&State| {
                s.spec.scheduler == SchedulerKind::Mh
                    && !known.contains(&s.spec.id)
                    && self.running.get(&s.spec.id).is_some_and(|r| r.planner.table_size() != self.mh_table)
            };
            change.changed.extend(new.iter().filter(other).cloned());
        }
        change
    }

    fn set_timeouts(&mut self, t: Timeouts) {
        for (state, seconds) in [(tcp::ESTABLISHED, t.tcp), (tcp::FIN_WAIT, t.tcpfin), (tcp::UDP, t.udp)] {
            let word = self.config.u32(0, offset_of!(Config, timeouts) + 4 * state as usize);
            word.store(ticks_of_seconds(seconds), Ordering::Release);
        }
    }

    /// `was` is the size that tables of `mh` had.
    fn converge(&mut self, old: &[State], new: &[State], was: TableSize) -> Result<(), EditError> {
        let change = self.difference(old, new);
        if let Ok(prepared) = self.prepare(&change) {
            return self.carry_out(prepared, &change.removed).inspect_err(|_| self.go_back(old, was));
        }
        // What rests can be had after a short wait.
        self.make_room();
        let error = match self.prepare(&change) {
            Ok(prepared) => return self.carry_out(prepared, &change.removed).inspect_err(|_| self.go_back(old, was)),
            Err(error) => error,
        };
        let kept = remainder(old, new);
        let less = diff(old, &kept);
        if less.removed.is_empty() && less.changed.is_empty() {
            return Err(error);
        }
        self.check_room(&kept, new)?;
        // Removing takes no room, as long as tables keep their size.
        let size = std::mem::replace(&mut self.mh_table, was);
        let prepared = self.prepare(&less)?;
        self.carry_out(prepared, &less.removed)?;
        self.make_room();
        self.mh_table = size;
        let more = self.difference(&kept, new);
        let result = self.prepare(&more).and_then(|prepared| self.carry_out(prepared, &more.removed));
        result.inspect_err(|_| self.go_back(old, was))
    }

    /// Checks that services and servers will have elements once nothing but `kept` is left.
    fn check_room(&self, kept: &[State], new: &[State]) -> Result<(), EditError> {
        let services = self.services.slots.limit();
        if let Some(s) = new.get(services as usize) {
            return Err(no_service_left(&s.spec.id, services));
        }
        let stay: HashSet<(ServiceId, ServerId)> =
            kept.iter().flat_map(|s| s.servers.iter().map(|server| (s.spec.id, server.id))).collect();
        // Elements of removed servers that have connections cannot be had, but by the same servers.
        let lingering: HashSet<_> =
            self.dests.iter().filter(|&(slot, _)| !self.dests.is_idle(slot)).filter_map(|(_, s)| s.name).collect();
        let unnamed = self.dests.lingering_unnamed();
        let gone = lingering.difference(&stay).count() + unnamed;
        let mut taken = stay.len() + gone;
        for s in new {
            for server in s.servers.iter().rev() {
                let name = (s.spec.id, server.id);
                if stay.contains(&name) || lingering.contains(&name) {
                    continue;
                }
                taken += 1;
                if taken > self.dests.limit() as usize {
                    return Err(no_server_left(&name.0, &name.1, self.dests.limit(), gone));
                }
            }
        }
        Ok(())
    }

    /// Restores what was before a change that failed half way.
    fn go_back(&mut self, old: &[State], was: TableSize) {
        self.mh_table = was;
        let now: Vec<State> = self.running.values().map(|r| r.state.clone()).collect();
        let change = self.difference(&now, old);
        let result = self.prepare(&change).or_else(|_| {
            self.make_room();
            self.prepare(&change)
        });
        if let Err(error) = result.and_then(|prepared| self.carry_out(prepared, &change.removed)) {
            tracing::error!(%error, "the services before a failed change could not all be restored");
        }
    }

    /// Frees what rests, after waiting for packets under way.
    fn make_room(&mut self) {
        self.barrier.settle();
        self.services.slots.settled();
        self.services.picks.settled();
        self.dests.settled();
        self.dests.settled();
    }

    /// Takes everything that a change needs, or nothing.
    fn prepare(&mut self, change: &Diff) -> Result<Vec<Prepared>, EditError> {
        let mut all = Vec::with_capacity(change.added.len() + change.changed.len());
        for state in change.added.iter().chain(&change.changed) {
            let mut p = Prepared {
                state: state.clone(),
                slot: None,
                places: Vec::new(),
                gone: Vec::new(),
                regions: None,
                planner: None,
                replan: true,
            };
            let result = self.prepare_one(&mut p);
            all.push(p);
            if let Err(error) = result {
                for p in all.into_iter().rev() {
                    self.undo(&p);
                }
                return Err(error);
            }
        }
        Ok(all)
    }

    fn prepare_one(&mut self, p: &mut Prepared) -> Result<(), EditError> {
        let id = p.state.spec.id;
        let (found, gone, room) = match self.running.get(&id) {
            Some(running) => {
                let (found, gone) = places(&running.state.servers, &running.servers, &p.state.servers);
                let (old, new) = (&running.state.spec, &p.state.spec);
                let other_table = new.scheduler == SchedulerKind::Mh && running.planner.table_size() != self.mh_table;
                if running.inherited.is_some()
                    || (old.scheduler, old.sched_flags) != (new.scheduler, new.sched_flags)
                    || other_table
                {
                    p.planner = Some(planner(new, self.mh_table));
                }
                let seen = |s: &ServiceState| {
                    s.servers.iter().map(|s| (s.id, s.weight, s.upper_threshold, s.lower_threshold)).collect::<Vec<_>>()
                };
                p.replan = p.planner.is_some() || seen(&running.state) != seen(&p.state);
                (found, gone, running.regions)
            }
            None => {
                let limit = self.services.slots.limit();
                let slot = self.services.slots.take();
                p.slot = Some(slot.ok_or_else(|| no_service_left(&id, limit))?);
                p.planner = Some(planner(&p.state.spec, self.mh_table));
                (vec![None; p.state.servers.len()], Vec::new(), None)
            }
        };
        p.gone = gone;
        for (slot, server) in found.into_iter().zip(&p.state.servers) {
            let place = match slot {
                Some(slot) => Place::Kept(slot),
                None => {
                    let claim = self.dests.claim(&(id, server.id));
                    let full = || no_server_left(&id, &server.id, self.dests.limit(), self.dests.lingering());
                    Place::New(claim.ok_or_else(full)?)
                }
            };
            p.places.push(place);
        }
        if !p.replan {
            return Ok(());
        }
        let candidates: Vec<_> =
            p.places.iter().zip(&p.state.servers).map(|(place, s)| plan::server(place.slot(), s, &self.dests)).collect();
        let len = match (&p.planner, self.running.get(&id)) {
            (Some(planner), _) => planner.capacity(&candidates),
            (None, Some(running)) => running.planner.capacity(&candidates),
            (None, None) => 0,
        };
        p.regions = self.services.room(len, room).map_err(|()| {
            full(format!("service {id}: no room for {len} picks twice in a table of {}", self.services.picks.limit()))
        })?;
        Ok(())
    }

    fn undo(&mut self, p: &Prepared) {
        let id = p.state.spec.id;
        for (place, server) in p.places.iter().zip(&p.state.servers).rev() {
            if let Place::New(claim) = place {
                self.dests.unclaim(&(id, server.id), *claim);
            }
        }
        for region in p.regions.into_iter().flatten() {
            self.services.picks.untake(region);
        }
        if let Some(slot) = p.slot {
            self.services.slots.untake(slot);
        }
    }

    /// Writes what was prepared, and removes.
    fn carry_out(&mut self, prepared: Vec<Prepared>, removed: &[ServiceId]) -> Result<(), EditError> {
        let mut prepared = prepared.into_iter();
        while let Some(p) = prepared.next() {
            if p.slot.is_none() {
                self.change_service(p);
            } else if let Err(error) = self.add_service(p) {
                for p in prepared {
                    self.undo(&p);
                }
                return Err(error);
            }
        }
        for id in removed {
            self.remove_service(id);
        }
        Ok(())
    }

    /// Fills the elements of new servers.
    fn publish(&mut self, state: &ServiceState, places: &[Place], service: (u32, u64)) {
        let id = state.spec.id;
        for (place, server) in places.iter().zip(&state.servers) {
            let Place::New(claim) = *place else { continue };
            let address = server.id.address;
            self.hops.add(address, claim.slot);
            let way = self.hops.way(address, id.address, &self.ports);
            self.dests.publish(claim, (id, server.id), server, service, &self.counters, &way);
        }
    }

    /// Makes the servers of a one-packet service known by their answers.
    fn set_answerers(&mut self, state: &ServiceState, slots: impl Iterator<Item = u32>) {
        let wanted = answerers::of(state, slots);
        self.answerers.set(&mut self.services, &self.config, &state.spec.id, wanted);
    }

    fn add_service(&mut self, p: Prepared) -> Result<(), EditError> {
        let (Some(slot), Some(planner)) = (p.slot, p.planner) else { return Ok(()) };
        self.incarnation += 1;
        let id = p.state.spec.id;
        self.publish(&p.state, &p.places, (slot, self.incarnation));
        self.set_answerers(&p.state, p.places.iter().map(|place| place.slot()));
        let mut running = Running {
            slot,
            state: p.state,
            servers: p.places.iter().map(|place| place.slot()).collect(),
            incarnation: self.incarnation,
            planner,
            regions: p.regions,
            gone: Stats::default(),
            zeroed: Stats::default(),
            estimator: stats::Estimator::default(),
            basis: Vec::new(),
            inherited: None,
        };
        self.services.note(&running, self.stepped_ns);
        if let Err(error) = self.services.install(&mut running, &self.dests) {
            self.answerers.set(&mut self.services, &self.config, &id, Vec::new());
            self.release(&running);
            return Err(full(format!("service {id}: the kernel does not take it: {error}")));
        }
        self.by_slot.insert(slot, id);
        self.running.insert(id, running);
        Ok(())
    }

    /// New servers, then changes of those that stay, then the plan, and only then what goes: no pick ever leads to a server that is
    /// not there any more.
    fn change_service(&mut self, p: Prepared) {
        let id = p.state.spec.id;
        let Some(mut running) = self.running.remove(&id) else { return };
        self.publish(&p.state, &p.places, (running.slot, running.incarnation));
        self.edit_servers(&running, &p);
        self.set_answerers(&p.state, p.places.iter().map(|place| place.slot()));
        let gone: Vec<_> = p.gone.iter().filter_map(|slot| Some((*slot, self.dests.get(*slot)?.name?.1.address))).collect();
        running.servers = p.places.iter().map(|place| place.slot()).collect();
        running.state = p.state;
        match p.planner {
            // Nothing is known of what an inherited service's was.
            Some(planner) if running.inherited.is_some() => running.planner = planner,
            Some(_) => running.planner.change(running.state.spec.scheduler, running.state.spec.sched_flags, self.mh_table),
            None => {}
        }
        let old = match p.regions {
            Some(new) => running.regions.replace(new),
            None => None,
        };
        self.services.note(&running, self.stepped_ns);
        let inherited = running.inherited.take();
        if inherited.is_some() {
            // The schedule goes on where it stood.
            let (picks, again) = self.services.plan_in_use(running.slot);
            running.planner.resume(&running.candidates(&self.dests), &plan::flow(&running.state.spec), picks, again);
        }
        self.services.edit(&running);
        if p.replan {
            self.services.replan(&mut running, &self.dests, Why::Configured);
        }
        for region in old.into_iter().flatten().chain(inherited.into_iter().flatten()) {
            self.services.picks.retire(region);
        }
        for (slot, address) in gone {
            let counted = self.dests.remove(slot, &self.counters);
            running.gone = stats::plus(&running.gone, &counted);
            self.hops.remove(address, slot);
            self.services.note(&running, self.stepped_ns);
        }
        self.running.insert(id, running);
    }

    /// Changes servers that stay.
    fn edit_servers(&mut self, running: &Running, p: &Prepared) {
        let (start, end) = common_ends(&running.state.servers, &p.state.servers, |a, b| a == b);
        let middle = start..p.state.servers.len() - end;
        let old: HashMap<u32, &ServerSpec> =
            running.servers[start..running.servers.len() - end].iter().copied().zip(&running.state.servers[start..]).collect();
        for (place, server) in p.places[middle.clone()].iter().zip(&p.state.servers[middle]) {
            if let Place::Kept(slot) = *place
                && old.get(&slot).is_none_or(|was| **was != *server)
            {
                self.dests.edit(slot, server);
            }
        }
    }

    fn remove_service(&mut self, id: &ServiceId) {
        let Some(running) = self.running.remove(id) else { return };
        self.by_slot.remove(&running.slot);
        self.services.uninstall(&running);
        self.answerers.set(&mut self.services, &self.config, id, Vec::new());
        self.release(&running);
    }

    /// Gives back what a service that cannot be reached has.
    fn release(&mut self, running: &Running) {
        for (&slot, server) in running.servers.iter().zip(&running.state.servers) {
            self.dests.remove(slot, &self.counters);
            self.hops.remove(server.id.address, slot);
        }
        self.services.retire(running);
    }
}
