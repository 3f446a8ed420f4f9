//! Random packets and time against a plain model of the connections: every counter after every step.
//!
//! Clients, flows and steps are few, so that they meet: ports used again, packets after the deadline, answers to nobody. The table is
//! roomy, so nothing may give way; what gives way in a full one is tested on the host (`lb-common/src/table/tests`).

use anyhow::Result;
use lb_common::tcp::{self, DEFAULT_TIMEOUTS_S, Direction, State};
use lb_common::time::ticks_of_seconds;
use lb_userspace::model::{Edit, Forwarding, Protocol, ServiceId, ServiceSpec};
use lvx_tests::lab::possible;
use lvx_tests::packet::{Frame, flag};
use lvx_tests::scene::{Scene, client, server};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const SERVERS: u8 = 3;
const STEPS: u32 = 600;

/// Numbers that look random (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 33) as u32) % sides
    }
}

#[derive(Clone, Copy, Debug)]
struct Conn {
    state: State,
    server: u8,
    expires: Duration,
}

/// Active, inactive, connections, packets and bytes in, packets and bytes out.
type Counts = [u64; 7];

struct Model {
    s: Scene,
    start: Instant,
    /// Added to the clock.
    offset: u32,
    live: HashMap<(Protocol, u16), Conn>,
    /// By service, then by server from 1; index 0 is unused.
    counts: HashMap<Protocol, [Counts; SERVERS as usize + 1]>,
    /// Picks taken.
    picks: HashMap<Protocol, u32>,
}

fn count_of(state: State) -> usize {
    if tcp::is_active(state) { 0 } else { 1 }
}

impl Model {
    fn new(v6: bool, method: Forwarding) -> Result<Self> {
        let mut s = Scene::new(v6, Protocol::Tcp, method, SERVERS, v6)?;
        let udp = ServiceId { protocol: Protocol::Udp, ..s.id };
        let service = ServiceSpec { id: udp, ..s.desired.services[0].spec.clone() };
        s.edit(Edit::AddService { service })?;
        for n in 1..=SERVERS {
            let server = s.spec(n, v6);
            s.edit(Edit::AddServer { service: udp, server })?;
        }
        let zero = [(Protocol::Tcp, Default::default()), (Protocol::Udp, Default::default())];
        Ok(Self { s, start: Instant::now(), offset: 0, live: HashMap::new(), counts: zero.into(), picks: HashMap::new() })
    }

    fn now(&self) -> Duration {
        self.start.elapsed() + Duration::from_secs(self.offset.into())
    }

    fn wait(&mut self, seconds: u32) {
        self.offset += seconds;
        self.s.d.engine.set_clock_offset(ticks_of_seconds(self.offset));
    }

    /// Goes on to where no deadline is so near that the machine's haste decides.
    fn settle(&mut self) {
        let near = |m: &Self| m.live.values().any(|c| c.expires.abs_diff(m.now()) < Duration::from_millis(1500));
        while near(self) {
            self.wait(4);
        }
    }

    fn dead(&self, c: &Conn) -> bool {
        c.expires <= self.now()
    }

    fn add(&mut self, protocol: Protocol, server: u8, what: usize, by: i64) {
        let n = &mut self.counts.get_mut(&protocol).expect("both are there")[server as usize][what];
        *n = n.checked_add_signed(by).expect("never below zero");
    }

    fn moved(&mut self, flow: (Protocol, u16), direction: Direction, flags: u8) {
        let now = self.now();
        let c = *self.live.get(&flow).expect("it is live");
        let state = if flow.0 == Protocol::Udp { tcp::UDP } else { tcp::next(c.state, direction, flags) };
        self.add(flow.0, c.server, count_of(c.state), -1);
        self.add(flow.0, c.server, count_of(state), 1);
        let expires = now + Duration::from_secs(DEFAULT_TIMEOUTS_S[usize::from(state)].into());
        self.live.insert(flow, Conn { state, expires, ..c });
    }

    fn client_sends(&mut self, protocol: Protocol, port: u16, flags: u8) {
        let flow = (protocol, port);
        let v6 = self.s.id.address.is_ipv6();
        let payload = vec![7; usize::from(port) % 5 * 20];
        let frame = match protocol {
            Protocol::Tcp => Frame::tcp(client(v6, port), self.s.vip(), flags).payload(&payload),
            Protocol::Udp => Frame::udp(client(v6, port), self.s.vip(), &payload),
        };
        let frame = frame.bytes();
        let step = self.s.pass(&frame);
        let syn = flags & (flag::SYN | flag::RST) == flag::SYN;
        let closed = |c: &Conn| c.state == tcp::TIME_WAIT || c.state == tcp::CLOSE;
        let old = self.live.get(&flow).copied();
        let goes_on = old.is_some_and(|c| !self.dead(&c) && (protocol == Protocol::Udp || !syn || !closed(&c)));
        if !goes_on {
            if protocol == Protocol::Tcp && !syn {
                assert_eq!(step.verdict, "passed_no_connection");
                return;
            }
            if let Some(c) = self.live.remove(&flow) {
                self.add(protocol, c.server, count_of(c.state), -1);
            }
            // Round robin, the newest first.
            let taken = self.picks.entry(protocol).or_default();
            let server = SERVERS - (*taken % u32::from(SERVERS)) as u8;
            *taken += 1;
            self.live.insert(flow, Conn { state: tcp::NONE, server, expires: Duration::ZERO });
            self.add(protocol, server, 1, 1);
            self.add(protocol, server, 2, 1);
        }
        let direction = if self.s.method == Forwarding::Nat { Direction::Input } else { Direction::InputOnly };
        self.moved(flow, direction, flags);
        let to = self.live[&flow].server;
        assert_eq!(step.frame[5], to, "{}", step.verdict);
        self.add(protocol, to, 3, 1);
        self.add(protocol, to, 4, frame.len() as i64 - 14);
    }

    fn server_sends(&mut self, protocol: Protocol, port: u16, n: u8, flags: u8) {
        let flow = (protocol, port);
        let to: SocketAddr = client(self.s.id.address.is_ipv6(), port);
        let from = server(to.is_ipv6(), n, Forwarding::Nat);
        let frame = match protocol {
            Protocol::Tcp => Frame::tcp(from, to, flags).bytes(),
            Protocol::Udp => Frame::udp(from, to, b"answer").bytes(),
        };
        let step = self.s.pass(&frame);
        let known = self.live.get(&flow).is_some_and(|c| c.server == n && !self.dead(c)) && self.s.method == Forwarding::Nat;
        assert_eq!(step.verdict, if known { "forwarded_nat_reply" } else { "passed_no_service" });
        if known {
            self.moved(flow, Direction::Output, flags);
            self.add(protocol, n, 5, 1);
            self.add(protocol, n, 6, frame.len() as i64 - 14);
        }
    }

    /// What is dead goes when it is swept, or before, when a new connection takes its record: so it is swept before counters are compared.
    fn sweep(&mut self) {
        let mut sweeper = self.s.d.engine.sweeper();
        for _ in 0..2 {
            while !sweeper.step(1 << 20).round {}
        }
        let dead: Vec<_> = self.live.iter().filter(|(_, c)| self.dead(c)).map(|(f, c)| (*f, *c)).collect();
        for (flow, c) in dead {
            self.live.remove(&flow);
            self.add(flow.0, c.server, count_of(c.state), -1);
        }
    }

    fn compare(&self, what: &str) {
        let services = self.s.d.engine.services();
        for (service, protocol) in services.services.iter().zip([Protocol::Tcp, Protocol::Udp]) {
            assert_eq!(service.spec.id.protocol, protocol);
            for (d, n) in service.servers.iter().zip((1..=SERVERS).rev()) {
                let s = &d.stats;
                let got = [d.active, d.inactive, s.connections, s.in_packets, s.in_bytes, s.out_packets, s.out_bytes];
                assert_eq!(got, self.counts[&protocol][usize::from(n)], "{what}: {protocol:?}, server {n}");
            }
        }
        let shown = self.live.values().filter(|c| !self.dead(c)).count();
        assert_eq!(self.s.connections(), shown, "{what}");
        for t in self.s.d.engine.tables() {
            assert_eq!((t.evicted_embryonic, t.evicted_closing), (0, 0), "{what}");
        }
    }
}

fn run(v6: bool, method: Forwarding, seed: u64) -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut m = Model::new(v6, method)?;
    let mut dice = Dice(seed);
    for step in 0..STEPS {
        m.settle();
        let protocol = if dice.roll(3) == 0 { Protocol::Udp } else { Protocol::Tcp };
        let port = 1000 + dice.roll(6) as u16;
        let flags =
            [flag::SYN, flag::ACK, flag::ACK, flag::FIN | flag::ACK, flag::RST, flag::SYN | flag::ACK, 0][dice.roll(7) as usize];
        let what = match dice.roll(10) {
            0 => {
                let seconds = [1, 7, 13, 61, 125, 310][dice.roll(6) as usize];
                m.wait(seconds);
                format!("{seconds} s went by")
            }
            1..5 => {
                let n = m.live.get(&(protocol, port)).map_or(1, |c| c.server);
                // Now and then a server that was not asked.
                let n = if dice.roll(8) == 0 { n % SERVERS + 1 } else { n };
                m.server_sends(protocol, port, n, flags);
                format!("{protocol:?} from server {n} to {port}, flags {flags:#x}")
            }
            _ => {
                m.client_sends(protocol, port, flags);
                format!("{protocol:?} from client {port}, flags {flags:#x}")
            }
        };
        m.settle();
        if dice.roll(3) == 0 {
            m.sweep();
            m.compare(&format!("IPv{}, {method:?}, seed {seed:#x}, step {step}: {what}", if v6 { 6 } else { 4 }));
        }
    }
    m.wait(2000);
    m.sweep();
    m.compare("in the end");
    assert!(m.live.is_empty() && m.s.counts() == (0, 0));
    Ok(())
}

macro_rules! runs {
    ($($name:ident $v6:literal $method:ident;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            for seed in [0x9e37_79b9_7f4a_7c15, 0x2545_f491_4f6c_dd1d] {
                run($v6, Forwarding::$method, seed)?;
            }
            Ok(())
        }
    )*};
}

runs! {
    nat_v4 false Nat;
    nat_v6 true Nat;
    dr_v4 false Dr;
    dr_v6 true Dr;
    tun_v4 false Tun;
    tun_v6 true Tun;
}
