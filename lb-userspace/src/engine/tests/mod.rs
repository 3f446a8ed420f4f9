//! What the engine does to maps, on maps in memory: a small packet path stands in for the XDP program's.

mod next_hops;
mod plans;
mod random;
mod restart;
mod servers;
mod speed;
mod views;

use super::services::key_of;
use super::*;
use crate::model::{
    Desired, Edit, EditError, EditErrorKind, Forwarding, Protocol, SchedFlags, SchedulerKind, ServerId, ServerSpec, ServiceId,
    ServiceSpec,
};
use lb_common::conn::{REVERSE, ports_word};
use lb_common::dest::{Dest, DestConns, Port, USABLE};
use lb_common::family::{Family, V4, v4_addr};
use lb_common::service::{Service, ServiceKey};
use lb_common::stats::{Cpu, DestStats};
use lb_common::table::{Created, New, Tuple, create, find};
use lb_common::{hash, tcp, time};
use std::net::Ipv4Addr;

const SIZES: Sizes = Sizes { connections: 200, services: 8, servers: 16, picks: 128, cpus: 2 };

/// A director: an engine, the desired state, and the memory that packets see.
struct Director {
    engine: Engine,
    desired: Desired,
    dests: Mapped<Dest>,
    conns: Mapped<DestConns>,
    stats: Mapped<DestStats>,
    cpus: Mapped<Cpu>,
    ports: Mapped<Port>,
    /// For another engine over the same memory.
    maps: Maps,
}

/// The same memory once more; hashes are empty.
fn clone(m: &Maps) -> Maps {
    Maps {
        config: m.config.clone(),
        index4: m.index4.clone(),
        index6: m.index6.clone(),
        conns4: m.conns4.clone(),
        conns6: m.conns6.clone(),
        hands: m.hands.clone(),
        service_keys: maps::Table::Heap { map: HashMap::new(), max: 0 },
        services: m.services.clone(),
        filter: m.filter.clone(),
        picks: m.picks.clone(),
        dests: m.dests.clone(),
        dest_conns: m.dest_conns.clone(),
        dest_stats: m.dest_stats.clone(),
        dest_notes: m.dest_notes.clone(),
        service_notes: m.service_notes.clone(),
        cpus: m.cpus.clone(),
        ports: m.ports.clone(),
        port_of: maps::Table::Heap { map: HashMap::new(), max: 64 },
        devices: maps::Devices::Heap(vec![0; 64]),
    }
}

fn same_table<K: Copy + Eq + std::hash::Hash, V: Copy>(table: &maps::Table<K, V>) -> maps::Table<K, V> {
    let maps::Table::Heap { map, max } = table else { panic!("in memory") };
    maps::Table::Heap { map: map.clone(), max: *max }
}

fn vip(n: u16) -> ServiceId {
    ServiceId { protocol: Protocol::Tcp, address: [10, 9, 0, 10].into(), port: n }
}

fn rip(n: u8) -> ServerId {
    ServerId { address: [10, 2, 0, 10 + n].into(), port: 80 }
}

fn spec(id: ServiceId) -> ServiceSpec {
    ServiceSpec { id, scheduler: SchedulerKind::Rr, sched_flags: SchedFlags(0), persistence: None, one_packet: false }
}

fn server(n: u8, weight: u32) -> ServerSpec {
    ServerSpec { id: rip(n), forwarding: Forwarding::Nat, weight, upper_threshold: 0, lower_threshold: 0 }
}

fn add_service(n: u16) -> Edit {
    Edit::AddService { service: spec(vip(n)) }
}

fn delete_service(n: u16) -> Edit {
    Edit::DeleteService { service: vip(n) }
}

fn add(service: u16, n: u8) -> Edit {
    Edit::AddServer { service: vip(service), server: server(n, 1) }
}

fn edit(service: u16, server: ServerSpec) -> Edit {
    Edit::EditServer { service: vip(service), server }
}

fn delete(service: u16, n: u8) -> Edit {
    Edit::DeleteServer { service: vip(service), server: rip(n) }
}

impl Director {
    fn new(sizes: &Sizes) -> Self {
        Self::over(Maps::in_memory(sizes))
    }

    fn over(maps: Maps) -> Self {
        let (dests, conns, stats) = (maps.dests.clone(), maps.dest_conns.clone(), maps.dest_stats.clone());
        let (cpus, ports, again) = (maps.cpus.clone(), maps.ports.clone(), clone(&maps));
        let engine = Engine::new(maps).expect("maps in memory are in order");
        Self { engine, desired: Desired::default(), dests, conns, stats, cpus, ports, maps: again }
    }

    /// Another daemon over the same maps, wherever this one was; it does not know yet what is desired.
    fn restarted(self) -> Self {
        let devices = maps::Devices::Heap(match &self.engine.ports.devices {
            maps::Devices::Heap(list) => list.clone(),
            maps::Devices::Kernel(_) => panic!("in memory"),
        });
        let maps = Maps {
            service_keys: same_table(&self.engine.services.keys),
            port_of: same_table(&self.engine.ports.port_of),
            devices,
            ..clone(&self.maps)
        };
        Self { desired: self.desired, ..Self::over(maps) }
    }

    fn try_edit(&mut self, edits: &[Edit]) -> Result<(), EditError> {
        let mut next = self.desired.clone();
        next.apply(edits)?;
        self.engine.reconcile(&next)?;
        self.desired = next;
        Ok(())
    }

    fn edit(&mut self, edits: &[Edit]) {
        self.try_edit(edits).unwrap();
    }

    fn slot(&self, service: u16, n: u8) -> u32 {
        let running = &self.engine.running[&vip(service)];
        let at = running.state.servers.iter().position(|s| s.id == rip(n)).unwrap();
        running.servers[at]
    }

    fn dest(&self, service: u16, n: u8) -> Dest {
        self.dests.read(self.slot(service, n)).unwrap()
    }

    /// The element that a packet's key leads to, by filter and hash.
    fn lookup(&self, key: &ServiceKey) -> Option<u32> {
        let bit = lb_common::filter::bit(key.addr, key.port, key.proto);
        let word = self.engine.services.filter.word(bit / 64);
        if word & (1 << (bit % 64)) == 0 {
            return None;
        }
        let maps::Table::Heap { map, .. } = &self.engine.services.keys else { panic!("in memory") };
        map.get(key).copied()
    }

    /// Takes the next usable pick, as the packet path does; the last byte of the server's address, less 10.
    fn pick(&self, service: u16) -> Option<u8> {
        let slot = self.lookup(&key_of(&vip(service)))?;
        for _ in 0..lb_common::limits::MAX_PICK_TRIES {
            let cursor = self.engine.services.memory.u64(slot, 0).fetch_add(1, Ordering::AcqRel);
            let s = self.engine.services.memory.read(slot)?;
            let plan = s.plans[Service::plan_of(cursor)];
            if plan.len == 0 {
                return None;
            }
            let dest = self
                .engine
                .services
                .picks_memory
                .read(plan.base + plan.position(Service::taken(cursor), s.again[Service::plan_of(cursor)]))?;
            let d = self.dests.read(dest)?;
            assert_eq!(d.service, slot, "a pick of another service");
            if d.flags & USABLE == USABLE {
                return Some((V4::narrow(d.real).to_ne_bytes()[3]) - 10);
            }
        }
        None
    }

    fn picks(&self, service: u16, n: usize) -> Vec<u8> {
        (0..n).filter_map(|_| self.pick(service)).collect()
    }

    fn tuple(&self, service: u16, port: u16) -> Tuple<V4> {
        Tuple {
            src: v4_addr(Ipv4Addr::new(10, 1, 0, 2)),
            dst: v4_addr(Ipv4Addr::new(10, 9, 0, 10)),
            ports: ports_word(port.to_be(), service.to_be()),
            proto: 6,
        }
    }

    /// Makes a connection that lives for so many seconds.
    fn connect(&self, service: u16, n: u8, port: u16, seconds: u32) -> u32 {
        let t = &*self.engine.table4;
        let new = New::<V4> {
            tuple: self.tuple(service, port),
            real: v4_addr(Ipv4Addr::new(10, 2, 0, 10 + n)),
            real_port: 80u16.to_be(),
            l4_delta: 0,
            ip_delta: 0,
            method: lb_common::proto::NAT,
            state: tcp::ESTABLISHED,
            flags: REVERSE,
            dest: self.slot(service, n),
            expires: t.now().wrapping_add(time::ticks_of_seconds(seconds)),
            template: 0,
            reply: 0,
        };
        match create(t, &t.shape(), t.now(), &new, None) {
            (Created::Made(index), _) => index,
            other => panic!("{other:?}"),
        }
    }

    /// Where a packet of a connection finds itself.
    fn follow(&self, service: u16, port: u16) -> Option<Dest> {
        let t = &*self.engine.table4;
        let tuple = self.tuple(service, port);
        let hash = hash::flow::<V4>(&t.shape().seed, tuple.src, tuple.dst, tuple.ports, tuple.proto);
        let found = find(t, &t.shape(), hash, &tuple)?;
        let c = t.conns.read(found.index)?;
        self.dests.read(c.dest)
    }

    /// Moves the clock of the packet path.
    fn wait(&self, seconds: u32) {
        self.engine.config.u32(0, offset_of!(Config, clock_offset)).fetch_add(time::ticks_of_seconds(seconds), Ordering::Relaxed);
    }

    /// Counts on one CPU, as the packet path does.
    fn count(&self, cpu: u32, dest: u32, connections: u64, in_bytes: u64) {
        let at = cpu * self.dests.len() + dest;
        let add = |offset, n| self.stats.u64(at, offset).fetch_add(n, Ordering::Relaxed);
        add(offset_of!(DestStats, connections), connections);
        add(offset_of!(DestStats, in_bytes), in_bytes);
        // No packet without a verdict.
        self.cpus.u64(cpu, offset_of!(Cpu, verdicts) + 8).fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn the_engine_and_its_walkers_can_move_to_other_threads() {
    fn moves<T: Send + 'static>() {}
    moves::<Engine>();
    moves::<Sweeper>();
    moves::<Connections>();
}
