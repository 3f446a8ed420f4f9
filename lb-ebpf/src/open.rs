//! A packet without a connection: is it for a virtual service, which real server is next, and the connection's making.

use crate::balance::{ANSWER, MISS, ONCE, Outcome, PERSIST, REPLACE, now, shape};
use crate::icmp::{self, Problem};
use crate::ip::{Ip, is_syn};
use crate::memory::Maps;
use crate::raw::{ETH, get};
use crate::{atomics, count, maps, once, vacancy};
use aya_ebpf::programs::XdpContext;
use lb_common::config::{Config, EXPIRE_QUIESCENT_TEMPLATE, SLOPPY_TCP};
use lb_common::conn::{self, CONFIRMED, REVERSE, TEMPLATE};
use lb_common::dest::{PRESENT, USABLE, next_hop};
use lb_common::limits::MAX_PICK_TRIES;
use lb_common::service::{
    COUNTED, HASH_FALLBACK, HASH_PORT, HASH_SIP, HASHED, LEAST, ONE_PACKET, PERSISTENT, Plan, Service, ServiceKey,
};
use lb_common::table::{self, Created, Tuple};
use lb_common::tcp::{self, Direction};
use lb_common::verdict::Verdict;
use lb_common::{csum, filter, hash, proto, sched_hash};

/// [`make`]'s answer where the server's answers to this client would be another connection's.
pub const CONFLICT: u64 = Outcome::drop(Verdict::DroppedConflict).pack();

/// [`pick`]'s answer where there is none.
pub(crate) const NO_PICK: u64 = 1 << 32;

/// Whether the service filter has a flow's destination, or its address with every port.
#[inline(always)]
pub fn may_be_service<F: Ip>(t: &Tuple<F>) -> bool {
    let addr = F::wide(t.dst);
    filtered(addr, vport(t.ports), t.proto) || filtered(addr, 0, t.proto)
}

#[inline(always)]
pub(crate) fn filtered(addr: [u64; 2], port: u16, proto: u8) -> bool {
    let bit = filter::bit(addr, port, proto);
    match maps::LVX_FILTER.get(bit / 64) {
        Some(word) => (*word >> (bit % 64)) & 1 != 0,
        None => false,
    }
}

#[inline(always)]
pub(crate) fn vport(ports: u32) -> u16 {
    let [_, _, a, b] = ports.to_ne_bytes();
    u16::from_ne_bytes([a, b])
}

/// The service of a destination: the one of its port, or the one of every port. Its number, and its port as it stands in packets.
#[inline(always)]
fn service_of<F: Ip>(t: &Tuple<F>) -> Option<(u32, u16)> {
    let port = vport(t.ports);
    let mut key = ServiceKey { addr: F::wide(t.dst), port, proto: t.proto, family: F::ID, zero: 0 };
    let (index, port) = match maps::LVX_SERVICE_KEYS.get_ptr(key) {
        Some(i) => (i, port),
        None => {
            key.port = 0;
            (maps::LVX_SERVICE_KEYS.get_ptr(key)?, 0)
        }
    };
    // SAFETY: a value of a map that does not free its values while the program runs.
    Some((unsafe { *index }, port))
}

/// Picks the server of a packet that needs a connection: [`MISS`] with the server's number, or what becomes of the packet. With [`ONCE`]
/// no connection is to be made; with [`ANSWER`] the packet is for no service after all.
#[inline(always)]
pub fn open<F: Ip>(ctx: &XdpContext) -> u64 {
    let Ok(p) = F::parse(ctx) else { return Outcome::drop(Verdict::DroppedInternal).pack() };
    let Some(config) = maps::LVX_CONFIG.get(0) else { return Outcome::drop(Verdict::DroppedInternal).pack() };
    let Some((service, port)) = service_of(&p.tuple) else {
        let answer = once::may_be_answer(config, &p.tuple);
        return if answer { MISS | ANSWER } else { Outcome::pass(Verdict::PassedNoService).pack() };
    };
    if p.tuple.proto == proto::TCP && !is_syn(p.tuple.proto, p.flags) && config.flags & SLOPPY_TCP == 0 {
        return Outcome::pass(Verdict::PassedNoConnection).pack();
    }
    if F::is_martian(p.tuple.src) || p.tuple.src == p.tuple.dst {
        return Outcome::pass(Verdict::PassedMalformed).pack();
    }
    let Some(element) = maps::LVX_SERVICES.get(service) else { return Outcome::drop(Verdict::DroppedInternal).pack() };
    // A model that is checked says that it is UDP; a connection of TCP must be kept in any case.
    let once = if element.flags & ONE_PACKET != 0 && p.tuple.proto == proto::UDP { ONCE } else { 0 };
    if element.flags & PERSISTENT != 0 {
        return MISS | PERSIST | once | (port as u64) << 32 | service as u64;
    }
    let picked = lvx_pick(service, sched_hash::fold::<F>(p.tuple.src), client_port(p.tuple.ports) as u32);
    if picked & NO_PICK != 0 {
        return icmp::answer(ctx, &p, Problem::NoServer).pack();
    }
    MISS | once | picked
}

/// The server of a client of a persistent service: that of its template, or the next pick, for which a template is made. The answer is
/// as [`open`]'s, with the template's record plus one from bit 32 on.
///
/// As in the kernel (`ip_vs_sched_persist`): a template's server need only be there, at whatever weight, unless quiesced servers'
/// templates shall not be used; and each new connection puts the template's deadline off.
#[inline(always)]
pub fn stick<F: Ip>(ctx: &XdpContext, service: u64) -> u64 {
    const INTERNAL: u64 = Outcome::drop(Verdict::DroppedInternal).pack();
    let Ok(p) = F::parse(ctx) else { return INTERNAL };
    let Some(config) = maps::LVX_CONFIG.get(0) else { return INTERNAL };
    let Some(new) = F::scratch() else { return INTERNAL };
    let Some(element) = maps::LVX_SERVICES.get(service as u32) else { return INTERNAL };
    let now = now(config);
    let expires = now.wrapping_add(element.persist_ticks);
    let [a, b] = F::wide(p.tuple.src);
    let port = (service >> 32) as u16;
    // SAFETY: this CPU's alone while the program runs.
    let tuple = unsafe {
        (*new).tuple.src = F::narrow([a & element.persist_mask[0], b & element.persist_mask[1]]);
        (*new).tuple.dst = p.tuple.dst;
        (*new).tuple.ports = conn::ports_word(0, port);
        (*new).tuple.proto = p.tuple.proto | proto::TEMPLATE;
        &(*new).tuple
    };
    let hash = hash::flow::<F>(&config.seed, tuple.src, tuple.dst, tuple.ports, tuple.proto);
    let sought = F::seek(hash, tuple);
    let mut replace = None;
    if sought != table::NO_RECORD
        && let Some(t) = F::conn(sought as u32)
    {
        // SAFETY: a record; who refills it in this instant gives one connection another's server.
        let (ctl, dest) = unsafe { (atomics::load(&raw const (*t).ctl), (*t).dest) };
        if ctl & TEMPLATE != 0 && !table::is_dead::<F, Maps>(t, ctl, now) && may_stay(config, dest) {
            // SAFETY: a record.
            unsafe { (*t).expires = expires };
            // No connection will ever say so, but a client that comes back is there.
            if element.flags & ONE_PACKET != 0 && ctl & CONFIRMED == 0 {
                table::confirm::<F, Maps>(&Maps, t, ctl);
            }
            return MISS | (sought + 1) << 32 | dest as u64;
        }
        replace = Some(ctl);
    }
    let picked = lvx_pick(service as u32, sched_hash::fold::<F>(p.tuple.src), client_port(p.tuple.ports) as u32);
    if picked & NO_PICK != 0 {
        return icmp::answer(ctx, &p, Problem::NoServer).pack();
    }
    let dest = picked as u32;
    let Some(d) = maps::LVX_DESTS.get(dest) else { return INTERNAL };
    // SAFETY: as above.
    unsafe {
        (*new).real = if d.family == F::ID { F::narrow(d.real) } else { F::Addr::default() };
        (*new).real_port = d.port;
        (*new).l4_delta = 0;
        (*new).ip_delta = 0;
        (*new).method = d.method;
        (*new).state = tcp::TEMPLATE;
        (*new).flags = TEMPLATE;
        (*new).dest = dest;
        (*new).expires = expires;
        (*new).template = 0;
        (*new).reply = 0;
    }
    // SAFETY: as above.
    let (created, reclaimed) = table::create::<F, Maps>(&Maps, &shape::<F>(config), now, unsafe { &*new }, replace);
    let outcome = match created {
        Created::Made(index) | Created::Exists(index) => {
            let dest = match F::conn(index) {
                // SAFETY: a record. Another CPU may have made it, for another server.
                Some(t) => unsafe { (*t).dest },
                None => dest,
            };
            MISS | (index as u64 + 1) << 32 | dest as u64
        }
        Created::Full => Outcome::drop(Verdict::DroppedTableFull).pack(),
        Created::Crowded => Outcome::drop(Verdict::DroppedIndexFull).pack(),
        Created::Busy => Outcome::drop(Verdict::DroppedTableBusy).pack(),
        Created::Conflict => CONFLICT,
    };
    // Only now: before, the verifier sees fields of `created` kept that it does not have.
    count::reclaimed(F::ID, reclaimed);
    outcome
}

/// Whether a template's server may go on getting its client's connections.
#[inline(always)]
fn may_stay(config: &Config, dest: u32) -> bool {
    let Some(d) = maps::LVX_DESTS.get(dest) else { return false };
    let needed = if config.flags & EXPIRE_QUIESCENT_TEMPLATE != 0 { USABLE } else { PRESENT };
    d.flags & needed == needed
}

/// The way that the frame came by: its sender, and the port of the interface; 0 if that is none of ours.
#[inline(always)]
pub(crate) fn came_by(ctx: &XdpContext) -> u64 {
    let eth = ctx.data();
    if eth + ETH > ctx.data_end() {
        return 0;
    }
    // SAFETY: compared above.
    let mac: [u8; 6] = unsafe { get(eth + 6) };
    match maps::LVX_PORT_OF.get_ptr(ctx.ingress_ifindex() as u32) {
        // SAFETY: as for the services.
        Some(port) => next_hop(mac, unsafe { *port } as u16),
        None => 0,
    }
}

/// The client's port, host byte order.
#[inline(always)]
fn client_port(ports: u32) -> u16 {
    let [a, b, _, _] = ports.to_ne_bytes();
    u16::from_be_bytes([a, b])
}

/// Tells the daemon that a service's plan may not be the best any more. At most one such message of a service is under way: who sets the
/// mark sends it, and the daemon takes the mark off before it reads the counts.
///
/// No change is missed. Counting is an atomic operation, and so is taking the mark off; so either the mark is still seen here,
/// and the daemon has yet to read counts, or it is not, and a message goes out. In a ring that is full the mark is taken back: the next change
/// tries again, and every two seconds the daemon compares counts anyway.
#[inline(always)]
fn signal(index: u32, service: *mut Service) {
    // SAFETY: a map value.
    unsafe {
        let under_way = &raw mut (*service).signalled;
        if under_way.read_volatile() != 0 || atomics::swap_if_u32(under_way, 0, 1) != 0 {
            return;
        }
        if maps::LVX_SIGNALS.output::<u32>(index, 0).is_err() {
            under_way.write_volatile(0);
        }
    }
}

/// A server has one active connection more, or less if one `ended`, as its counts say already: its service's scheduler may want to know.
#[inline(always)]
pub fn counts_changed(dest: u32, ended: bool) {
    let Some(d) = maps::LVX_DESTS.get(dest) else { return };
    let Some(service) = maps::LVX_SERVICES.get_ptr_mut(d.service) else { return };
    // SAFETY: a map value. A server that was removed may name another service by now, which is asked in vain.
    let flags = unsafe { (*service).flags };
    if ended && flags & LEAST != 0 {
        vacancy::leave(service, dest);
    }
    if flags & COUNTED != 0 {
        signal(d.service, service);
    }
}

/// The server that a service's table has for a client (`sh`, `mh`), or [`NO_PICK`].
#[inline(always)]
fn look_up(plan: Plan, flags: u32, folded: u32, port: u16) -> u64 {
    let kind = if flags & HASH_SIP != 0 { sched_hash::Kind::Sip } else { sched_hash::Kind::Multiply };
    let port = if flags & HASH_PORT != 0 { port } else { 0 };
    let first = sched_hash::slot(kind, folded, port, plan.len);
    let mut picked = NO_PICK;
    // The kernel tries every slot; unusable servers are few, so that these are as good.
    let tries = if flags & HASH_FALLBACK != 0 { 1 + MAX_PICK_TRIES } else { 1 };
    Maps::turns(tries, &mut |i| {
        let slot = if i == 0 { first } else { sched_hash::fallback_slot(kind, folded, port, plan.len, first, i - 1) };
        let Some(&dest) = maps::LVX_PICKS.get(plan.base.wrapping_add(slot)) else { return false };
        if usable(dest) {
            picked = dest as u64;
            return false;
        }
        true
    });
    picked
}

/// The server whose turn it is by a service's plan, which it does not take; or [`NO_PICK`].
#[inline(always)]
fn next_of_plan(service: *mut Service) -> u64 {
    // SAFETY: a map value.
    let (cursor, plan, again) = unsafe {
        let cursor = atomics::load(&raw const (*service).cursor);
        if Service::plan_of(cursor) == 0 {
            (cursor, (*service).plans[0], (*service).again[0])
        } else {
            (cursor, (*service).plans[1], (*service).again[1])
        }
    };
    if plan.len == 0 {
        return NO_PICK;
    }
    let position = plan.position(Service::taken(cursor), again);
    match maps::LVX_PICKS.get(plan.base.wrapping_add(position)) {
        Some(&dest) => dest as u64,
        None => NO_PICK,
    }
}

/// The next usable server of a plan, or [`NO_PICK`]; of a client whose address folds to `folded` where the plan is a table.
///
/// The cursor counts every pick that was taken or skipped, so that a server that cannot take its turn gives it to the next one
/// and does not give the next one two turns.
///
/// Global: verified once, by itself.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lvx_pick(index: u32, folded: u32, port: u32) -> u64 {
    let Some(service) = maps::LVX_SERVICES.get_ptr_mut(index) else { return NO_PICK };
    // SAFETY: a map value.
    let flags = unsafe { (*service).flags };
    if let Some(measure) = Service::measure(flags) {
        // SAFETY: as above.
        let waiting = unsafe { atomics::load(&raw const (*service).vacated) != atomics::load(&raw const (*service).filled) };
        if waiting {
            let vacant = vacancy::fill(index, service, flags, measure, next_of_plan(service));
            if vacant != NO_PICK {
                return vacant;
            }
        }
    }
    // SAFETY: as above.
    let (cursor, plan, again) = unsafe {
        let cursor = atomics::add(&raw mut (*service).cursor, 1);
        let (plan, again) = if Service::plan_of(cursor) == 0 {
            ((*service).plans[0], (*service).again[0])
        } else {
            ((*service).plans[1], (*service).again[1])
        };
        if Service::taken(cursor) >= (*service).low_water {
            signal(index, service);
        }
        (cursor, plan, again)
    };
    if plan.len == 0 {
        return NO_PICK;
    }
    if flags & HASHED != 0 {
        return look_up(plan, flags, folded, port as u16);
    }
    let first = plan.position(Service::taken(cursor), again) as u64;
    let mut picked = NO_PICK;
    let mut skipped = 0;
    Maps::turns(MAX_PICK_TRIES, &mut |i| {
        // At most as many as the plan has, each once.
        if i >= plan.len {
            return false;
        }
        let mut position = first + i as u64;
        if position >= plan.len as u64 {
            position -= (plan.len - again) as u64;
        }
        let Some(&dest) = maps::LVX_PICKS.get(plan.base.wrapping_add(position as u32)) else { return false };
        if !usable(dest) {
            return true;
        }
        (picked, skipped) = (dest as u64, i);
        false
    });
    if skipped != 0 {
        // SAFETY: a map value.
        unsafe { atomics::add(&raw mut (*service).cursor, skipped as u64) };
    }
    picked
}

/// Whether a new connection may go to a server: it is there, has weight, and is not over its threshold.
#[inline(always)]
pub(crate) fn usable(dest: u32) -> bool {
    let Some(d) = maps::LVX_DESTS.get(dest) else { return false };
    let Some(n) = maps::LVX_DEST_CONNS.get(dest) else { return false };
    d.flags & USABLE == USABLE && n.overloaded == 0
}

/// Puts a packet's connection to a server into the table, under a template or none (0), and counts it; `miss` is what [`crate::balance::packet`] said.
/// [`MISS`] means that it can be found now; anything else is what becomes of the packet.
#[inline(always)]
pub fn make<F: Ip>(ctx: &XdpContext, dest: u32, template: u32, miss: u64) -> u64 {
    const INTERNAL: u64 = Outcome::drop(Verdict::DroppedInternal).pack();
    let Ok(p) = F::parse(ctx) else { return INTERNAL };
    let Some(config) = maps::LVX_CONFIG.get(0) else { return INTERNAL };
    let Some(d) = maps::LVX_DESTS.get(dest) else { return INTERNAL };
    let Some(new) = F::scratch() else { return INTERNAL };
    let now = now(config);
    let nat = d.method == proto::NAT;
    let real = if d.family == F::ID { F::narrow(d.real) } else { F::Addr::default() };
    let direction = if nat { Direction::Input } else { Direction::InputOnly };
    // A UDP flow gets its state as soon as this packet finds it; the next packet confirms it.
    let state = if p.tuple.proto == proto::TCP { tcp::next(tcp::NONE, direction, p.flags) } else { tcp::NONE };
    // A server of every port takes packets at theirs.
    let port = if d.port == 0 { vport(p.tuple.ports) } else { d.port };
    // SAFETY: this CPU's alone while the program runs. Field by field, so that nothing of it is on the stack.
    unsafe {
        (*new).tuple = p.tuple;
        (*new).real = real;
        (*new).real_port = port;
        (*new).l4_delta = csum::l4_delta::<F>(p.tuple.dst, vport(p.tuple.ports), real, port);
        (*new).ip_delta = csum::addr_delta::<F>(p.tuple.dst, real);
        (*new).method = d.method;
        (*new).state = state;
        (*new).flags = if nat { REVERSE } else { 0 };
        (*new).dest = dest;
        (*new).expires = now.wrapping_add(config.timeouts[state as usize & 15]);
        (*new).template = template;
        (*new).reply = came_by(ctx);
    }
    let replace = if miss & REPLACE == 0 { None } else { Some(miss << 32 | conn::LIVE) };
    // SAFETY: as above.
    let (created, reclaimed) = table::create::<F, Maps>(&Maps, &shape::<F>(config), now, unsafe { &*new }, replace);
    let outcome = match created {
        Created::Made(_) => {
            if let Some(s) = count::of_dest(dest, config.servers) {
                // SAFETY: this CPU's map value.
                unsafe { (*s).connections += 1 };
            }
            counts_changed(dest, false);
            MISS
        }
        Created::Exists(_) => MISS,
        Created::Full => Outcome::drop(Verdict::DroppedTableFull).pack(),
        Created::Crowded => Outcome::drop(Verdict::DroppedIndexFull).pack(),
        Created::Busy => Outcome::drop(Verdict::DroppedTableBusy).pack(),
        Created::Conflict => CONFLICT,
    };
    // Only now: before, the verifier sees fields of `created` kept that it does not have.
    count::reclaimed(F::ID, reclaimed);
    outcome
}
