//! The recorded connections, frame by frame: what client and servers sent, put onto the wire as it was then. No stack of either
//! takes part, so that counters are the recorded ones whatever the machine is doing.

use anyhow::{Context, Result, ensure};
use etherparse::{PacketBuilder, TcpOptionElement};
use lvx_tests::director::DIRECTOR_MAC;
use lvx_tests::lab::{Lvxd, Ns, PassAll};
use lvx_tests::packet::CLIENT_MAC;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A director between a wire to clients and one to servers, and nobody at their ends.
pub(crate) struct Wires {
    pub lvxd: Lvxd,
    outside: Wire,
    inside: Wire,
    pub director: Ns,
    _ends: Ns,
    _pass: [PassAll; 2],
}

/// The far end of a wire: whatever is sent into it comes to the director.
struct Wire {
    socket: OwnedFd,
    index: i32,
}

impl Wire {
    fn open(ns: &Ns, name: &str) -> Result<Self> {
        let c_name = std::ffi::CString::new(name)?;
        // SAFETY: a string that ends with a zero byte.
        let index = ns.run(|| unsafe { libc::if_nametoindex(c_name.as_ptr()) });
        ensure!(index != 0, "interface {name}: {}", std::io::Error::last_os_error());
        Ok(Self { socket: ns.run(socket)?, index: index as i32 })
    }

    fn send(&self, frame: &[u8]) -> Result<()> {
        // SAFETY: all zeroes are a value of this type.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = self.index;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: buffer and address are as long as is said.
        let n = unsafe {
            libc::sendto(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), length)
        };
        ensure!(n == frame.len() as isize, "sending a frame: {}", std::io::Error::last_os_error());
        Ok(())
    }
}

fn socket() -> Result<OwnedFd> {
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    ensure!(fd >= 0, "a packet socket: {}", std::io::Error::last_os_error());
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A connection of the recordings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    pub client: (Ipv4Addr, u16),
    pub vip: Ipv4Addr,
    /// The server that IPVS chose.
    pub server: (Ipv4Addr, u16),
    /// Answers come back through the director.
    pub nat: bool,
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const ACK: u8 = 16;
/// Length of the recorded requests.
const REQUEST: usize = 29;

impl Wires {
    /// Builds it, with a table of the recorded size.
    ///
    /// # Errors
    /// Privilege, or programs that are not installed.
    pub(crate) fn new() -> Result<Self> {
        let (director, ends) = (Ns::new()?, Ns::new()?);
        director.cable("out", &ends, "clients", 1500)?;
        director.cable("in", &ends, "servers", 1500)?;
        let mac = |m: [u8; 6]| m.map(|b| format!("{b:02x}")).join(":");
        for (name, address) in [("out", "10.1.0.1/24"), ("in", "10.2.0.1/24")] {
            director.ip(&format!("link set dev {name} address {}", mac(DIRECTOR_MAC)))?;
            director.ip(&format!("addr add {address} dev {name}"))?;
        }
        for (name, hosts) in [("out", ["10.1.0.2", "10.1.0.11"].as_slice()), ("in", &["10.2.0.11", "10.2.0.12", "10.2.0.13"])] {
            for host in hosts {
                director.ip(&format!("neigh add {host} lladdr {} dev {name}", mac(CLIENT_MAC)))?;
            }
        }
        director.sh("sysctl -qw net.ipv4.ip_forward=1")?;
        let pass = [PassAll::on(&ends, "clients")?, PassAll::on(&ends, "servers")?];
        let config = tempfile::NamedTempFile::new()?;
        std::fs::write(config.path(), "[sizes]\nconnections = 4096\n")?;
        let path = config.path().to_str().context("a temporary file's name")?;
        let lvxd = Lvxd::start(&director, &["out", "in"], &["--config", path])?;
        let (outside, inside) = (Wire::open(&ends, "clients")?, Wire::open(&ends, "servers")?);
        Ok(Self { lvxd, outside, inside, director, _ends: ends, _pass: pass })
    }

    /// Opens connections, sends the request, and answers.
    ///
    /// # Errors
    /// Frames cannot be sent.
    pub(crate) fn open(&self, connections: &[Connection]) -> Result<()> {
        for c in connections {
            // The recorded servers said their name and port.
            let answer = if c.server.1 == 80 { 106 } else { 108 };
            self.client(c, SYN, 0)?;
            self.server(c, SYN | ACK, 0)?;
            self.client(c, ACK, 0)?;
            self.client(c, ACK, REQUEST)?;
            self.server(c, ACK, 0)?;
            self.server(c, ACK, answer)?;
            self.client(c, ACK, 0)?;
        }
        Ok(())
    }

    /// Closes them, the client first.
    ///
    /// # Errors
    /// Frames cannot be sent.
    pub(crate) fn close(&self, connections: &[Connection]) -> Result<()> {
        for c in connections {
            self.client(c, FIN | ACK, 0)?;
            self.server(c, FIN | ACK, 0)?;
            self.client(c, ACK, 0)?;
        }
        Ok(())
    }

    fn client(&self, c: &Connection, flags: u8, payload: usize) -> Result<()> {
        self.outside.send(&frame(c.client, (c.vip, 80), flags, payload)?)
    }

    fn server(&self, c: &Connection, flags: u8, payload: usize) -> Result<()> {
        // Under DR and TUN the answer goes past the director.
        if c.nat { self.inside.send(&frame(c.server, c.client, flags, payload)?) } else { Ok(()) }
    }
}

/// A segment with the options that Linux sends: 60 bytes of headers with SYN, 52 without.
fn frame(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), flags: u8, payload: usize) -> Result<Vec<u8>> {
    let timestamps = TcpOptionElement::Timestamp(1, 1);
    let options = if flags & SYN == 0 {
        vec![TcpOptionElement::Noop, TcpOptionElement::Noop, timestamps]
    } else {
        let scale = TcpOptionElement::WindowScale(7);
        vec![
            TcpOptionElement::MaximumSegmentSize(1460),
            TcpOptionElement::SelectiveAcknowledgementPermitted,
            timestamps,
            TcpOptionElement::Noop,
            scale,
        ]
    };
    let mut tcp = PacketBuilder::ethernet2(CLIENT_MAC, DIRECTOR_MAC)
        .ipv4(from.0.octets(), to.0.octets(), 64)
        .tcp(from.1, to.1, 1000, 65535);
    if flags & SYN != 0 {
        tcp = tcp.syn();
    }
    if flags & FIN != 0 {
        tcp = tcp.fin();
    }
    if flags & ACK != 0 {
        tcp = tcp.ack(2000);
    }
    let mut out = Vec::new();
    tcp.options(&options)?.write(&mut out, &vec![b'x'; payload])?;
    Ok(out)
}
