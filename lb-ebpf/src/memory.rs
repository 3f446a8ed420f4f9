//! The connection table's memory: the maps.

use crate::ip::Ip;
use crate::{atomics, maps};
use aya_ebpf::helpers::generated::bpf_loop;
use core::ffi::c_void;
use lb_common::config::Config;
use lb_common::conn::Conn;
use lb_common::dest::{Dest, DestConns};
use lb_common::table::{Bucket, Memory, Shape, Tuple};
use lb_common::time::Tick;

/// [`Memory`] over the maps.
pub struct Maps;

impl Maps {
    /// Calls `body` with 0, 1, ... until it says false, at most `times` times.
    #[inline(always)]
    pub fn turns<B: FnMut(u32) -> bool>(times: u32, body: &mut B) {
        let turn: extern "C" fn(u32, *mut B) -> u64 = turn::<B>;
        // SAFETY: the kernel calls `turn` with the closure, which outlives the call.
        unsafe { bpf_loop(times, turn as *mut c_void, (&raw mut *body).cast(), 0) };
    }
}

#[expect(clippy::not_unsafe_ptr_arg_deref, reason = "the trait's contract: words of map values only")]
// SAFETY: pointers to map values stay valid for the whole run of the program.
unsafe impl<F: Ip> Memory<F> for Maps {
    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<*mut Bucket> {
        F::bucket(index)
    }

    #[inline(always)]
    fn conn(&self, index: u32) -> Option<*mut Conn<F>> {
        F::conn(index)
    }

    #[inline(always)]
    fn hand(&self) -> Option<*mut u64> {
        let hands = maps::LVX_HANDS.get_ptr_mut(0)?;
        // SAFETY: a map value; the slot is 0 or 1.
        Some(unsafe { &raw mut (*hands).hand[Config::slot(F::ID)][0] })
    }

    #[inline(always)]
    fn dest_conns(&self, index: u32) -> Option<*mut DestConns> {
        maps::LVX_DEST_CONNS.get_ptr_mut(index)
    }

    #[inline(always)]
    fn dest(&self, index: u32) -> Option<*const Dest> {
        maps::LVX_DESTS.get_ptr(index)
    }

    #[inline(always)]
    fn load(word: *const u64) -> u64 {
        // SAFETY: the table passes words of map values only.
        unsafe { atomics::load(word) }
    }

    #[inline(always)]
    fn store(word: *mut u64, value: u64) {
        // SAFETY: as above.
        unsafe { atomics::store(word, value) }
    }

    #[inline(always)]
    fn swap_if(word: *mut u64, old: u64, new: u64) -> u64 {
        // SAFETY: as above.
        unsafe { atomics::swap_if(word, old, new) }
    }

    #[inline(always)]
    fn add(word: *mut u64, value: u64) -> u64 {
        // SAFETY: as above.
        unsafe { atomics::add(word, value) }
    }
    #[inline(always)]
    fn repeat<B: FnMut(u32) -> bool>(&self, times: u32, body: &mut B) {
        Self::turns(times, body);
    }

    #[inline(always)]
    fn seek(&self, _shape: &Shape, hash: u64, t: &Tuple<F>) -> u64 {
        F::seek(hash, t)
    }

    #[inline(always)]
    fn insert(&self, _shape: &Shape, hash: u64, low: u64) -> bool {
        F::insert(hash, low)
    }

    #[inline(always)]
    fn remove(&self, _shape: &Shape, hash: u64, low: u64) {
        F::remove(hash, low);
    }

    #[inline(always)]
    fn scan(&self, _shape: &Shape, start: u32, now: Tick) -> u64 {
        F::scan(start, now)
    }

    #[inline(always)]
    fn allocate(&self, _shape: &Shape, now: Tick) -> u64 {
        F::allocate(now)
    }
}

/// One turn of [`Memory::repeat`]: the verifier looks at it until it learns nothing new, not once a turn.
extern "C" fn turn<B: FnMut(u32) -> bool>(i: u32, body: *mut B) -> u64 {
    // SAFETY: what `repeat` passed.
    let go_on = unsafe { (*body)(i) };
    !go_on as u64
}
