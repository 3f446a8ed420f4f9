//! Reading and writing packet bytes.
//!
//! Positions are plain addresses: `at + n > end` is the comparison that the verifier understands. The loads are unaligned ones
//! (an IP header starts 14 bytes into the frame); the build allows misaligned access, so that each is one instruction.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_get_buff_len};
use aya_ebpf::programs::XdpContext;

/// Length of an Ethernet header.
pub const ETH: usize = 14;

/// Reads a value at `at`.
///
/// # Safety
/// `at` up to `at + size_of::<T>()` was compared with the end of the packet.
#[inline(always)]
pub unsafe fn get<T: Copy>(at: usize) -> T {
    // SAFETY: the caller's.
    unsafe { (at as *const T).read_unaligned() }
}

/// Writes a value at `at`.
///
/// # Safety
/// As [`get`].
#[inline(always)]
pub unsafe fn put<T: Copy>(at: usize, value: T) {
    // SAFETY: the caller's.
    unsafe { (at as *mut T).write_unaligned(value) }
}

/// Bytes of the frame, those in further buffers included.
#[inline(always)]
pub fn frame_len(ctx: &XdpContext) -> u64 {
    // SAFETY: the program's own context.
    unsafe { bpf_xdp_get_buff_len(ctx.ctx) }
}

/// Moves the start of the frame by `by` bytes (negative: room in front). All positions are void afterwards.
#[inline(always)]
#[must_use]
pub fn move_head(ctx: &XdpContext, by: i32) -> bool {
    // SAFETY: the program's own context.
    unsafe { bpf_xdp_adjust_head(ctx.as_ptr().cast(), by) == 0 }
}

/// The same position, as a value that the compiler knows nothing about: it must not compute it anew where the verifier has
/// forgotten what the position was compared with.
#[inline(always)]
#[must_use]
pub fn fixed(mut at: usize) -> usize {
    // One move: an empty statement would leave a line of debug information without an instruction, which the kernel refuses.
    // SAFETY: a register's move to itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) at, options(pure, nomem, nostack, preserves_flags)) };
    at
}
