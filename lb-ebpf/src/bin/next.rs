//! The load balancer as the next release might have it: the same packet path, another program. Tests of upgrades swap it in.
#![no_std]
#![no_main]
#![expect(clippy::needless_pass_by_value, reason = "programs take their context by value")]

use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

/// As `lvx`, but for a check that every packet passes.
#[xdp(frags)]
fn lvx(ctx: XdpContext) -> u32 {
    if ctx.data_end() <= ctx.data() {
        return XDP_ABORTED;
    }
    lb_ebpf::balance::run(&ctx)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing panics; the linker removes this.
    loop {}
}

/// As in `lvx`.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
