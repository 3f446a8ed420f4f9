//! The table's memory in an ordinary process: mapped BPF arrays, or the heap.
//!
//! Invariant: words that several threads, or the packet path, change go through [`AtomicU64`]; the same bytes are never borrowed.
//!
//! The trap: records are also read field by field without atomics, while others may write them. What was read so counts only if the
//! control word is found the same afterwards.

use super::{Bucket, Hands, Memory};
use crate::config::Config;
use crate::conn::Conn;
use crate::dest::{Dest, DestConns};
use crate::family::Family;
use core::sync::atomic::{AtomicU64, Ordering};
use std::boxed::Box;
use std::vec;

fn atomic<'a>(word: *const u64) -> &'a AtomicU64 {
    // SAFETY: `Memory`'s contract: words come from its own pointers, which are aligned and valid while it is borrowed; the reference does
    // not outlive the call that makes it.
    unsafe { AtomicU64::from_ptr(word.cast_mut()) }
}

/// A table somewhere in the address space. It owns nothing.
#[derive(Debug)]
pub struct Raw<F: Family> {
    buckets: (*mut Bucket, u32),
    conns: (*mut Conn<F>, u32),
    hands: *mut Hands,
    dest_conns: (*mut DestConns, u32),
    dests: (*const Dest, u32),
}

// SAFETY: pointers to memory that is there for all threads; what they change, they change by atomics or as a record's owner.
unsafe impl<F: Family> Send for Raw<F> {}
// SAFETY: as above.
unsafe impl<F: Family> Sync for Raw<F> {}

impl<F: Family> Raw<F> {
    /// A table of these arrays, each with its number of elements.
    ///
    /// # Safety
    /// Each pointer is aligned and to so many elements, valid and mapped as long as this value; all changes to them go through the table's
    /// routines, except that the daemon writes dests.
    #[must_use]
    pub const unsafe fn new(
        buckets: (*mut Bucket, u32),
        conns: (*mut Conn<F>, u32),
        hands: *mut Hands,
        dest_conns: (*mut DestConns, u32),
        dests: (*const Dest, u32),
    ) -> Self {
        Self { buckets, conns, hands, dest_conns, dests }
    }
}

fn element<T>((first, len): (*mut T, u32), index: u32) -> Option<*mut T> {
    // SAFETY: `Raw::new`'s contract: there are `len` elements.
    (index < len).then(|| unsafe { first.add(index as usize) })
}

// SAFETY: `Raw::new`'s contract.
unsafe impl<F: Family> Memory<F> for Raw<F> {
    fn bucket(&self, index: u32) -> Option<*mut Bucket> {
        element(self.buckets, index)
    }

    fn conn(&self, index: u32) -> Option<*mut Conn<F>> {
        element(self.conns, index)
    }

    fn hand(&self) -> Option<*mut u64> {
        // SAFETY: `Raw::new`'s contract.
        Some(unsafe { (&raw mut (*self.hands).hand[Config::slot(F::ID)]).cast() })
    }

    fn dest_conns(&self, index: u32) -> Option<*mut DestConns> {
        element(self.dest_conns, index)
    }

    fn dest(&self, index: u32) -> Option<*const Dest> {
        element((self.dests.0.cast_mut(), self.dests.1), index).map(<*mut Dest>::cast_const)
    }

    fn load(word: *const u64) -> u64 {
        atomic(word).load(Ordering::Acquire)
    }

    fn store(word: *mut u64, value: u64) {
        atomic(word).store(value, Ordering::Release);
    }

    fn swap_if(word: *mut u64, old: u64, new: u64) -> u64 {
        match atomic(word).compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(was) | Err(was) => was,
        }
    }

    fn add(word: *mut u64, value: u64) -> u64 {
        atomic(word).fetch_add(value, Ordering::SeqCst)
    }
}

/// A table on the heap, for tests and benchmarks.
#[derive(Debug)]
pub struct HostMemory<F: Family> {
    raw: Raw<F>,
}

/// A zeroed (or filled) array on the heap whose owner keeps a raw pointer only, so that nothing claims to be its sole user.
fn array<T: Clone>(value: T, len: u32) -> (*mut T, u32) {
    (Box::into_raw(vec![value; len as usize].into_boxed_slice()).cast(), len)
}

/// # Safety
/// `a` is of [`array()`], and nobody uses it any more.
unsafe fn free<T>((first, len): (*mut T, u32)) {
    // SAFETY: the caller's.
    drop(unsafe { Box::from_raw(core::ptr::slice_from_raw_parts_mut(first, len as usize)) });
}

impl<F: Family> HostMemory<F> {
    /// An empty table with `buckets` (a power of two), `records`, and room for `dests`.
    #[must_use]
    pub fn new(buckets: u32, records: u32, dests: u32) -> Self
    where
        Conn<F>: Default,
    {
        let hands = array(Hands::default(), 1).0;
        // SAFETY: just allocated, freed by `drop`.
        let raw = unsafe {
            Raw::new(
                array(Bucket::default(), buckets),
                array(Conn::default(), records),
                hands,
                array(DestConns::default(), dests),
                (array(Dest::EMPTY, dests).0, dests),
            )
        };
        Self { raw }
    }

    /// Sets a dest's thresholds.
    pub fn set_thresholds(&mut self, dest: u32, upper: u32, lower: u32) {
        if let Some(d) = element((self.raw.dests.0.cast_mut(), self.raw.dests.1), dest) {
            // SAFETY: an element; nobody else has the table.
            unsafe {
                (*d).upper = upper;
                (*d).lower = lower;
            }
        }
    }
}

impl<F: Family> Drop for HostMemory<F> {
    fn drop(&mut self) {
        // SAFETY: made by `array`, and this was the owner.
        unsafe {
            free(self.raw.buckets);
            free(self.raw.conns);
            free((self.raw.hands, 1));
            free(self.raw.dest_conns);
            free((self.raw.dests.0.cast_mut(), self.raw.dests.1));
        }
    }
}

impl<F: Family> core::ops::Deref for HostMemory<F> {
    type Target = Raw<F>;

    fn deref(&self) -> &Raw<F> {
        &self.raw
    }
}
