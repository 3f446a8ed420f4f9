//! Persistence: clients stay with their server, as the kernel's templates have it.

use anyhow::Result;
use lb_common::config::EXPIRE_QUIESCENT_TEMPLATE;
use lb_common::time::ticks_of_seconds;
use lb_userspace::model::{Edit, Forwarding, Persistence, Protocol, ServiceSpec};
use lvx_tests::lab::possible;
use lvx_tests::packet::{Frame, flag};
use lvx_tests::scene::{Scene, server};
use std::net::{IpAddr, SocketAddr};

use flag::{ACK, RST, SYN};

fn persistent(v6: bool, protocol: Protocol, method: Forwarding, netmask: Option<&str>) -> Result<Scene> {
    let mut s = Scene::new(v6, protocol, method, 3, v6)?;
    let netmask = netmask.map(str::parse).transpose()?;
    let old = s.desired.services[0].spec.clone();
    s.edit(Edit::EditService { service: ServiceSpec { persistence: Some(Persistence { timeout_s: 60, netmask }), ..old } })?;
    Ok(s)
}

/// Client number `n`.
fn from(v6: bool, n: u8, port: u16) -> SocketAddr {
    let ip: IpAddr = if v6 { format!("2001:db8:1::{n}") } else { format!("10.1.0.{n}") }.parse().expect("an address");
    SocketAddr::new(ip, port)
}

/// A new connection of a client: the last octet of its server's MAC, or 0 if it got none.
fn connect(s: &mut Scene, client: SocketAddr) -> u8 {
    let frame = match s.id.protocol {
        Protocol::Tcp => Frame::tcp(client, s.vip(), SYN),
        Protocol::Udp => Frame::udp(client, s.vip(), b"x"),
    };
    let step = s.pass(&frame.bytes());
    if step.verdict.starts_with("forwarded") { step.frame[5] } else { 0 }
}

/// As recorded: 3 3 3 ..., 2 2 2 ..., then 1 3 2 and again.
#[test]
fn clients_stay() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for v6 in [false, true] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for method in [Forwarding::Nat, Forwarding::Dr, Forwarding::Tun] {
                let mut s = persistent(v6, protocol, method, None)?;
                let mut port = 20000;
                let mut next = |s: &mut Scene, n: u8| {
                    port += 1;
                    connect(s, from(v6, n, port))
                };
                assert_eq!((0..6).map(|_| next(&mut s, 2)).collect::<Vec<_>>(), [3; 6]);
                assert_eq!((0..6).map(|_| next(&mut s, 11)).collect::<Vec<_>>(), [2; 6]);
                assert_eq!([12, 13, 14, 12, 13, 14].map(|n| next(&mut s, n)), [1, 3, 2, 1, 3, 2]);
                assert_eq!((0..3).map(|_| next(&mut s, 2)).collect::<Vec<_>>(), [3; 3]);
                let services = s.d.engine.services();
                let templates: Vec<u64> = services.services[0].servers.iter().map(|d| d.persistent).collect();
                assert_eq!(templates, [2, 2, 1], "newest server first");
                // Connections and packets are counted without the templates.
                assert_eq!(services.services[0].stats.connections, 21);
                let shown: Vec<_> = s.d.engine.connections().filter(|c| c.client.port() == 0).collect();
                assert_eq!(shown.len(), 5);
                assert!(shown.iter().all(|c| c.service == s.vip() && c.protocol == protocol));
            }
        }
    }
    Ok(())
}

/// A template is assured once a connection under it was established.
#[test]
fn assured() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut s = persistent(false, Protocol::Tcp, Forwarding::Dr, None)?;
    let state = |s: &Scene| s.d.engine.connections().find(|c| c.client.port() == 0).map(|c| c.state);
    let client = from(false, 2, 40000);
    connect(&mut s, client);
    assert_eq!(state(&s).as_deref(), Some("NONE"));
    s.pass(&Frame::tcp(client, s.vip(), ACK).bytes());
    assert_eq!(state(&s).as_deref(), Some("ASSURED"));
    Ok(())
}

/// Clients of one network share a template.
#[test]
fn netmasks() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut s = persistent(false, Protocol::Tcp, Forwarding::Nat, Some("255.255.255.0"))?;
    assert_eq!((11..17).map(|n| connect(&mut s, from(false, n, 1000))).collect::<Vec<_>>(), [3; 6]);
    let template = s.d.engine.connections().find(|c| c.client.port() == 0).expect("a template");
    assert_eq!(template.client.to_string(), "10.1.0.0:0");
    assert_eq!(connect(&mut s, "10.1.1.11:1000".parse()?), 2);
    let mut s = persistent(true, Protocol::Udp, Forwarding::Dr, Some("ffff:ffff:ffff::"))?;
    assert_eq!((1..5).map(|n| connect(&mut s, from(true, n, 1000))).collect::<Vec<_>>(), [3; 4]);
    assert_eq!(connect(&mut s, "[2001:db8:2::1]:1000".parse()?), 2);
    Ok(())
}

/// One template for all ports of a client, and servers take packets at the port that they were sent to.
#[test]
fn every_port() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for v6 in [false, true] {
        let mut s = persistent(v6, Protocol::Tcp, Forwarding::Nat, None)?;
        let old = s.desired.services[0].spec.clone();
        s.edit(Edit::Clear)?;
        s.id.port = 0;
        s.edit(Edit::AddService { service: ServiceSpec { id: s.id, ..old } })?;
        for n in 1..=2 {
            let mut spec = s.spec(n, v6);
            spec.id.port = 0;
            s.edit(Edit::AddServer { service: s.id, server: spec })?;
        }
        let ip = s.id.address;
        for port in [80u16, 443, 8080, 80] {
            let client = from(v6, 2, 40000 + port);
            let step = s.pass(&Frame::tcp(client, SocketAddr::new(ip, port), SYN).bytes());
            assert_eq!(step.verdict, "forwarded_nat");
            let l4 = if v6 { 54 } else { 34 };
            assert_eq!(step.frame[l4 + 2..l4 + 4], port.to_be_bytes());
            assert_eq!(step.frame[5], 2);
            // And back.
            let real = SocketAddr::new(server(v6, 2, Forwarding::Nat).ip(), port);
            let back = s.pass(&Frame::tcp(real, client, SYN | ACK).bytes());
            assert_eq!(back.verdict, "forwarded_nat_reply");
            assert_eq!(back.frame[l4..l4 + 2], port.to_be_bytes());
        }
        let templates = s.d.engine.connections().filter(|c| c.client.port() == 0).count();
        assert_eq!(templates, 1);
    }
    Ok(())
}

/// Weight 0 keeps clients unless told otherwise; a server that is gone does not.
#[test]
fn quiesced_and_removed_servers() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut s = persistent(false, Protocol::Tcp, Forwarding::Nat, None)?;
    assert_eq!(connect(&mut s, from(false, 2, 1)), 3);
    let mut quiet = s.spec(3, false);
    quiet.weight = 0;
    s.edit(Edit::EditServer { service: s.id, server: quiet })?;
    assert_eq!((2..5).map(|p| connect(&mut s, from(false, 2, p))).collect::<Vec<_>>(), [3; 3]);
    s.d.engine.set_flags(EXPIRE_QUIESCENT_TEMPLATE);
    let moved = connect(&mut s, from(false, 2, 5));
    assert!(moved == 1 || moved == 2, "{moved}");
    assert_eq!((6..9).map(|p| connect(&mut s, from(false, 2, p))).collect::<Vec<_>>(), [moved; 3]);
    s.d.engine.set_flags(0);
    let gone = s.spec(moved, false);
    s.edit(Edit::DeleteServer { service: s.id, server: gone.id })?;
    assert_eq!(connect(&mut s, from(false, 2, 9)), 3 - moved);
    Ok(())
}

/// Every new connection puts the deadline off; without one the client may go elsewhere, but not while connections live.
#[test]
fn deadlines() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut s = persistent(false, Protocol::Tcp, Forwarding::Dr, None)?;
    let at = |s: &mut Scene, seconds: u32| s.d.engine.set_clock_offset(ticks_of_seconds(seconds));
    let open = |s: &mut Scene, port: u16, last: u8| {
        let to = connect(s, from(false, 2, port));
        for flags in [ACK, last] {
            s.pass(&Frame::tcp(from(false, 2, port), s.vip(), flags).bytes());
        }
        to
    };
    assert_eq!(open(&mut s, 1, RST), 3);
    at(&mut s, 50);
    assert_eq!(open(&mut s, 2, RST), 3);
    at(&mut s, 100);
    assert_eq!(open(&mut s, 3, RST), 3);
    // All closed and swept: 61 s after the last one the template is gone.
    at(&mut s, 125);
    let mut sweeper = s.d.engine.sweeper();
    while !sweeper.step(1 << 20).round {}
    at(&mut s, 161);
    assert_eq!(open(&mut s, 4, ACK), 2);
    // That connection lives: the template waits for it.
    at(&mut s, 161 + 300);
    assert_eq!(open(&mut s, 5, RST), 2);
    Ok(())
}

/// A packet from port 0 is not taken for the template.
#[test]
fn port_zero_is_a_client_too() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut s = persistent(false, Protocol::Udp, Forwarding::Dr, None)?;
    assert_eq!(connect(&mut s, from(false, 2, 1)), 3);
    assert_eq!(connect(&mut s, from(false, 2, 0)), 3);
    assert_eq!(s.d.engine.services().services[0].stats.connections, 2);
    Ok(())
}
