//! What runs, for the API: services with their counters, verdicts, tables.

use super::stats::{Estimator, minus, plus};
use super::sweep::FAMILIES;
use super::{Engine, monotonic_ns};
use crate::api::{PlannerView, ServiceView, Services, Stats, SweeperView, TableView, VerdictView};
use crate::model::{EditError, EditErrorKind, ServerId, ServiceId};
use lb_common::dest::DestConns;

/// Connections that a table with so many records is for (the inverse of [`lb_common::table::records_for`]).
pub(super) fn connections_for(records: u32) -> u32 {
    (u64::from(records) * 16 / 17) as u32
}

impl Engine {
    /// All services, in the order of their making.
    #[must_use]
    pub fn services(&self) -> Services {
        self.reading().services()
    }

    /// One service.
    #[must_use]
    pub fn service(&self, id: &ServiceId) -> Option<ServiceView> {
        self.reading_of(self.running.get(id).into_iter()).services().services.pop()
    }

    /// Live connections of a server, active and inactive.
    #[must_use]
    pub fn live(&self, service: &ServiceId, server: &ServerId) -> u64 {
        let slot = self.running.get(service).and_then(|r| {
            let at = r.state.servers.iter().position(|s| s.id == *server)?;
            r.servers.get(at).copied()
        });
        let n = slot.map(|slot| self.dests.counts(slot)).unwrap_or_default();
        n.active.wrapping_add(n.inactive)
    }

    /// Moves the rates by one step of the estimator. Where no packet came since all rates were 0 there is nothing to look at.
    pub(super) fn tick_rates(&mut self) {
        let now = monotonic_ns();
        // The first step after a restart is longer than others.
        let since = std::mem::take(&mut self.resumed).then(|| now.saturating_sub(self.stepped_ns));
        self.stepped_ns = now;
        if let Some(any) = self.running.values().next() {
            // The next daemon takes the latest of all.
            self.services.note_step(any, now);
        }
        let packets = self.counters.packets();
        if since.is_none() && self.at_rest == Some(packets) {
            return;
        }
        let mut at_rest = true;
        let mut tick = |estimator: &mut Estimator, total: &Stats| {
            if estimator.rests_at(total) {
                return false;
            }
            match since {
                Some(ns) => estimator.tick_after(total, ns),
                None => estimator.tick(total),
            }
            at_rest = false;
            true
        };
        let mut running = std::mem::take(&mut self.running);
        for service in running.values_mut() {
            let mut total = service.gone;
            for (&slot, raw) in service.servers.iter().zip(self.counters.dests(&service.servers)) {
                let Some(server) = self.dests.get_mut(slot) else { continue };
                total = plus(&total, &minus(&raw, &server.joined));
                if tick(&mut server.estimator, &minus(&raw, &server.base)) {
                    self.dests.note(slot);
                }
            }
            if tick(&mut service.estimator, &total) {
                self.services.note(service, now);
            }
        }
        self.running = running;
        self.at_rest = at_rest.then_some(packets);
    }

    /// Sets counters and rates to 0, of one service and its servers, or of all.
    ///
    /// # Errors
    /// If there is no such service.
    pub fn zero(&mut self, service: Option<&ServiceId>) -> Result<(), EditError> {
        if let Some(id) = service
            && !self.running.contains_key(id)
        {
            return Err(EditError::new(EditErrorKind::NoSuchService, format!("there is no service {id}")));
        }
        for (id, running) in &mut self.running {
            if service.is_some_and(|s| s != id) {
                continue;
            }
            running.zeroed = plus(&running.zeroed, &running.gone);
            running.gone = Stats::default();
            running.estimator = Estimator::default();
            for &slot in &running.servers {
                let raw = self.counters.dest(slot);
                if let Some(server) = self.dests.get_mut(slot) {
                    running.zeroed = plus(&running.zeroed, &minus(&raw, &server.joined));
                    server.base = raw;
                    server.joined = raw;
                    server.estimator = Estimator::default();
                }
                self.dests.note(slot);
            }
            self.services.note(running, self.stepped_ns);
        }
        Ok(())
    }

    /// Packets by verdict.
    #[must_use]
    pub fn verdicts(&self) -> Vec<VerdictView> {
        self.counters.verdicts()
    }

    /// The connection tables and how full they are.
    #[must_use]
    pub fn tables(&self) -> Vec<TableView> {
        // Every live record is in one server's counts: cheaper by far than a walk over the records.
        let mut used = [DestConns::default(); 2];
        for (slot, server) in self.dests.iter() {
            let n = self.dests.shown(slot);
            let v6 = match server.name {
                Some((service, _)) => !service.address.is_ipv4(),
                None => self.dests.memory.read(slot).is_some_and(|d| d.family == lb_common::family::FAMILY_V6),
            };
            let used = &mut used[usize::from(v6)];
            used.active += n.active;
            used.inactive += n.inactive;
            used.templates += n.templates;
        }
        let gave_way = self.counters.gave_way();
        let view = |i: usize, family: &str, records| {
            let (n, gave_way) = (used[i], gave_way[i]);
            TableView {
                family: family.into(),
                size: connections_for(records),
                used: n.active + n.inactive + n.templates,
                active: n.active,
                inactive: n.inactive,
                templates: n.templates,
                reclaimed_expired: gave_way.expired,
                evicted_embryonic: gave_way.embryonic,
                evicted_closing: gave_way.closing,
                swept: self.swept.expired(i),
                states: self.swept.states(i),
            }
        };
        vec![view(0, FAMILIES[0], self.table4.conns.len()), view(1, FAMILIES[1], self.table6.conns.len())]
    }

    /// What the making of plans came to.
    #[must_use]
    pub fn planner_view(&self) -> PlannerView {
        let p = self.services.planned;
        let plan_us = u64::try_from(p.took.as_micros()).unwrap_or(u64::MAX);
        PlannerView { signals: self.signals, plans: p.plans, plan_us }
    }

    /// What the sweeper does.
    #[must_use]
    pub fn sweeper_view(&self) -> SweeperView {
        self.swept.view()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::table::records_for;

    #[test]
    fn the_table_size_is_the_one_asked_for() {
        for n in (1..3000).chain([999_999, 1_000_000, 10_000_000, 64_000_000]) {
            assert_eq!(connections_for(records_for(n)), n);
        }
    }
}
