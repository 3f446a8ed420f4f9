//! The rest of the world, as seen by a director: clients, servers and the router between them, all behind one TAP device. Frames are
//! written one at a time, and what the director does with each is read before the next.
//!
//! Invariant: nothing of this is a real TCP; the client's and the server's segments are only as many as move a connection from state
//! to state. The trap: frames come out that nobody asked for (neighbour discovery, multicast); they are passed over.

use super::{History, PORT, SERVER_PORT};
use crate::director::DIRECTOR_MAC;
use crate::packet::{CLIENT_MAC, Frame, flag};
use anyhow::{Context, Result, bail};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use lb_userspace::model::Protocol;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time for the director to do something with a frame.
const PATIENCE: Duration = Duration::from_secs(5);

/// Name of the device.
pub const DEVICE: &str = "tap0";

/// See the module.
#[derive(Debug)]
pub struct Tap {
    file: File,
}

/// What a frame from the director is.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// A packet of a connection.
    Packet {
        from: SocketAddr,
        to: SocketAddr,
    },
    /// "Port unreachable", to a client.
    Refused(IpAddr),
    Other,
}

impl Tap {
    /// Makes the device in this network namespace, which must be nobody else's, and everything around it: addresses, a router
    /// that is always known, a local route for every service's address.
    ///
    /// # Errors
    /// No `/dev/net/tun`, no `ip`, no privilege.
    pub fn new() -> Result<Self> {
        const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").context("open /dev/net/tun")?;
        let mut request = [0u8; 40];
        request[..DEVICE.len()].copy_from_slice(DEVICE.as_bytes());
        request[16..18].copy_from_slice(&((libc::IFF_TAP | libc::IFF_NO_PI) as u16).to_ne_bytes());
        // SAFETY: the kernel reads and writes a struct ifreq, which is 40 bytes long.
        if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) } != 0 {
            return Err(std::io::Error::last_os_error()).context("make a TAP device");
        }
        for (key, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/all/send_redirects", "0"),
            ("net/ipv4/conf/tap0/rp_filter", "0"),
            ("net/ipv4/conf/tap0/send_redirects", "0"),
            ("net/ipv6/conf/tap0/accept_dad", "0"),
            // Each refused connection is to be heard of.
            ("net/ipv4/icmp_ratelimit", "0"),
            ("net/ipv6/icmp/ratelimit", "0"),
        ] {
            std::fs::write(format!("/proc/sys/{key}"), value).with_context(|| format!("set {key}"))?;
        }
        // Of the first namespace only.
        for (key, value) in [("icmp_msgs_per_sec", "1000000"), ("icmp_msgs_burst", "100000")] {
            let _ = std::fs::write(format!("/proc/sys/net/ipv4/{key}"), value);
        }
        let mac = |mac: [u8; 6]| mac.map(|b| format!("{b:02x}")).join(":");
        batch(&format!(
            "link set lo up
             link set {DEVICE} address {director} up
             addr add 10.3.0.1/24 dev {DEVICE}
             -6 addr add fd03::1/64 dev {DEVICE} nodad
             neigh replace 10.3.0.254 lladdr {router} dev {DEVICE} nud permanent
             -6 neigh replace fd03::fe lladdr {router} dev {DEVICE} nud permanent
             route add default via 10.3.0.254
             -6 route add default via fd03::fe
             route add local 10.128.0.0/9 dev lo
             -6 route add local fd09::/64 dev lo
            ",
            director = mac(DIRECTOR_MAC),
            router = mac(CLIENT_MAC),
        ))?;
        Ok(Self { file })
    }

    /// A new connection of a history, completed by the server that it got; `None` if it was refused.
    ///
    /// # Errors
    /// The director did something else with a packet, or nothing.
    pub fn connect(&mut self, history: &History, connection: usize, client: u32, to: u32) -> Result<Option<u32>> {
        let client = SocketAddr::new(history.client(client), History::client_port(connection));
        let vip = SocketAddr::new(history.vip(to), PORT);
        let frame = match history.protocol {
            Protocol::Tcp => Frame::tcp(client, vip, flag::SYN),
            Protocol::Udp => Frame::udp(client, vip, b"?"),
        };
        self.send(&frame)?;
        let server = self.wait(|seen| match seen {
            Seen::Packet { from, to } if *from == client => Some(Some(*to)),
            Seen::Refused(whom) if *whom == client.ip() => Some(None),
            _ => None,
        });
        let Some(server) = server.with_context(|| format!("{client} to {vip}"))? else { return Ok(None) };
        let number = history.number_of(server.ip()).with_context(|| format!("went to {server}"))?;
        if history.protocol == Protocol::Tcp {
            self.answer(client, vip, server, flag::SYN | flag::ACK)?;
            self.go_on(client, vip, server, flag::ACK)?;
        }
        Ok(Some(number))
    }

    /// Closes a connection from both sides.
    ///
    /// # Errors
    /// As [`Tap::connect`].
    pub fn close(&mut self, history: &History, connection: usize, client: u32, to: u32, server: u32) -> Result<()> {
        let (client, vip, server) = ends(history, connection, client, to, server);
        self.go_on(client, vip, server, flag::FIN | flag::ACK)?;
        self.answer(client, vip, server, flag::FIN | flag::ACK)?;
        self.go_on(client, vip, server, flag::ACK)
    }

    /// Resets a connection.
    ///
    /// # Errors
    /// As [`Tap::connect`].
    pub fn reset(&mut self, history: &History, connection: usize, client: u32, to: u32, server: u32) -> Result<()> {
        let (client, vip, server) = ends(history, connection, client, to, server);
        self.go_on(client, vip, server, flag::RST)
    }

    /// A segment of the client's, which must reach its server.
    fn go_on(&mut self, client: SocketAddr, vip: SocketAddr, server: SocketAddr, flags: u8) -> Result<()> {
        self.send(&Frame::tcp(client, vip, flags))?;
        let reached = |seen: &Seen| matches!(seen, Seen::Packet { from, to } if (*from, *to) == (client, server)).then_some(());
        self.wait(reached).with_context(|| format!("flags {flags:#x} of {client} to {vip} at {server}"))
    }

    /// A segment of the server's, which must reach the client as the service's. As another's is a [`Collision`].
    fn answer(&mut self, client: SocketAddr, vip: SocketAddr, server: SocketAddr, flags: u8) -> Result<()> {
        self.send(&Frame::tcp(server, client, flags))?;
        let reached = |seen: &Seen| match seen {
            Seen::Packet { from, to } if *to == client && from.port() == PORT => Some(from.ip()),
            _ => None,
        };
        let from = self.wait(reached).with_context(|| format!("answer {flags:#x} of {server} to {client} as {vip}"))?;
        if from == vip.ip() { Ok(()) } else { Err(Collision { service: from }.into()) }
    }

    fn send(&mut self, frame: &Frame) -> Result<()> {
        self.file.write_all(&frame.bytes()).context("write to the TAP device")
    }

    /// The first frame that `wanted` takes.
    fn wait<T>(&mut self, wanted: impl Fn(&Seen) -> Option<T>) -> Result<T> {
        let end = Instant::now() + PATIENCE;
        let mut others = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut fds = [rustix::event::PollFd::new(&self.file, rustix::event::PollFlags::IN)];
            let timeout = rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            if rustix::event::poll(&mut fds, Some(&timeout)).context("wait for a frame")? == 0 {
                bail!("no answer within {PATIENCE:?}; came instead: {others:?}");
            }
            let n = self.file.read(&mut buffer).context("read from the TAP device")?;
            let seen = look(&buffer[..n]);
            if let Some(found) = wanted(&seen) {
                return Ok(found);
            }
            others.push(seen);
        }
    }
}

/// Two histories, lived through at the same time, have a connection from the same address and port to the same server: what the server
/// answers is one of theirs, in the kernel too.
#[derive(Clone, Copy, Debug)]
pub struct Collision {
    /// Whose the answer was.
    pub service: IpAddr,
}

impl std::fmt::Display for Collision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the answer is the service's at {}", self.service)
    }
}

impl std::error::Error for Collision {}

fn ends(history: &History, connection: usize, client: u32, to: u32, server: u32) -> (SocketAddr, SocketAddr, SocketAddr) {
    (
        SocketAddr::new(history.client(client), History::client_port(connection)),
        SocketAddr::new(history.vip(to), PORT),
        SocketAddr::new(history.server(server), SERVER_PORT),
    )
}

fn look(frame: &[u8]) -> Seen {
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else { return Seen::Other };
    let (from, to): (IpAddr, IpAddr) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        Some(NetSlice::Ipv6(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        _ => return Seen::Other,
    };
    let ports = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        Some(TransportSlice::Icmpv4(icmp)) if (icmp.type_u8(), icmp.code_u8()) == (3, 3) => return Seen::Refused(to),
        Some(TransportSlice::Icmpv6(icmp)) if (icmp.type_u8(), icmp.code_u8()) == (1, 4) => return Seen::Refused(to),
        _ => return Seen::Other,
    };
    Seen::Packet { from: SocketAddr::new(from, ports.0), to: SocketAddr::new(to, ports.1) }
}

/// `ip` with each of these lines.
fn batch(lines: &str) -> Result<()> {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let output = Command::new("ip").args(line.split_whitespace()).stdin(Stdio::null()).output().context("start ip")?;
        if !output.status.success() {
            bail!("ip {line}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
    }
    Ok(())
}
