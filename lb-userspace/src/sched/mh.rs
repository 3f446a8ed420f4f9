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
use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

/// Most turns in a row, as a number of bits.
const TURN_BITS: u32 = 6;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Mh {
    flags: SchedFlags,
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
    let shift = (u32::BITS - most.leading_zeros()).saturating_sub(TURN_BITS);
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

fn fill_from(pool: &Pool) -> Arc<[u32]> {
    let mut entries: Vec<Entry> = pool
        .servers()
        .iter()
        .enumerate()
        .map(|(at, s)| Entry { key: s.key, address: s.address, port: s.port, weight: pool.last_weight(at) })
        .collect();
    entries.sort_by_key(|e| Reverse((e.address, e.port)));
    fill(&entries, SIP_SLOTS)
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
            slots: Arc::clone(self.slots.get_or_insert_with(|| fill_from(pool))),
        })
    }
}
