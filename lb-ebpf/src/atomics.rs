//! 64-bit atomics for the BPF target.
//!
//! The target has no `AtomicU64::fetch_add`. With relaxed ordering and a used result LLVM 22 emits an addition that does not
//! fetch (llvm issue 210280), so everything here is sequentially consistent, which BPF's atomics are anyway.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};
use core::sync::atomic::{Ordering, compiler_fence};

/// Adds, wrapping; what was there before.
///
/// # Safety
/// `word` is an aligned word in a map value.
#[inline(always)]
pub unsafe fn add(word: *mut u64, value: u64) -> u64 {
    // SAFETY: the caller's.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(word, value) }
}

/// Compare-and-swap; what was there before.
///
/// # Safety
/// As [`add`].
#[inline(always)]
pub unsafe fn swap_if(word: *mut u64, old: u64, new: u64) -> u64 {
    // SAFETY: the caller's.
    unsafe { atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, old, new).0 }
}

/// As [`swap_if`], of half a word.
///
/// # Safety
/// As [`add`]; aligned as a half.
#[inline(always)]
pub unsafe fn swap_if_u32(word: *mut u32, old: u32, new: u32) -> u32 {
    // SAFETY: the caller's.
    unsafe { atomic_cxchg::<u32, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, old, new).0 }
}

/// Reads a word that others change.
///
/// # Safety
/// As [`add`].
#[inline(always)]
pub unsafe fn load(word: *const u64) -> u64 {
    // SAFETY: the caller's.
    let value = unsafe { word.read_volatile() };
    compiler_fence(Ordering::Acquire);
    value
}

/// Writes a word that others read, after everything written before.
///
/// # Safety
/// As [`add`].
#[inline(always)]
pub unsafe fn store(word: *mut u64, value: u64) {
    compiler_fence(Ordering::Release);
    // SAFETY: the caller's.
    unsafe { word.write_volatile(value) };
}
