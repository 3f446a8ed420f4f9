//! The way of a packet.

use crate::forward::{self, Way};
use crate::icmp::{self, Problem};
use crate::ip::{Ip, Packet, is_syn};
use crate::memory::Maps;
use crate::raw::{ETH, get};
use crate::{count, maps, once, open, reply};
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::programs::XdpContext;
use lb_common::config::{Config, EXPIRE_NODEST, NO_CONN_REUSE};
use lb_common::conn::{self, CONFIRMED, Conn};
use lb_common::dest;
use lb_common::family::{V4, V6};
use lb_common::table::{self, Found, Shape, Tuple};
use lb_common::tcp::{self, Direction, State};
use lb_common::time::{Tick, reached, tick_of_ns};
use lb_common::verdict::Verdict;
use lb_common::{hash, proto};

/// What becomes of a packet.
#[derive(Clone, Copy)]
pub struct Outcome {
    /// How it is counted.
    pub verdict: Verdict,
    /// What the kernel does with it.
    pub action: u32,
}

impl Outcome {
    /// The packet goes to the kernel.
    #[inline(always)]
    #[must_use]
    pub const fn pass(verdict: Verdict) -> Self {
        Self { verdict, action: XDP_PASS }
    }

    /// The packet is dropped.
    #[inline(always)]
    #[must_use]
    pub const fn drop(verdict: Verdict) -> Self {
        Self { verdict, action: XDP_DROP }
    }

    /// The packet became an answer to its sender.
    #[inline(always)]
    #[must_use]
    pub const fn answer(verdict: Verdict) -> Self {
        Self { verdict, action: XDP_TX }
    }
}

/// [`packet`]'s answer where there is no connection, or one that the packet ends: the generation of its record is in the low
/// half then, with [`REPLACE`].
pub const MISS: u64 = 1 << 63;
/// [`crate::open::open`]'s answer where the service is persistent: its number is in the low half, and in the next 16 bits its port.
pub const PERSIST: u64 = 1 << 62;
/// A template's record plus one, in bits 32 and up of [`crate::open::stick`]'s answer.
pub const MAX_TEMPLATE: u32 = (1 << 29) - 1;
/// Servers that are tried when answers would be another connection's.
const MAX_CONFLICTS: u32 = 4;
/// With [`MISS`]: no connection is to be kept ([`once::send`]); in [`crate::open::open`]'s answer.
pub const ONCE: u64 = 1 << 60;
/// With [`MISS`]: the packet may be an answer to such a packet ([`once::back`]).
pub const ANSWER: u64 = 1 << 61;
/// See [`MISS`].
pub const REPLACE: u64 = 1 << 62;

impl Outcome {
    /// As one scalar, which is what a global function can return.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> u64 {
        (self.action as u64) << 8 | self.verdict as u64
    }
}

/// The program: decides, counts the verdict, and says what the kernel shall do.
///
/// A packet of a connection takes one call; a new one takes four: it finds nothing, picks a server, makes the connection, and finds
/// it. They are apart, and not one within the other, because the frames of a call chain share 512 bytes.
#[inline(always)]
pub fn run(ctx: &XdpContext) -> u32 {
    let outcome = decide(ctx);
    count::verdict(outcome as u8);
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(ctx, "verdict {}", outcome as u8);
    (outcome >> 8) as u32
}

#[inline(always)]
fn decide(ctx: &XdpContext) -> u64 {
    let eth = ctx.data();
    if eth + ETH > ctx.data_end() {
        return Outcome::pass(Verdict::PassedOther).pack();
    }
    // SAFETY: compared above.
    let (first, ethertype): (u8, u16) = unsafe { (get(eth), get(eth + 12)) };
    // To a group of stations: never for a virtual service, and the host's stack must see it.
    if first & 1 != 0 {
        return Outcome::pass(Verdict::PassedOther).pack();
    }
    if ethertype == V4::ETHERTYPE {
        family::<V4>(ctx)
    } else if ethertype == V6::ETHERTYPE {
        family::<V6>(ctx)
    } else {
        Outcome::pass(Verdict::PassedOther).pack()
    }
}

#[inline(always)]
fn family<F: Ip>(ctx: &XdpContext) -> u64 {
    let known = F::packet(ctx);
    if known & MISS == 0 {
        return known;
    }
    if known & ANSWER != 0 {
        return F::back_once(ctx);
    }
    let mut tries = 0;
    loop {
        let picked = F::open(ctx);
        if picked & MISS == 0 {
            return picked;
        }
        if picked & ANSWER != 0 {
            return F::back_once(ctx);
        }
        let once = picked & ONCE != 0;
        let picked = if picked & PERSIST == 0 { picked } else { F::stick(ctx, picked) };
        if picked & MISS == 0 {
            return picked;
        }
        if once {
            return F::send_once(ctx, picked as u32);
        }
        let made = F::make(ctx, picked as u32, (picked >> 32) as u32 & MAX_TEMPLATE, known);
        if made == MISS {
            break;
        }
        tries += 1;
        if made != open::CONFLICT || tries >= MAX_CONFLICTS {
            return made;
        }
    }
    let known = F::packet(ctx);
    if known & MISS == 0 {
        return known;
    }
    // Its server went, or it was closed, in this very instant.
    Outcome::drop(Verdict::DroppedServerGone).pack()
}

/// The clock of the connection table.
#[inline(always)]
pub fn now(config: &Config) -> Tick {
    // SAFETY: no arguments.
    tick_of_ns(unsafe { bpf_ktime_get_coarse_ns() }).wrapping_add(config.clock_offset)
}

/// Shape of a family's table.
#[inline(always)]
pub fn shape<F: Ip>(config: &Config) -> Shape {
    let slot = Config::slot(F::ID);
    Shape { seed: config.seed, mask: config.bucket_mask[slot], records: config.records[slot] }
}

/// A packet of one family: what becomes of it, or [`MISS`].
#[inline(always)]
pub fn packet<F: Ip>(ctx: &XdpContext) -> u64 {
    let p = match F::parse(ctx) {
        Ok(p) => p,
        Err(verdict) => return Outcome::pass(verdict).pack(),
    };
    let Some(config) = maps::LVX_CONFIG.get(0) else { return Outcome::pass(Verdict::PassedNoService).pack() };
    let t = &p.tuple;
    let hash = hash::flow::<F>(&config.seed, t.src, t.dst, t.ports, t.proto);
    let Some(found) = table::find::<F, Maps>(&Maps, &shape::<F>(config), hash, t) else {
        return unknown(config, t);
    };
    let now = now(config);
    // SAFETY: a record; whoever refills it changes the control word, which is read again below.
    if reached(now, unsafe { (*found.conn).expires }) {
        return unknown(config, t);
    }
    if found.reverse {
        return reply::back(ctx, config, &p, now, &found).pack();
    }
    match forwards(ctx, config, &p, now, &found) {
        Ok(outcome) => outcome.pack(),
        Err(ctl) => MISS | REPLACE | ctl >> 32,
    }
}

/// A packet without a connection: for a service perhaps, or an answer to a packet for one, or neither.
#[inline(always)]
fn unknown<F: Ip>(config: &Config, t: &Tuple<F>) -> u64 {
    if open::may_be_service(t) {
        MISS
    } else if once::may_be_answer(config, t) {
        MISS | ANSWER
    } else {
        Outcome::pass(Verdict::PassedNoService).pack()
    }
}

/// Whether a client's packet ends this connection and asks for another: a SYN on one that is closing
/// (`is_new_conn_expected`, `conn_reuse_mode` 1, in the kernel).
#[inline(always)]
fn is_reuse<F: Ip>(config: &Config, p: &Packet<F>, ctl: u64, c: *const Conn<F>) -> bool {
    let state = conn::state(ctl);
    if !is_syn(p.tuple.proto, p.flags) || (state != tcp::TIME_WAIT && state != tcp::CLOSE) || config.flags & NO_CONN_REUSE != 0 {
        return false;
    }
    // SAFETY: a record. A connection under a template stays with the template's server.
    unsafe { (*c).template == 0 }
}

/// A client's packet of a live connection. `Err` is the control word of a connection to replace.
#[inline(always)]
fn forwards<F: Ip>(ctx: &XdpContext, config: &Config, p: &Packet<F>, now: Tick, found: &Found<F>) -> Result<Outcome, u64> {
    let c = found.conn;
    // SAFETY: a record.
    let dest = unsafe { (*c).dest };
    let Some(d) = maps::LVX_DESTS.get(dest) else { return Ok(Outcome::drop(Verdict::DroppedInternal)) };
    if d.flags & dest::PRESENT == 0 {
        if config.flags & EXPIRE_NODEST != 0 {
            // It ends here, whether this packet makes another or not.
            // SAFETY: a record.
            unsafe { (*c).expires = now };
            return Err(found.ctl);
        }
        return Ok(Outcome::drop(Verdict::DroppedServerGone));
    }
    if p.flags & tcp::FLAG_SYN != 0 && is_reuse(config, p, found.ctl, c) {
        return Err(found.ctl);
    }
    // SAFETY: a record.
    let way = unsafe { Way::read(c) };
    let direction = if way.method == proto::NAT { Direction::Input } else { Direction::InputOnly };
    // Also tells whether the fields read so far are of one owner.
    if !advance(config, p, now, found, direction) {
        return Ok(Outcome::drop(Verdict::DroppedTableBusy));
    }
    if let Some(s) = count::of_dest(dest, config.servers) {
        // SAFETY: a map value of this CPU's.
        unsafe {
            (*s).in_packets += 1;
            (*s).in_bytes += p.len as u64;
        }
    }
    if d.flags & dest::LOCAL != 0 {
        return Ok(Outcome::pass(Verdict::ForwardedLocal));
    }
    if p.ttl <= 1 {
        return Ok(icmp::answer(ctx, p, Problem::TtlUsedUp));
    }
    Ok(forward::send(ctx, p, d, &way))
}

/// Moves the connection on: its state by the packet's flags, its deadline by the state. False if the record is another
/// connection's by now.
#[inline(always)]
pub fn advance<F: Ip>(config: &Config, p: &Packet<F>, now: Tick, found: &Found<F>, direction: Direction) -> bool {
    let c = found.conn;
    let mut state = conn::state(found.ctl);
    // A UDP flow stays what it is once it is confirmed; until then each packet is for `change`.
    let next = if p.tuple.proto != proto::TCP && found.ctl & CONFIRMED == 0 {
        UNCONFIRMED
    } else {
        next_state(p.tuple.proto, state, direction, p.flags)
    };
    // SAFETY: a record.
    let current = unsafe { crate::atomics::load(&raw const (*c).ctl) };
    if next != state || current != found.ctl {
        let packet = (p.tuple.proto as u32) << 16 | (direction as u32) << 8 | p.flags as u32;
        let moved = F::change(found.index, packet, found.ctl);
        if moved == GONE {
            return false;
        }
        state = moved as u8;
    }
    let expires = now.wrapping_add(config.timeouts[state as usize & 15]);
    // SAFETY: a record. Not written when it is the same, so that packets of one tick leave the cache line clean.
    unsafe {
        if (*c).expires != expires {
            (*c).expires = expires;
        }
    }
    true
}

#[inline(always)]
fn next_state(proto: u8, state: State, direction: Direction, flags: u8) -> State {
    if proto == proto::TCP { tcp::next(state, direction, flags) } else { tcp::UDP }
}

/// No state.
const UNCONFIRMED: State = 0xff;

/// [`change`]'s answer where the record is another connection's by now.
pub const GONE: u32 = 1 << 8;

/// Applies a packet (protocol, direction, flags; eight bits each) to the state of record `index`, whose control word was `ctl`; the
/// state after it.
#[inline(always)]
pub fn change<F: Ip>(index: u32, packet: u32, ctl: u64) -> u32 {
    let Some(c) = F::conn(index) else { return GONE };
    // SAFETY: a record; a wrong owner's dest is not used, as the control word tells.
    let (dest, mut current) = unsafe { ((*c).dest, crate::atomics::load(&raw const (*c).ctl)) };
    let direction = match (packet >> 8) as u8 {
        0 => Direction::Input,
        1 => Direction::Output,
        _ => Direction::InputOnly,
    };
    let mut tries = 0;
    while tries < 4 {
        if !conn::same_owner(ctl, current) {
            return GONE;
        }
        let state = conn::state(current);
        let next = next_state((packet >> 16) as u8, state, direction, packet as u8);
        if next == state {
            // Not the first packet of a UDP flow: that one found it without a state.
            let unconfirmed = (packet >> 16) as u8 != proto::TCP && current & CONFIRMED == 0;
            if !unconfirmed || table::confirm::<F, Maps>(&Maps, c, current) {
                return next as u32;
            }
        } else if table::change_state::<F, Maps>(&Maps, c, dest, current, next) {
            if tcp::is_active(next) != tcp::is_active(state) {
                open::counts_changed(dest, tcp::is_active(state));
            }
            return next as u32;
        }
        // Another CPU's packet moved it meanwhile: once more from there.
        // SAFETY: a record.
        current = unsafe { crate::atomics::load(&raw const (*c).ctl) };
        tries += 1;
    }
    conn::state(current) as u32
}
