//! What the daemon does with the table: sweeps it, shows it, and puts it right after a daemon that was killed.
//!
//! Invariant: one daemon at a time. Its claims are in a phase of their own ([`SWEPT`]), so that a record left behind in it is an orphan for
//! certain, and it alone puts records into the stack of free ones.
//!
//! The trap: a packet that came just before the deadline may write a new one at any moment until its run ends. The sweeper
//! therefore takes records only [`REAP_GRACE`] ticks after their deadline; packets take them for dead at once.

use super::hand::{changed, is_reapable};
use super::index::{hash_of, remove_entry, tuples};
use super::records::{drop_reference, references, take_down};
use super::{ENTRY_REVERSE, HAND, Memory, STACK, Shape};
use crate::conn::{self, Conn, LIVE, REVERSE, STACKED, SWEPT, TEMPLATE};
use crate::family::Family;
#[cfg(doc)]
use crate::limits::REAP_GRACE;
use crate::limits::{ALLOC_TRIES, TEMPLATE_REARM_S};
use crate::tcp::STATES;
use crate::time::{Tick, reached, ticks_of_seconds};
use core::sync::atomic::{Ordering, fence};

/// Records that were ever used are below this: until the hand was all the way round it never took one far beyond where it stands. A
/// table that never was full costs the sweeper no more than what was used of it.
pub fn touched<F: Family, M: Memory<F>>(m: &M, shape: &Shape) -> u32 {
    let Some(words) = m.hand() else { return shape.records };
    // SAFETY: the family's words.
    let hand = M::load(unsafe { words.add(HAND) });
    // The hand moves on before a record is claimed.
    if hand == 0 { 0 } else { u64::from(shape.records).min(hand.saturating_add(u64::from(ALLOC_TRIES))) as u32 }
}

/// What a piece of sweeping came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Records looked at.
    pub examined: u32,
    /// Connections and templates that live on.
    pub live: u32,
    /// Those that were past their time and are gone now.
    pub expired: u32,
    /// Connections that live on, by state; templates are not among them.
    pub states: [u32; STATES],
}

/// Looks at up to `n` records from number `from` on, and takes down those that are past their time. Fewer are examined only at the
/// table's end.
pub fn sweep_range<F: Family, M: Memory<F>>(m: &M, shape: &Shape, now: Tick, from: u32, n: u32) -> Swept {
    let mut swept = Swept::default();
    let end = from.saturating_add(n).min(shape.records);
    for index in from..end {
        let Some(c) = m.conn(index) else { break };
        swept.examined += 1;
        // SAFETY: `c` is a record.
        let ctl = M::load(unsafe { &raw const (*c).ctl });
        if conn::phase(ctl) != LIVE {
            continue;
        }
        // SAFETY: as above.
        if unsafe { is_reapable::<F, M>(c, ctl, now) } && end_life(m, shape, index, c, ctl) {
            swept.expired += 1;
            continue;
        }
        swept.live += 1;
        if ctl & TEMPLATE != 0 {
            rearm::<F, M>(c, now);
        } else if let Some(n) = swept.states.get_mut(usize::from(conn::state(ctl))) {
            *n += 1;
        }
    }
    swept
}

/// Ends a live connection, expired or not, if its control word is still `ctl`.
pub fn end<F: Family, M: Memory<F>>(m: &M, shape: &Shape, index: u32, ctl: u64) -> bool {
    let Some(c) = m.conn(index) else { return false };
    conn::phase(ctl) == LIVE && end_life(m, shape, index, c, ctl)
}

fn end_life<F: Family, M: Memory<F>>(m: &M, shape: &Shape, index: u32, c: *mut Conn<F>, ctl: u64) -> bool {
    // SAFETY: `c` is a record.
    if M::swap_if(unsafe { &raw mut (*c).ctl }, ctl, conn::with_phase(ctl, SWEPT)) != ctl {
        return false;
    }
    // SAFETY: just claimed.
    unsafe {
        take_down(m, shape, index, c, ctl);
        push(m, index, c, ctl);
    }
    true
}

/// A template past its deadline that connections refer to goes on for a minute, as in the kernel.
fn rearm<F: Family, M: Memory<F>>(c: *mut Conn<F>, now: Tick) {
    // SAFETY: `c` is a record. Were it another's by now, that one would have a little more time once.
    unsafe {
        let expires = &raw mut (*c).expires;
        if reached(now, expires.read_volatile()) && references::<F, M>(c) != 0 {
            expires.write_volatile(now.wrapping_add(ticks_of_seconds(TEMPLATE_REARM_S)));
        }
    }
}

/// Puts a record that was taken down into the stack of free ones.
///
/// # Safety
/// `c` is record `index`, the caller owns it, and it is in no index.
unsafe fn push<F: Family, M: Memory<F>>(m: &M, index: u32, c: *mut Conn<F>, ctl: u64) {
    let Some(words) = m.hand() else { return };
    // SAFETY: the family's words; the caller's record.
    let (stack, next, word) = unsafe { (words.add(STACK), &raw mut (*c).reply, &raw mut (*c).ctl) };
    M::store(word, conn::with_phase(conn::freed(ctl), STACKED));
    loop {
        let head = M::load(stack);
        M::store(next, head & 0xffff_ffff);
        if M::swap_if(stack, head, changed(head) | (u64::from(index) + 1)) == head {
            return;
        }
    }
}

/// A live record as it was at one instant, with its control word, whatever its deadline.
pub fn snapshot<F: Family, M: Memory<F>>(m: &M, index: u32) -> Option<Conn<F>> {
    let c = m.conn(index)?;
    // SAFETY: `c` is a record.
    let word = unsafe { &raw const (*c).ctl };
    let ctl = M::load(word);
    if conn::phase(ctl) != LIVE {
        return None;
    }
    // SAFETY: as above; plain integers.
    let mut copy = unsafe { c.read_volatile() };
    fence(Ordering::Acquire);
    let after = M::load(word);
    if !conn::same_owner(ctl, after) {
        return None;
    }
    copy.ctl = after;
    Some(copy)
}

/// What [`recover`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// Records that a killed daemon was about to take down.
    pub orphans: u32,
    /// Records in the stack of free ones, which was rebuilt.
    pub free: u32,
}

/// Puts right what a killed daemon left: half taken down records and a stack with a record missing. Packets may go on meanwhile.
/// For a daemon that starts, before its first sweep. Counts that are off by what the killed one was at work on are for
/// [`super::Audit`].
pub fn recover<F: Family, M: Memory<F>>(m: &M, shape: &Shape) -> Recovered {
    let mut found = Recovered::default();
    let Some(words) = m.hand() else { return found };
    // SAFETY: the family's words.
    let stack = unsafe { words.add(STACK) };
    // Nobody has the old chain from here on: who is about to take its uppermost record finds the head changed.
    loop {
        let head = M::load(stack);
        if M::swap_if(stack, head, changed(head)) == head {
            break;
        }
    }
    for index in 0..touched(m, shape) {
        let Some(c) = m.conn(index) else { break };
        // SAFETY: `c` is a record.
        let word = unsafe { &raw mut (*c).ctl };
        let ctl = M::load(word);
        match conn::phase(ctl) {
            SWEPT => {
                // SAFETY: the only one who claims so is gone. What it removed already is not found again; an entry is only
                // ever removed as this record's.
                unsafe {
                    let (forward, back) = tuples(c);
                    let number = u64::from(index) + 1;
                    remove_entry(m, shape, hash_of(shape, &forward), number);
                    if ctl & REVERSE != 0 {
                        remove_entry(m, shape, hash_of(shape, &back), number | ENTRY_REVERSE);
                    }
                    if (*c).template != 0 {
                        drop_reference(m, (*c).template);
                        (*c).template = 0;
                    }
                    push(m, index, c, ctl);
                }
                found.orphans += 1;
                found.free += 1;
            }
            // A packet that took it from the stack just before may claim it first.
            STACKED if M::swap_if(word, ctl, conn::with_phase(ctl, SWEPT)) == ctl => {
                // SAFETY: claimed, and in no index.
                unsafe { push(m, index, c, conn::succeeded(ctl)) };
                found.free += 1;
            }
            _ => {}
        }
    }
    found
}
