//! One-packet scheduling: every datagram by itself, no connection, and answers that leave as the service's all the same.

use anyhow::Result;
use lb_userspace::model::{Edit, Forwarding, Persistence, Protocol, ServerSpec, ServiceId, ServiceSpec};
use lvx_tests::director::{Answer, action};
use lvx_tests::lab::possible;
use lvx_tests::packet::{Frame, checksums_right};
use lvx_tests::scene::{Scene, Step, client, server, server_mac, to_client, tunnel_source};
use std::net::SocketAddr;

const METHODS: [(Forwarding, &str); 3] =
    [(Forwarding::Nat, "forwarded_nat"), (Forwarding::Dr, "forwarded_dr"), (Forwarding::Tun, "forwarded_tun")];

fn edit_service(s: &mut Scene, change: impl FnOnce(&mut ServiceSpec)) -> Result<()> {
    let mut service = s.desired.services[0].spec.clone();
    change(&mut service);
    s.edit(Edit::EditService { service })
}

fn scene(v6: bool, method: Forwarding, servers: u8) -> Result<Scene> {
    let mut s = Scene::new(v6, Protocol::Udp, method, servers, v6)?;
    edit_service(&mut s, |s| s.one_packet = true)?;
    Ok(s)
}

/// The client's datagram: the server's number.
fn ask(s: &mut Scene, port: u16) -> u8 {
    let step = s.pass(&s.from_client(port, 0).bytes());
    assert!(step.verdict.starts_with("forwarded"), "{step:?}");
    step.frame[5]
}

/// Server `n`'s answer to a client.
fn answer(s: &mut Scene, n: u8, to: SocketAddr) -> Step {
    s.pass(&Frame::udp(server(to.is_ipv6(), n, Forwarding::Nat), to, b"from the server").bytes())
}

/// That answer as the client must see it, if `service` was asked.
fn translated(service: SocketAddr, to: SocketAddr) -> Vec<u8> {
    to_client(Frame::udp(service, to, b"from the server").ttl(63).bytes())
}

/// As recorded: 3 2 1 3 2 1 from one socket, and nothing is kept.
#[test]
fn every_datagram_by_itself() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for v6 in [false, true] {
        for (method, verdict) in METHODS {
            let mut s = scene(v6, method, 3)?;
            for want in [3, 2, 1, 3, 2, 1, 3, 2, 1, 3, 2, 1] {
                let frame = s.from_client(40000, 0).bytes();
                let step = s.pass(&frame);
                assert_eq!((step.verdict.as_str(), step.action, step.frame[5]), (verdict, action::TX, want));
                assert_eq!((s.connections(), s.counts()), (0, (0, 0)));
                if method == Forwarding::Nat {
                    assert!(checksums_right(&step.frame));
                    let mut want = Frame::udp(client(v6, 40000), server(v6, step.frame[5], method), b"from the client");
                    want.ttl = 63;
                    assert_eq!(step.frame[14..], want.bytes()[14..]);
                }
            }
            let services = s.d.engine.services();
            let bytes = 12 * (s.from_client(1, 0).bytes().len() as u64 - 14);
            let total = &services.services[0].stats;
            assert_eq!((total.connections, total.in_packets, total.in_bytes, total.out_packets), (12, 12, bytes, 0));
            assert!(services.services[0].servers.iter().all(|d| (d.stats.connections, d.stats.in_packets) == (4, 4)));
        }
    }
    Ok(())
}

/// The kernel's IPVS leaves these untranslated.
#[test]
fn answers_leave_as_the_services() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for v6 in [false, true] {
        let mut s = scene(v6, Forwarding::Nat, 3)?;
        let vip = s.vip();
        for port in [40000, 40001] {
            let n = ask(&mut s, port);
            for from in [n, n] {
                let step = answer(&mut s, from, client(v6, port));
                assert_eq!((step.verdict.as_str(), step.action), ("forwarded_nat_reply", action::TX));
                assert_eq!(step.frame, translated(vip, client(v6, port)));
            }
        }
        let services = s.d.engine.services();
        assert_eq!((services.services[0].stats.connections, services.services[0].stats.out_packets), (2, 4));
        // No trace of this client: what it looks like is known all the same, only not the way to it.
        let step = answer(&mut s, 1, client(v6, 50000));
        assert_eq!((step.verdict.as_str(), step.action), ("passed_reply", action::PASS));
        assert_eq!(step.frame[14..], Frame::udp(vip, client(v6, 50000), b"from the server").bytes()[14..]);
        // Its TTL used up.
        let step = s.pass(&Frame::udp(server(v6, 1, Forwarding::Nat), client(v6, 40000), b"x").ttl(1).bytes());
        assert_eq!(step.verdict, "passed_ttl");
        // Other ports of the server, other protocols, other hosts.
        let real = server(v6, 1, Forwarding::Nat);
        for other in [
            Frame::udp(SocketAddr::new(real.ip(), 53), client(v6, 40000), b"x"),
            Frame::tcp(real, client(v6, 40000), 2),
            Frame::udp(SocketAddr::new(server(v6, 9, Forwarding::Nat).ip(), real.port()), client(v6, 40000), b"x"),
        ] {
            let step = s.pass(&other.bytes());
            assert_eq!((step.verdict.as_str(), step.action), ("passed_no_service", action::PASS));
            assert_eq!(step.frame, other.bytes());
        }
    }
    Ok(())
}

/// Answers are known only as long as their server is one of a one-packet service under NAT.
#[test]
fn until_it_changes() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let verdict = |s: &mut Scene| {
        let step = answer(s, 1, client(false, 40000));
        assert!(step.verdict == "forwarded_nat_reply" || step.frame[26..30] == [10, 0, 0, 11], "{step:?}");
        step.verdict
    };
    let mut s = scene(false, Forwarding::Nat, 1)?;
    ask(&mut s, 40000);
    assert_eq!(verdict(&mut s), "forwarded_nat_reply");
    edit_service(&mut s, |s| s.one_packet = false)?;
    assert_eq!(verdict(&mut s), "passed_no_service");
    edit_service(&mut s, |s| s.one_packet = true)?;
    assert_eq!(verdict(&mut s), "forwarded_nat_reply");
    let spec = s.spec(1, false);
    s.edit(Edit::EditServer { service: s.id, server: ServerSpec { weight: 0, ..spec } })?;
    assert_eq!(verdict(&mut s), "forwarded_nat_reply", "quiesced, but answers what it was asked");
    assert_eq!(s.pass(&s.from_client(40000, 0).bytes()).verdict, "replied_no_server");
    let spec = s.spec(1, false);
    s.edit(Edit::DeleteServer { service: s.id, server: spec.id })?;
    assert_eq!(verdict(&mut s), "passed_no_service");
    s.edit(Edit::AddServer { service: s.id, server: spec })?;
    assert_eq!(verdict(&mut s), "forwarded_nat_reply");
    s.edit(Edit::Clear)?;
    assert_eq!(verdict(&mut s), "passed_no_service");
    Ok(())
}

/// One server of two services: the client gets its answer from the one that it asked.
#[test]
fn shared_servers() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for v6 in [false, true] {
        let mut s = scene(v6, Forwarding::Nat, 1)?;
        let other = ServiceId { port: 5353, ..s.id };
        let spec = ServiceSpec { id: other, ..s.desired.services[0].spec.clone() };
        s.edit(Edit::AddService { service: spec })?;
        let shared = s.spec(1, v6);
        s.edit(Edit::AddServer { service: other, server: shared.clone() })?;
        let both = [s.vip(), SocketAddr::new(other.address, other.port)];
        for (service, port) in [(both[0], 40000), (both[1], 40001), (both[0], 40002), (both[1], 40003)] {
            let step = s.pass(&Frame::udp(client(v6, port), service, b"x").bytes());
            assert_eq!(step.verdict, "forwarded_nat");
        }
        for (service, port) in [(both[1], 40001), (both[0], 40000), (both[0], 40002), (both[1], 40003)] {
            assert_eq!(answer(&mut s, 1, client(v6, port)).frame, translated(service, client(v6, port)));
        }
        // The first of them goes: what is left is certain again.
        s.edit(Edit::DeleteService { service: s.id })?;
        let step = answer(&mut s, 1, client(v6, 50000));
        assert_eq!(step.verdict, "passed_reply");
        assert_eq!(step.frame[14..], Frame::udp(both[1], client(v6, 50000), b"from the server").bytes()[14..]);
        s.edit(Edit::DeleteServer { service: other, server: shared.id })?;
        assert_eq!(answer(&mut s, 1, client(v6, 40001)).verdict, "passed_no_service");
    }
    Ok(())
}

/// With persistence there is a template and nothing else, as in the kernel.
#[test]
fn persistence() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for v6 in [false, true] {
        for (method, _) in METHODS {
            let mut s = scene(v6, method, 3)?;
            edit_service(&mut s, |s| s.persistence = Some(Persistence { timeout_s: 60, netmask: None }))?;
            assert_eq!([1, 2, 3, 3].map(|port| ask(&mut s, port)), [3; 4]);
            let all: Vec<_> = s.d.engine.connections().collect();
            assert_eq!(all.len(), 1, "{all:?}");
            assert_eq!((all[0].client.port(), all[0].state.as_str()), (0, "ASSURED"));
            assert_eq!(s.counts(), (0, 0));
            assert_eq!(s.d.engine.services().services[0].servers[0].persistent, 1);
            if method == Forwarding::Nat {
                assert_eq!(answer(&mut s, 3, client(v6, 2)).frame, translated(s.vip(), client(v6, 2)));
            }
            // And it expires as any.
            s.d.engine.set_clock_offset(lb_common::time::ticks_of_seconds(61));
            assert_eq!(ask(&mut s, 1), 2);
        }
    }
    Ok(())
}

/// A service of every port answers from the port that was asked.
#[test]
fn every_port() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for v6 in [false, true] {
        let mut s = scene(v6, Forwarding::Nat, 1)?;
        let mut service = s.desired.services[0].spec.clone();
        s.edit(Edit::Clear)?;
        service.id.port = 0;
        service.persistence = Some(Persistence { timeout_s: 60, netmask: None });
        let id = service.id;
        s.edit(Edit::AddService { service })?;
        let mut spec = s.spec(1, v6);
        spec.id.port = 0;
        s.edit(Edit::AddServer { service: id, server: spec })?;
        for port in [53, 5353] {
            let (from, vip) = (client(v6, 40000), SocketAddr::new(id.address, port));
            assert_eq!(s.pass(&Frame::udp(from, vip, b"x").bytes()).verdict, "forwarded_nat");
            let real = SocketAddr::new(server(v6, 1, Forwarding::Nat).ip(), port);
            let step = s.pass(&Frame::udp(real, from, b"from the server").bytes());
            assert_eq!(step.frame, translated(vip, from));
        }
    }
    Ok(())
}

/// A flow that has a connection keeps it; a client that is itself behind NAT of another kind, and whoever asks from a server's port, is served.
#[test]
fn beside_connections() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut s = Scene::new(false, Protocol::Udp, Forwarding::Nat, 3, false)?;
    assert_eq!([ask(&mut s, 1), ask(&mut s, 1)], [3, 3]);
    edit_service(&mut s, |s| s.one_packet = true)?;
    assert_eq!([ask(&mut s, 1), ask(&mut s, 2), ask(&mut s, 2), ask(&mut s, 1)], [3, 2, 1, 3]);
    assert_eq!((s.connections(), s.counts()), (1, (0, 1)));
    // A server that asks the service from the port that it answers from.
    let (real, vip) = (server(false, 1, Forwarding::Nat), s.vip());
    assert_eq!(s.pass(&Frame::udp(real, vip, b"x").bytes()).verdict, "forwarded_nat");
    // TTL, and no server.
    assert_eq!(s.pass(&s.from_client(2, 0).ttl(1).bytes()).verdict, "replied_ttl");
    for n in 1..=3 {
        let id = s.spec(n, false).id;
        s.edit(Edit::DeleteServer { service: s.id, server: id })?;
    }
    assert_eq!(s.pass(&s.from_client(2, 0).bytes()).verdict, "replied_no_server");
    let Answer { action, .. } = s.d.run(lb_userspace::object::PROGRAM, &s.from_client(1, 0).bytes())?;
    assert_eq!(action, lvx_tests::director::action::DROP, "its connection's server is gone");
    // Tunnels have another family's servers.
    let mut s = Scene::new(false, Protocol::Udp, Forwarding::Tun, 2, true)?;
    edit_service(&mut s, |s| s.one_packet = true)?;
    s.d.reach(server(true, 1, Forwarding::Tun).ip(), server_mac(1), tunnel_source(true));
    assert_eq!([ask(&mut s, 1), ask(&mut s, 1), ask(&mut s, 1)], [2, 1, 2]);
    Ok(())
}
