//! Tests of the table on the heap: each leaves it to [`check`], which knows what a table looks like at rest.

mod crowd;
mod flood;
mod life;
mod model;
mod threads;

use super::*;
use crate::conn::{self, CLAIMED, LIVE, REVERSE, STACKED, SWEPT, TEMPLATE, ports_word};
use crate::dest::overloaded;
use crate::family::V4;
use crate::hash;
use crate::limits::CHOICES;
use crate::tcp;
use std::collections::{HashMap, HashSet};
use std::vec::Vec;

pub(super) type Table = HostMemory<V4>;

pub(super) const SEED: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3211];

pub(super) fn shape(buckets: u32, records: u32) -> Shape {
    Shape { seed: SEED, mask: buckets - 1, records }
}

/// A table for so many connections, in the sizes that the daemon gives it.
pub(super) fn table_for(connections: u32, dests: u32) -> (Table, Shape) {
    let (b, r) = (buckets_for(connections), records_for(connections));
    (Table::new(b, r, dests), shape(b, r))
}

pub(super) fn tuple(client: u32, port: u16, vip: u32, proto: u8) -> Tuple<V4> {
    Tuple { src: client, dst: vip, ports: ports_word(port.to_be(), 80u16.to_be()), proto }
}

pub(super) fn new(tuple: Tuple<V4>, dest: u32, state: State, expires: Tick) -> New<V4> {
    New {
        tuple,
        real: 0x0a01_0000 + dest,
        real_port: 8080u16.to_be(),
        l4_delta: 0,
        ip_delta: 0,
        method: crate::proto::NAT,
        state,
        flags: REVERSE,
        dest,
        expires,
        template: 0,
        reply: 0x1234_5678_9abc_def0,
    }
}

pub(super) fn back(n: &New<V4>) -> Tuple<V4> {
    let [a, b, _, _] = n.tuple.ports.to_ne_bytes();
    Tuple { src: n.real, dst: n.tuple.src, ports: ports_word(n.real_port, u16::from_ne_bytes([a, b])), proto: n.tuple.proto }
}

pub(super) fn look(m: &Table, s: &Shape, t: &Tuple<V4>) -> Option<Found<V4>> {
    find::<V4, Raw<V4>>(m, s, hash::flow::<V4>(&s.seed, t.src, t.dst, t.ports, t.proto), t)
}

pub(super) fn make(m: &Table, s: &Shape, now: Tick, n: &New<V4>) -> (Created, Reclaimed) {
    create::<V4, Raw<V4>>(m, s, now, n, None)
}

pub(super) fn ctl(m: &Table, index: u32) -> u64 {
    let c = Memory::<V4>::conn(&**m, index).unwrap();
    // SAFETY: a record.
    <Raw<V4> as Memory<V4>>::load(unsafe { &raw const (*c).ctl })
}

pub(super) fn record(m: &Table, index: u32) -> *mut Conn<V4> {
    Memory::<V4>::conn(&**m, index).unwrap()
}

pub(super) fn conns(m: &Table, dest: u32) -> DestConns {
    counts::<V4, Raw<V4>>(m, dest).unwrap()
}

/// Everything that must hold of a table that nobody is at work on.
pub(super) fn check(m: &Table, s: &Shape, dests: u32) {
    let mut entries: HashMap<u64, (u32, usize)> = HashMap::new();
    let mut heads = Vec::new();
    for b in 0..=s.mask {
        // SAFETY: a bucket that nobody changes.
        let bucket = unsafe { *Memory::<V4>::bucket(&**m, b).unwrap() };
        assert_eq!(bucket.head >> 32, 0, "bucket {b} is locked");
        heads.push(bucket.head);
        for (i, e) in bucket.entries.into_iter().enumerate().filter(|(_, e)| *e != 0) {
            assert!(entries.insert(e & 0xffff_ffff, (b, i)).is_none(), "two entries {e:x}");
        }
    }
    let mut want = std::vec![DestConns::default(); dests as usize];
    let mut references_wanted: HashMap<u32, u32> = HashMap::new();
    let mut stacked = HashSet::new();
    for index in 0..s.records {
        let ctl = ctl(m, index);
        // SAFETY: a record that nobody changes.
        let c = unsafe { *record(m, index) };
        assert!(conn::phase(ctl) == conn::FREE || index < touched::<V4, Raw<V4>>(m, s), "record {index} is in use, untouched");
        match conn::phase(ctl) {
            CLAIMED | SWEPT => panic!("record {index} is claimed"),
            STACKED => {
                stacked.insert(index);
            }
            LIVE => {
                let n = &mut want[c.dest as usize];
                if ctl & TEMPLATE != 0 {
                    n.templates += 1;
                } else if tcp::is_active(conn::state(ctl)) {
                    n.active += 1;
                } else {
                    n.inactive += 1;
                }
                if c.template != 0 {
                    *references_wanted.entry(c.template - 1).or_default() += 1;
                }
                // SAFETY: as above.
                let (forward, back) = unsafe { index::tuples(record(m, index)) };
                let ways = [(forward, 0), (back, ENTRY_REVERSE)];
                for (t, bit) in ways.into_iter().take(if ctl & REVERSE != 0 { 2 } else { 1 }) {
                    let (at, _) = entries.remove(&((u64::from(index) + 1) | bit)).expect("an entry of each direction");
                    let h = index::hash_of(s, &t);
                    let mut way = h as u32 & s.mask;
                    let mut steps = 0;
                    while way != at {
                        heads[way as usize] -= 1;
                        way = index::onward(h, way, s.mask);
                        steps += 1;
                        assert!(steps < CHOICES, "the entry is not on its way");
                    }
                }
            }
            _ => {}
        }
    }
    assert!(entries.is_empty(), "entries of no live record: {entries:?}");
    assert!(heads.iter().all(|&h| h == 0), "spilled counts are off by {heads:?}");
    for index in 0..s.records {
        let n = references::<V4, Raw<V4>>(record(m, index));
        assert_eq!(n, references_wanted.get(&index).copied().unwrap_or(0), "references of {index}");
    }
    for (dest, mut want) in (0..).zip(want) {
        // SAFETY: a dest.
        let (upper, lower) = unsafe { *Memory::<V4>::dest(&**m, dest).unwrap() }.thresholds();
        let n = conns(m, dest);
        want.overloaded = u64::from(overloaded(n.overloaded != 0, want.active + want.inactive, upper, lower));
        assert_eq!(n, want, "dest {dest}");
    }
    let words = Memory::<V4>::hand(&**m).unwrap();
    // SAFETY: the family's words.
    let mut at = unsafe { *words.add(STACK) } as u32;
    while at != 0 {
        assert!(stacked.remove(&(at - 1)), "record {} is in the stack twice, or not free", at - 1);
        // SAFETY: a record that nobody changes.
        at = unsafe { (*record(m, at - 1)).reply } as u32;
    }
    assert!(stacked.is_empty(), "not in the stack: {stacked:?}");
}

impl Dest {
    fn thresholds(self) -> (u32, u32) {
        (self.upper, self.lower)
    }
}
