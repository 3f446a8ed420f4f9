//! Masquerading: the destination becomes the real server's address and port.

use super::{Way, fits, too_big};
use crate::balance::Outcome;
use crate::ip::{Ip, Packet, lower_ttl};
use crate::raw::{ETH, get, put};
use crate::transmit;
use aya_ebpf::programs::XdpContext;
use lb_common::csum;
use lb_common::dest::Dest;
use lb_common::proto::TCP;
use lb_common::verdict::Verdict;

/// Changes the transport checksum by `delta` (RFC 1624); a UDP checksum of zero stays.
///
/// # Safety
/// The packet was parsed, and its head has not moved.
#[inline(always)]
pub unsafe fn fix_transport<F: Ip>(p: &Packet<F>, delta: u16) {
    // SAFETY: the caller's.
    unsafe {
        let old: u16 = get(p.check);
        let new = if p.tuple.proto == TCP { csum::apply(old, delta as u32) } else { csum::apply_udp(old, delta as u32) };
        put(p.check, new);
    }
}

/// To the server.
#[inline(always)]
pub fn send<F: Ip>(ctx: &XdpContext, p: &Packet<F>, d: &Dest, way: &Way<F>) -> Outcome {
    let fits = fits(p.len, 0, d);
    if !fits && p.whole {
        return too_big(ctx, p, d, 0);
    }
    // SAFETY: parsing compared both headers with the end, and the head has not moved.
    unsafe {
        put(p.ip + F::DST, way.real);
        put(p.l4 + 2, way.real_port);
        fix_transport(p, way.l4_delta);
    }
    let next_hop = d.next_hop;
    if next_hop == 0 || !fits {
        // The kernel finds the neighbour, or cuts the packet to fragments. It lowers the TTL.
        // SAFETY: as above.
        unsafe { F::fix_header(p.ip, way.ip_delta as u32) };
        return Outcome::pass(Verdict::PassedUnresolved);
    }
    // SAFETY: as above.
    unsafe {
        lower_ttl(p, way.ip_delta as u32);
        transmit::write_macs(p.ip - ETH, next_hop, &d.src_mac);
    }
    Outcome { verdict: Verdict::ForwardedNat, action: transmit::send(ctx, next_hop, d.ifindex) }
}
