//! Packets that are not forwarded: what passes leaves byte for byte, what is malformed makes no connection, and what gets an ICMP
//! answer gets the right one.

use anyhow::Result;
use lb_userspace::model::{Edit, Forwarding, Protocol};
use lb_userspace::object::PROGRAM;
use lvx_tests::director::action::{DROP, PASS, TX};
use lvx_tests::director::{DIRECTOR_MAC, possible_cpus};
use lvx_tests::lab::possible;
use lvx_tests::packet::{CLIENT_MAC, Frame, checksums_right, flag};
use lvx_tests::scene::{Scene, client, server};
use std::time::Instant;

/// Passes untouched, under this verdict, and makes no connection.
fn passes(s: &mut Scene, frame: &[u8], verdict: &str, what: &str) {
    let before = s.connections();
    let step = s.pass(frame);
    assert_eq!((step.action, step.verdict.as_str()), (PASS, verdict), "{what}");
    assert_eq!(step.frame, frame, "{what}: bytes");
    assert_eq!(s.connections(), before, "{what}");
}

fn changed(frame: &[u8], f: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = frame.to_vec();
    f(&mut frame);
    frame
}

fn fix_v4(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum = !lb_common::csum::fold(lb_common::csum::sum_bytes(&frame[14..34]));
    frame[24..26].copy_from_slice(&sum.to_ne_bytes());
}

#[test]
fn what_is_not_ours() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for v6 in [false, true] {
        let mut s = Scene::new(v6, Protocol::Tcp, Forwarding::Nat, 1, v6)?;
        let syn = s.from_client(40000, flag::SYN).bytes();
        let (c, vip) = (client(v6, 40000), s.vip());
        let other = |port| std::net::SocketAddr::new(vip.ip(), port);
        passes(&mut s, &Frame::tcp(c, other(81), flag::SYN).bytes(), "passed_no_service", "another port");
        passes(&mut s, &Frame::udp(c, vip, b"x").bytes(), "passed_no_service", "the other protocol");
        passes(&mut s, &Frame::tcp(vip, c, flag::SYN).bytes(), "passed_no_service", "another address");
        passes(
            &mut s,
            &Frame::tcp(server(v6, 1, Forwarding::Nat), c, flag::ACK).bytes(),
            "passed_no_service",
            "an unknown answer",
        );
        passes(&mut s, &Frame::tcp(c, vip, flag::ACK).bytes(), "passed_no_connection", "no SYN");
        passes(&mut s, &Frame::tcp(c, vip, flag::SYN | flag::RST).bytes(), "passed_no_connection", "SYN and RST");
        for (name, ethertype) in [("VLAN", 0x8100u16), ("QinQ", 0x88a8), ("ARP", 0x0806), ("LLDP", 0x88cc), ("length", 60)] {
            let frame = changed(&syn, |f| f[12..14].copy_from_slice(&ethertype.to_be_bytes()));
            passes(&mut s, &frame, "passed_other", name);
        }
        for group in [[0xff; 6], [0x33, 0x33, 0, 0, 0, 1], [1, 0, 0x5e, 0, 0, 1]] {
            passes(&mut s, &changed(&syn, |f| f[..6].copy_from_slice(&group)), "passed_other", "a group of stations");
        }
        for proto in [1u8, 2, 4, 41, 47, 50, 58, 132, 255] {
            let frame = changed(&syn, |f| {
                f[if v6 { 20 } else { 23 }] = proto;
                if !v6 {
                    fix_v4(f);
                }
            });
            passes(&mut s, &frame, "passed_protocol", &format!("protocol {proto}"));
        }
        if v6 {
            let frame = changed(&syn, |f| f[20] = 44);
            passes(&mut s, &frame, "passed_fragment", "a fragment header");
        } else {
            for bits in [0x2000u16, 0x0001, 0x1fff, 0x2010] {
                let frame = changed(&syn, |f| {
                    f[20..22].copy_from_slice(&bits.to_be_bytes());
                    fix_v4(f);
                });
                passes(&mut s, &frame, "passed_fragment", "a fragment");
            }
        }
        // The sender's own fault: nobody could answer it.
        let from = |a: &str| std::net::SocketAddr::new(a.parse().expect("an address"), 40000);
        let martians: &[&str] =
            if v6 { &["::", "::1", "ff02::1"] } else { &["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] };
        for m in martians {
            passes(&mut s, &Frame::tcp(from(m), vip, flag::SYN).bytes(), "passed_malformed", m);
        }
        passes(
            &mut s,
            &Frame::tcp(std::net::SocketAddr::new(vip.ip(), 1), vip, flag::SYN).bytes(),
            "passed_malformed",
            "from the VIP",
        );
        assert_eq!(s.connections(), 0);
    }
    Ok(())
}

/// Every length short of the whole, and lengths that lie.
#[test]
fn malformed() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for v6 in [false, true] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let mut s = Scene::new(v6, protocol, Forwarding::Nat, 1, v6)?;
            let whole = s.from_client(40000, flag::SYN).bytes();
            // The kernel's test runs take frames from the length of an Ethernet header on.
            for len in 14..whole.len() {
                passes(&mut s, &whole[..len], "passed_malformed", &format!("{len} of {} bytes", whole.len()));
            }
            let l4 = if v6 { 54 } else { 34 };
            let mut bad: Vec<(&str, Vec<u8>)> = vec![("version 5", changed(&whole, |f| f[14] = 0x55))];
            let length_at = if v6 { 18 } else { 16 };
            for (name, by) in [("a length beyond the frame", 1i32), ("a length of nothing", -2000)] {
                bad.push((
                    name,
                    changed(&whole, |f| {
                        let old = i32::from(u16::from_be_bytes([f[length_at], f[length_at + 1]]));
                        f[length_at..length_at + 2].copy_from_slice(&((old + by).max(0) as u16).to_be_bytes());
                        if !v6 {
                            fix_v4(f);
                        }
                    }),
                ));
            }
            if !v6 {
                bad.push(("a header of 16 bytes", changed(&whole, |f| f[14] = 0x44)));
                bad.push(("a header beyond the packet", changed(&whole, |f| f[14] = 0x4f)));
                bad.push(("a wrong header checksum", changed(&whole, |f| f[24] ^= 1)));
            }
            match protocol {
                Protocol::Tcp => {
                    bad.push(("a TCP header of 16 bytes", changed(&whole, |f| f[l4 + 12] = 0x40)));
                    bad.push(("a TCP header beyond the packet", changed(&whole, |f| f[l4 + 12] = 0xf0)));
                }
                Protocol::Udp => {
                    bad.push(("a UDP length of 7", changed(&whole, |f| f[l4 + 4..l4 + 6].copy_from_slice(&[0, 7]))));
                    bad.push(("a UDP length beyond the packet", changed(&whole, |f| f[l4 + 4..l4 + 6].copy_from_slice(&[1, 0]))));
                    bad.push(("a UDP length of 0", changed(&whole, |f| f[l4 + 4..l4 + 6].copy_from_slice(&[0, 0]))));
                }
            }
            for (name, frame) in bad {
                passes(&mut s, &frame, "passed_malformed", name);
            }
            assert_eq!(s.connections(), 0);
            assert_eq!(s.pass(&whole).verdict, "forwarded_nat");
        }
    }
    Ok(())
}

/// What an ICMP answer looks like: MACs swapped, from the VIP, the packet quoted.
fn icmp(step: &lvx_tests::scene::Step, s: &Scene, sent: &[u8], kind: u8, code: u8, word: u32) {
    let v6 = s.id.address.is_ipv6();
    assert_eq!(step.action, TX);
    let f = &step.frame;
    assert_eq!((&f[..6], &f[6..12]), (&CLIENT_MAC[..], &DIRECTOR_MAC[..]));
    assert!(checksums_right(f), "{f:02x?}");
    let ip = if v6 { 40 } else { 20 };
    let (src, dst) = if v6 { (&f[22..38], &f[38..54]) } else { (&f[26..30], &f[30..34]) };
    let (to, from) = if v6 { (&sent[22..38], &sent[38..54]) } else { (&sent[26..30], &sent[30..34]) };
    assert_eq!((src, dst), (from, to));
    let body = &f[14 + ip..];
    assert_eq!((body[0], body[1]), (kind, code));
    assert_eq!(body[4..8], word.to_be_bytes());
    let limit = if v6 { 1280 - 48 } else { 576 - 28 };
    let quoted = &sent[14..];
    assert_eq!(body[8..], quoted[..quoted.len().min(limit)]);
}

#[test]
fn icmp_answers() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for v6 in [false, true] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for len in [0usize, 1, 500, 1300] {
                // Nobody there.
                let mut s = Scene::new(v6, protocol, Forwarding::Nat, 0, v6)?;
                let sent = s.from_client(40000, flag::SYN).payload(&vec![7; len]);
                let step = s.pass(&sent.bytes());
                assert_eq!(step.verdict, "replied_no_server");
                icmp(&step, &s, &sent.bytes(), if v6 { 1 } else { 3 }, if v6 { 4 } else { 3 }, 0);
                assert_eq!(s.connections(), 0);
                // TTL used up.
                for (method, ttl) in [(Forwarding::Nat, 1), (Forwarding::Dr, 1), (Forwarding::Tun, 0)] {
                    let mut s = Scene::new(v6, protocol, method, 1, v6)?;
                    let sent = s.from_client(40000, flag::SYN).payload(&vec![7; len]).ttl(ttl).bytes();
                    let step = s.pass(&sent);
                    assert_eq!(step.verdict, "replied_ttl");
                    icmp(&step, &s, &sent, if v6 { 3 } else { 11 }, 0, 0);
                }
            }
        }
    }
    Ok(())
}

/// Larger than the way: the sender is told how large it may be.
#[test]
fn too_big() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for v6 in [false, true] {
        for (method, outer_v6, mtu) in [
            (Forwarding::Nat, v6, 1500u32),
            (Forwarding::Dr, v6, 1500),
            (Forwarding::Tun, false, 1480),
            (Forwarding::Tun, true, 1460),
        ] {
            let mut s = Scene::new(v6, Protocol::Udp, method, 1, outer_v6)?;
            let header = if v6 { 48 } else { 28 };
            let fits = s.from_client(40000, 0).payload(&vec![1; mtu as usize - header]).bytes();
            assert_eq!(s.pass(&fits).action, TX);
            let sent = s.from_client(40000, 0).payload(&vec![1; mtu as usize - header + 1]).bytes();
            let step = s.pass(&sent);
            assert_eq!(step.verdict, "replied_too_big", "{method:?}");
            icmp(&step, &s, &sent, if v6 { 2 } else { 3 }, if v6 { 0 } else { 4 }, mtu);
        }
    }
    Ok(())
}

/// A thousand a second at most; then packets are dropped.
#[test]
fn icmp_is_limited() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut s = Scene::new(false, Protocol::Tcp, Forwarding::Nat, 0, false)?;
    let frame = s.from_client(40000, flag::SYN).bytes();
    let start = Instant::now();
    let mut actions = Vec::new();
    for _ in 0..6000 {
        actions.push(s.d.run(PROGRAM, &frame)?.action);
    }
    // A second is 2^30 ns, each CPU has its own allowance, and the machine may be busy.
    let seconds = start.elapsed().as_secs() as usize + 2;
    let replied = actions.iter().filter(|a| **a == TX).count();
    assert!((500..=1000 * seconds * possible_cpus()? as usize).contains(&replied), "{replied} in {seconds} s");
    assert!(seconds > 2 || actions.contains(&DROP));
    assert!(actions.iter().all(|a| [TX, DROP].contains(a)));
    Ok(())
}

/// Answers whose TTL is used up, or which do not fit, go to the kernel as they came: it tells the server.
#[test]
fn answers_the_kernel_reports() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut s = Scene::new(false, Protocol::Udp, Forwarding::Nat, 1, false)?;
    s.pass(&s.from_client(40000, 0).bytes());
    let answer = Frame::udp(server(false, 1, Forwarding::Nat), client(false, 40000), b"x");
    let frame = answer.clone().ttl(1).bytes();
    let step = s.pass(&frame);
    assert_eq!((step.action, step.verdict.as_str()), (PASS, "passed_ttl"));
    assert_eq!(step.frame, frame);
    let frame = answer.payload(&[0; 1473]).bytes();
    let step = s.pass(&frame);
    assert_eq!((step.action, step.verdict.as_str()), (PASS, "passed_too_big"));
    assert_eq!(step.frame, frame);
    Ok(())
}

/// A server that was removed: silence until it returns, for its connections alone.
#[test]
fn removed_servers() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for method in [Forwarding::Nat, Forwarding::Dr, Forwarding::Tun] {
        let mut s = Scene::new(true, Protocol::Tcp, method, 2, true)?;
        let (first, second) = (s.from_client(1000, flag::SYN).bytes(), s.from_client(1001, flag::SYN).bytes());
        assert_eq!(s.pass(&first).action, TX);
        assert_eq!(s.pass(&second).action, TX);
        let gone = s.spec(2, true);
        s.edit(Edit::DeleteServer { service: s.id, server: gone.id })?;
        let ack = s.from_client(1000, flag::ACK).bytes();
        let step = s.pass(&ack);
        assert_eq!((step.action, step.verdict.as_str()), (DROP, "dropped_server_gone"));
        assert_eq!(s.pass(&s.from_client(1001, flag::ACK).bytes()).action, TX);
        s.edit(Edit::AddServer { service: s.id, server: gone })?;
        assert_eq!(s.pass(&ack).action, TX);
    }
    Ok(())
}
