//! Tunnelling: the packet travels within another to the real server (RFC 2003, RFC 2473), either family in either.

use super::{fits, too_big};
use crate::balance::Outcome;
use crate::ip::{Ip, Packet, lower_ttl};
use crate::raw::{ETH, get, move_head, put};
use crate::transmit;
use aya_ebpf::programs::XdpContext;
use lb_common::csum;
use lb_common::dest::Dest;
use lb_common::family::{FAMILY_V4, Family, V4, V6};
use lb_common::verdict::Verdict;

/// Explicit congestion notification in TOS.
const ECN: u8 = 3;
/// Congestion experienced: the outer header says "ECN-capable" instead (RFC 3168, section 9.1.1).
const CE: u8 = 3;
const ECT0: u8 = 2;
/// Flags word of an IPv4 header with "don't fragment".
const DF: u16 = 0x4000u16.to_be();

#[inline(always)]
fn outer_tos(inner: u8) -> u8 {
    if inner & ECN == CE { (inner & !ECN) | ECT0 } else { inner }
}

/// To the server.
#[inline(always)]
pub fn send<F: Ip>(ctx: &XdpContext, p: &Packet<F>, d: &Dest) -> Outcome {
    if d.family == FAMILY_V4 { through::<F, V4>(ctx, p, d) } else { through::<F, V6>(ctx, p, d) }
}

#[inline(always)]
fn through<F: Ip, Outer: Ip>(ctx: &XdpContext, p: &Packet<F>, d: &Dest) -> Outcome {
    if !fits(p.len, Outer::HEADER as u32, d) {
        return too_big(ctx, p, d, Outer::HEADER as u32);
    }
    let next_hop = d.next_hop;
    if next_hop == 0 {
        // The kernel would refuse it: the source is its own address.
        return Outcome::drop(Verdict::DroppedUnresolved);
    }
    // SAFETY: parsing compared the header with the end, and the head has not moved.
    let (tos, id) = unsafe {
        lower_ttl(p, 0);
        (outer_tos(F::tos(p.ip)), if F::ID == FAMILY_V4 && !p.whole { get::<u16>(p.ip + 4) } else { 0 })
    };
    if !move_head(ctx, -(Outer::HEADER as i32)) {
        return Outcome::drop(Verdict::DroppedInternal);
    }
    let eth = ctx.data();
    if eth + ETH + Outer::HEADER > ctx.data_end() {
        return Outcome::drop(Verdict::DroppedInternal);
    }
    let ip = eth + ETH;
    let ttl = p.ttl.wrapping_sub(1);
    // SAFETY: compared above.
    unsafe {
        transmit::write_macs(eth, next_hop, &d.src_mac);
        put(eth + 12, Outer::ETHERTYPE);
        if Outer::ID == FAMILY_V4 {
            let len = (p.len as u16 + 20).to_be();
            let mut sum =
                d.tunnel_sum as u64 + len as u64 + u16::from_ne_bytes([0, tos]) as u64 + u16::from_ne_bytes([ttl, 0]) as u64;
            // An IPv6 packet is never fragmented on its way, and an IPv4 one only if its sender lets it.
            let flags = if p.whole { DF } else { 0 };
            if flags == 0 {
                sum += (!DF) as u64 + id as u64;
            }
            put(ip, u16::from_ne_bytes([0x45, tos]));
            put(ip + 2, len);
            put(ip + 4, id);
            put(ip + 6, flags);
            put(ip + 8, [ttl, F::ENCAPSULATED]);
            put(ip + 10, !csum::fold(sum));
            put(ip + 12, V4::narrow(d.tunnel_src));
            put(ip + 16, V4::narrow(d.real));
        } else {
            put(ip, u16::from_be_bytes([0x60 | tos >> 4, tos << 4]).to_be());
            put(ip + 2, 0u16);
            put(ip + 4, (p.len as u16).to_be());
            put(ip + 6, [F::ENCAPSULATED, ttl]);
            put(ip + 8, d.tunnel_src);
            put(ip + 24, d.real);
        }
    }
    Outcome { verdict: Verdict::ForwardedTun, action: transmit::send(ctx, next_hop, d.ifindex) }
}
