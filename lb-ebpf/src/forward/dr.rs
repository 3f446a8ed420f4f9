//! Direct routing: the packet goes on as it is, in a frame to the real server, which has the VIP too.

use super::{fits, too_big};
use crate::balance::Outcome;
use crate::ip::{Ip, Packet, lower_ttl};
use crate::raw::ETH;
use crate::transmit;
use aya_ebpf::programs::XdpContext;
use lb_common::dest::Dest;
use lb_common::verdict::Verdict;

/// To the server.
#[inline(always)]
pub fn send<F: Ip>(ctx: &XdpContext, p: &Packet<F>, d: &Dest) -> Outcome {
    if !fits(p.len, 0, d) {
        return too_big(ctx, p, d, 0);
    }
    let next_hop = d.next_hop;
    if next_hop == 0 {
        // The kernel would take the packet for its own: the destination is the VIP.
        return Outcome::drop(Verdict::DroppedUnresolved);
    }
    // SAFETY: parsing compared the header with the end, and the head has not moved.
    unsafe {
        lower_ttl(p, 0);
        transmit::write_macs(p.ip - ETH, next_hop, &d.src_mac);
    }
    Outcome { verdict: Verdict::ForwardedDr, action: transmit::send(ctx, next_hop, d.ifindex) }
}
