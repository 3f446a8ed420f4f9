//! Real servers in the dests map, and the trash.
//!
//! A removed server keeps its element while connections refer to it: they find it gone. If the same server (by service, address and
//! port, whatever its forwarding method) is added again, it gets the element back, and its connections go on. Without
//! connections it stays 120 s longer, as in the kernel, or until the element is needed.
//!
//! Invariant: an element is given to another server only when its connection counts are 0 and no packet that saw it present is
//! under way any more.

mod trash;

use super::mapped::Mapped;
use super::services::{id_of, key_of};
use super::slots::Slots;
use super::stats::{Counters, Estimator, five, stats};
use crate::api::Stats;
use crate::model::{Forwarding, ServerId, ServerSpec, ServiceId};
use lb_common::dest::{Dest, DestConns, LOCAL, PRESENT, WEIGHTED, overloaded};
use lb_common::family::{ip_of, wide_of};
use lb_common::note::DestNote;
use lb_common::proto;
use std::collections::{HashMap, HashSet};
use std::mem::offset_of;
use std::sync::atomic::Ordering;

/// Ticks of two seconds that a server without connections stays in the trash.
const TRASH_TICKS: u32 = 60;

/// A server's full name.
pub(super) type Name = (ServiceId, ServerId);

/// What is known of an element in use.
#[derive(Debug)]
pub(super) struct Server {
    /// `None`: left behind by an earlier daemon, which did not note it.
    pub(super) name: Option<Name>,
    /// Present in its service.
    pub(super) present: bool,
    /// Which making of its service it belongs to.
    pub(super) incarnation: u64,
    /// Ticks without connections in the trash.
    idle: u32,
    /// Counters at the last zeroing.
    pub(super) base: Stats,
    /// Counters when it joined its service, or at the last zeroing.
    pub(super) joined: Stats,
    /// Counters when the element became its own. Zeroing does not touch it.
    pub(super) origin: Stats,
    /// Rates.
    pub(super) estimator: Estimator,
}

impl Server {
    const fn unknown() -> Self {
        const ZERO: Stats = Stats { connections: 0, in_packets: 0, out_packets: 0, in_bytes: 0, out_bytes: 0 };
        Self {
            name: None,
            present: false,
            incarnation: 0,
            idle: 0,
            base: ZERO,
            joined: ZERO,
            origin: ZERO,
            estimator: Estimator { last: ZERO, average: ZERO },
        }
    }
}

/// Servers of a service, with their elements.
pub(super) type Members = Vec<(u32, ServerSpec)>;

/// A present server, as its element has it.
fn spec_of(d: &Dest) -> Option<ServerSpec> {
    Some(ServerSpec {
        id: ServerId { address: ip_of(d.real, d.family)?, port: u16::from_be(d.port) },
        forwarding: [Forwarding::Nat, Forwarding::Dr, Forwarding::Tun].into_iter().find(|f| method(*f) == d.method)?,
        weight: d.weight,
        upper_threshold: d.upper,
        lower_threshold: d.lower,
    })
}

/// Whose a noted element is.
fn name_of(n: &DestNote) -> Option<Name> {
    Some((id_of(&n.service)?, ServerId { address: ip_of(n.real, n.family)?, port: u16::from_be(n.port) }))
}

/// An element for a server about to be added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Claim {
    pub(super) slot: u32,
    pub(super) revived: bool,
}

/// The way to a server, as the packet path needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Way {
    /// See [`Dest::next_hop`].
    pub(super) next_hop: u64,
    pub(super) src_mac: [u8; 6],
    pub(super) mtu: u16,
    pub(super) ifindex: u32,
    pub(super) tunnel_src: [u64; 2],
    pub(super) tunnel_sum: u32,
    pub(super) local: bool,
}

/// All elements.
#[derive(Debug)]
pub(super) struct Dests {
    pub(super) memory: Mapped<Dest>,
    pub(super) conns: Mapped<DestConns>,
    notes: Mapped<DestNote>,
    slots: Slots,
    records: Vec<Option<Server>>,
    trash: HashMap<Name, u32>,
}

const FLAGS: usize = offset_of!(Dest, flags);
const NEXT_HOP: usize = offset_of!(Dest, next_hop);
const SRC_MAC: usize = offset_of!(Dest, src_mac);
const _: () = assert!(SRC_MAC.is_multiple_of(8) && offset_of!(Dest, mtu) == SRC_MAC + 6);

/// The number of a forwarding method.
pub(super) const fn method(f: Forwarding) -> u8 {
    match f {
        Forwarding::Nat => proto::NAT,
        Forwarding::Dr => proto::DR,
        Forwarding::Tun => proto::TUN,
    }
}

impl Dests {
    /// Takes over the elements of an earlier daemon. Those that are present in one of its services (by the services' elements) stay as
    /// they are, so that packets notice nothing; those of removed servers are trash again, under the names that were noted; all others
    /// are free. `settle` waits for packets under way.
    pub(super) fn adopt(
        (memory, conns, notes): (Mapped<Dest>, Mapped<DestConns>, Mapped<DestNote>),
        counters: &Counters,
        services: &HashMap<u32, (ServiceId, u64)>,
        settle: impl FnOnce(),
    ) -> (Self, HashMap<u32, Members>) {
        let len = memory.len();
        let mut dests = Self {
            memory,
            conns,
            notes,
            slots: Slots::new(len),
            records: std::iter::repeat_with(|| None).take(len as usize).collect(),
            trash: HashMap::new(),
        };
        let (mut members, mut seen) = (HashMap::<u32, Members>::new(), HashSet::new());
        let (mut others, mut stray) = (Vec::new(), false);
        for slot in 0..len {
            let Some(element) = dests.memory.read(slot) else { break };
            let present = element.flags & PRESENT != 0;
            let member = services.get(&element.service).filter(|_| present).and_then(|(id, incarnation)| {
                let spec = spec_of(&element)?;
                seen.insert((*id, spec.id)).then_some((*id, *incarnation, spec))
            });
            let Some((service, incarnation, spec)) = member else {
                if present {
                    // Of a change that was cut off.
                    dests.memory.u32(slot, FLAGS).store(0, Ordering::Release);
                    stray = true;
                }
                others.push(slot);
                continue;
            };
            let name = (service, spec.id);
            dests.records[slot as usize] = Some(dests.noted(slot, name, incarnation, counters));
            members.entry(element.service).or_default().push((slot, spec));
        }
        if stray {
            settle();
        }
        for slot in others {
            let name = dests.notes.read(slot).filter(|n| n.incarnation != 0).and_then(|n| name_of(&n));
            let name = name.filter(|name| !seen.contains(name) && !dests.trash.contains_key(name));
            let Some(name) = name else {
                if dests.refers(slot) != 0 {
                    let raw = counters.dest(slot);
                    let server = Server { base: raw, joined: raw, origin: raw, ..Server::unknown() };
                    dests.records[slot as usize] = Some(server);
                }
                continue;
            };
            let incarnation = dests.notes.read(slot).map_or(0, |n| n.incarnation);
            let server = Server { present: false, ..dests.noted(slot, name, incarnation, counters) };
            dests.records[slot as usize] = Some(server);
            dests.trash.insert(name, slot);
        }
        dests.slots = Slots::adopt(len, |slot| dests.records[slot as usize].is_some());
        (dests, members)
    }

    /// A present server as an earlier daemon noted it; anew where the note is another's.
    fn noted(&self, slot: u32, name: Name, incarnation: u64, counters: &Counters) -> Server {
        let note = self.notes.read(slot).filter(|n| n.incarnation == incarnation && name_of(n) == Some(name));
        let raw = counters.dest(slot);
        let fresh =
            Server { name: Some(name), present: true, incarnation, base: raw, joined: raw, origin: raw, ..Server::unknown() };
        let Some(n) = note else { return fresh };
        Server {
            base: stats(n.base),
            joined: stats(n.joined),
            origin: stats(n.origin),
            estimator: Estimator { last: stats(n.last), average: stats(n.average) },
            ..fresh
        }
    }

    /// Notes what is known of an element, for the daemon after this one.
    pub(super) fn note(&self, slot: u32) {
        let note = self.get(slot).and_then(|s| {
            let (service, server) = s.name?;
            let (real, family) = wide_of(server.address);
            Some(DestNote {
                service: key_of(&service),
                real,
                incarnation: s.incarnation,
                base: five(&s.base),
                joined: five(&s.joined),
                origin: five(&s.origin),
                last: five(&s.estimator.last),
                average: five(&s.estimator.average),
                port: server.port.to_be(),
                family,
                zero: [0; 5],
            })
        });
        match note {
            Some(note) => self.notes.write(slot, &note),
            None => self.notes.u64(slot, offset_of!(DestNote, incarnation)).store(0, Ordering::Release),
        }
    }

    /// Live connections and templates of an element.
    pub(super) fn counts(&self, slot: u32) -> DestConns {
        self.conns.read(slot).unwrap_or_default()
    }

    /// The same for show and for schedulers: a count in the middle of being moved, or off until it is healed, is never below zero.
    pub(super) fn shown(&self, slot: u32) -> DestConns {
        shown(&self.conns, slot)
    }

    /// Active and inactive connections of an element.
    pub(super) fn active_and_inactive(&self, slot: u32) -> (u64, u64) {
        let count = |offset| self.conns.u64(slot, offset).load(Ordering::Relaxed);
        (count(offset_of!(DestConns, active)), count(offset_of!(DestConns, inactive)))
    }

    fn refers(&self, slot: u32) -> u64 {
        let n = self.counts(slot);
        // Wrapping: a count in the middle of being moved may stand at -1 for an instant.
        n.active.wrapping_add(n.inactive).wrapping_add(n.templates)
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Server> {
        self.records.get(slot as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Server> {
        self.records.get_mut(slot as usize)?.as_mut()
    }

    /// All elements in use, the trash included.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Server)> {
        self.records.iter().zip(0..).filter_map(|(r, slot)| Some((slot, r.as_ref()?)))
    }

    /// An element for a server to be added: its own from the trash, or a free one. Nothing is written yet.
    pub(super) fn claim(&mut self, name: &Name) -> Option<Claim> {
        if let Some(slot) = self.trash.remove(name) {
            return Some(Claim { slot, revived: true });
        }
        self.slots.take().map(|slot| Claim { slot, revived: false })
    }

    /// Takes a claim back.
    pub(super) fn unclaim(&mut self, name: &Name, claim: Claim) {
        if claim.revived {
            self.trash.insert(*name, claim.slot);
        } else {
            self.slots.untake(claim.slot);
        }
    }

    /// Fills a claimed element, and makes it present as the last step. Its way is set separately, before or after.
    ///
    /// Connections may look at a revived element meanwhile; they find it gone until the flags are written.
    pub(super) fn publish(
        &mut self,
        claim: Claim,
        name: Name,
        spec: &ServerSpec,
        service: (u32, u64),
        counters: &Counters,
        way: &Way,
    ) {
        let slot = claim.slot;
        let (service, incarnation) = service;
        let raw = counters.dest(slot);
        let (real, family) = wide_of(spec.id.address);
        if claim.revived {
            self.write_way(slot, way);
            // Its service is the same by name, and so are VIP and port.
            self.memory.u32(slot, offset_of!(Dest, service)).store(service, Ordering::Release);
            self.edit_fields(slot, spec);
        } else {
            self.conns.u64(slot, offset_of!(DestConns, overloaded)).store(0, Ordering::Release);
            let dest = Dest {
                next_hop: way.next_hop,
                src_mac: way.src_mac,
                mtu: way.mtu,
                ifindex: way.ifindex,
                flags: 0,
                service,
                port: spec.id.port.to_be(),
                method: method(spec.forwarding),
                family,
                real,
                tunnel_src: way.tunnel_src,
                upper: spec.upper_threshold,
                lower: spec.lower_threshold,
                weight: spec.weight,
                tunnel_sum: way.tunnel_sum,
                vip: wide_of(name.0.address).0,
                vport: name.0.port.to_be(),
                ..Dest::EMPTY
            };
            self.memory.write(slot, &dest);
        }
        match &mut self.records[slot as usize] {
            // The same service took it back: its counters go on, as in the kernel.
            Some(old) if claim.revived && old.incarnation == incarnation => {
                old.present = true;
                old.idle = 0;
                old.joined = raw;
            }
            record => {
                *record = Some(Server {
                    name: Some(name),
                    present: true,
                    incarnation,
                    idle: 0,
                    base: raw,
                    joined: raw,
                    origin: raw,
                    estimator: Estimator::default(),
                });
            }
        }
        self.note(slot);
        let weighted = if spec.weight > 0 { WEIGHTED } else { 0 };
        let local = if way.local { LOCAL } else { 0 };
        self.memory.u32(slot, FLAGS).store(PRESENT | weighted | local, Ordering::Release);
    }

    /// Changes a present server.
    pub(super) fn edit(&mut self, slot: u32, spec: &ServerSpec) {
        self.edit_fields(slot, spec);
        let flags = self.memory.u32(slot, FLAGS);
        if spec.weight > 0 {
            flags.fetch_or(WEIGHTED, Ordering::AcqRel);
        } else {
            flags.fetch_and(!WEIGHTED, Ordering::AcqRel);
        }
    }

    fn edit_fields(&mut self, slot: u32, spec: &ServerSpec) {
        let m = &self.memory;
        m.u8(slot, offset_of!(Dest, method)).store(method(spec.forwarding), Ordering::Release);
        m.u32(slot, offset_of!(Dest, upper)).store(spec.upper_threshold, Ordering::Release);
        m.u32(slot, offset_of!(Dest, lower)).store(spec.lower_threshold, Ordering::Release);
        m.u32(slot, offset_of!(Dest, weight)).store(spec.weight, Ordering::Release);
        // A connection that comes or goes at this instant decides by the old thresholds; the next one corrects it.
        let n = self.counts(slot);
        let now = overloaded(n.overloaded != 0, n.active.wrapping_add(n.inactive), spec.upper_threshold, spec.lower_threshold);
        self.conns.u64(slot, offset_of!(DestConns, overloaded)).store(now.into(), Ordering::Release);
    }

    /// Sets the way of a server in use.
    pub(super) fn set_way(&self, slot: u32, way: &Way) {
        let flags = self.memory.u32(slot, FLAGS);
        if !way.local {
            flags.fetch_and(!LOCAL, Ordering::AcqRel);
        }
        self.write_way(slot, way);
        if way.local {
            flags.fetch_or(LOCAL, Ordering::AcqRel);
        }
    }

    /// A packet reads the next hop first and takes the server for unresolved while it is 0, and then leaves it to the kernel. So: 0
    /// first, the other fields, the next hop last. A packet that read the old word just before may still combine it with new
    /// fields: one frame with another source MAC or interface, as any change of the way may lose one. Where only the
    /// neighbour's MAC changes, one word is written and nothing passes through 0; where nothing changes, nothing is
    /// written.
    fn write_way(&self, slot: u32, way: &Way) {
        let m = &self.memory;
        let hop = m.u64(slot, NEXT_HOP);
        let [a, b, c, d, e, f] = way.src_mac;
        let [g, h] = way.mtu.to_ne_bytes();
        let source = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        let tunnel = |i: usize| m.u64(slot, offset_of!(Dest, tunnel_src) + i * 8);
        let (ifindex, sum) = (m.u32(slot, offset_of!(Dest, ifindex)), m.u32(slot, offset_of!(Dest, tunnel_sum)));
        let same = m.u64(slot, SRC_MAC).load(Ordering::Acquire) == source
            && ifindex.load(Ordering::Acquire) == way.ifindex
            && sum.load(Ordering::Acquire) == way.tunnel_sum
            && (0..2).all(|i| tunnel(i).load(Ordering::Acquire) == way.tunnel_src[i])
            && hop.load(Ordering::Acquire) >> 48 == way.next_hop >> 48;
        if !same {
            hop.store(0, Ordering::Release);
            std::sync::atomic::fence(Ordering::SeqCst);
            m.u64(slot, SRC_MAC).store(source, Ordering::Release);
            ifindex.store(way.ifindex, Ordering::Release);
            tunnel(0).store(way.tunnel_src[0], Ordering::Release);
            tunnel(1).store(way.tunnel_src[1], Ordering::Release);
            sum.store(way.tunnel_sum, Ordering::Release);
        }
        hop.store(way.next_hop, Ordering::Release);
    }
}

/// See [`Dests::shown`].
pub(super) fn shown(conns: &Mapped<DestConns>, slot: u32) -> DestConns {
    let n = conns.read(slot).unwrap_or_default();
    let shown = |count: u64| if count > i64::MAX as u64 { 0 } else { count };
    DestConns { active: shown(n.active), inactive: shown(n.inactive), templates: shown(n.templates), ..n }
}

/// Whether packets can be sent to a server.
pub(super) fn resolved(dests: &Mapped<Dest>, slot: u32) -> bool {
    dests.u64(slot, NEXT_HOP).load(Ordering::Relaxed) != 0 || dests.u32(slot, FLAGS).load(Ordering::Relaxed) & LOCAL != 0
}
