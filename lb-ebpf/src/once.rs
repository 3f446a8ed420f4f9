//! One-packet scheduling: a datagram goes to the server whose turn it is, and no connection is kept.
//!
//! The way there is [`send`], the way back under NAT is [`back`]; [`lb_common::once`] says how an answer is known. As in the kernel a
//! datagram counts as one connection and one packet, and never as an active or inactive connection; with persistence it goes to the server of its
//! client's template.
//!
//! What it costs the others: a packet of a connection never comes here. A packet that finds neither connection nor service is looked at
//! once more only while [`ANSWERERS`] is set, a bit of a word that is in the cache already, and only if it is UDP; its sender then costs
//! two words of the service filter, and no lookup unless the filter has it.
//!
//! The trap: connections go first, here as in the kernel. A flow whose connection was made before its service became a one-packet
//! service stays with its server until the connection expires.

use crate::balance::Outcome;
use crate::forward::{self, Way};
use crate::icmp::{self, Problem};
use crate::ip::{Ip, Packet};
use crate::open::{came_by, filtered, vport};
use crate::reply::{self, Translation};
use crate::{count, maps};
use aya_ebpf::programs::XdpContext;
use lb_common::config::{ANSWERERS, Config};
use lb_common::conn::ports_word;
use lb_common::dest::{Dest, LOCAL, PRESENT};
use lb_common::once::{self, SHARED, Trace};
use lb_common::service::ServiceKey;
use lb_common::table::Tuple;
use lb_common::verdict::Verdict;
use lb_common::{csum, hash, proto};

/// The sender's port as it stands in the packet.
#[inline(always)]
fn source_port(ports: u32) -> u16 {
    let [a, b, _, _] = ports.to_ne_bytes();
    u16::from_ne_bytes([a, b])
}

/// Whether a packet may be an answer to a one-packet datagram.
#[inline(always)]
pub fn may_be_answer<F: Ip>(config: &Config, t: &Tuple<F>) -> bool {
    if config.flags & ANSWERERS == 0 || t.proto != proto::UDP {
        return false;
    }
    let addr = F::wide(t.src);
    filtered(addr, source_port(t.ports), proto::UDP | proto::ANSWERER) || filtered(addr, 0, proto::UDP | proto::ANSWERER)
}

/// Sends a datagram to a server, once.
#[inline(always)]
pub fn send<F: Ip>(ctx: &XdpContext, dest: u32) -> u64 {
    const INTERNAL: u64 = Outcome::drop(Verdict::DroppedInternal).pack();
    let Ok(p) = F::parse(ctx) else { return INTERNAL };
    let Some(config) = maps::LVX_CONFIG.get(0) else { return INTERNAL };
    let Some(d) = maps::LVX_DESTS.get(dest) else { return INTERNAL };
    if d.flags & PRESENT == 0 {
        return Outcome::drop(Verdict::DroppedServerGone).pack();
    }
    if let Some(s) = count::of_dest(dest, config.servers) {
        // SAFETY: a map value of this CPU's.
        unsafe {
            (*s).connections += 1;
            (*s).in_packets += 1;
            (*s).in_bytes += p.len as u64;
        }
    }
    if d.flags & LOCAL != 0 {
        return Outcome::pass(Verdict::ForwardedLocal).pack();
    }
    if p.ttl <= 1 {
        return icmp::answer(ctx, &p, Problem::TtlUsedUp).pack();
    }
    let mut way = Way { method: d.method, real_port: d.port, l4_delta: 0, ip_delta: 0, real: F::Addr::default() };
    if way.method == proto::NAT {
        let asked = vport(p.tuple.ports);
        // A server of every port takes packets at theirs.
        if way.real_port == 0 {
            way.real_port = asked;
        }
        way.real = F::narrow(d.real);
        way.l4_delta = csum::l4_delta::<F>(p.tuple.dst, asked, way.real, way.real_port);
        way.ip_delta = csum::addr_delta::<F>(p.tuple.dst, way.real);
        let ports = ports_word(way.real_port, source_port(p.tuple.ports));
        let hash = hash::flow::<F>(&config.seed, way.real, p.tuple.src, ports, proto::UDP);
        leave(once::slot(hash), once::who(hash, asked, dest), came_by(ctx));
    }
    forward::send(ctx, &p, d, &way).pack()
}

/// Leaves a trace.
#[inline(always)]
fn leave(slot: u32, who: u64, hop: u64) {
    let Some(t) = maps::LVX_TRACES.get_ptr_mut(slot) else { return };
    // SAFETY: a map value; see `Trace` for who else writes it.
    unsafe {
        let (first, second) = (&raw mut (*t).who, &raw mut (*t).hop);
        // A client that goes on asking leaves the cache line clean.
        if first.read_volatile() == who && second.read_volatile() == hop {
            return;
        }
        first.write_volatile(0);
        second.write_volatile(hop);
        first.write_volatile(who);
    }
}

/// Dest, service's port and way back by the trace of an answer's flow; a way of 0 is none.
#[inline(always)]
fn trace(hash: u64) -> Option<(u32, u16, u64)> {
    let t: *mut Trace = maps::LVX_TRACES.get_ptr_mut(once::slot(hash))?;
    // SAFETY: a map value; see `Trace` for who writes it.
    let (who, hop, after) = unsafe {
        let word = &raw const (*t).who;
        (word.read_volatile(), (&raw const (*t).hop).read_volatile(), word.read_volatile())
    };
    if who != after {
        return None;
    }
    let (dest, vport) = once::of(who, hash)?;
    Some((dest, vport, hop))
}

/// The value of an answerer's key: of its port, or of every port.
#[inline(always)]
fn answerer<F: Ip>(t: &Tuple<F>) -> Option<u32> {
    let proto = proto::UDP | proto::ANSWERER;
    let mut key = ServiceKey { addr: F::wide(t.src), port: source_port(t.ports), proto, family: F::ID, zero: 0 };
    let value = match maps::LVX_SERVICE_KEYS.get_ptr(key) {
        Some(v) => v,
        None => {
            key.port = 0;
            maps::LVX_SERVICE_KEYS.get_ptr(key)?
        }
    };
    // SAFETY: a value of a map that does not free its values while the program runs.
    Some(unsafe { *value })
}

/// Whether a dest can have sent this.
#[inline(always)]
fn sent<F: Ip>(d: &Dest, p: &Packet<F>) -> bool {
    d.flags & PRESENT != 0
        && d.method == proto::NAT
        && d.family == F::ID
        && d.real == F::wide(p.tuple.src)
        && (d.port == 0 || d.port == source_port(p.tuple.ports))
}

/// An answer to a one-packet datagram, if it is one: to its client, from the service.
#[inline(always)]
pub fn back<F: Ip>(ctx: &XdpContext) -> u64 {
    const INTERNAL: u64 = Outcome::drop(Verdict::DroppedInternal).pack();
    let Ok(p) = F::parse(ctx) else { return INTERNAL };
    let Some(config) = maps::LVX_CONFIG.get(0) else { return INTERNAL };
    let t = &p.tuple;
    let Some(value) = answerer(t) else { return Outcome::pass(Verdict::PassedNoService).pack() };
    let hash = hash::flow::<F>(&config.seed, t.src, t.dst, t.ports, proto::UDP);
    let mut dest = value & !SHARED;
    let mut asked = 0;
    let mut hop = 0;
    if let Some((of, port, way)) = trace(hash)
        && let Some(d) = maps::LVX_DESTS.get(of)
        && sent(d, &p)
    {
        (dest, asked, hop) = (of, port, way);
    }
    let Some(d) = maps::LVX_DESTS.get(dest) else { return INTERNAL };
    if !sent(d, &p) {
        // It was removed in this instant.
        return Outcome::pass(Verdict::PassedNoService).pack();
    }
    if asked == 0 {
        // Of a server of every port: it answers from the port that it was asked at.
        asked = if d.vport == 0 { source_port(t.ports) } else { d.vport };
    }
    let (vip, real) = (F::narrow(d.vip), t.src);
    let l4_delta = csum::l4_delta::<F>(vip, asked, real, source_port(t.ports));
    let translation = Translation { vip, vport: asked, l4_delta, ip_delta: csum::addr_delta::<F>(vip, real) };
    if p.ttl <= 1 {
        // The kernel routes such a packet nowhere, and tells the server so.
        return Outcome::pass(Verdict::PassedTtl).pack();
    }
    if let Some(s) = count::of_dest(dest, config.servers) {
        // SAFETY: a map value of this CPU's.
        unsafe {
            (*s).out_packets += 1;
            (*s).out_bytes += p.len as u64;
        }
    }
    let found = reply::route::<F>(ctx, vip, t.dst);
    if found != 0 {
        hop = found;
    }
    reply::send(ctx, &p, &translation, hop).pack()
}
