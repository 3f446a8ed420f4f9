//! A record's life: claimed, taken down, released, and its place in the counters.
//!
//! Invariant: a live record is counted exactly once, by the state in its control word; whoever wins the swap that changes that
//! word changes the counts with it.
//!
//! The trap: between the swap and the additions a count is off by one, so a reader may see `active` and `inactive` of
//! different instants. At rest they are exact.

use super::index::{hash_of, tuples};
use super::{ENTRY_REVERSE, Memory, Shape};
use crate::conn::{self, CLAIMED, CONFIRMED, Conn, FREE, LIVE, REVERSE, TEMPLATE};
use crate::dest::overloaded;
use crate::family::Family;
use crate::tcp::{self, State};
use crate::time::{Tick, reached};

/// Takes a live record for taking down. Fails if it changed since `ctl` was read.
#[inline(always)]
#[expect(clippy::not_unsafe_ptr_arg_deref, reason = "records come from `Memory`, which vouches for its pointers")]
pub fn claim<F: Family, M: Memory<F>>(c: *mut Conn<F>, ctl: u64) -> bool {
    // SAFETY: `c` is a record.
    M::swap_if(unsafe { &raw mut (*c).ctl }, ctl, conn::claimed(ctl)) == ctl
}

/// Removes a claimed record from the index and from the counters; it stays claimed.
///
/// # Safety
/// The caller claimed `c`, record `index`, whose control word was `ctl` before.
#[inline(always)]
pub unsafe fn take_down<F: Family, M: Memory<F>>(m: &M, shape: &Shape, index: u32, c: *mut Conn<F>, ctl: u64) {
    // SAFETY: claimed.
    let (forward, back) = unsafe { tuples(c) };
    let number = index as u64 + 1;
    m.remove(shape, hash_of(shape, &forward), number);
    if ctl & REVERSE != 0 {
        m.remove(shape, hash_of(shape, &back), number | ENTRY_REVERSE);
    }
    // SAFETY: claimed.
    let (dest, template) = unsafe { ((*c).dest, (*c).template) };
    count(m, dest, ctl, 1u64.wrapping_neg());
    if template != 0 {
        // So that, should the daemon be killed here, the next one knows whether that was done.
        // SAFETY: claimed.
        unsafe { (*c).template = 0 };
        drop_reference(m, template);
    }
}

/// Gives a claimed record back.
///
/// # Safety
/// The caller claimed `c` and took it down; `ctl` is any of its control words since.
#[inline(always)]
pub unsafe fn release<F: Family, M: Memory<F>>(c: *mut Conn<F>, ctl: u64) {
    // SAFETY: claimed.
    M::store(unsafe { &raw mut (*c).ctl }, conn::freed(ctl));
}

const REFERENCE: u64 = if cfg!(target_endian = "little") { 1 << 32 } else { 1 };

/// The word that counts the connections under the template in a record.
#[inline(always)]
fn reference_word<F: Family>(c: *mut Conn<F>) -> *mut u64 {
    c.cast::<u8>().wrapping_add(F::REFERENCES).cast()
}

/// Adds a reference to a connection's template, if it has one.
#[inline(always)]
pub(super) fn add_reference<F: Family, M: Memory<F>>(m: &M, template: u32) {
    refer(m, template, REFERENCE);
}

/// Gives a connection's reference to its template back.
#[inline(always)]
pub(super) fn drop_reference<F: Family, M: Memory<F>>(m: &M, template: u32) {
    refer(m, template, REFERENCE.wrapping_neg());
}

/// The count is the record's, not the template's: it is never reset, every connection gives back what it took, and so it does not matter
/// that the template may be gone, and another in its place, when it does.
#[inline(always)]
fn refer<F: Family, M: Memory<F>>(m: &M, template: u32, by: u64) {
    if template == 0 {
        return;
    }
    if let Some(t) = m.conn(template - 1) {
        M::add(reference_word(t), by);
    }
}

/// How many connections there are under the template in a record.
#[inline(always)]
pub fn references<F: Family, M: Memory<F>>(c: *mut Conn<F>) -> u32 {
    (M::load(reference_word(c)) / REFERENCE) as u32
}

/// Whether a live record with control word `ctl` is past its time. A template is not while there are connections under it, as the
/// kernel's `n_control` has it; the sweeper gives it a new deadline then.
#[inline(always)]
#[expect(clippy::not_unsafe_ptr_arg_deref, reason = "records come from `Memory`, which vouches for its pointers")]
pub fn is_dead<F: Family, M: Memory<F>>(c: *mut Conn<F>, ctl: u64, now: Tick) -> bool {
    // SAFETY: `c` is a record.
    reached(now, unsafe { (&raw const (*c).expires).read_volatile() }) && (ctl & TEMPLATE == 0 || references::<F, M>(c) == 0)
}

/// Marks a live UDP flow as one whose client is there ([`CONFIRMED`]), and its template with it. Fails if the control word changed since `ctl` was read.
#[inline(always)]
#[expect(clippy::not_unsafe_ptr_arg_deref, reason = "records come from `Memory`, which vouches for its pointers")]
pub fn confirm<F: Family, M: Memory<F>>(m: &M, c: *mut Conn<F>, ctl: u64) -> bool {
    // SAFETY: `c` is a record.
    if conn::phase(ctl) != LIVE || M::swap_if(unsafe { &raw mut (*c).ctl }, ctl, ctl | CONFIRMED) != ctl {
        return false;
    }
    confirm_template(m, c);
    true
}

/// Somebody is there behind a connection: so it is worth keeping its template.
#[inline(always)]
fn confirm_template<F: Family, M: Memory<F>>(m: &M, c: *mut Conn<F>) {
    // SAFETY: `c` is a record. Should it be refilled this instant, another template is kept that need not be.
    let template = unsafe { (&raw const (*c).template).read_volatile() };
    if template == 0 {
        return;
    }
    let Some(t) = m.conn(template - 1) else { return };
    // SAFETY: `t` is a record.
    let word = unsafe { &raw mut (*t).ctl };
    let ctl = M::load(word);
    if conn::phase(ctl) == LIVE && ctl & (TEMPLATE | CONFIRMED) == TEMPLATE {
        M::swap_if(word, ctl, ctl | CONFIRMED);
    }
}

/// Adds `by` (1 or -1) to the count that a connection with this control word belongs to, and keeps the overload mark.
#[inline(always)]
pub fn count<F: Family, M: Memory<F>>(m: &M, dest: u32, ctl: u64, by: u64) {
    let Some(n) = m.dest_conns(dest) else { return };
    // SAFETY: `n` is a dest's counts.
    unsafe {
        if ctl & TEMPLATE != 0 {
            M::add(&raw mut (*n).templates, by);
            return;
        }
        if tcp::is_active(conn::state(ctl)) {
            M::add(&raw mut (*n).active, by);
        } else {
            M::add(&raw mut (*n).inactive, by);
        }
    }
    keep_overload(m, dest);
}

/// Brings a dest's overload mark in line with its counts.
#[inline(always)]
pub(super) fn keep_overload<F: Family, M: Memory<F>>(m: &M, dest: u32) {
    let Some(n) = m.dest_conns(dest) else { return };
    let Some(d) = m.dest(dest) else { return };
    // SAFETY: `d` is a dest.
    let (upper, lower) = unsafe { ((*d).upper, (*d).lower) };
    if upper != 0 {
        // SAFETY: `n` is a dest's counts.
        unsafe {
            let connections = M::load(&raw const (*n).active).wrapping_add(M::load(&raw const (*n).inactive));
            let was = M::load(&raw const (*n).overloaded) != 0;
            let is = overloaded(was, connections, upper, lower);
            if is != was {
                M::store(&raw mut (*n).overloaded, is as u64);
            }
        }
    }
}

/// Moves a live connection to another state, in the counters too. Fails if the control word changed since `ctl` was read.
#[inline(always)]
#[expect(clippy::not_unsafe_ptr_arg_deref, reason = "records come from `Memory`, which vouches for its pointers")]
pub fn change_state<F: Family, M: Memory<F>>(m: &M, c: *mut Conn<F>, dest: u32, ctl: u64, state: State) -> bool {
    let new = conn::with_state(ctl, state);
    // SAFETY: `c` is a record.
    if M::swap_if(unsafe { &raw mut (*c).ctl }, ctl, new) != ctl {
        return false;
    }
    if state == tcp::ESTABLISHED {
        confirm_template(m, c);
    }
    if tcp::is_active(conn::state(ctl)) != tcp::is_active(state) {
        let Some(n) = m.dest_conns(dest) else { return true };
        // SAFETY: `n` is a dest's counts. The sum, and with it the overload, stays.
        unsafe {
            let (from, to) = if tcp::is_active(state) {
                (&raw mut (*n).inactive, &raw mut (*n).active)
            } else {
                (&raw mut (*n).active, &raw mut (*n).inactive)
            };
            M::add(to, 1);
            M::add(from, 1u64.wrapping_neg());
        }
    }
    true
}

/// Whether nobody owns or uses a record, and it is in no stack either.
#[must_use]
pub const fn is_idle(ctl: u64) -> bool {
    conn::phase(ctl) == FREE
}

/// Whether the packet path is at work on a record.
#[must_use]
pub const fn is_claimed(ctl: u64) -> bool {
    conn::phase(ctl) == CLAIMED
}
