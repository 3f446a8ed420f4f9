//! The making of a connection: whole or not at all, once however many CPUs see its first packet.

use super::index::{find_cold, hash_of, tuples};
use super::records::{add_reference, claim, count, is_dead, release, take_down};
use super::{Created, ENTRY_REVERSE, LOCKED, Memory, NO_RECORD, New, Reclaimed, Shape};
use crate::conn::{self, Conn, REVERSE};
use crate::family::Family;
use crate::limits::LOCK_TRIES;
use crate::time::Tick;

/// Makes a connection, whole or not at all.
///
/// `replace` is a live record of the same flow that the caller takes for dead (its server is gone, a SYN restarts it); an
/// expired one is replaced in any case.
#[inline(always)]
pub fn create<F: Family, M: Memory<F>>(
    m: &M,
    shape: &Shape,
    now: Tick,
    new: &New<F>,
    replace: Option<u64>,
) -> (Created, Reclaimed) {
    let hash = hash_of(shape, &new.tuple);
    let Some(home) = m.bucket(hash as u32 & shape.mask) else { return (Created::Full, Reclaimed::Nothing) };
    // SAFETY: `home` is a bucket.
    let head = unsafe { &raw mut (*home).head };
    let mut locked = false;
    m.repeat(LOCK_TRIES, &mut |_| {
        let h = M::load(head);
        locked = h & LOCKED == 0 && M::swap_if(head, h, h | LOCKED) == h;
        !locked
    });
    if !locked {
        return (Created::Busy, Reclaimed::Nothing);
    }
    let result = create_locked(m, shape, hash, now, new, replace);
    M::add(head, LOCKED.wrapping_neg());
    result
}

#[inline(always)]
fn create_locked<F: Family, M: Memory<F>>(
    m: &M,
    shape: &Shape,
    hash: u64,
    now: Tick,
    new: &New<F>,
    replace: Option<u64>,
) -> (Created, Reclaimed) {
    let mut kind = Reclaimed::Nothing;
    let mut own: Option<(u32, *mut Conn<F>, u64)> = None;
    if let Some(old) = find_cold(m, shape, hash, &new.tuple) {
        let dead = is_dead::<F, M>(old.conn, old.ctl, now) || replace.is_some_and(|ctl| conn::same_owner(ctl, old.ctl));
        if old.reverse || !dead {
            return (Created::Exists(old.index), kind);
        }
        if !claim::<F, M>(old.conn, old.ctl) {
            // A packet or the sweeper changed it this instant. Give this packet up; the next one finds a settled record.
            return (Created::Busy, kind);
        }
        // SAFETY: just claimed.
        unsafe { take_down(m, shape, old.index, old.conn, old.ctl) };
        own = Some((old.index, old.conn, old.ctl));
    }
    let (index, c, ctl) = match own {
        Some(own) => own,
        None => {
            let allocated = m.allocate(shape, now);
            if allocated == NO_RECORD {
                return (Created::Full, kind);
            }
            kind = Reclaimed::of(allocated >> 32);
            let index = allocated as u32;
            let Some(c) = m.conn(index) else { return (Created::Full, kind) };
            // SAFETY: claimed.
            (index, c, M::load(unsafe { &raw const (*c).ctl }))
        }
    };
    // SAFETY: claimed: nobody else writes, and readers look at the control word.
    unsafe {
        (*c).expires = new.expires;
        (*c).dest = new.dest;
        (*c).ports = new.tuple.ports;
        (*c).real_port = new.real_port;
        (*c).l4_delta = new.l4_delta;
        (*c).proto = new.tuple.proto;
        (*c).method = new.method;
        (*c).ip_delta = new.ip_delta;
        (*c).template = new.template;
        (*c).client = new.tuple.src;
        (*c).vip = new.tuple.dst;
        (*c).real = new.real;
        (*c).reply_generation = 0;
        (*c).reply = new.reply;
    }
    let number = index as u64 + 1;
    if new.flags & REVERSE != 0 {
        // SAFETY: claimed.
        let (_, back) = unsafe { tuples(c) };
        let back_hash = hash_of(shape, &back);
        let clash = match find_cold(m, shape, back_hash, &back) {
            Some(other) => !is_dead::<F, M>(other.conn, other.ctl, now),
            None => false,
        };
        if clash {
            // SAFETY: claimed, in no index.
            unsafe { release::<F, M>(c, ctl) };
            return (Created::Conflict, kind);
        }
        if !m.insert(shape, back_hash, number | ENTRY_REVERSE) {
            // SAFETY: claimed, in no index.
            unsafe { release::<F, M>(c, ctl) };
            return (Created::Crowded, kind);
        }
        if !m.insert(shape, hash, number) {
            m.remove(shape, back_hash, number | ENTRY_REVERSE);
            // SAFETY: claimed, in no index.
            unsafe { release::<F, M>(c, ctl) };
            return (Created::Crowded, kind);
        }
    } else if !m.insert(shape, hash, number) {
        // SAFETY: claimed, in no index.
        unsafe { release::<F, M>(c, ctl) };
        return (Created::Crowded, kind);
    }
    let live = conn::published(ctl, new.state, new.flags);
    count(m, new.dest, live, 1);
    add_reference(m, new.template);
    // SAFETY: claimed; this publishes it.
    M::store(unsafe { &raw mut (*c).ctl }, live);
    (Created::Made(index), kind)
}
