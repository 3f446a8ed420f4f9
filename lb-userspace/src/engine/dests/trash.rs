//! Servers that were removed: they linger while connections refer to them, as on the kernel's trash list, and rest for a moment before
//! their elements are used for others.

use super::*;

impl Dests {
    /// Takes a server out of its service and puts it into the trash; what it had counted for the service.
    pub(in crate::engine) fn remove(&mut self, slot: u32, counters: &Counters) -> Stats {
        self.memory.u32(slot, FLAGS).fetch_and(!(PRESENT | WEIGHTED), Ordering::AcqRel);
        let raw = counters.dest(slot);
        let Some(server) = &mut self.records[slot as usize] else { return Stats::default() };
        server.present = false;
        server.idle = 0;
        if let Some(name) = server.name {
            self.trash.insert(name, slot);
        }
        crate::engine::stats::minus(&raw, &server.joined)
    }

    /// Frees the trash that has had no connections for long. Call every two seconds.
    pub(in crate::engine) fn aged(&mut self) {
        self.slots.aged();
        for slot in 0..self.records.len() as u32 {
            let referred = match &self.records[slot as usize] {
                Some(s) if !s.present => self.refers(slot) != 0,
                _ => continue,
            };
            let Some(server) = &mut self.records[slot as usize] else { continue };
            server.idle = if referred { 0 } else { server.idle + 1 };
            if server.idle >= TRASH_TICKS {
                self.free(slot);
            }
        }
    }

    /// Frees all trash without connections. No packet that arrived before it was trash may be under way any more.
    pub(in crate::engine) fn settled(&mut self) {
        for slot in 0..self.records.len() as u32 {
            // Claimed ones are not in the trash, but not present yet either.
            let trash = match &self.records[slot as usize] {
                Some(s) if !s.present => s.name.is_none_or(|n| self.trash.get(&n) == Some(&slot)),
                _ => false,
            };
            if trash && self.refers(slot) == 0 {
                self.free(slot);
            }
        }
        self.slots.settled();
    }

    fn free(&mut self, slot: u32) {
        if let Some(server) = self.records[slot as usize].take()
            && let Some(name) = server.name
            && self.trash.get(&name) == Some(&slot)
        {
            self.trash.remove(&name);
        }
        self.note(slot);
        self.slots.retire(slot);
    }

    /// How many elements could be had: free ones, and trash without connections.
    #[cfg(test)]
    pub(in crate::engine) fn available(&self) -> usize {
        self.slots.available() + self.iter().filter(|&(slot, s)| !s.present && self.is_idle(slot)).count()
    }

    /// Whether no connection refers to an element.
    pub(in crate::engine) fn is_idle(&self, slot: u32) -> bool {
        self.refers(slot) == 0
    }

    /// Elements in the map.
    pub(in crate::engine) fn limit(&self) -> u32 {
        self.slots.limit()
    }

    /// Removed servers that connections still refer to.
    pub(in crate::engine) fn lingering(&self) -> usize {
        self.iter().filter(|&(slot, s)| !s.present && self.refers(slot) != 0).count()
    }

    /// The same, of servers that only an earlier daemon knew.
    pub(in crate::engine) fn lingering_unnamed(&self) -> usize {
        self.iter().filter(|&(slot, s)| s.name.is_none() && self.refers(slot) != 0).count()
    }
}
