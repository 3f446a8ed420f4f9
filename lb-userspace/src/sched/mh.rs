//! `mh`, Maglev hashing: the client's address, with `mh-port` its port too, decides, and few clients move when servers come or go.
//!
//! Every server prefers the slots in an order of its own, from the hash of its address and port; in turn, each as often in a row as
//! its weight says, they take the best one that is still free. A quiesced server keeps the turns of its last weight.
//!
//! Two directors that share clients must have the same table, so turns go from the highest address to the lowest, whatever order the
//! servers were added in. Servers that were added from the lowest to the highest, as people do, stand in that order in the
//! kernel's list too, and get the kernel's table.

use super::table::{NO_SERVER, Table, fold};
use super::{Change, Flow, Pool, Scheduler};
use crate::model::{SchedFlags, SchedulerKind};
use lb_common::sched_hash::{Kind, SIP_KEY, SIP_SLOTS, SIP_STEP_KEY, sip};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

/// Number of slots: one of the primes that a kernel can be built with.
///
/// The default is the kernel's, so that a director can take a kernel's clients over. When one of 100 servers leaves, 2.9 % of all clients
/// move beyond those that have to; 0.8 % with 32749 slots, 0.6 % with 65521. Directors that share clients must agree on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "u32")]
pub struct TableSize(u32);

impl TableSize {
    /// All of them.
    pub const ALL: [u32; 10] = [251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071];

    /// `slots`, if a table can have so many.
    #[must_use]
    pub fn new(slots: u32) -> Option<Self> {
        Self::ALL.contains(&slots).then_some(Self(slots))
    }

    /// The size of a kernel that is built with `CONFIG_IP_VS_MH_TAB_INDEX` at this value, from 8 to 17.
    #[must_use]
    pub fn from_index(index: u32) -> Option<Self> {
        Self::ALL.get(index.checked_sub(Self::FIRST_INDEX)? as usize).copied().map(Self)
    }

    /// The kernel's number of the first size.
    const FIRST_INDEX: u32 = 8;

    /// See [`TableSize::from_index`].
    #[must_use]
    pub fn index(self) -> u32 {
        Self::ALL.iter().position(|s| *s == self.0).unwrap_or(4) as u32 + Self::FIRST_INDEX
    }

    /// As a number.
    #[must_use]
    pub const fn slots(self) -> u32 {
        self.0
    }
}

/// By the kernel's number.
impl TryFrom<i64> for TableSize {
    type Error = String;

    fn try_from(index: i64) -> Result<Self, String> {
        let last = Self::FIRST_INDEX as usize + Self::ALL.len() - 1;
        let size = u32::try_from(index).ok().and_then(Self::from_index);
        size.ok_or_else(|| format!("{index} is not within {} to {last}", Self::FIRST_INDEX))
    }
}

impl From<TableSize> for u32 {
    fn from(size: TableSize) -> Self {
        size.index()
    }
}

impl Default for TableSize {
    fn default() -> Self {
        Self(SIP_SLOTS)
    }
}

/// Most turns in a row, as a number of bits, in a table of `size`: half the kernel's number of the size.
fn turn_bits(size: u32) -> u32 {
    TableSize(size).index() / 2
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Mh {
    flags: SchedFlags,
    size: TableSize,
    slots: Option<Arc<[u32]>>,
}

/// What a table is made of, in the order of turns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) key: u32,
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) weight: u32,
}

/// The slots of a table of `size`, which is prime.
pub(super) fn fill(entries: &[Entry], size: u32) -> Arc<[u32]> {
    struct Turn {
        key: u32,
        next: u32,
        step: u32,
        turns: u32,
    }
    let gcd = entries.iter().map(|e| e.weight).fold(0, super::wrr::gcd);
    let mut slots = vec![NO_SERVER; size as usize];
    if gcd == 0 {
        return slots.into();
    }
    let most = entries.iter().map(|e| e.weight).max().unwrap_or(0) / gcd;
    let shift = (u32::BITS - most.leading_zeros()).saturating_sub(turn_bits(size));
    let with_turns = entries.iter().filter(|e| e.weight > 0);
    let mut turns: Vec<Turn> = with_turns
        .map(|e| {
            let number = fold(e.address).wrapping_add(u32::from(e.port));
            Turn {
                key: e.key,
                next: sip(SIP_KEY, number) % size,
                step: sip(SIP_STEP_KEY, number) % (size - 1) + 1,
                turns: ((e.weight / gcd) >> shift).max(1),
            }
        })
        .collect();
    let mut free = size;
    loop {
        for turn in &mut turns {
            for _ in 0..turn.turns {
                while slots[turn.next as usize] != NO_SERVER {
                    turn.next = (turn.next + turn.step) % size;
                }
                slots[turn.next as usize] = turn.key;
                free -= 1;
                if free == 0 {
                    return slots.into();
                }
            }
        }
    }
}

fn fill_from(pool: &Pool, size: TableSize) -> Arc<[u32]> {
    let mut entries: Vec<Entry> = pool
        .servers()
        .iter()
        .enumerate()
        .map(|(at, s)| Entry { key: s.key, address: s.address, port: s.port, weight: pool.last_weight(at) })
        .collect();
    entries.sort_by_key(|e| Reverse((e.address, e.port)));
    fill(&entries, size.slots())
}

impl Mh {
    /// With so many slots.
    #[must_use]
    pub fn sized(size: TableSize) -> Self {
        Self { size, ..Self::default() }
    }
}

impl Scheduler for Mh {
    fn kind(&self) -> SchedulerKind {
        SchedulerKind::Mh
    }

    fn boxed(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn start(&mut self, _pool: &Pool) {
        self.slots = None;
    }

    fn set_flags(&mut self, flags: SchedFlags) {
        self.flags = flags;
    }

    fn changed(&mut self, _pool: &Pool, _change: Change) {
        self.slots = None;
    }

    fn schedule(&mut self, pool: &Pool, flow: &Flow) -> Option<usize> {
        self.table(pool)?.choose(pool, flow)
    }

    fn table(&mut self, pool: &Pool) -> Option<Table> {
        Some(Table {
            kind: Kind::Sip,
            by_destination: false,
            port: self.flags.contains(SchedFlags::PORT),
            fallback: self.flags.contains(SchedFlags::FALLBACK),
            slots: Arc::clone(self.slots.get_or_insert_with(|| fill_from(pool, self.size))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_kernels_numbers() {
        assert_eq!(TableSize::from_index(12), Some(TableSize::default()));
        assert_eq!([8, 16, 17].map(|i| TableSize::from_index(i).map(TableSize::slots)), [Some(251), Some(65_521), Some(131_071)]);
        assert_eq!([0, 7, 18, u32::MAX].map(TableSize::from_index), [None; 4]);
        assert!((8..=17).all(|i| TableSize::from_index(i).is_some_and(|s| s.index() == i)));
    }

    /// Three servers in a table of seven, by hand: each takes the best free slot of its own order in turn.
    #[test]
    fn a_table_by_hand() {
        let entry = |key, last| Entry { key, address: IpAddr::from([10, 2, 0, last]), port: 80, weight: 1 };
        let entries = [entry(3, 13), entry(2, 12), entry(1, 11)];
        let mut expected = [NO_SERVER; 7];
        let order = |e: &Entry, n: u32| {
            let number = fold(e.address) + 80;
            ((u64::from(sip(SIP_KEY, number) % 7) + u64::from(n) * u64::from(sip(SIP_STEP_KEY, number) % 6 + 1)) % 7) as usize
        };
        for turn in 0..7 {
            let e = &entries[turn % 3];
            let slot = (0..7).map(|n| order(e, n)).find(|&slot| expected[slot] == NO_SERVER).expect("one is free");
            expected[slot] = e.key;
        }
        assert_eq!(*fill(&entries, 7), expected);
    }
}
