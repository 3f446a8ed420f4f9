//! Packets that are forwarded: bytes, verdicts and counters, by BPF_PROG_TEST_RUN.

use anyhow::Result;
use lb_userspace::model::{Edit, Forwarding, Protocol};
use lvx_tests::director::action::{DROP, PASS, TX};
use lvx_tests::lab::possible;
use lvx_tests::packet::{Frame, checksums_right, flag};
use lvx_tests::scene::{Scene, client, server, server_mac, to_client, to_server, tunnel_source};
use proptest::prelude::*;

const BOTH: [bool; 2] = [false, true];

/// Forward and back, translated, with right checksums and the TTL lowered; newest server first.
#[test]
fn nat_both_ways() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for v6 in BOTH {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let mut s = Scene::new(v6, protocol, Forwarding::Nat, 3, v6)?;
            for (i, n) in [3u8, 2, 1, 3].into_iter().enumerate() {
                let port = 40000 + i as u16;
                let sent = s.from_client(port, flag::SYN);
                let step = s.pass(&sent.bytes());
                let real = server(v6, n, Forwarding::Nat);
                let expected = to_server(Frame { dst: real, ttl: 63, ..sent.clone() }.bytes(), n);
                assert_eq!((step.action, step.verdict.as_str()), (TX, "forwarded_nat"), "{sent:?}");
                assert_eq!(step.frame, expected, "{sent:?}");
                assert!(checksums_right(&step.frame));
                let answer = Frame { src: real, dst: client(v6, port), tcp: sent.tcp.map(|_| flag::SYN | flag::ACK), ..sent };
                let step = s.pass(&answer.bytes());
                assert_eq!((step.action, step.verdict.as_str()), (TX, "forwarded_nat_reply"), "{answer:?}");
                assert_eq!(step.frame, to_client(Frame { src: s.vip(), ttl: 63, ..answer }.bytes()));
            }
            let services = s.d.engine.services();
            let stats = services.services[0].stats;
            let len = s.from_client(1, 0).bytes().len() as u64 - 14;
            assert_eq!((stats.connections, stats.in_packets, stats.out_packets), (4, 4, 4));
            assert_eq!((stats.in_bytes, stats.out_bytes), (4 * len, 4 * len));
            let by_server: Vec<_> = services.services[0].servers.iter().map(|s| s.stats.connections).collect();
            assert_eq!(by_server, [2, 1, 1]);
        }
    }
    Ok(())
}

/// A UDP checksum of zero (none) stays zero; any other is never sent as zero.
#[test]
fn nat_without_udp_checksum() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut s = Scene::new(false, Protocol::Udp, Forwarding::Nat, 1, false)?;
    let mut frame = s.from_client(40000, 0).bytes();
    frame[40..42].fill(0);
    let step = s.pass(&frame);
    assert_eq!(step.verdict, "forwarded_nat");
    assert_eq!(step.frame[40..42], [0, 0]);
    // A payload whose checksum becomes zero under the translation: it is sent as all ones.
    let becomes_zero = (0..=u16::MAX).find(|n| {
        let f = Frame::udp(client(false, 40000), server(false, 1, Forwarding::Nat), &n.to_be_bytes());
        f.bytes()[40..42] == [0xff, 0xff]
    });
    let payload = becomes_zero.expect("one of 65536 does").to_be_bytes();
    let step = s.pass(&Frame::udp(client(false, 40000), s.vip(), &payload).bytes());
    assert_eq!(step.frame[40..42], [0xff, 0xff]);
    Ok(())
}

#[test]
fn dr_changes_macs_and_ttl_alone() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for v6 in BOTH {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let mut s = Scene::new(v6, protocol, Forwarding::Dr, 2, v6)?;
            for (i, n) in [2u8, 1].into_iter().enumerate() {
                let sent = s.from_client(50000 + i as u16, flag::SYN);
                let step = s.pass(&sent.bytes());
                assert_eq!((step.action, step.verdict.as_str()), (TX, "forwarded_dr"));
                assert_eq!(step.frame, to_server(Frame { ttl: 63, ..sent }.bytes(), n));
            }
        }
    }
    Ok(())
}

/// All four combinations of families; the outer header is compared whole.
#[test]
fn tun_wraps_either_family_in_either() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for (v6, outer_v6) in [(false, false), (true, true), (false, true), (true, false)] {
        for tos in [0u8, 0x10, 0xb8, 0x03, 0x02] {
            let mut s = Scene::new(v6, Protocol::Tcp, Forwarding::Tun, 1, outer_v6)?;
            let mut sent = s.from_client(40000, flag::SYN).bytes();
            set_tos(&mut sent, v6, tos);
            let step = s.pass(&sent);
            assert_eq!((step.action, step.verdict.as_str()), (TX, "forwarded_tun"));
            let inner = &mut sent[14..].to_vec();
            lower_ttl(inner, v6);
            // Congestion experienced is not copied; the sender is told "ECN-capable" instead.
            let outer_tos = if tos & 3 == 3 { (tos & !3) | 2 } else { tos };
            let proto = if v6 { 41 } else { 4 };
            let (IpBytes(src), IpBytes(dst)) = (tunnel_source(outer_v6).into(), server(outer_v6, 1, Forwarding::Tun).ip().into());
            let mut expected = [server_mac(1), lvx_tests::director::DIRECTOR_MAC].concat();
            if outer_v6 {
                expected.extend([0x86, 0xdd, 0x60 | outer_tos >> 4, outer_tos << 4, 0, 0]);
                expected.extend((inner.len() as u16).to_be_bytes());
                expected.extend([proto, 63]);
            } else {
                expected.extend([0x08, 0x00, 0x45, outer_tos]);
                expected.extend((inner.len() as u16 + 20).to_be_bytes());
                expected.extend([0, 0, 0x40, 0, 63, proto, 0, 0]);
            }
            expected.extend(src);
            expected.extend(dst);
            if !outer_v6 {
                let sum = !lb_common::csum::fold(lb_common::csum::sum_bytes(&expected[14..34]));
                expected[24..26].copy_from_slice(&sum.to_ne_bytes());
            }
            expected.extend_from_slice(inner);
            assert_eq!(step.frame, expected, "v6 {v6} in v6 {outer_v6}, tos {tos:#x}");
        }
    }
    Ok(())
}

struct IpBytes(Vec<u8>);

impl From<std::net::IpAddr> for IpBytes {
    fn from(ip: std::net::IpAddr) -> Self {
        Self(match ip {
            std::net::IpAddr::V4(ip) => ip.octets().into(),
            std::net::IpAddr::V6(ip) => ip.octets().into(),
        })
    }
}

fn set_tos(frame: &mut [u8], v6: bool, tos: u8) {
    if v6 {
        frame[14] = 0x60 | tos >> 4;
        frame[15] = tos << 4;
    } else {
        frame[15] = tos;
        fix_header(&mut frame[14..34]);
    }
}

fn lower_ttl(ip: &mut [u8], v6: bool) {
    if v6 {
        ip[7] -= 1;
    } else {
        ip[8] -= 1;
        fix_header(&mut ip[..20]);
    }
}

fn fix_header(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum = !lb_common::csum::fold(lb_common::csum::sum_bytes(header));
    header[10..12].copy_from_slice(&sum.to_ne_bytes());
}

/// IP options travel along; Ethernet padding behind the packet too.
#[test]
fn options_and_padding() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut s = Scene::new(false, Protocol::Tcp, Forwarding::Nat, 1, false)?;
    let plain = s.from_client(40000, flag::SYN).bytes();
    let mut frame = plain[..34].to_vec();
    frame.extend([7, 7, 4, 0, 0, 0, 0, 1]);
    frame.extend_from_slice(&plain[34..]);
    frame[14] = 0x47;
    let total = (plain.len() as u16 - 14) + 8;
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    fix_header(&mut frame[14..42]);
    frame.extend([0xaa; 6]);
    let step = s.pass(&frame);
    assert_eq!(step.verdict, "forwarded_nat");
    assert_eq!(step.frame.len(), frame.len());
    assert_eq!(step.frame[34..42], frame[34..42]);
    assert_eq!(step.frame[frame.len() - 6..], [0xaa; 6]);
    assert!(checksums_right(&step.frame));
    Ok(())
}

/// IPv6 extension headers are skipped to find the ports.
#[test]
fn extension_headers() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut s = Scene::new(true, Protocol::Udp, Forwarding::Nat, 1, true)?;
    let plain = s.from_client(40000, 0).bytes();
    for kinds in [vec![0u8], vec![60], vec![0, 43, 60], vec![0, 60, 43, 60]] {
        let mut frame = plain[..54].to_vec();
        frame[20] = kinds[0];
        for (i, _) in kinds.iter().enumerate() {
            frame.extend([kinds.get(i + 1).copied().unwrap_or(17), 0, 1, 4, 0, 0, 0, 0]);
        }
        frame.extend_from_slice(&plain[54..]);
        let payload = (frame.len() - 54) as u16;
        frame[18..20].copy_from_slice(&payload.to_be_bytes());
        let step = s.pass(&frame);
        assert_eq!(step.verdict, "forwarded_nat", "{kinds:?}");
        let at = 54 + 8 * kinds.len();
        assert_eq!(step.frame[at + 2..at + 4], 8080u16.to_be_bytes());
        assert_eq!(step.frame[54..at], frame[54..at]);
    }
    Ok(())
}

/// A next hop that is not known: NAT is left to the kernel, translated; DR and TUN cannot be.
#[test]
fn unresolved() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for (method, verdict, action) in [
        (Forwarding::Nat, "passed_unresolved", PASS),
        (Forwarding::Dr, "dropped_unresolved", DROP),
        (Forwarding::Tun, "dropped_unresolved", DROP),
    ] {
        let mut s = Scene::new(false, Protocol::Tcp, method, 0, false)?;
        let spec = s.spec(9, false);
        s.edit(Edit::AddServer { service: s.id, server: spec })?;
        let sent = s.from_client(40000, flag::SYN);
        let step = s.pass(&sent.bytes());
        assert_eq!((step.action, step.verdict.as_str()), (action, verdict));
        if method == Forwarding::Nat {
            // The kernel lowers the TTL.
            let expected = Frame { dst: server(false, 9, method), ..sent }.bytes();
            assert_eq!(step.frame, expected);
        }
    }
    Ok(())
}

/// A server on the director itself: its stack gets the packet as it is.
#[test]
fn local() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut s = Scene::new(false, Protocol::Tcp, Forwarding::Dr, 1, false)?;
    s.d.engine.set_reach(server(false, 1, Forwarding::Dr).ip(), lb_userspace::net::Reach::Local);
    let sent = s.from_client(40000, flag::SYN).bytes();
    let step = s.pass(&sent);
    assert_eq!((step.action, step.verdict.as_str()), (PASS, "forwarded_local"));
    assert_eq!(step.frame, sent);
    Ok(())
}

/// Random payloads and ports through the real program: every checksum is right, both ways.
#[test]
fn checksums_of_random_packets() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for v6 in BOTH {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let scene = std::cell::RefCell::new(Scene::new(v6, protocol, Forwarding::Nat, 3, v6)?);
            let config = ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() };
            proptest!(config, |(port in 1u16.., payload in proptest::collection::vec(any::<u8>(), 0..200), ttl in 2u8..)| {
                let mut s = scene.borrow_mut();
                let sent = s.from_client(port, flag::SYN).payload(&payload).ttl(ttl);
                let step = s.pass(&sent.bytes());
                prop_assert_eq!(step.verdict.as_str(), "forwarded_nat");
                prop_assert!(checksums_right(&step.frame));
                // The answer to what the server saw.
                let ip = if v6 { 54 } else { 34 };
                let octet = step.frame[if v6 { 53 } else { 33 }];
                let real = (1..=3u8).map(|n| server(v6, n, Forwarding::Nat)).find(|a| match a.ip() {
                    std::net::IpAddr::V4(i) => i.octets()[3] == octet,
                    std::net::IpAddr::V6(i) => i.octets()[15] == octet,
                }).expect("one of the servers");
                prop_assert_eq!(&step.frame[ip + 2..ip + 4], &8080u16.to_be_bytes()[..]);
                let answer = Frame { src: real, dst: client(v6, port), tcp: sent.tcp.map(|_| flag::SYN | flag::ACK), ..sent };
                let step = s.pass(&answer.bytes());
                prop_assert_eq!(step.verdict.as_str(), "forwarded_nat_reply");
                prop_assert!(checksums_right(&step.frame));
            });
        }
    }
    Ok(())
}
