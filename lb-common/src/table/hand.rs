//! The hand that goes round the records and takes one for a new connection.

use super::records::{claim, take_down};
use super::{Memory, NO_RECORD, Reclaimed, Shape};
use crate::conn::{self, FREE, LIVE};
use crate::family::Family;
use crate::limits::{ALLOC_PATIENCE, ALLOC_TRIES};
use crate::tcp;
use crate::time::{Tick, reached};

/// Looks for a record to take, from `start` on: its number, from bit 32 how many were passed before it, from bit 48 a [`Reclaimed`].
#[inline(always)]
pub fn scan<F: Family, M: Memory<F>>(m: &M, shape: &Shape, start: u32, now: Tick) -> u64 {
    let mut found = NO_RECORD;
    let mut spare = NO_RECORD;
    m.repeat(ALLOC_TRIES, &mut |passed| {
        let mut at = start as u64 + passed as u64;
        if at >= shape.records as u64 {
            at -= shape.records as u64;
        }
        let this = |kind: Reclaimed| (kind as u64) << 48 | (passed as u64) << 32 | at;
        let Some(c) = m.conn(at as u32) else { return false };
        // SAFETY: `c` is a record.
        let (ctl, expires) = unsafe { (M::load(&raw const (*c).ctl), (&raw const (*c).expires).read_volatile()) };
        if conn::phase(ctl) == FREE {
            found = this(Reclaimed::Nothing);
            return false;
        }
        if conn::phase(ctl) == LIVE {
            if reached(now, expires) {
                found = this(Reclaimed::Expired);
                return false;
            }
            if spare == NO_RECORD && tcp::is_embryonic(conn::state(ctl)) {
                spare = this(Reclaimed::Embryonic);
            }
        }
        passed + 1 < ALLOC_PATIENCE || spare == NO_RECORD
    });
    if found == NO_RECORD { spare } else { found }
}

/// A record for a new connection, claimed and taken down: its number, and from bit 32 a [`Reclaimed`].
#[inline(always)]
pub fn allocate<F: Family, M: Memory<F>>(m: &M, shape: &Shape, now: Tick) -> u64 {
    if shape.records == 0 {
        return NO_RECORD;
    }
    let Some(hand) = m.hand() else { return NO_RECORD };
    let mut attempt = 0;
    // A claim can fail when another CPU was faster; a few attempts are ample.
    while attempt < 4 {
        attempt += 1;
        let start = (M::add(hand, 1) % shape.records as u64) as u32;
        let found = m.scan(shape, start, now);
        if found == NO_RECORD {
            return NO_RECORD;
        }
        let (index, passed, kind) = (found as u32, (found >> 32) & 0xffff, Reclaimed::of(found >> 48));
        if passed != 0 {
            M::add(hand, passed);
        }
        let Some(c) = m.conn(index) else { return NO_RECORD };
        // SAFETY: `c` is a record.
        let word = unsafe { &raw mut (*c).ctl };
        let ctl = M::load(word);
        if kind == Reclaimed::Nothing {
            if conn::phase(ctl) == FREE && M::swap_if(word, ctl, conn::claimed(ctl)) == ctl {
                return (kind as u64) << 32 | index as u64;
            }
        } else if conn::phase(ctl) == LIVE {
            // SAFETY: as above. It may have moved on since the hand passed: look again.
            let expired = reached(now, unsafe { (&raw const (*c).expires).read_volatile() });
            if (expired || tcp::is_embryonic(conn::state(ctl))) && claim::<F, M>(c, ctl) {
                // SAFETY: just claimed.
                unsafe { take_down(m, shape, index, c, ctl) };
                return (kind as u64) << 32 | index as u64;
            }
        }
    }
    NO_RECORD
}
