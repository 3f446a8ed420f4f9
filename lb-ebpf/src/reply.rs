//! Masquerading, the way back: a real server's answer becomes the virtual service's.

use crate::balance::{Outcome, advance};
use crate::forward::nat::fix_transport;
use crate::ip::{Ip, Packet, lower_ttl};
use crate::raw::{ETH, put};
use crate::{count, maps, transmit};
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_fib_lookup;
use aya_ebpf::helpers::generated::bpf_fib_lookup as fib_lookup;
use aya_ebpf::programs::XdpContext;
use lb_common::config::Config;
use lb_common::conn;
#[cfg(doc)]
use lb_common::conn::Conn;
use lb_common::dest::next_hop;
use lb_common::table::Found;
use lb_common::tcp::Direction;
use lb_common::time::Tick;
use lb_common::verdict::Verdict;

/// To the client.
#[inline(always)]
pub fn back<F: Ip>(ctx: &XdpContext, config: &Config, p: &Packet<F>, now: Tick, found: &Found<F>) -> Outcome {
    let c = found.conn;
    // SAFETY: a record; `advance` tells whether all of this is of one owner.
    let (dest, vip, ports, l4_delta, ip_delta, generation, mut hop) =
        unsafe { ((*c).dest, (*c).vip, (*c).ports, (*c).l4_delta, (*c).ip_delta, (*c).reply_generation, (*c).reply) };
    if p.ttl <= 1 {
        // The kernel routes such a packet nowhere, and tells the server so.
        return Outcome::pass(Verdict::PassedTtl);
    }
    if !advance(config, p, now, found, Direction::Output) {
        return Outcome::drop(Verdict::DroppedTableBusy);
    }
    if let Some(s) = count::of_dest(dest, config.servers) {
        // SAFETY: a map value of this CPU's.
        unsafe {
            (*s).out_packets += 1;
            (*s).out_bytes += p.len as u64;
        }
    }
    if generation != config.next_hop_generation {
        hop = F::look_up(ctx, found.index);
    }
    let [_, _, v0, v1] = ports.to_ne_bytes();
    send(ctx, p, &Translation { vip, vport: u16::from_ne_bytes([v0, v1]), l4_delta, ip_delta }, hop)
}

/// What an answer shall look like, and the checksum deltas of the client's packets ([`Conn`]).
#[derive(Clone, Copy)]
pub struct Translation<F: Ip> {
    /// Its source.
    pub vip: F::Addr,
    /// Its source port as it stands in the packet.
    pub vport: u16,
    /// Delta of the transport checksum.
    pub l4_delta: u16,
    /// Delta of the header's checksum.
    pub ip_delta: u16,
}

/// Rewrites an answer and sends it to `hop`; to the kernel if that is 0.
#[inline(always)]
pub fn send<F: Ip>(ctx: &XdpContext, p: &Packet<F>, t: &Translation<F>, hop: u64) -> Outcome {
    let port = maps::LVX_PORTS.get((hop >> 48) as u32);
    let fits = match port {
        Some(port) => p.len <= port.mtu,
        None => true,
    };
    if !fits && p.whole {
        // As it came, so that the kernel's answer quotes what the server sent.
        return Outcome::pass(Verdict::PassedTooBig);
    }
    // SAFETY: parsing compared both headers with the end, and the head has not moved.
    unsafe {
        put(p.ip + F::SRC, t.vip);
        put(p.l4, t.vport);
        fix_transport(p, !t.l4_delta);
    }
    let (Some(port), true, true) = (port, hop != 0, fits) else {
        // SAFETY: as above.
        unsafe { F::fix_header(p.ip, !t.ip_delta as u32) };
        return Outcome::pass(Verdict::PassedReply);
    };
    // SAFETY: as above.
    unsafe {
        lower_ttl(p, !t.ip_delta as u32);
        transmit::write_macs(p.ip - ETH, hop, &port.mac);
    }
    Outcome { verdict: Verdict::ForwardedNatReply, action: transmit::send(ctx, hop, port.ifindex) }
}

/// A routing question, also as words: family at 0, interface at 8, source at 16, destination at 32.
#[repr(C, align(8))]
union Query {
    q: bpf_fib_lookup,
    words: [u64; 8],
}

const _: () = assert!(size_of::<Query>() == 64 && core::mem::offset_of!(bpf_fib_lookup, ifindex) == 8);

/// Asks the kernel's routing tables for the way from the VIP to a client: the word of [`next_hop`], or 0 where there is none: forwarding
/// is off, the neighbour is not resolved, or the interface is none of ours.
#[inline(always)]
pub fn route<F: Ip>(ctx: &XdpContext, vip: F::Addr, client: F::Addr) -> u64 {
    let (src, dst) = (F::wide(vip), F::wide(client));
    let mut query = Query { words: [0; 8] };
    let words = [F::AF as u64, (ctx.ingress_ifindex() as u64) & 0xffff_ffff, src[0], src[1], dst[0], dst[1], 0, 0];
    let mut i = 0;
    while i < 8 {
        // SAFETY: within the array. Volatile, because the stack takes aligned words only, and the compiler, which may use
        // unaligned ones elsewhere, would join some of them.
        unsafe { (&raw mut query.words[i]).write_volatile(words[i]) };
        i += 1;
    }
    // SAFETY: a structure on the stack and its size.
    let result = unsafe { fib_lookup(ctx.as_ptr(), &raw mut query.q, size_of::<bpf_fib_lookup>() as i32, 0) };
    if result != 0 {
        return 0;
    }
    // SAFETY: plain integers, which the kernel filled.
    let (ifindex, dmac) = unsafe { (query.q.ifindex, query.q.dmac) };
    // SAFETY: a hash map; its values are never freed while the program runs.
    match unsafe { maps::LVX_PORT_OF.get(ifindex) } {
        Some(port) => next_hop(dmac, *port as u16),
        None => 0,
    }
}

/// Asks for the way to the client, and keeps the answer in the connection. Where there is none the way that the client's first packet
/// came by is as good.
#[inline(always)]
pub fn look_up<F: Ip>(ctx: &XdpContext, index: u32) -> u64 {
    let Some(c) = F::conn(index) else { return 0 };
    let Some(config) = maps::LVX_CONFIG.get(0) else { return 0 };
    // SAFETY: a record. Should it be refilled meanwhile, the new connection asks again: its generation is 0.
    let (vip, client, before) = unsafe { ((*c).vip, (*c).client, crate::atomics::load(&raw const (*c).ctl)) };
    let found = route::<F>(ctx, vip, client);
    // SAFETY: a record. Two CPUs that look up at once write the same.
    unsafe {
        let hop = if found != 0 { found } else { (*c).reply };
        if conn::same_owner(before, crate::atomics::load(&raw const (*c).ctl)) {
            (*c).reply = hop;
            (*c).reply_generation = config.next_hop_generation;
        }
        hop
    }
}
