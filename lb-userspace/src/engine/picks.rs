//! Room in the picks map: regions of a power of two, split and joined in pairs (a buddy allocator).
//!
//! As with [`super::slots`], a region that was in use rests in limbo before it is given out again: a packet that read the
//! cursor just before the plan changed still reads its pick from there.

use std::collections::BTreeSet;

/// A region of the picks map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Region {
    /// First element.
    pub(super) base: u32,
    /// log2 of the number of elements.
    pub(super) order: u8,
}

impl Region {
    /// Elements.
    pub(super) fn len(self) -> u32 {
        1 << self.order
    }
}

/// The allocator.
#[derive(Clone, Debug)]
pub(super) struct Picks {
    /// First elements of free regions by order.
    free: Vec<BTreeSet<u32>>,
    limit: u32,
    limbo: Vec<Region>,
    old_limbo: Vec<Region>,
}

/// The order of a region that holds `len` elements.
fn order_for(len: u32) -> Option<u8> {
    len.max(1).checked_next_power_of_two().map(|n| n.trailing_zeros() as u8)
}

impl Picks {
    pub(super) fn new(limit: u32) -> Self {
        let mut free = vec![BTreeSet::new(); 32];
        // The largest aligned blocks that make up the map.
        let mut base = 0;
        for order in (0..32u8).rev() {
            if limit & (1 << order) != 0 {
                free[order as usize].insert(base);
                base += 1 << order;
            }
        }
        Self { free, limit, limbo: Vec::new(), old_limbo: Vec::new() }
    }

    /// A region of at least `len` elements.
    pub(super) fn take(&mut self, len: u32) -> Option<Region> {
        let order = order_for(len)?;
        let from = (order as usize..self.free.len()).find(|&o| !self.free[o].is_empty())?;
        let base = self.free[from].pop_first()?;
        for half in order as usize..from {
            self.free[half].insert(base + (1 << half));
        }
        Some(Region { base, order })
    }

    /// Takes just this region, which an earlier daemon gave out; `None` if it cannot be one, or overlaps another.
    pub(super) fn reserve(&mut self, base: u32, len: u32) -> Option<Region> {
        let order = order_for(len)?;
        let start = |o: usize| base & !((1u32 << o) - 1);
        if start(order as usize) != base {
            return None;
        }
        let from = (order as usize..self.free.len()).find(|&o| self.free[o].contains(&start(o)))?;
        self.free[from].remove(&start(from));
        for half in order as usize..from {
            self.free[half].insert(start(half) ^ (1 << half));
        }
        Some(Region { base, order })
    }

    /// Gives back a region that no packet ever saw.
    pub(super) fn untake(&mut self, region: Region) {
        let Region { mut base, order } = region;
        let mut order = order as usize;
        while order + 1 < self.free.len() && self.free[order].remove(&(base ^ (1 << order))) {
            base &= !(1 << order);
            order += 1;
        }
        self.free[order].insert(base);
    }

    /// Gives back a region that packets may still read.
    pub(super) fn retire(&mut self, region: Region) {
        self.limbo.push(region);
    }

    /// No packet reads a retired region any more.
    pub(super) fn settled(&mut self) {
        for region in std::mem::take(&mut self.old_limbo).into_iter().chain(std::mem::take(&mut self.limbo)) {
            self.untake(region);
        }
    }

    /// Two seconds went by since the last call.
    pub(super) fn aged(&mut self) {
        for region in std::mem::take(&mut self.old_limbo) {
            self.untake(region);
        }
        std::mem::swap(&mut self.limbo, &mut self.old_limbo);
    }

    /// Elements in the map.
    pub(super) fn limit(&self) -> u32 {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_map_of_any_size_is_used_whole_and_joined_again() {
        let mut p = Picks::new(100);
        let before = p.free.clone();
        let all: Vec<_> = std::iter::from_fn(|| p.take(1)).collect();
        assert_eq!(all.len(), 100);
        for r in all {
            p.retire(r);
        }
        assert_eq!(p.take(1), None);
        p.settled();
        assert_eq!(p.free, before);
        assert_eq!(p.take(65), None, "the largest block is 64");
        assert_eq!(p.take(33).map(Region::len), Some(64));
        assert_eq!(p.take(u32::MAX), None);
    }

    proptest! {
        /// What another process gave out is reserved exactly, in any order, and nothing else is lost.
        #[test]
        fn reserved_regions_are_those_taken(lens in prop::collection::vec(1u32..40, 1..30), limit in 100u32..2000) {
            let mut p = Picks::new(limit);
            let held: Vec<_> = lens.iter().filter_map(|&n| p.take(n)).collect();
            let mut q = Picks::new(limit);
            for r in held.iter().rev() {
                prop_assert_eq!(q.reserve(r.base, r.len()), Some(*r));
                prop_assert_eq!(q.reserve(r.base, 1), None);
            }
            prop_assert_eq!(q.free, p.free);
        }

        #[test]
        fn regions_never_overlap(ops in prop::collection::vec((any::<bool>(), 0u32..40), 1..200)) {
            let mut p = Picks::new(1000);
            let before = p.free.clone();
            let mut held: Vec<Region> = Vec::new();
            for (give, n) in ops {
                if give && !held.is_empty() {
                    let r = held.swap_remove(n as usize % held.len());
                    p.untake(r);
                } else if let Some(r) = p.take(n) {
                    prop_assert!(r.len() >= n && r.base + r.len() <= 1000);
                    prop_assert!(held.iter().all(|h| r.base + r.len() <= h.base || h.base + h.len() <= r.base));
                    held.push(r);
                }
            }
            for r in held {
                p.untake(r);
            }
            prop_assert_eq!(p.free, before);
        }
    }
}
