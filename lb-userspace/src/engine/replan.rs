//! Asking the schedulers again, when the packet path says that counts changed and every two seconds.

use super::services::Why;
use super::*;

impl Engine {
    /// Services whose signals came in, by their elements: each gets a plan from the counters as they are now.
    pub fn replan(&mut self, slots: &[u32]) {
        self.signals += slots.len() as u64;
        for slot in slots {
            let Some(id) = self.by_slot.get(slot).copied() else { continue };
            if let Some(running) = self.running.get_mut(&id) {
                self.services.replan(running, &self.dests, Why::Counts);
            }
        }
    }

    /// A server was edited into what it was ([`crate::sched::plan::Planner::touch`]).
    pub fn touch(&mut self, service: &ServiceId, server: &ServerId) {
        let Some(running) = self.running.get_mut(service) else { return };
        let Some(at) = running.state.servers.iter().position(|s| s.id == *server) else { return };
        let Some(&slot) = running.servers.get(at) else { return };
        running.planner.touch(slot);
        self.services.replan(running, &self.dests, Why::Configured);
    }

    /// Plans again what depends on counters, and where connections ended without a packet: nobody signals that. So do plans that leave
    /// an overloaded server out.
    ///
    /// Counts change by packets and by the sweeper's thread alone: where neither did anything, nothing is looked at.
    fn replan_counted(&mut self) {
        let changes = (self.counters.packets(), self.swept.changes());
        if self.planned_at.replace(changes) == Some(changes) {
            return;
        }
        let looks = |r: &Running| plan::is_counted(r.planner.kind()) || r.planner.plan().low_water().is_some();
        for running in self.running.values_mut().filter(|r| looks(r)) {
            let count = |&slot: &u32| self.dests.active_and_inactive(slot);
            if running.servers.iter().map(count).eq(running.basis.iter().copied()) {
                continue;
            }
            let now = running.servers.iter().map(count).collect();
            self.services.replan(running, &self.dests, Why::Counts);
            running.basis = now;
        }
    }

    /// Two seconds went by: moves the rates, and frees what has rested long enough.
    pub fn estimate(&mut self) {
        self.replan_counted();
        self.services.slots.aged();
        self.services.picks.aged();
        self.dests.aged();
        for address in self.hops.let_go() {
            self.refresh(address);
        }
        self.hops.aged();
        self.tick_rates();
    }
}
