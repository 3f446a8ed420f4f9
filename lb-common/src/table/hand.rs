//! Where a new connection's record comes from.
//!
//! First from the stack of free records, which the sweeper fills: one step, however full the table and wherever the hole. Then from the
//! hand, which goes round the array: it takes records that were never used, expired ones, and those that give way. As it fills records
//! in the order in which it passes them, the first that gives way is the oldest: an embryonic connection lives until the hand has been
//! all the way round, that is for as many new connections as there are records that are not established.
//!
//! What gives way: embryonic connections first; closing ones where no embryonic one is near, so that what is done does not crowd out
//! handshakes; half-closed ones where nothing else is near. An honest handshake succeeds during a flood if its round trip is shorter than it
//! takes the flood to fill all that is not established.
//!
//! Invariant: a record in the stack is in phase [`STACKED`], and only records in that phase are. The sweeper alone puts records there.
//! Who takes one from the stack makes it claimed by compare-and-swap from what it read while the record was in the stack, so that a daemon
//! that rebuilds the stack may take it instead, and gives it another generation.
//!
//! The trap: what was live is established in runs of many thousand records, because the hand filled them one after the other. The hand
//! therefore moves on by all that it passed in vain, and never starts from the same record twice; once it was all the way round in vain it
//! rests, so that a table full of established connections costs a new one nothing but its refusal.

use super::records::{claim, references, take_down};
use super::{BARREN, HAND, Memory, NO_RECORD, Reclaimed, STACK, Shape};
use crate::conn::{self, CONFIRMED, Conn, FREE, LIVE, STACKED, TEMPLATE};
use crate::family::Family;
use crate::limits::{ALLOC_ATTEMPTS, ALLOC_PATIENCE, ALLOC_TRIES, EMBRYONIC_REACH, HALF_CLOSED_PATIENCE, REAP_GRACE, REST_SHIFT};
use crate::tcp;
use crate::time::{Tick, reached};

/// Whether a live record's memory may be taken for a new owner because its time is over.
///
/// # Safety
/// `c` is a record.
#[inline(always)]
pub(super) unsafe fn is_reapable<F: Family, M: Memory<F>>(c: *mut Conn<F>, ctl: u64, now: Tick) -> bool {
    // SAFETY: the caller's.
    let expires = unsafe { (&raw const (*c).expires).read_volatile() };
    reached(now.wrapping_sub(REAP_GRACE), expires) && (ctl & TEMPLATE == 0 || references::<F, M>(c) == 0)
}

/// How a record would be had, in the order of preference.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It is free, or its owner's time is over.
    At(Reclaimed),
    /// It gives way.
    Embryonic,
    /// It gives way where no embryonic one is near.
    Closing,
    /// It gives way where nothing else is near.
    HalfClosed,
    /// It never gives way.
    No,
}

/// Established connections, confirmed UDP flows, and templates that are confirmed or in use never give way.
///
/// # Safety
/// `c` is a record.
#[inline(always)]
unsafe fn gives_way<F: Family, M: Memory<F>>(c: *mut Conn<F>, ctl: u64, now: Tick) -> Way {
    if conn::phase(ctl) == FREE {
        return Way::At(Reclaimed::Nothing);
    }
    if conn::phase(ctl) != LIVE {
        return Way::No;
    }
    // SAFETY: the caller's.
    if unsafe { is_reapable::<F, M>(c, ctl, now) } {
        return Way::At(Reclaimed::Expired);
    }
    // A flood of spoofed sources leaves templates too.
    if ctl & TEMPLATE != 0 {
        return if ctl & CONFIRMED == 0 && references::<F, M>(c) == 0 { Way::Embryonic } else { Way::No };
    }
    if conn::is_embryonic(ctl) {
        Way::Embryonic
    } else if tcp::is_closing(conn::state(ctl)) {
        Way::Closing
    } else if tcp::is_half_closed(conn::state(ctl)) {
        Way::HalfClosed
    } else {
        Way::No
    }
}

/// What the hand found on its way; each as [`scan`] answers.
struct Best {
    /// Free, expired, or embryonic.
    found: u64,
    closing: u64,
    half_closed: u64,
}

impl Best {
    /// Takes note of the record `at`, `passed` after the first; false if there is no need to go on.
    #[inline(always)]
    fn note(&mut self, way: Way, passed: u32, at: u64) -> bool {
        let this = (passed as u64) << 32 | at;
        match way {
            Way::At(_) => {
                self.found = this;
                return false;
            }
            Way::Embryonic
                if self.found == NO_RECORD
                    && (self.closing == NO_RECORD || passed <= (self.closing >> 32) as u32 + EMBRYONIC_REACH) =>
            {
                self.found = this;
            }
            Way::Closing if self.closing == NO_RECORD => self.closing = this,
            Way::HalfClosed if self.half_closed == NO_RECORD => self.half_closed = this,
            _ => {}
        }
        passed + 1 < ALLOC_PATIENCE
            || self.found == NO_RECORD
                && self.closing == NO_RECORD
                && (self.half_closed == NO_RECORD || passed + 1 < HALF_CLOSED_PATIENCE)
    }
}

/// Looks for a record to take, from `start` on: its number, and from bit 32 how many were passed before it.
#[inline(always)]
pub fn scan<F: Family, M: Memory<F>>(m: &M, shape: &Shape, start: u32, now: Tick) -> u64 {
    let mut best = Best { found: NO_RECORD, closing: NO_RECORD, half_closed: NO_RECORD };
    let (records, noted) = (shape.records, &mut best);
    // Takes all it can by value: stack is scarce in the packet path.
    m.repeat(ALLOC_TRIES, &mut move |passed| {
        if passed >= records {
            return false;
        }
        let mut at = start as u64 + passed as u64;
        if at >= records as u64 {
            at -= records as u64;
        }
        let Some(c) = m.conn(at as u32) else { return false };
        // SAFETY: `c` is a record.
        let way = unsafe { gives_way::<F, M>(c, M::load(&raw const (*c).ctl), now) };
        noted.note(way, passed, at)
    });
    if best.found != NO_RECORD {
        best.found
    } else if best.closing != NO_RECORD {
        best.closing
    } else {
        best.half_closed
    }
}

/// The uppermost record of the stack, claimed; or [`NO_RECORD`].
///
/// # Safety
/// `words` are the family's.
#[inline(always)]
unsafe fn pop<F: Family, M: Memory<F>>(m: &M, words: *mut u64) -> u64 {
    // SAFETY: the caller's.
    let stack = unsafe { words.add(STACK) };
    let mut attempt = 0;
    while attempt < ALLOC_ATTEMPTS {
        attempt += 1;
        let head = M::load(stack);
        if head as u32 == 0 {
            return NO_RECORD;
        }
        let index = head as u32 - 1;
        let Some(c) = m.conn(index) else { return NO_RECORD };
        // SAFETY: `c` is a record.
        let (word, next) = unsafe { (&raw mut (*c).ctl, &raw const (*c).reply) };
        // Another's by now, perhaps: the number of changes tells then.
        let (ctl, next) = (M::load(word), M::load(next));
        if M::swap_if(stack, head, changed(head) | next & 0xffff_ffff) != head {
            continue;
        }
        if conn::phase(ctl) == STACKED && M::swap_if(word, ctl, conn::claimed(ctl)) == ctl {
            return index as u64;
        }
    }
    NO_RECORD
}

/// The number of changes in a stack's word, one more; nothing in the low half.
#[inline(always)]
pub(super) const fn changed(head: u64) -> u64 {
    ((head >> 32).wrapping_add(1)) << 32
}

/// When it is, to about a second; in the high half.
#[inline(always)]
const fn period(now: Tick) -> u64 {
    ((now >> REST_SHIFT) as u64) << 32
}

/// Records that were passed in vain in this period since one was found.
#[inline(always)]
const fn in_vain(noted: u64, now: Tick) -> u64 {
    let ago = noted ^ period(now);
    if ago >> 32 == 0 { ago } else { 0 }
}

/// A record for a new connection, claimed and taken down: its number, and from bit 32 a [`Reclaimed`].
#[inline(always)]
pub fn allocate<F: Family, M: Memory<F>>(m: &M, shape: &Shape, now: Tick) -> u64 {
    if shape.records == 0 {
        return NO_RECORD;
    }
    let Some(words) = m.hand() else { return NO_RECORD };
    // SAFETY: the family's words.
    let popped = unsafe { pop::<F, M>(m, words) };
    if popped != NO_RECORD {
        return popped;
    }
    // SAFETY: as above.
    let (hand, barren) = unsafe { (words.add(HAND), words.add(BARREN)) };
    let mut attempts = ALLOC_ATTEMPTS;
    while attempts != 0 {
        attempts -= 1;
        let vainly = in_vain(M::load(barren), now);
        if vainly >= shape.records as u64 {
            return NO_RECORD;
        }
        let start = (M::add(hand, 1) % shape.records as u64) as u32;
        let found = m.scan(shape, start, now);
        if found == NO_RECORD {
            M::add(hand, ALLOC_TRIES as u64 - 1);
            M::store(barren, period(now) | (vainly + ALLOC_TRIES as u64));
            continue;
        }
        if vainly != 0 {
            M::store(barren, 0);
        }
        let (index, passed) = (found as u32, found >> 32);
        if passed != 0 {
            M::add(hand, passed);
        }
        let Some(c) = m.conn(index) else { return NO_RECORD };
        // SAFETY: `c` is a record.
        let word = unsafe { &raw mut (*c).ctl };
        let ctl = M::load(word);
        // It may have moved on since the hand passed: look again. From here on the claim fails if it moves on.
        // SAFETY: as above.
        let kind = match unsafe { gives_way::<F, M>(c, ctl, now) } {
            Way::At(kind) => kind,
            Way::Embryonic => Reclaimed::Embryonic,
            Way::Closing | Way::HalfClosed => Reclaimed::Closing,
            Way::No => continue,
        };
        if !claim::<F, M>(c, ctl) {
            continue;
        }
        if kind != Reclaimed::Nothing {
            // SAFETY: just claimed, and live before.
            unsafe { take_down(m, shape, index, c, ctl) };
        }
        return (kind as u64) << 32 | index as u64;
    }
    NO_RECORD
}
