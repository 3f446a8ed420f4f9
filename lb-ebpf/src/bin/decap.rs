//! The decapsulator's XDP program: takes tunnelled packets apart on a real server, so that it needs no tunnel device.
#![no_std]
#![no_main]
#![expect(clippy::needless_pass_by_value, reason = "programs take their context by value")]
#![feature(asm_experimental_arch)]

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::XdpContext;
use lb_common::proto::{IPIP, IPV6};
use raw::{ETH, get, move_head, put};

// Not by way of the library, whose maps would come with it.
#[path = "../raw.rs"]
#[expect(dead_code, unreachable_pub, reason = "shared with the load balancer")]
mod raw;

/// Packets taken apart, and packets that could not be.
#[map]
static LVX_DECAP: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);

const V4: u16 = 0x0800u16.to_be();
const V6: u16 = 0x86ddu16.to_be();

/// Every packet of the interface comes through here.
#[xdp(frags)]
fn lvx_decap(ctx: XdpContext) -> u32 {
    let (eth, end) = (ctx.data(), ctx.data_end());
    if eth + ETH + 20 > end {
        return XDP_PASS;
    }
    // SAFETY: compared above.
    let (ethertype, first): (u16, u8) = unsafe { (get(eth + 12), get(eth + ETH)) };
    if ethertype == V4 && first == 0x45 {
        // SAFETY: compared above.
        let (fragment, proto): (u16, u8) = unsafe { (get(eth + ETH + 6), get(eth + ETH + 9)) };
        // Fragments of a tunnelled packet need the kernel's tunnel device.
        if fragment & 0x3fffu16.to_be() == 0 {
            return open(&ctx, proto, 20);
        }
    } else if ethertype == V6 && first >> 4 == 6 {
        // SAFETY: compared above.
        return open(&ctx, unsafe { get(eth + ETH + 6) }, 40);
    }
    XDP_PASS
}

/// Removes an outer header of `header` bytes.
#[inline(always)]
fn open(ctx: &XdpContext, proto: u8, header: usize) -> u32 {
    let (ethertype, version) = match proto {
        IPIP => (V4, 4),
        IPV6 => (V6, 6),
        _ => return XDP_PASS,
    };
    let (eth, end) = (ctx.data(), ctx.data_end());
    if eth + ETH + header + 20 > end {
        return XDP_PASS;
    }
    // SAFETY: compared above.
    unsafe {
        if get::<u8>(eth + ETH + header) >> 4 != version {
            return XDP_PASS;
        }
        let macs: [u32; 3] = [get(eth), get(eth + 4), get(eth + 8)];
        let new = eth + header;
        put(new, macs[0]);
        put(new + 4, macs[1]);
        put(new + 8, macs[2]);
        put(new + 12, ethertype);
    }
    let done = move_head(ctx, header as i32);
    if let Some(n) = LVX_DECAP.get_ptr_mut(!done as u32) {
        // SAFETY: this CPU's map value.
        unsafe { *n += 1 };
    }
    if done { XDP_PASS } else { XDP_DROP }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing panics; the linker removes this.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
