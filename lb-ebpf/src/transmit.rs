//! Sending a frame out: back by the interface that it came in by, or by another through the device map.

use crate::maps;
use crate::raw::put;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_TX};
use aya_ebpf::programs::XdpContext;

/// Writes the MAC addresses of an outgoing frame. `next_hop` is the word of [`lb_common::dest::next_hop`].
///
/// # Safety
/// The 14 bytes at `eth` are in the packet.
#[inline(always)]
pub unsafe fn write_macs(eth: usize, next_hop: u64, src: &[u8; 6]) {
    let [a, b, c, d, e, f] = *src;
    // SAFETY: the caller's.
    unsafe {
        put(eth, next_hop as u32);
        put(eth + 4, (next_hop >> 32) as u16);
        put(eth + 6, u32::from_le_bytes([a, b, c, d]));
        put(eth + 10, u16::from_le_bytes([e, f]));
    }
}

/// Sends the frame by port `next_hop >> 48`, whose interface is `ifindex`.
#[inline(always)]
pub fn send(ctx: &XdpContext, next_hop: u64, ifindex: u32) -> u32 {
    if ctx.ingress_ifindex() as u32 == ifindex {
        return XDP_TX;
    }
    match maps::LVX_TX.redirect((next_hop >> 48) as u32, XDP_DROP as u64) {
        Ok(action) | Err(action) => action,
    }
}
