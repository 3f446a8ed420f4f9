//! How a real server is reached.

use std::net::IpAddr;

/// The next hop towards an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NextHop {
    /// MAC of the neighbour (the server itself, or the gateway to it).
    pub mac: [u8; 6],
    /// Interface that it is on.
    pub ifindex: u32,
    /// Address of the director that packets to it leave from.
    pub source: IpAddr,
    /// Largest IP packet on that way.
    pub mtu: u32,
}

/// Whether and how an address is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reach {
    /// An address of the director itself.
    Local,
    /// By this next hop.
    Resolved(NextHop),
    /// Not now, and why: `no route`, `no answer from neighbour 10.2.0.99 on eth1`.
    Unresolved(String),
}
