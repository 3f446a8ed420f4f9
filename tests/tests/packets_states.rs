//! Conversations through the program, with a clock that the test moves: states, deadlines, counters.

use anyhow::Result;
use lb_common::config::{NO_CONN_REUSE, SLOPPY_TCP};
use lb_common::tcp::{DEFAULT_TIMEOUTS_S, STATE_NAMES};
use lb_common::time::ticks_of_seconds;
use lb_userspace::model::{Edit, Forwarding, Protocol};
use lvx_tests::lab::possible;
use lvx_tests::packet::{Frame, flag};
use lvx_tests::scene::{Scene, client, server};

use std::time::Instant;

use flag::{ACK, FIN, RST, SYN};

/// Who sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Client,
    Server,
}
use By::{Client, Server};

/// A conversation: its name, and each packet's sender and flags with the state after it.
type Conversation = (&'static str, &'static [(By, u8, &'static str)]);

/// Seconds that an entry in a state has left right after a packet.
fn timeout_s(state: &str) -> u64 {
    let at = STATE_NAMES.iter().position(|n| *n == state).expect("a state");
    DEFAULT_TIMEOUTS_S[at].into()
}

/// Plays conversations one after the other, each from a port of its own, and looks at state, remaining time and counters after each packet.
/// Six seconds go by between two packets, so that a deadline that was not put off shows.
fn play(s: &mut Scene, conversations: &[Conversation]) {
    let v6 = s.id.address.is_ipv6();
    let mut clock = 0;
    let mut at = |s: &mut Scene, seconds: u32| {
        clock += seconds;
        s.d.engine.set_clock_offset(ticks_of_seconds(clock));
    };
    for (port, (name, packets)) in (1000..).zip(conversations) {
        for (i, (by, flags, state)) in packets.iter().enumerate() {
            let method = s.method;
            let what = || format!("{method:?}, {name}: after packet {i}");
            let frame = match by {
                Client => s.from_client(port, *flags),
                Server => Frame::tcp(server(v6, 1, Forwarding::Nat), client(v6, port), *flags),
            };
            let sent = Instant::now();
            let step = s.pass(&frame.bytes());
            assert!(step.verdict.starts_with("forwarded"), "{}: {}", what(), step.verdict);
            let entries: Vec<_> = s.d.engine.connections().filter(|c| c.client.port() == port).collect();
            assert_eq!(entries.len(), 1, "{}", what());
            assert_eq!(entries[0].state, *state, "{}", what());
            let (left, whole) = (entries[0].expires_ms, timeout_s(state) * 1000);
            let since = sent.elapsed().as_millis() as u64;
            assert!(left <= whole + 10 && left + since + 20 >= whole, "{}: {left} ms of {whole} left after {since}", what());
            let active = ["ESTABLISHED", "SYN_SENT", "SYN_RECV", "SYNACK"].contains(state);
            assert_eq!(s.counts(), (u64::from(active), u64::from(!active)), "{}", what());
            at(s, 6);
        }
        // All of it ends, and nothing stays in the counters.
        at(s, 2000);
        assert_eq!(s.connections(), 0);
        let mut sweeper = s.d.engine.sweeper();
        while !sweeper.step(1 << 20).round {}
        assert_eq!(s.counts(), (0, 0), "{name}");
    }
}

/// NAT sees both directions.
const NAT: &[Conversation] = &[
    (
        "the client closes, the server later",
        &[
            (Client, SYN, "SYN_RECV"),
            (Server, SYN | ACK, "SYN_RECV"),
            (Client, ACK, "ESTABLISHED"),
            (Server, ACK, "ESTABLISHED"),
            (Client, FIN | ACK, "CLOSE_WAIT"),
            (Server, ACK, "CLOSE_WAIT"),
            (Server, ACK, "CLOSE_WAIT"),
            (Client, ACK, "CLOSE_WAIT"),
            (Server, FIN | ACK, "TIME_WAIT"),
            (Client, ACK, "TIME_WAIT"),
        ],
    ),
    (
        "the server closes, the client later",
        &[
            (Client, SYN, "SYN_RECV"),
            (Server, SYN | ACK, "SYN_RECV"),
            (Client, ACK, "ESTABLISHED"),
            (Server, FIN | ACK, "FIN_WAIT"),
            (Client, ACK, "FIN_WAIT"),
            (Client, ACK, "FIN_WAIT"),
            (Client, FIN | ACK, "TIME_WAIT"),
            (Server, ACK, "TIME_WAIT"),
        ],
    ),
    (
        "both close at once, the client's first",
        &[
            (Client, SYN, "SYN_RECV"),
            (Client, ACK, "ESTABLISHED"),
            (Client, FIN | ACK, "CLOSE_WAIT"),
            (Server, FIN | ACK, "TIME_WAIT"),
            (Client, ACK, "TIME_WAIT"),
            (Server, ACK, "TIME_WAIT"),
        ],
    ),
    (
        "both close at once, the server's first",
        &[
            (Client, SYN, "SYN_RECV"),
            (Client, ACK, "ESTABLISHED"),
            (Server, FIN | ACK, "FIN_WAIT"),
            (Client, FIN | ACK, "TIME_WAIT"),
            (Server, ACK, "TIME_WAIT"),
            (Client, ACK, "TIME_WAIT"),
        ],
    ),
    (
        "a SYN again",
        &[(Client, SYN, "SYN_RECV"), (Client, SYN, "SYN_RECV"), (Server, SYN | ACK, "SYN_RECV"), (Client, ACK, "ESTABLISHED")],
    ),
    (
        "the SYN-ACK is lost",
        &[
            (Client, SYN, "SYN_RECV"),
            (Server, SYN | ACK, "SYN_RECV"),
            (Client, SYN, "SYN_RECV"),
            (Server, SYN | ACK, "SYN_RECV"),
            (Client, ACK, "ESTABLISHED"),
            (Server, ACK, "ESTABLISHED"),
        ],
    ),
    (
        "the server's data say that the handshake is through",
        &[(Client, SYN, "SYN_RECV"), (Server, SYN | ACK, "SYN_RECV"), (Server, ACK, "ESTABLISHED")],
    ),
    (
        "a SYN on an established connection",
        &[(Client, SYN, "SYN_RECV"), (Client, ACK, "ESTABLISHED"), (Client, SYN, "ESTABLISHED"), (Server, ACK, "ESTABLISHED")],
    ),
    ("no flag at all", &[(Client, SYN, "SYN_RECV"), (Client, ACK, "ESTABLISHED"), (Client, 0, "CLOSE")]),
    ("refused", &[(Client, SYN, "SYN_RECV"), (Server, RST | ACK, "CLOSE")]),
    (
        "given up by the client",
        &[(Client, SYN, "SYN_RECV"), (Client, RST, "SYN_RECV"), (Server, SYN | ACK, "SYN_RECV"), (Server, RST, "CLOSE")],
    ),
    (
        "reset by the client",
        &[
            (Client, SYN, "SYN_RECV"),
            (Client, ACK, "ESTABLISHED"),
            (Client, RST, "CLOSE"),
            (Client, RST, "CLOSE"),
            (Server, RST, "CLOSE"),
        ],
    ),
    (
        "reset by the server",
        &[(Client, SYN, "SYN_RECV"), (Client, ACK, "ESTABLISHED"), (Server, RST, "CLOSE"), (Client, ACK, "CLOSE")],
    ),
    (
        "reset by the server when the client closed",
        &[(Client, SYN, "SYN_RECV"), (Client, ACK, "ESTABLISHED"), (Client, FIN, "CLOSE_WAIT"), (Server, RST, "CLOSE")],
    ),
    (
        "reset by the client that closed",
        &[
            (Client, SYN, "SYN_RECV"),
            (Client, ACK, "ESTABLISHED"),
            (Client, FIN, "CLOSE_WAIT"),
            (Client, RST, "CLOSE"),
            (Server, RST, "CLOSE"),
        ],
    ),
    (
        "reset by the client when the server closed",
        &[(Client, SYN, "SYN_RECV"), (Client, ACK, "ESTABLISHED"), (Server, FIN, "FIN_WAIT"), (Client, RST, "CLOSE")],
    ),
    (
        "reset by the server that closed",
        &[(Client, SYN, "SYN_RECV"), (Client, ACK, "ESTABLISHED"), (Server, FIN, "FIN_WAIT"), (Server, RST, "CLOSE")],
    ),
    (
        "reset when all is said",
        &[
            (Client, SYN, "SYN_RECV"),
            (Client, ACK, "ESTABLISHED"),
            (Client, FIN, "CLOSE_WAIT"),
            (Server, FIN, "TIME_WAIT"),
            (Server, RST, "TIME_WAIT"),
            (Client, RST, "CLOSE"),
        ],
    ),
    ("closed in the handshake", &[(Client, SYN, "SYN_RECV"), (Client, FIN, "TIME_WAIT"), (Client, ACK, "TIME_WAIT")]),
    (
        "closed in the handshake by the server",
        &[(Client, SYN, "SYN_RECV"), (Server, FIN, "TIME_WAIT"), (Server, ACK, "TIME_WAIT")],
    ),
    (
        "the server opens anew",
        &[
            (Client, SYN, "SYN_RECV"),
            (Client, ACK, "ESTABLISHED"),
            (Server, FIN, "FIN_WAIT"),
            (Server, SYN, "SYN_SENT"),
            (Server, RST, "SYN_SENT"),
            (Client, FIN, "SYN_SENT"),
            (Client, SYN | ACK, "ESTABLISHED"),
        ],
    ),
    (
        "a half-closed connection opens anew",
        &[(Client, SYN, "SYN_RECV"), (Client, ACK, "ESTABLISHED"), (Client, FIN, "CLOSE_WAIT"), (Client, SYN, "SYN_RECV")],
    ),
];

/// DR and TUN see the client alone.
const INPUT_ONLY: &[Conversation] = &[
    (
        "the client closes",
        &[
            (Client, SYN, "SYN_RECV"),
            (Client, ACK, "ESTABLISHED"),
            (Client, ACK, "ESTABLISHED"),
            (Client, FIN | ACK, "FIN_WAIT"),
            (Client, ACK, "FIN_WAIT"),
            (Client, FIN | ACK, "FIN_WAIT"),
        ],
    ),
    ("a SYN again, or its SYN-ACK lost", &[(Client, SYN, "SYN_RECV"), (Client, SYN, "SYN_RECV"), (Client, ACK, "ESTABLISHED")]),
    (
        "a SYN on an established connection",
        &[(Client, SYN, "SYN_RECV"), (Client, ACK, "ESTABLISHED"), (Client, SYN, "ESTABLISHED")],
    ),
    ("given up", &[(Client, SYN, "SYN_RECV"), (Client, RST, "SYN_RECV"), (Client, ACK, "ESTABLISHED")]),
    (
        "reset",
        &[
            (Client, SYN, "SYN_RECV"),
            (Client, ACK, "ESTABLISHED"),
            (Client, RST, "CLOSE"),
            (Client, RST, "CLOSE"),
            (Client, ACK, "CLOSE"),
        ],
    ),
    (
        "closed and reset",
        &[(Client, SYN, "SYN_RECV"), (Client, ACK, "ESTABLISHED"), (Client, FIN, "FIN_WAIT"), (Client, RST, "CLOSE")],
    ),
    (
        "closed in the handshake",
        &[(Client, SYN, "SYN_RECV"), (Client, FIN, "TIME_WAIT"), (Client, ACK, "TIME_WAIT"), (Client, RST, "CLOSE")],
    ),
    ("no flag at all", &[(Client, SYN, "SYN_RECV"), (Client, ACK, "ESTABLISHED"), (Client, 0, "CLOSE")]),
    (
        "closed and opened anew",
        &[(Client, SYN, "SYN_RECV"), (Client, ACK, "ESTABLISHED"), (Client, FIN, "FIN_WAIT"), (Client, SYN, "SYN_RECV")],
    ),
];

#[test]
fn conversations_under_nat() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for v6 in [false, true] {
        play(&mut Scene::new(v6, Protocol::Tcp, Forwarding::Nat, 1, v6)?, NAT);
    }
    Ok(())
}

#[test]
fn conversations_under_dr_and_tun() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for method in [Forwarding::Dr, Forwarding::Tun] {
        for v6 in [false, true] {
            play(&mut Scene::new(v6, Protocol::Tcp, method, 1, v6)?, INPUT_ONLY);
        }
    }
    Ok(())
}

/// A connection that begins in its middle is in the state that the tables have for it, and is continued by a SYN like any closed one.
#[test]
fn sloppy_conversations() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for method in [Forwarding::Nat, Forwarding::Dr, Forwarding::Tun] {
        for v6 in [false, true] {
            let mut s = Scene::new(v6, Protocol::Tcp, method, 1, v6)?;
            s.d.engine.set_flags(SLOPPY_TCP);
            play(&mut s, &[("an acknowledgement", &[(Client, ACK, "CLOSE"), (Client, ACK, "CLOSE"), (Client, SYN, "SYN_RECV")])]);
            s.d.engine.set_flags(0);
            assert_eq!(s.pass(&s.from_client(5000, ACK).bytes()).verdict, "passed_no_connection");
        }
    }
    Ok(())
}

/// How a connection ends, and whether a SYN on it makes a new one.
type Closed<'a> = (Forwarding, &'a [(By, u8)], bool);

/// `conn_reuse_mode`: a SYN on a finished connection makes a new one, of the server whose turn it is; with 0 it continues the old one.
#[test]
fn ports_used_again() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let closed: [Closed<'_>; 6] = [
        (Forwarding::Nat, &[(Client, RST)], true),
        (Forwarding::Nat, &[(Client, FIN), (Server, FIN)], true),
        (Forwarding::Nat, &[(Client, FIN)], false),
        (Forwarding::Dr, &[(Client, RST)], true),
        (Forwarding::Tun, &[(Client, RST)], true),
        (Forwarding::Dr, &[(Client, FIN)], false),
    ];
    for v6 in [false, true] {
        for (method, ending, new) in closed {
            for reuse in [true, false] {
                let mut s = Scene::new(v6, Protocol::Tcp, method, 2, v6)?;
                s.d.engine.set_flags(if reuse { 0 } else { NO_CONN_REUSE });
                assert_eq!(s.pass(&s.from_client(40000, SYN).bytes()).frame[5], 2);
                s.pass(&s.from_client(40000, ACK).bytes());
                for (by, flags) in ending {
                    let frame = match by {
                        Client => s.from_client(40000, *flags),
                        Server => Frame::tcp(server(v6, 2, method), client(v6, 40000), *flags),
                    };
                    s.pass(&frame.bytes());
                }
                let step = s.pass(&s.from_client(40000, SYN).bytes());
                let anew = new && reuse;
                assert_eq!(step.frame[5], if anew { 1 } else { 2 }, "{method:?} {ending:?} {reuse}");
                assert_eq!(s.d.engine.services().services[0].stats.connections, if anew { 2 } else { 1 });
                assert_eq!((s.state().as_str(), s.counts()), ("SYN_RECV", (1, 0)));
                let servers = s.d.engine.services().services[0].servers.iter().map(|d| d.active).collect::<Vec<_>>();
                assert_eq!(servers, if anew { [0, 1] } else { [1, 0] }, "newest first");
            }
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
