//! A daemon that takes over the maps of another.

use super::*;
use crate::net::NextHop;

fn link() -> LinkInfo {
    LinkInfo { index: 7, name: "eth0".into(), mac: [2; 6], mtu: 1500, up: true, present: true }
}

fn resolved(n: u8) -> Reach {
    Reach::Resolved(NextHop { mac: [2, 0, 0, 0, 1, n], ifindex: 7, source: [10, 2, 0, 1].into(), mtu: 1400 })
}

/// Services 80 and 81 with servers 3, 2, 1 that can be reached.
fn director() -> Director {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(80), add(80, 1), add(80, 2), add(80, 3), add_service(81), add(81, 1)]);
    d.engine.set_link(&link());
    for n in 1..=3 {
        d.engine.set_reach(rip(n).address, resolved(n));
    }
    d
}

/// All that packets read, but for what the daemon may write at any time.
fn memory(d: &Director) -> Vec<String> {
    let dests = (0..d.dests.len()).map(|i| format!("{:?}", d.dests.read(i).unwrap()));
    let ports = (0..d.ports.len()).map(|i| format!("{:?}", d.ports.read(i).unwrap()));
    let bits = (0..lb_common::filter::FILTER_WORDS).map(|i| d.engine.services.filter.word(i).to_string());
    let services = (0..d.maps.services.len()).map(|i| format!("{:?}", d.maps.services.read(i).unwrap()));
    dests.chain(ports).chain(bits).chain(services).collect()
}

#[test]
fn packets_notice_nothing() {
    let d = director();
    d.connect(80, 1, 1000, 1000);
    assert_eq!(d.picks(80, 2), [3, 2]);
    let (before, seed) = (memory(&d), d.engine.config.read(0).unwrap().seed);
    let slots: Vec<u32> = (1..=3).map(|n| d.slot(80, n)).collect();
    let mut e = d.restarted();
    assert_eq!(e.engine.config.read(0).unwrap().seed, seed, "or no connection would be found");
    assert_eq!(memory(&e), before);
    assert_eq!(e.follow(80, 1000).unwrap().flags & USABLE, USABLE);
    let desired = e.desired.clone();
    e.engine.reconcile(&desired).unwrap();
    assert_eq!((1..=3).map(|n| e.slot(80, n)).collect::<Vec<_>>(), slots);
    assert_eq!(e.engine.service(&vip(80)).unwrap().servers[2].active, 1);
    assert!(e.engine.service(&vip(80)).unwrap().servers.iter().all(|s| s.resolved));
    // The schedule goes on, and the state is what it was.
    assert_eq!(e.picks(80, 4), [1, 3, 2, 1]);
    assert_eq!(e.engine.services().services.iter().map(|s| s.spec.clone()).collect::<Vec<_>>(), [spec(vip(80)), spec(vip(81))]);
}

/// A change that the daemon died in is finished or undone by the next one, whatever of it was written.
#[test]
fn what_is_desired_wins_over_what_is_found() {
    let d = director();
    d.connect(80, 2, 1000, 1000);
    let mut e = d.restarted();
    e.desired = Desired::default();
    e.edit(&[add_service(82), add(82, 4), add_service(80), add(80, 1), add(80, 3), edit(80, server(3, 2))]);
    assert_eq!(e.lookup(&key_of(&vip(81))), None);
    assert_eq!(e.picks(82, 2), [4, 4]);
    let mut picks = e.picks(80, 8);
    picks.sort_unstable();
    assert_eq!(picks, [1, 1, 1, 1, 3, 3, 3, 3]);
    assert_eq!(e.follow(80, 1000).unwrap().flags, 0, "a removed server's connections find it gone");
    e.edit(&[add(80, 2)]);
    assert_eq!(e.follow(80, 1000).unwrap().flags & USABLE, USABLE);
}

#[test]
fn removed_servers_are_known_by_name_to_the_next_daemon() {
    let mut d = director();
    d.connect(80, 2, 1000, 1000);
    d.count(0, d.slot(80, 2), 7, 0);
    d.edit(&[delete(80, 2)]);
    let mut e = d.restarted();
    let desired = e.desired.clone();
    e.engine.reconcile(&desired).unwrap();
    assert_eq!(e.engine.service(&vip(80)).unwrap().stats.connections, 7);
    e.edit(&[add(80, 2)]);
    assert_eq!(e.follow(80, 1000).unwrap().flags & USABLE, USABLE);
    assert_eq!(e.engine.service(&vip(80)).unwrap().servers[0].stats.connections, 7);
}

#[test]
fn counters_and_rates_go_on() {
    let mut d = director();
    d.count(0, d.slot(80, 1), 5, 500);
    d.engine.zero(Some(&vip(80))).unwrap();
    d.count(1, d.slot(80, 1), 200, 1000);
    d.engine.estimate();
    d.cpus.u64(0, 0).fetch_add(9, Ordering::Relaxed);
    let (before, one) = (d.engine.services(), d.slot(80, 1));
    let mut e = d.restarted();
    // Counted between two daemons.
    e.count(0, one, 3, 30);
    let desired = e.desired.clone();
    e.engine.reconcile(&desired).unwrap();
    let mut expected = before.clone();
    let web = &mut expected.services[0];
    for stats in [&mut web.stats, &mut web.servers[2].stats] {
        stats.connections += 3;
        stats.in_bytes += 30;
    }
    assert_eq!(e.engine.services(), expected);
    assert_eq!(e.engine.verdicts()[0].packets, 9);
    // No step of the estimator takes the past for new traffic.
    e.engine.stepped_ns = monotonic_ns() - 4_000_000_000;
    e.engine.estimate();
    let rates = e.engine.service(&vip(80)).unwrap().rates;
    assert_eq!(before.services[0].rates.connections, 25);
    assert_eq!(rates.connections, 19, "a quarter towards 3 in 4 s");
}

/// A daemon waits for neighbours to answer it before it believes that they are gone.
#[test]
fn old_next_hops_hold_for_a_while() {
    let d = director();
    let mut e = d.restarted();
    let desired = e.desired.clone();
    e.engine.reconcile(&desired).unwrap();
    e.engine.set_link(&link());
    for n in 1..=3 {
        e.engine.set_reach(rip(n).address, Reach::Unresolved("no answer yet".into()));
    }
    e.engine.set_reach(rip(2).address, resolved(9));
    assert_ne!(e.dest(80, 1).next_hop, 0);
    assert_eq!(e.dest(80, 2).next_hop, lb_common::dest::next_hop([2, 0, 0, 0, 1, 9], 0));
    e.engine.set_reach(rip(2).address, Reach::Unresolved("gone".into()));
    assert_eq!(e.dest(80, 2).next_hop, 0, "that was news");
    e.engine.estimate();
    assert_ne!(e.dest(80, 1).next_hop, 0);
    e.engine.estimate();
    assert_eq!(e.dest(80, 1).next_hop, 0);
}

#[test]
fn maps_of_another_version_are_refused() {
    let maps = Maps::in_memory(&SIZES);
    maps.config.u32(0, offset_of!(Config, abi)).store(ABI_VERSION + 1, Ordering::Relaxed);
    assert!(matches!(Engine::new(maps), Err(MapsError::Version { found }) if found == ABI_VERSION + 1));
}

#[test]
fn fresh_maps_are_configured() {
    let d = Director::new(&SIZES);
    let c = d.engine.config.read(0).unwrap();
    assert_eq!((c.abi, c.services, c.servers, c.picks), (ABI_VERSION, 8, 16, 128));
    assert_eq!(c.records, [213, 213]);
    assert!(c.bucket_mask.iter().all(|m| (m + 1).is_power_of_two()));
    assert!(c.seed[0] != 0 && c.seed[1] & 1 == 1);
    assert_eq!(c.timeouts[tcp::ESTABLISHED as usize], time::ticks_of_seconds(900));
}

/// Servers of one-packet services are known by what they send all the time.
#[test]
fn answerers_stay_known() {
    let mut d = Director::new(&SIZES);
    let id = ServiceId { protocol: Protocol::Udp, ..vip(53) };
    let once = ServiceSpec { one_packet: true, ..spec(id) };
    let to = |n| Edit::AddServer { service: id, server: server(n, 1) };
    let also = ServiceId { port: 54, ..id };
    let shared = Edit::AddServer { service: also, server: server(2, 1) };
    d.edit(&[Edit::AddService { service: once.clone() }, to(1), to(2)]);
    d.edit(&[Edit::AddService { service: ServiceSpec { id: also, ..once } }, shared]);
    let keys = |d: &Director| {
        let maps::Table::Heap { map, .. } = &d.engine.services.keys else { panic!("in memory") };
        map.clone()
    };
    let (before, bytes) = (keys(&d), memory(&d));
    assert_eq!(before.len(), 4);
    let mut d = d.restarted();
    assert_eq!((keys(&d), memory(&d)), (before.clone(), bytes));
    let desired = d.desired.clone();
    d.engine.reconcile(&desired).unwrap();
    assert_eq!(keys(&d), before);
    assert_ne!(d.engine.config.read(0).unwrap().flags & lb_common::config::ANSWERERS, 0);
    d.edit(&[Edit::Clear]);
    assert!(keys(&d).is_empty());
    assert_eq!(d.engine.config.read(0).unwrap().flags & lb_common::config::ANSWERERS, 0);
}
