//! The load balancer's XDP program.
#![no_std]
#![no_main]
#![expect(clippy::needless_pass_by_value, reason = "programs take their context by value")]

use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

/// Every packet of the interface comes through here.
#[xdp(frags)]
fn lvx(ctx: XdpContext) -> u32 {
    lb_ebpf::balance::run(&ctx)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing panics; the linker removes this.
    loop {}
}

/// The kernel's helpers for tracing and the like are open to compatible licences only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
