//! The connection counts against the table itself.
//!
//! An audit goes through the table as slowly as one likes, while packets go on, and compares what it found with the counts. A
//! difference is put right only if two audits one after the other found the same one, and during each of them no
//! connection of that server was made and no count of it moved: what is compared then stood still.
//!
//! The counts differ only after a daemon was killed in the middle of taking a connection down.

use super::records::keep_overload;
use super::{Memory, Shape};
use crate::conn::{self, LIVE, TEMPLATE};
use crate::dest::DestConns;
use crate::family::Family;
use crate::tcp;
use std::vec;
use std::vec::Vec;

#[derive(Clone, Copy, Default)]
struct Entry {
    /// At the audit's start: the counts, and how many connections were ever made.
    before: Option<(DestConns, u64)>,
    active: u64,
    inactive: u64,
    templates: u64,
    /// What the last audit found to be missing.
    suspected: [u64; 3],
}

/// Counts that were put right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Healed {
    /// Whose.
    pub dest: u32,
    /// As they were.
    pub was: DestConns,
    /// As the table has them.
    pub is: DestConns,
}

/// Audits of the tables. A dest's connections are of one family; one audit can go through both tables, one after the other.
#[derive(Default)]
pub struct Audit {
    entries: Vec<Entry>,
}

impl core::fmt::Debug for Audit {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Audit").field("dests", &self.entries.len()).finish()
    }
}

/// A dest's counts.
pub fn counts<F: Family, M: Memory<F>>(m: &M, dest: u32) -> Option<DestConns> {
    let n = m.dest_conns(dest)?;
    // SAFETY: `n` is a dest's counts.
    unsafe {
        Some(DestConns {
            active: M::load(&raw const (*n).active),
            inactive: M::load(&raw const (*n).inactive),
            overloaded: M::load(&raw const (*n).overloaded),
            templates: M::load(&raw const (*n).templates),
        })
    }
}

impl Audit {
    /// Starts one, of dests 0 to `dests`. `made` tells how many connections of a dest were ever made; `None` leaves that dest out.
    pub fn begin<F: Family, M: Memory<F>>(&mut self, m: &M, dests: u32, made: impl Fn(u32) -> Option<u64>) {
        self.entries.resize(dests as usize, Entry::default());
        for (dest, e) in (0..dests).zip(&mut self.entries) {
            *e = Entry { suspected: e.suspected, ..Entry::default() };
            e.before = counts(m, dest).zip(made(dest));
        }
    }

    /// Goes through up to `n` records from number `from` on. Each has to be gone through once.
    pub fn go_through<F: Family, M: Memory<F>>(&mut self, m: &M, shape: &Shape, from: u32, n: u32) {
        for index in from..from.saturating_add(n).min(shape.records) {
            let Some(c) = m.conn(index) else { break };
            // SAFETY: `c` is a record.
            let (ctl, dest) = unsafe {
                let ctl = M::load(&raw const (*c).ctl);
                (ctl, (&raw const (*c).dest).read_volatile())
            };
            if conn::phase(ctl) != LIVE {
                continue;
            }
            let Some(e) = self.entries.get_mut(dest as usize) else { continue };
            if ctl & TEMPLATE != 0 {
                e.templates += 1;
            } else if tcp::is_active(conn::state(ctl)) {
                e.active += 1;
            } else {
                e.inactive += 1;
            }
        }
    }

    /// Ends it: puts right what is certainly wrong, and tells what that was.
    pub fn finish<F: Family, M: Memory<F>>(&mut self, m: &M, made: impl Fn(u32) -> Option<u64>) -> Vec<Healed> {
        let mut healed = vec![];
        for (dest, e) in (0..).zip(&mut self.entries) {
            let (missing, was) = match (e.before, counts(m, dest).zip(made(dest))) {
                (Some(before), Some(after)) if before == after => {
                    let n = after.0;
                    let found = [e.active, e.inactive, e.templates];
                    ([found[0].wrapping_sub(n.active), found[1].wrapping_sub(n.inactive), found[2].wrapping_sub(n.templates)], n)
                }
                _ => ([0; 3], DestConns::default()),
            };
            if missing == [0; 3] || missing != e.suspected {
                e.suspected = missing;
                continue;
            }
            e.suspected = [0; 3];
            let Some(n) = m.dest_conns(dest) else { continue };
            // SAFETY: `n` is a dest's counts.
            unsafe {
                M::add(&raw mut (*n).active, missing[0]);
                M::add(&raw mut (*n).inactive, missing[1]);
                M::add(&raw mut (*n).templates, missing[2]);
            }
            keep_overload(m, dest);
            let is = DestConns { active: e.active, inactive: e.inactive, templates: e.templates, ..was };
            healed.push(Healed { dest, was, is });
        }
        healed
    }
}
