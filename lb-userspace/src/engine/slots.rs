//! Elements of an array map: which are free.
//!
//! An element that was given back first goes to *limbo*: a packet that is being worked on may still refer to it. It is free
//! again after [`Slots::settled`], which the caller calls once no such packet is left (`Barrier::settle`) or, at
//! ease, [`Slots::aged`] at every tick of two seconds: what was in limbo at the tick before becomes free.

use std::collections::VecDeque;

/// A free list.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    /// Elements given back, oldest first.
    free: VecDeque<u32>,
    /// Elements from here on were never used.
    fresh: u32,
    /// How many there are.
    limit: u32,
    limbo: Vec<u32>,
    old_limbo: Vec<u32>,
}

impl Slots {
    pub(super) fn new(limit: u32) -> Self {
        Self { free: VecDeque::new(), fresh: 0, limit, limbo: Vec::new(), old_limbo: Vec::new() }
    }

    /// Of a map that an earlier daemon left, in which some are in use.
    pub(super) fn adopt(limit: u32, used: impl Fn(u32) -> bool) -> Self {
        if (0..limit).any(&used) {
            Self { free: (0..limit).filter(|&slot| !used(slot)).collect(), fresh: limit, ..Self::new(limit) }
        } else {
            Self::new(limit)
        }
    }

    /// An element, never used ones first: the longer a number rests, the better.
    pub(super) fn take(&mut self) -> Option<u32> {
        if self.fresh < self.limit {
            self.fresh += 1;
            return Some(self.fresh - 1);
        }
        self.free.pop_front()
    }

    /// Gives back an element that no packet ever saw.
    pub(super) fn untake(&mut self, slot: u32) {
        self.free.push_front(slot);
    }

    /// Gives back an element that packets may still refer to.
    pub(super) fn retire(&mut self, slot: u32) {
        self.limbo.push(slot);
    }

    /// No packet refers to a retired element any more.
    pub(super) fn settled(&mut self) {
        self.free.extend(self.old_limbo.drain(..));
        self.free.extend(self.limbo.drain(..));
    }

    /// Two seconds went by since the last call.
    pub(super) fn aged(&mut self) {
        self.free.extend(self.old_limbo.drain(..));
        std::mem::swap(&mut self.limbo, &mut self.old_limbo);
    }

    /// How many can be had, limbo included.
    #[cfg(test)]
    pub(super) fn available(&self) -> usize {
        self.free.len() + self.limbo.len() + self.old_limbo.len() + (self.limit - self.fresh) as usize
    }

    /// How many there are.
    pub(super) fn limit(&self) -> u32 {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retired_element_rests_before_it_is_used_again() {
        let mut s = Slots::new(2);
        assert_eq!((s.take(), s.take(), s.take()), (Some(0), Some(1), None));
        s.retire(0);
        assert_eq!((s.take(), s.available()), (None, 1));
        s.aged();
        assert_eq!(s.take(), None, "one tick may be an instant");
        s.aged();
        assert_eq!(s.take(), Some(0));
        s.retire(1);
        s.settled();
        assert_eq!((s.take(), s.available()), (Some(1), 0));
        s.untake(1);
        assert_eq!(s.available(), 1);
    }
}
