//! Services and servers: what packets see of them, room, trash.

use super::*;

#[test]
fn packets_find_a_service_once_it_is_there_and_no_longer() {
    let mut d = Director::new(&SIZES);
    let key = key_of(&vip(80));
    assert_eq!(d.lookup(&key), None);
    d.edit(&[add_service(80)]);
    assert!(d.lookup(&key).is_some());
    assert_eq!(d.pick(80), None, "no server yet");
    d.edit(&[add(80, 1), add(80, 2), add(80, 3)]);
    assert_eq!(d.picks(80, 6), [3, 2, 1, 3, 2, 1]);
    let dest = d.dest(80, 2);
    assert_eq!((dest.flags & USABLE, dest.port.to_ne_bytes(), dest.weight), (USABLE, [0, 80], 1));
    let slot = d.slot(80, 2);
    d.edit(&[delete_service(80)]);
    assert_eq!(d.lookup(&key), None);
    assert_eq!(d.dests.read(slot).unwrap().flags & USABLE, 0);
}

#[test]
fn weight_zero_quiesces() {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(80), add(80, 1), add(80, 2), add(80, 3)]);
    assert_eq!(d.picks(80, 2), [3, 2]);
    d.edit(&[edit(80, server(2, 0))]);
    assert_eq!(d.dest(80, 2).flags & USABLE, lb_common::dest::PRESENT);
    assert_eq!(d.picks(80, 4), [1, 3, 1, 3]);
    d.edit(&[edit(80, server(2, 5))]);
    assert_eq!(d.picks(80, 3), [2, 1, 3]);
    d.edit(&[edit(80, server(1, 0)), edit(80, server(2, 0)), edit(80, server(3, 0))]);
    assert_eq!(d.pick(80), None);
}

#[test]
fn a_service_is_edited_in_place() {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(80), add(80, 1)]);
    let slot = d.lookup(&key_of(&vip(80))).unwrap();
    let mut persistent = spec(vip(80));
    persistent.persistence = Some(crate::model::Persistence { timeout_s: 100, netmask: Some([255, 255, 255, 0].into()) });
    d.edit(&[Edit::EditService { service: persistent }]);
    let s = d.engine.services.memory.read(slot).unwrap();
    assert_eq!(s.flags, lb_common::service::PERSISTENT);
    assert_eq!(s.persist_ticks, time::ticks_of_seconds(100));
    assert_eq!(V4::narrow(s.persist_mask).to_ne_bytes(), [255, 255, 255, 0]);
    assert_eq!(d.lookup(&key_of(&vip(80))), Some(slot));
    d.edit(&[Edit::EditService { service: spec(vip(80)) }]);
    assert_eq!(d.engine.services.memory.read(slot).unwrap().flags, 0);
}

#[test]
fn timeouts_reach_the_configuration() {
    let mut d = Director::new(&SIZES);
    let timeouts = crate::model::Timeouts { tcp: 10, tcpfin: 0, udp: 30 };
    d.edit(&[Edit::SetTimeouts { timeouts }]);
    let c = d.engine.config.read(0).unwrap();
    let at = |s: tcp::State| c.timeouts[s as usize];
    assert_eq!(at(tcp::ESTABLISHED), time::ticks_of_seconds(10));
    assert_eq!(at(tcp::FIN_WAIT), time::ticks_of_seconds(120));
    assert_eq!(at(tcp::UDP), time::ticks_of_seconds(30));
    assert_eq!(at(tcp::TIME_WAIT), time::ticks_of_seconds(120));
}

fn assert_full(result: Result<(), EditError>, object: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code, EditErrorKind::Full);
    assert!(error.message.contains(object), "{}", error.message);
}

#[test]
fn without_room_nothing_changes() {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(80), add(80, 1)]);
    // 8 services are the limit.
    let many: Vec<_> = (1..=8).map(add_service).collect();
    assert_full(d.try_edit(&many), "TCP 10.9.0.10:8");
    assert_eq!(d.engine.services().services.len(), 1);
    assert_eq!(d.lookup(&key_of(&vip(1))), None);
    // 16 servers.
    let many: Vec<_> = (2..=17).map(|n| add(80, n)).collect();
    assert_full(d.try_edit(&many), "10.2.0.");
    assert_eq!(d.picks(80, 3), [1, 1, 1]);
    // Twice 64 picks fill the table of 128, of which 2 are taken.
    let mut small = Director::new(&Sizes { servers: 200, ..SIZES });
    small.edit(&[add_service(80), add(80, 1)]);
    let many: Vec<_> = (2..=34).map(|n| add(80, n)).collect();
    assert_full(small.try_edit(&many), "picks");
    assert_eq!(small.picks(80, 2), [1, 1]);
    // What was taken for the attempts is free again.
    d.edit(&(1..=7).map(add_service).collect::<Vec<_>>());
    d.edit(&(2..=16).map(|n| add(80, n)).collect::<Vec<_>>());
    small.edit(&(2..=30).map(|n| add(80, n)).collect::<Vec<_>>());
    assert_eq!(small.picks(80, 30).len(), 30);
}

#[test]
fn a_full_table_is_replaced_in_one_go() {
    let mut d = Director::new(&SIZES);
    let all = |vips: std::ops::RangeInclusive<u16>| vips.flat_map(|v| [add_service(v), add(v, 1), add(v, 2)]).collect::<Vec<_>>();
    d.edit(&all(1..=8));
    let mut edits = vec![Edit::Clear];
    edits.extend(all(11..=18));
    d.edit(&edits);
    assert_eq!(d.picks(18, 3), [2, 1, 2]);
    assert_eq!(d.lookup(&key_of(&vip(1))), None);
    // One too many: all is as before, but for the place in the plan.
    let mut edits = vec![Edit::Clear];
    edits.extend(all(21..=28));
    edits.push(add(28, 3));
    assert_full(d.try_edit(&edits), "10.2.0.13:80");
    assert_eq!(d.engine.services().services.len(), 8);
    assert_eq!(d.picks(11, 2).len(), 2);
    // A server with a connection cannot make room.
    d.connect(11, 1, 1000, 100);
    edits.pop();
    assert_full(d.try_edit(&edits), "1 of them removed");
    assert_eq!(d.engine.services().services.len(), 8);
}

#[test]
fn connections_of_a_removed_server_find_it_gone_and_back_again() {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(80), add(80, 1), add(80, 2)]);
    d.connect(80, 2, 1000, 1000);
    let slot = d.slot(80, 2);
    d.edit(&[delete(80, 2)]);
    assert_eq!(d.follow(80, 1000).unwrap().flags & USABLE, 0);
    assert_eq!(d.picks(80, 2), [1, 1]);
    for _ in 0..200 {
        d.engine.estimate();
    }
    // As another forwarding method, even.
    let tun = ServerSpec { forwarding: Forwarding::Tun, ..server(2, 3) };
    d.edit(&[Edit::AddServer { service: vip(80), server: tun }]);
    assert_eq!(d.slot(80, 2), slot);
    let view = d.engine.service(&vip(80)).unwrap();
    assert_eq!((view.servers[0].spec.id, view.servers[0].active), (rip(2), 1));
    assert_eq!(d.follow(80, 1000).unwrap().flags & USABLE, USABLE);
    assert_eq!(d.follow(80, 1000).unwrap().method, lb_common::proto::TUN);
}

#[test]
fn a_service_made_again_finds_its_servers_connections() {
    let mut d = Director::new(&SIZES);
    let all = [add_service(80), add(80, 1), add(80, 2)];
    d.edit(&all);
    d.connect(80, 1, 1000, 1000);
    let slot = d.slot(80, 1);
    d.edit(&[delete_service(80)]);
    // A server of the same address in another service is another server.
    d.edit(&[add_service(81), add(81, 1)]);
    assert_ne!(d.slot(81, 1), slot);
    d.edit(&all);
    assert_eq!(d.slot(80, 1), slot);
    assert_eq!(d.follow(80, 1000).unwrap().flags & USABLE, USABLE);
}

#[test]
fn trash_is_freed_when_its_connections_are_gone() {
    let mut d = Director::new(&Sizes { servers: 2, ..SIZES });
    d.edit(&[add_service(80), add(80, 1), add(80, 2)]);
    d.connect(80, 1, 1000, 60);
    d.edit(&[delete(80, 1)]);
    assert_full(d.try_edit(&[add(80, 3)]), "1 of them removed");
    d.wait(61);
    assert_eq!(d.engine.sweeper().step(u32::MAX).expired, 1);
    d.edit(&[add(80, 3)]);
    assert_eq!(d.picks(80, 2), [3, 2]);
    // Without need it stays for 120 s.
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(80), add(80, 1)]);
    d.edit(&[delete(80, 1)]);
    for _ in 0..59 {
        d.engine.estimate();
    }
    assert_eq!(d.engine.dests.iter().count(), 1);
    d.engine.estimate();
    assert_eq!(d.engine.dests.iter().count(), 0);
}

#[test]
fn thresholds_decide_the_overload_when_edited() {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(80), add(80, 1)]);
    d.connect(80, 1, 1000, 60);
    d.connect(80, 1, 1001, 60);
    let limit = |upper, lower| edit(80, ServerSpec { upper_threshold: upper, lower_threshold: lower, ..server(1, 1) });
    let overloaded = |d: &Director| d.conns.read(d.slot(80, 1)).unwrap().overloaded;
    d.edit(&[limit(2, 1)]);
    assert_eq!(overloaded(&d), 1);
    d.edit(&[limit(3, 1)]);
    assert_eq!(overloaded(&d), 1, "not below the lower one yet");
    d.edit(&[limit(0, 0)]);
    assert_eq!(overloaded(&d), 0);
}

#[test]
fn a_key_that_the_kernel_refuses_changes_nothing() {
    let mut maps = Maps::in_memory(&SIZES);
    maps.service_keys = maps::Table::Heap { map: HashMap::new(), max: 2 };
    let mut d = Director::over(maps);
    d.edit(&[add_service(1), add(1, 1), add(1, 2)]);
    assert_eq!(d.pick(1), Some(2));
    let edits = [delete(1, 2), add_service(2), add(2, 1), add_service(3), add(3, 1), add_service(4), add(4, 1), add_service(5)];
    assert_full(d.try_edit(&edits), "service TCP 10.9.0.10:3");
    assert_eq!(d.engine.services().services.len(), 1);
    assert_eq!(d.picks(1, 2).len(), 2);
    assert!(d.dest(1, 2).flags & USABLE == USABLE);
    assert_eq!((d.lookup(&key_of(&vip(2))), d.lookup(&key_of(&vip(3)))), (None, None));
    for _ in 0..130 {
        d.engine.estimate();
    }
    assert_eq!((d.engine.dests.iter().count(), d.engine.services.slots.available()), (2, 7));
}

#[test]
fn ipv6_services_are_as_good() {
    let mut d = Director::new(&SIZES);
    let id = ServiceId { protocol: Protocol::Udp, address: "2001:db8::10".parse().unwrap(), port: 53 };
    let netmask = Some("ffff:ffff::".parse().unwrap());
    let mut service = ServiceSpec { one_packet: true, ..spec(id) };
    service.persistence = Some(crate::model::Persistence { timeout_s: 1, netmask });
    let server = ServerSpec { id: ServerId { address: "2001:db8::11".parse().unwrap(), port: 5353 }, ..server(1, 1) };
    d.edit(&[Edit::AddService { service }, Edit::AddServer { service: id, server }]);
    let slot = d.lookup(&key_of(&id)).unwrap();
    let s = d.engine.services.memory.read(slot).unwrap();
    assert_eq!(s.flags, lb_common::service::ONE_PACKET | lb_common::service::PERSISTENT);
    assert_eq!(s.persist_mask, lb_common::family::wide_of("ffff:ffff::".parse().unwrap()).0);
    let plan = s.plans[Service::plan_of(s.cursor)];
    let dest = d.dests.read(d.engine.services.picks_memory.read(plan.base).unwrap()).unwrap();
    assert_eq!(lb_common::family::ip_of(dest.real, dest.family), Some("2001:db8::11".parse().unwrap()));
    assert_eq!(u16::from_be(dest.port), 5353);
}
