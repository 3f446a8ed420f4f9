//! Conversations through the program, with a clock that the test moves: states, deadlines, counters.

use anyhow::Result;
use lb_common::time::ticks_of_seconds;
use lb_userspace::model::{Edit, Forwarding, Protocol};
use lvx_tests::lab::possible;
use lvx_tests::packet::{Frame, flag};
use lvx_tests::scene::{Scene, client, server};

use flag::{ACK, FIN, RST, SYN};

/// Who sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Client,
    Server,
}
use By::{Client, Server};

fn play(s: &mut Scene, v6: bool, conversation: &[(By, u8, &str)]) {
    for (i, (by, flags, state)) in conversation.iter().enumerate() {
        let frame = match by {
            Client => s.from_client(40000, *flags),
            Server => Frame::tcp(server(v6, 1, Forwarding::Nat), client(v6, 40000), *flags),
        };
        s.pass(&frame.bytes());
        assert_eq!(s.state(), *state, "after packet {i} of {conversation:?}");
        let active = ["ESTABLISHED", "SYN_SENT", "SYN_RECV", "SYNACK"].contains(state);
        assert_eq!(s.counts(), (u64::from(active), u64::from(!active)), "after packet {i} of {conversation:?}");
    }
}

/// NAT sees both directions.
#[test]
fn conversations_under_nat() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let opened =
        [(Client, SYN, "SYN_RECV"), (Server, SYN | ACK, "SYN_RECV"), (Client, ACK, "ESTABLISHED"), (Server, ACK, "ESTABLISHED")];
    let endings: &[&[(By, u8, &str)]] = &[
        // The client closes, the server later.
        &[
            (Client, FIN | ACK, "CLOSE_WAIT"),
            (Server, ACK, "CLOSE_WAIT"),
            (Server, FIN | ACK, "TIME_WAIT"),
            (Client, ACK, "TIME_WAIT"),
        ],
        // The server closes first.
        &[
            (Server, FIN | ACK, "FIN_WAIT"),
            (Client, ACK, "FIN_WAIT"),
            (Client, FIN | ACK, "TIME_WAIT"),
            (Server, ACK, "TIME_WAIT"),
        ],
        // Reset by either.
        &[(Client, RST, "CLOSE")],
        &[(Server, RST | ACK, "CLOSE")],
        // A SYN again, and no flag at all.
        &[(Client, SYN, "ESTABLISHED")],
        &[(Client, 0, "CLOSE")],
    ];
    for v6 in [false, true] {
        for ending in endings {
            let mut s = Scene::new(v6, Protocol::Tcp, Forwarding::Nat, 1, v6)?;
            play(&mut s, v6, &[&opened[..], ending].concat());
        }
        // A retransmitted SYN, and a lost SYN-ACK.
        let mut s = Scene::new(v6, Protocol::Tcp, Forwarding::Nat, 1, v6)?;
        play(
            &mut s,
            v6,
            &[
                (Client, SYN, "SYN_RECV"),
                (Client, SYN, "SYN_RECV"),
                (Server, SYN | ACK, "SYN_RECV"),
                (Client, ACK, "ESTABLISHED"),
            ],
        );
    }
    Ok(())
}

/// DR and TUN see the client alone.
#[test]
fn conversations_under_dr_and_tun() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for method in [Forwarding::Dr, Forwarding::Tun] {
        for v6 in [false, true] {
            let mut s = Scene::new(v6, Protocol::Tcp, method, 1, v6)?;
            play(
                &mut s,
                v6,
                &[
                    (Client, SYN, "SYN_RECV"),
                    (Client, ACK, "ESTABLISHED"),
                    (Client, ACK, "ESTABLISHED"),
                    (Client, FIN | ACK, "FIN_WAIT"),
                    (Client, ACK, "FIN_WAIT"),
                ],
            );
            let mut s = Scene::new(v6, Protocol::Tcp, method, 1, v6)?;
            play(&mut s, v6, &[(Client, SYN, "SYN_RECV"), (Client, ACK, "ESTABLISHED"), (Client, RST, "CLOSE")]);
        }
    }
    Ok(())
}

/// A connection past its deadline is dead for packets at once, whatever the sweeper does; each packet puts the deadline off.
#[test]
fn deadlines() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for v6 in [false, true] {
        let mut s = Scene::new(v6, Protocol::Tcp, Forwarding::Nat, 1, v6)?;
        let at = |s: &mut Scene, seconds: u32| s.d.engine.set_clock_offset(ticks_of_seconds(seconds));
        let ack = s.from_client(40000, ACK).bytes();
        s.pass(&s.from_client(40000, SYN).bytes());
        at(&mut s, 59);
        assert_eq!(s.pass(&ack).verdict, "forwarded_nat");
        at(&mut s, 59 + 899);
        assert_eq!(s.pass(&ack).verdict, "forwarded_nat");
        at(&mut s, 59 + 899 + 901);
        assert_eq!(s.pass(&ack).verdict, "passed_no_connection");
        assert_eq!(s.connections(), 0);
        // The counters follow when it is swept.
        let mut sweeper = s.d.engine.sweeper();
        while !sweeper.step(1 << 20).round {}
        assert_eq!(s.counts(), (0, 0));
        assert_eq!(s.pass(&s.from_client(40000, SYN).bytes()).verdict, "forwarded_nat");
    }
    let mut s = Scene::new(false, Protocol::Udp, Forwarding::Dr, 2, false)?;
    s.pass(&s.from_client(40000, 0).bytes());
    s.d.engine.set_clock_offset(ticks_of_seconds(299));
    s.pass(&s.from_client(40000, 0).bytes());
    assert_eq!(s.d.engine.services().services[0].stats.connections, 1);
    s.d.engine.set_clock_offset(ticks_of_seconds(299 + 301));
    s.pass(&s.from_client(40000, 0).bytes());
    assert_eq!(s.d.engine.services().services[0].stats.connections, 2);
    Ok(())
}

/// A SYN on a closing connection is a new one, with a new pick; on a living one it is not.
#[test]
fn a_port_used_again() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for ending in [&[(Client, RST)][..], &[(Client, FIN | ACK), (Server, FIN | ACK)]] {
        let mut s = Scene::new(false, Protocol::Tcp, Forwarding::Nat, 1, false)?;
        s.pass(&s.from_client(40000, SYN).bytes());
        s.pass(&s.from_client(40000, ACK).bytes());
        s.pass(&s.from_client(40000, SYN).bytes());
        assert_eq!(s.d.engine.services().services[0].stats.connections, 1);
        for (by, flags) in ending {
            let frame = match by {
                Client => s.from_client(40000, *flags),
                Server => Frame::tcp(server(false, 1, Forwarding::Nat), client(false, 40000), *flags),
            };
            s.pass(&frame.bytes());
        }
        let second = s.spec(2, false);
        s.edit(Edit::AddServer { service: s.id, server: second })?;
        s.d.reach(server(false, 2, Forwarding::Nat).ip(), lvx_tests::scene::server_mac(2), "10.0.0.254".parse()?);
        let step = s.pass(&s.from_client(40000, SYN).bytes());
        assert_eq!(step.verdict, "forwarded_nat");
        assert_eq!(step.frame[33], 12, "the server whose turn it is");
        assert_eq!(s.d.engine.services().services[0].stats.connections, 2);
        assert_eq!(s.state(), "SYN_RECV");
        assert_eq!(s.counts(), (1, 0));
    }
    Ok(())
}

/// Weight 0 and thresholds are heeded by the packet path itself.
#[test]
fn servers_that_take_no_more() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut s = Scene::new(false, Protocol::Tcp, Forwarding::Dr, 2, false)?;
    let mut limited = s.spec(2, false);
    limited.upper_threshold = 3;
    s.edit(Edit::EditServer { service: s.id, server: limited })?;
    let to: Vec<u8> = (0..10).map(|i| s.pass(&s.from_client(1000 + i, SYN).bytes()).frame[5]).collect();
    assert_eq!(to.iter().filter(|n| **n == 2).count(), 3, "{to:?}");
    assert_eq!(to[..6], [2, 1, 2, 1, 2, 1]);
    let mut quiet = s.spec(1, false);
    quiet.weight = 0;
    s.edit(Edit::EditServer { service: s.id, server: quiet })?;
    assert_eq!(s.pass(&s.from_client(2000, SYN).bytes()).verdict, "replied_no_server");
    assert_eq!(s.pass(&s.from_client(1001, ACK).bytes()).verdict, "forwarded_dr");
    Ok(())
}
