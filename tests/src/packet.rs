//! Frames for tests, built by etherparse, and checks of their checksums by full recomputation.

use etherparse::PacketBuilder;
use lb_common::csum::{fold, sum_bytes};
use std::net::{IpAddr, SocketAddr};

/// MAC of whoever sends to the director.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// TCP flags for [`Frame::tcp`].
pub mod flag {
    /// FIN.
    pub const FIN: u8 = 1;
    /// SYN.
    pub const SYN: u8 = 2;
    /// RST.
    pub const RST: u8 = 4;
    /// ACK.
    pub const ACK: u8 = 16;
}

/// A frame in the making.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Source.
    pub src: SocketAddr,
    /// Destination.
    pub dst: SocketAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// `Some` flags of TCP, or UDP.
    pub tcp: Option<u8>,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A TCP segment.
    #[must_use]
    pub fn tcp(src: SocketAddr, dst: SocketAddr, flags: u8) -> Self {
        Self { src, dst, ttl: 64, tcp: Some(flags), payload: Vec::new() }
    }

    /// A UDP datagram.
    #[must_use]
    pub fn udp(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Self {
        Self { src, dst, ttl: 64, tcp: None, payload: payload.to_vec() }
    }

    /// With a payload.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// With a TTL.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// The bytes, to the director's MAC.
    ///
    /// # Panics
    /// If the addresses are of different families.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let eth = PacketBuilder::ethernet2(CLIENT_MAC, crate::director::DIRECTOR_MAC);
        let ip = match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(s), IpAddr::V4(d)) => eth.ipv4(s.octets(), d.octets(), self.ttl),
            (IpAddr::V6(s), IpAddr::V6(d)) => eth.ipv6(s.octets(), d.octets(), self.ttl),
            _ => panic!("addresses of different families"),
        };
        let mut out = Vec::new();
        let written = match self.tcp {
            Some(flags) => {
                let mut tcp = ip.tcp(self.src.port(), self.dst.port(), 1000, 65535);
                if flags & flag::SYN != 0 {
                    tcp = tcp.syn();
                }
                if flags & flag::FIN != 0 {
                    tcp = tcp.fin();
                }
                if flags & flag::RST != 0 {
                    tcp = tcp.rst();
                }
                if flags & flag::ACK != 0 {
                    tcp = tcp.ack(2000);
                }
                tcp.write(&mut out, &self.payload)
            }
            None => ip.udp(self.src.port(), self.dst.port()).write(&mut out, &self.payload),
        };
        written.expect("a vector takes every byte");
        out
    }
}

/// Whether all checksums of a frame (IPv4 header, TCP, UDP, ICMP; not those of a tunnelled packet) are right.
#[must_use]
pub fn checksums_right(frame: &[u8]) -> bool {
    let Some(ip) = frame.get(14..) else { return false };
    let (header, proto, total, pseudo) = match frame[12..14] {
        [0x08, 0x00] if ip.len() >= 20 => {
            let header = (ip[0] & 15) as usize * 4;
            if ip.len() < header || fold(sum_bytes(&ip[..header])) != 0xffff {
                return false;
            }
            (header, ip[9], u16::from_be_bytes([ip[2], ip[3]]) as usize, sum_bytes(&ip[12..20]))
        }
        [0x86, 0xdd] if ip.len() >= 40 => (40, ip[6], u16::from_be_bytes([ip[4], ip[5]]) as usize + 40, sum_bytes(&ip[8..40])),
        _ => return false,
    };
    let Some(l4) = ip.get(header..total) else { return false };
    let pseudo = pseudo + u64::from(u16::from(proto).to_be()) + u64::from((l4.len() as u16).to_be());
    match proto {
        17 if l4[6..8] == [0, 0] => true,
        6 | 17 | 58 => fold(pseudo + sum_bytes(l4)) == 0xffff,
        1 => fold(sum_bytes(l4)) == 0xffff,
        _ => true,
    }
}
