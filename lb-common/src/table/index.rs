//! The index: buckets of entries, looked up without a lock.
//!
//! Invariant: an entry is in the first bucket of its way that had room, and every bucket passed on the way to it counts it as
//! spilled for as long as it is there. A lookup stops at the first bucket that counts none.
//!
//! The trap: an entry is only a hint. Whoever follows it compares the record's key, and reads the control word again after
//! the fields that it uses.

use super::{ENTRY_REVERSE, Found, Memory, NO_RECORD, NUMBER, Shape, Tuple};
use crate::conn::{self, Conn, LIVE};
use crate::family::Family;
use crate::hash;
use crate::limits::{BUCKET_ENTRIES, CHOICES};

#[inline(always)]
fn tag(hash: u64) -> u64 {
    hash & 0xffff_ffff_0000_0000
}

/// The bucket to try after `bucket`: steps depend on the hash, so that keys of one home part ways.
#[inline(always)]
pub(super) fn onward(hash: u64, bucket: u32, mask: u32) -> u32 {
    bucket.wrapping_add(((hash >> 37) as u32) | 1) & mask
}

#[inline(always)]
unsafe fn matches<F: Family>(c: *const Conn<F>, t: &Tuple<F>, reverse: bool) -> bool {
    // SAFETY: the caller's memory; fields may change under us, which the control word then shows.
    unsafe {
        if reverse {
            let cp = (*c).ports.to_ne_bytes();
            let [s0, s1, d0, d1] = t.ports.to_ne_bytes();
            (*c).real_port == u16::from_ne_bytes([s0, s1])
                && [cp[0], cp[1]] == [d0, d1]
                && (*c).proto == t.proto
                && (*c).real == t.src
                && (*c).client == t.dst
        } else {
            (*c).ports == t.ports && (*c).proto == t.proto && (*c).client == t.src && (*c).vip == t.dst
        }
    }
}

/// Finds the live record of a packet, whatever its deadline.
#[inline(always)]
pub fn find<F: Family, M: Memory<F>>(m: &M, shape: &Shape, hash: u64, t: &Tuple<F>) -> Option<Found<F>> {
    let mut at = hash as u32 & shape.mask;
    let mut choice = 0;
    while choice < CHOICES {
        let bucket = m.bucket(at)?;
        let mut i = 0;
        while i < BUCKET_ENTRIES {
            // SAFETY: `i` is within the bucket.
            let entry = M::load(unsafe { &raw const (*bucket).entries[i] });
            i += 1;
            if tag(entry) != tag(hash) || entry & NUMBER == 0 {
                continue;
            }
            let index = (entry & NUMBER) as u32 - 1;
            let reverse = entry & ENTRY_REVERSE != 0;
            let Some(c) = m.conn(index) else { continue };
            // SAFETY: `c` is a record.
            let ctl = M::load(unsafe { &raw const (*c).ctl });
            // SAFETY: as above.
            if conn::phase(ctl) == LIVE && unsafe { matches(c, t, reverse) } {
                return Some(Found { index, reverse, ctl, conn: c });
            }
        }
        // SAFETY: `bucket` is a bucket.
        if M::load(unsafe { &raw const (*bucket).head }) as u32 == 0 {
            return None;
        }
        at = onward(hash, at, shape.mask);
        choice += 1;
    }
    None
}

/// [`find`] as one scalar: the record's number, with [`ENTRY_REVERSE`]; or [`NO_RECORD`].
#[inline(always)]
pub fn seek<F: Family, M: Memory<F>>(m: &M, shape: &Shape, hash: u64, t: &Tuple<F>) -> u64 {
    match find(m, shape, hash, t) {
        Some(f) => f.index as u64 | if f.reverse { ENTRY_REVERSE } else { 0 },
        None => NO_RECORD,
    }
}

/// [`find`] where speed does not matter.
#[inline(always)]
pub(super) fn find_cold<F: Family, M: Memory<F>>(m: &M, shape: &Shape, hash: u64, t: &Tuple<F>) -> Option<Found<F>> {
    let sought = m.seek(shape, hash, t);
    if sought == NO_RECORD {
        return None;
    }
    let (index, reverse) = ((sought & NUMBER) as u32, sought & ENTRY_REVERSE != 0);
    let c = m.conn(index)?;
    // SAFETY: a record. It may be another's by now: its key is compared again after its control word is read.
    let ctl = M::load(unsafe { &raw const (*c).ctl });
    // SAFETY: as above.
    if conn::phase(ctl) == LIVE && unsafe { matches(c, t, reverse) } {
        return Some(Found { index, reverse, ctl, conn: c });
    }
    None
}

/// Puts an entry into the first bucket of its way that has room.
#[inline(always)]
pub fn insert_entry<F: Family, M: Memory<F>>(m: &M, shape: &Shape, hash: u64, low: u64) -> bool {
    let entry = tag(hash) | low;
    let mut at = hash as u32 & shape.mask;
    let mut choice = 0;
    while choice < CHOICES {
        let Some(bucket) = m.bucket(at) else { break };
        let mut i = 0;
        while i < BUCKET_ENTRIES {
            // SAFETY: `i` is within the bucket.
            let word = unsafe { &raw mut (*bucket).entries[i] };
            if M::load(word) == 0 && M::swap_if(word, 0, entry) == 0 {
                return true;
            }
            i += 1;
        }
        // Before the entry is anywhere beyond, so that no lookup stops short of it.
        // SAFETY: `bucket` is a bucket.
        M::add(unsafe { &raw mut (*bucket).head }, 1);
        at = onward(hash, at, shape.mask);
        choice += 1;
    }
    unspill(m, shape, hash, choice);
    false
}

/// Takes back the marks that an entry left in the first `passed` buckets of its way.
#[inline(always)]
fn unspill<F: Family, M: Memory<F>>(m: &M, shape: &Shape, hash: u64, passed: u32) {
    let mut at = hash as u32 & shape.mask;
    let mut choice = 0;
    while choice < CHOICES && choice < passed {
        let Some(bucket) = m.bucket(at) else { break };
        // SAFETY: `bucket` is a bucket.
        M::add(unsafe { &raw mut (*bucket).head }, 1u64.wrapping_neg());
        at = onward(hash, at, shape.mask);
        choice += 1;
    }
}

/// Removes an entry, if it is there.
#[inline(always)]
pub fn remove_entry<F: Family, M: Memory<F>>(m: &M, shape: &Shape, hash: u64, low: u64) {
    let entry = tag(hash) | low;
    let mut at = hash as u32 & shape.mask;
    let mut choice = 0;
    while choice < CHOICES {
        let Some(bucket) = m.bucket(at) else { return };
        let mut i = 0;
        while i < BUCKET_ENTRIES {
            // SAFETY: `i` is within the bucket.
            let word = unsafe { &raw mut (*bucket).entries[i] };
            if M::load(word) == entry {
                M::swap_if(word, entry, 0);
                unspill(m, shape, hash, choice);
                return;
            }
            i += 1;
        }
        at = onward(hash, at, shape.mask);
        choice += 1;
    }
}

#[inline(always)]
pub(super) fn hash_of<F: Family>(shape: &Shape, t: &Tuple<F>) -> u64 {
    hash::flow::<F>(&shape.seed, t.src, t.dst, t.ports, t.proto)
}

/// The tuples of a claimed record: the client's, and the answers'.
#[inline(always)]
pub(super) unsafe fn tuples<F: Family>(c: *const Conn<F>) -> (Tuple<F>, Tuple<F>) {
    // SAFETY: the caller owns the record.
    unsafe {
        let ports = (*c).ports;
        let [c0, c1, _, _] = ports.to_ne_bytes();
        let client_port = u16::from_ne_bytes([c0, c1]);
        let proto = (*c).proto;
        let forward = Tuple { src: (*c).client, dst: (*c).vip, ports, proto };
        let back = Tuple { src: (*c).real, dst: (*c).client, ports: conn::ports_word((*c).real_port, client_port), proto };
        (forward, back)
    }
}
