//! The ways to the servers, and the ports.

use super::*;
use crate::net::NextHop;
use lb_common::dest::{LOCAL, PRESENT, next_hop};

fn link(index: u32, mac: u8) -> LinkInfo {
    LinkInfo { index, name: format!("eth{index}"), mac: [2, 0, 0, 0, 0, mac], mtu: 1500, up: true, present: true }
}

fn through(ifindex: u32, mac: u8) -> Reach {
    Reach::Resolved(NextHop { mac: [2, 0, 0, 0, 1, mac], ifindex, source: [10, 2, 0, 1].into(), mtu: 1500 })
}

fn port_of(d: &Director, ifindex: u32) -> Option<u32> {
    (0..d.ports.len()).find(|&i| d.ports.read(i).unwrap().ifindex == ifindex)
}

#[test]
fn a_reach_is_written_to_every_server_of_the_address() {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(80), add(80, 1), add_service(81), add(81, 1), add(81, 2)]);
    assert_eq!(d.engine.targets(), [rip(1).address, rip(2).address]);
    d.engine.set_link(&link(7, 7));
    d.engine.set_reach(rip(1).address, through(7, 1));
    let port = port_of(&d, 7).unwrap();
    for service in [80, 81] {
        let dest = d.dest(service, 1);
        assert_eq!(dest.next_hop, next_hop([2, 0, 0, 0, 1, 1], port as u16));
        assert_eq!((dest.src_mac, dest.mtu, dest.ifindex), ([2, 0, 0, 0, 0, 7], 1500, 7));
        assert_ne!(dest.tunnel_sum, 0);
        assert_eq!(dest.tunnel_src, lb_common::family::wide_of([10, 2, 0, 1].into()).0);
    }
    assert_eq!(d.dest(81, 2).next_hop, 0);
    assert_eq!(d.engine.service(&vip(81)).unwrap().servers.iter().map(|s| s.resolved).collect::<Vec<_>>(), [false, true]);
    // A server added later is reached at once.
    d.edit(&[add_service(82), add(82, 1)]);
    assert_ne!(d.dest(82, 1).next_hop, 0);
    d.engine.set_reach(rip(1).address, Reach::Unresolved("no route".into()));
    assert_eq!(d.dest(80, 1).next_hop, 0);
}

#[test]
fn a_local_server_is_marked() {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(80), add(80, 1)]);
    d.engine.set_link(&link(7, 7));
    d.engine.set_reach(rip(1).address, through(7, 1));
    d.engine.set_reach(rip(1).address, Reach::Local);
    assert_eq!((d.dest(80, 1).flags, d.dest(80, 1).next_hop), (USABLE | LOCAL, 0));
    // The mark outlives edits of the server.
    d.edit(&[edit(80, server(1, 0))]);
    assert_eq!(d.dest(80, 1).flags, PRESENT | LOCAL);
    d.edit(&[delete(80, 1)]);
    d.edit(&[add(80, 1)]);
    assert_eq!(d.dest(80, 1).flags, USABLE | LOCAL);
    d.engine.set_reach(rip(1).address, through(7, 1));
    assert_eq!(d.dest(80, 1).flags, USABLE);
}

#[test]
fn links_come_change_and_go() {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(80), add(80, 1)]);
    // The reach is known before the link.
    d.engine.set_reach(rip(1).address, through(7, 1));
    assert_eq!(d.dest(80, 1).next_hop, 0);
    d.engine.set_link(&link(7, 7));
    assert_ne!(d.dest(80, 1).next_hop, 0);
    d.engine.set_link(&LinkInfo { mtu: 9000, ..link(7, 8) });
    let index = port_of(&d, 7).unwrap();
    let port = d.ports.read(index).unwrap();
    assert_eq!((port.mac, port.mtu), ([2, 0, 0, 0, 0, 8], 9000));
    assert_eq!(d.dest(80, 1).src_mac, [2, 0, 0, 0, 0, 8]);
    let generation = d.engine.config.read(0).unwrap().next_hop_generation;
    d.engine.set_link(&LinkInfo { up: false, ..link(7, 8) });
    assert_eq!((d.dest(80, 1).next_hop, port_of(&d, 7)), (0, None));
    assert_ne!(d.engine.config.read(0).unwrap().next_hop_generation, generation);
    // Another interface comes between; the first gets its index back, which connections may still have.
    d.engine.set_link(&link(8, 1));
    d.engine.set_link(&link(7, 8));
    assert_eq!(port_of(&d, 7), Some(index));
    assert_ne!(d.dest(80, 1).next_hop, 0);
    // Without a MAC there is nothing to send frames from.
    d.engine.set_link(&LinkInfo { mac: [0; 6], ..link(1, 0) });
    assert_eq!(port_of(&d, 1), None);
}

#[test]
fn servers_come_before_idle_interfaces_when_ports_run_out() {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(80), add(80, 1)]);
    for i in 1..=70 {
        d.engine.set_link(&link(i, i as u8));
    }
    assert_eq!(port_of(&d, 70), None);
    d.engine.set_reach(rip(1).address, through(70, 1));
    let port = port_of(&d, 70).unwrap();
    assert_eq!(d.dest(80, 1).next_hop >> 48, u64::from(port));
    assert_eq!(d.ports.len() as usize, lb_common::limits::MAX_PORTS as usize);
}

#[test]
fn tunnels_over_the_other_family() {
    let mut d = Director::new(&SIZES);
    let six: IpAddr = "2001:db8::11".parse().unwrap();
    let id = ServerId { address: six, port: 80 };
    let tun = ServerSpec { id, forwarding: Forwarding::Tun, ..server(1, 1) };
    d.edit(&[add_service(80), Edit::AddServer { service: vip(80), server: tun }]);
    d.engine.set_link(&link(7, 7));
    let slot = d.engine.running[&vip(80)].servers[0];
    let source: IpAddr = "2001:db8::1".parse().unwrap();
    d.engine.set_reach(six, Reach::Resolved(NextHop { mac: [2, 0, 0, 0, 1, 1], ifindex: 7, source, mtu: 1500 }));
    let dest = d.dests.read(slot).unwrap();
    assert_eq!((dest.family, dest.tunnel_src, dest.tunnel_sum), (6, lb_common::family::wide_of(source).0, 0));
    assert_ne!(dest.next_hop, 0);
    // An IPv4 source for an IPv6 server is no way at all.
    d.engine.set_reach(six, through(7, 2));
    assert_eq!(d.dests.read(slot).unwrap().next_hop, 0);
}

#[test]
fn addresses_without_servers_are_forgotten() {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(80), add(80, 1)]);
    d.engine.set_link(&link(7, 7));
    d.engine.set_reach(rip(1).address, through(7, 1));
    d.edit(&[delete(80, 1)]);
    assert!(d.engine.targets().is_empty());
    for _ in 0..5 {
        d.engine.estimate();
    }
    d.edit(&[add(80, 1)]);
    assert_eq!(d.dest(80, 1).next_hop, 0);
}
