//! After any edits the maps are what they would be had they been made from nothing, but for the numbers of the elements.

use super::*;
use crate::net::NextHop;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Step {
    Edits(Vec<Edit>),
    Connect(u16, u8),
    Expire,
    Pick(u16),
    Estimate,
    Reach(u8, bool),
    Count(u16, u8),
    Zero(u16),
    Restart,
}

fn edits() -> impl Strategy<Value = Edit> {
    let service = 1u16..=4;
    let server = (1u8..=6, 0u32..=2, prop::sample::select(vec![Forwarding::Nat, Forwarding::Dr, Forwarding::Tun]), 0u32..3)
        .prop_map(|(n, weight, forwarding, upper)| {
            // One port, so that all methods name the same server.
            let id = rip(n);
            ServerSpec { id, forwarding, weight, upper_threshold: upper, lower_threshold: 0 }
        });
    prop_oneof![
        3 => service.clone().prop_map(add_service),
        1 => service.clone().prop_map(delete_service),
        8 => (service.clone(), server.clone()).prop_map(|(s, server)| Edit::AddServer { service: vip(s), server }),
        3 => (service.clone(), server).prop_map(|(s, server)| Edit::EditServer { service: vip(s), server }),
        3 => (service, 1u8..=6).prop_map(|(s, n)| delete(s, n)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(edits(), 1..6).prop_map(Step::Edits),
        3 => (1u16..=4, 1u8..=6).prop_map(|(s, n)| Step::Connect(s, n)),
        1 => Just(Step::Expire),
        3 => (1u16..=4).prop_map(Step::Pick),
        2 => Just(Step::Estimate),
        1 => (1u8..=6, any::<bool>()).prop_map(|(n, up)| Step::Reach(n, up)),
        3 => (1u16..=4, 1u8..=6).prop_map(|(s, n)| Step::Count(s, n)),
        1 => (1u16..=4).prop_map(Step::Zero),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

/// What packets can tell of a director, without the numbers of elements.
fn seen(d: &Director) -> BTreeMap<ServiceId, (String, Vec<String>, Vec<u8>)> {
    let name = |slot: u32| (V4::narrow(d.dests.read(slot).unwrap().real).to_ne_bytes()[3]) - 10;
    let maps::Table::Heap { map, .. } = &d.engine.services.keys else { panic!("in memory") };
    let mut all = BTreeMap::new();
    for (key, &slot) in map {
        let id = services::id_of(key).unwrap();
        assert_eq!(d.lookup(key), Some(slot), "the filter hides {id}");
        let s = d.engine.services.memory.read(slot).unwrap();
        let mut dests: Vec<String> = (0..d.dests.len())
            .filter_map(|i| d.dests.read(i))
            .filter(|d| d.flags & lb_common::dest::PRESENT != 0 && d.service == slot)
            .map(|d| format!("{:?}", Dest { service: 0, ..d }))
            .collect();
        dests.sort();
        let plan = s.plans[Service::plan_of(s.cursor)];
        let mut picks: Vec<u8> =
            (0..plan.len).map(|i| name(d.engine.services.picks_memory.read(plan.base + i).unwrap())).collect();
        // Where the cycle starts is history.
        picks.sort_unstable();
        all.insert(id, (format!("{:?} {:?} {:?}", s.flags, s.persist_ticks, s.persist_mask), dests, picks));
    }
    all
}

fn bits(d: &Director) -> Vec<u64> {
    (0..lb_common::filter::FILTER_WORDS).map(|i| d.engine.services.filter.word(i)).collect()
}

fn link() -> LinkInfo {
    LinkInfo { index: 7, name: "eth0".into(), mac: [2; 6], mtu: 1500, up: true, present: true }
}

fn reach(n: u8, up: bool) -> Reach {
    if up {
        Reach::Resolved(NextHop { mac: [2, 0, 0, 0, 1, n], ifindex: 7, source: [10, 2, 0, 1].into(), mtu: 1400 })
    } else {
        Reach::Unresolved("gone".into())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn edits_lead_where_a_fresh_start_leads(steps in steps()) {
        // So small that it is full at times.
        let sizes = Sizes { connections: 60, services: 3, servers: 9, picks: 48, cpus: 1 };
        let mut d = Director::new(&sizes);
        d.engine.set_link(&link());
        let mut reached: BTreeMap<u8, bool> = BTreeMap::new();
        let mut owners: BTreeMap<u32, ServerId> = BTreeMap::new();
        let mut port = 1000;
        for step in steps {
            match step {
                Step::Edits(edits) => {
                    for edit in edits {
                        let before = seen(&d);
                        match d.try_edit(std::slice::from_ref(&edit)) {
                            Ok(()) => {}
                            Err(e) => {
                                prop_assert_eq!(seen(&d), before, "{:?} was refused and changed something", e);
                            }
                        }
                    }
                }
                Step::Connect(service, n) => {
                    if d.engine.running.get(&vip(service)).is_some_and(|r| r.state.servers.iter().any(|s| s.id == rip(n))) {
                        port += 1;
                        if d.engine.tables()[0].used < 50 {
                            let index = d.connect(service, n, port, 50);
                            owners.insert(index, rip(n));
                        }
                    }
                }
                Step::Expire => {
                    d.wait(60);
                    d.engine.sweeper().step(u32::MAX);
                    owners.clear();
                    prop_assert_eq!(d.engine.tables()[0].used, 0);
                }
                Step::Pick(service) => {
                    d.pick(service);
                }
                Step::Estimate => d.engine.estimate(),
                Step::Count(service, n) => {
                    let running = d.engine.running.get(&vip(service));
                    let slot = running.and_then(|r| Some(r.servers[r.state.servers.iter().position(|s| s.id == rip(n))?]));
                    if let Some(slot) = slot {
                        d.count(0, slot, 1, 100);
                    }
                }
                Step::Zero(service) => drop(d.engine.zero(Some(&vip(service)))),
                Step::Restart => {
                    let (was, bits_were, views) = (seen(&d), bits(&d), d.engine.services());
                    d = d.restarted();
                    prop_assert_eq!(seen(&d), was.clone());
                    prop_assert_eq!(bits(&d), bits_were.clone());
                    let desired = d.desired.clone();
                    d.engine.reconcile(&desired).unwrap();
                    prop_assert_eq!(seen(&d), was);
                    prop_assert_eq!(bits(&d), bits_were);
                    prop_assert_eq!(d.engine.services(), views);
                    // As a watcher tells a new daemon.
                    d.engine.set_link(&link());
                    for address in d.engine.targets() {
                        let IpAddr::V4(a) = address else { unreachable!("all are IPv4") };
                        let n = a.octets()[3] - 10;
                        if let Some(&up) = reached.get(&n) {
                            d.engine.set_reach(address, reach(n, up));
                        }
                    }
                }
                Step::Reach(n, up) => {
                    // Only what is asked for is followed.
                    if d.engine.targets().contains(&rip(n).address) {
                        reached.insert(n, up);
                        d.engine.set_reach(rip(n).address, reach(n, up));
                    }
                }
            }
            // No connection ever sees another server in its server's place.
            for (&index, server) in &owners {
                let dest = d.dests.read(d.engine.table4.conns.read(index).unwrap().dest).unwrap();
                prop_assert_eq!(lb_common::family::ip_of(dest.real, dest.family), Some(server.address));
            }
        }
        // Everybody is told anew, as a watcher would.
        for address in d.engine.targets() {
            let IpAddr::V4(a) = address else { unreachable!("all are IPv4") };
            let n = a.octets()[3] - 10;
            d.engine.set_reach(address, reach(n, *reached.entry(n).or_insert(false)));
        }
        let mut fresh = Director::new(&sizes);
        fresh.engine.set_link(&link());
        fresh.engine.reconcile(&d.desired).unwrap();
        for address in fresh.engine.targets() {
            let IpAddr::V4(a) = address else { unreachable!("all are IPv4") };
            let n = a.octets()[3] - 10;
            fresh.engine.set_reach(address, reach(n, reached[&n]));
        }
        prop_assert_eq!(seen(&d), seen(&fresh));
        prop_assert_eq!(bits(&d), bits(&fresh));
        // Nothing leaks: without services and connections all is free again.
        d.edit(&[Edit::Clear]);
        d.wait(60);
        d.engine.sweeper().step(u32::MAX);
        for _ in 0..130 {
            d.engine.estimate();
        }
        prop_assert!(bits(&d).iter().all(|&w| w == 0));
        prop_assert_eq!(d.engine.services.slots.available(), sizes.services as usize);
        prop_assert_eq!(d.engine.dests.available(), sizes.servers as usize);
        let r = d.engine.services.picks.take(32);
        prop_assert!(r.is_some() && d.engine.services.picks.take(16).is_some());
    }
}
