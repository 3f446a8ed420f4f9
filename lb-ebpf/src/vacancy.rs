//! Vacancies: servers that a plan of the least loaded ones knows to be busier than they are by now.
//!
//! See [`Service::vacancies`]. A vacancy is a hint and no more: the server must be usable, and by the counts of this moment no more loaded
//! than the next one of the plan. So it does not matter that two CPUs may read one twice, that one is overwritten before it was looked at,
//! or that its place in the ring is written a moment after it was counted.

use crate::open::{NO_PICK, usable};
use crate::{atomics, maps};
use lb_common::limits::{VACANCIES, VACANCY_TRIES};
use lb_common::load::{Load, Measure, overhead};
use lb_common::service::{IDLE_FIRST, Service};

/// The place of a vacancy in the ring.
#[inline(always)]
fn place(service: *mut Service, number: u64) -> *mut u32 {
    // SAFETY: a map value, and within the array.
    unsafe { (&raw mut (*service).vacancies).cast::<u32>().add(number as usize & (VACANCIES - 1)) }
}

/// A server has one active connection less.
#[inline(always)]
pub(crate) fn leave(service: *mut Service, dest: u32) {
    // SAFETY: a map value.
    unsafe {
        let number = atomics::add(&raw mut (*service).vacated, 1);
        place(service, number).write_volatile(dest);
    }
}

/// A server's load now, and whether it is idle and comes first for it.
#[inline(always)]
fn load(dest: u32, measure: Measure, idle_first: bool) -> Option<(Load, bool)> {
    let weight = maps::LVX_DESTS.get(dest)?.weight;
    let n = maps::LVX_DEST_CONNS.get_ptr(dest)?;
    // SAFETY: a map value.
    let (active, inactive) = unsafe { (atomics::load(&raw const (*n).active), atomics::load(&raw const (*n).inactive)) };
    Some((Load::of(measure, overhead(active, inactive), active, weight), idle_first && active == 0))
}

/// The server of a vacancy of service `index` that is as good a choice as `planned` or better, or [`NO_PICK`]. The plan stays where it is
/// then: what ended and what begins cancel out.
#[inline(always)]
pub(crate) fn fill(index: u32, service: *mut Service, flags: u32, measure: Measure, planned: u64) -> u64 {
    // SAFETY: a map value.
    let (last, word) = unsafe { (atomics::load(&raw const (*service).vacated), &raw mut (*service).filled) };
    let idle_first = flags & IDLE_FIRST != 0;
    let rival = if planned == NO_PICK || !usable(planned as u32) { None } else { load(planned as u32, measure, idle_first) };
    let mut tries = 0;
    while tries < VACANCY_TRIES {
        tries += 1;
        // SAFETY: as above.
        let seen = unsafe { atomics::load(word) };
        let waiting = last.wrapping_sub(seen);
        if waiting == 0 || waiting > i64::MAX as u64 {
            break;
        }
        // Older ones were overwritten.
        let number = if waiting > VACANCIES as u64 { last.wrapping_sub(VACANCIES as u64) } else { seen };
        // SAFETY: as above.
        if unsafe { atomics::swap_if(word, seen, number.wrapping_add(1)) } != seen {
            continue;
        }
        // SAFETY: a place in the ring.
        let dest = unsafe { place(service, number).read_volatile() };
        let Some(d) = maps::LVX_DESTS.get(dest) else { continue };
        if d.service != index || !usable(dest) {
            continue;
        }
        let Some((own, idle)) = load(dest, measure, idle_first) else { continue };
        let better = match rival {
            Some((other, other_idle)) if idle == other_idle => own.at_most(other),
            Some(_) => idle,
            None => true,
        };
        if better {
            return dest as u64;
        }
    }
    NO_PICK
}
