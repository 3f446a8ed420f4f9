//! Next hops: how each real server's address is reached, and which servers have that address.

use super::dests::Way;
use super::ports::Ports;
use crate::net::Reach;
use lb_common::csum::{fold, sum_bytes};
use lb_common::dest::next_hop;
use lb_common::family::wide_of;
use lb_common::proto::{IPIP, IPV6};
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};

/// Ticks of two seconds for which the reach of an address without servers is remembered: a server that is removed and added again at
/// once is reached at once.
const REMEMBER_TICKS: u32 = 5;

/// Ticks of two seconds in which neighbours should have answered a new daemon.
const HOLD_TICKS: u32 = 2;

#[derive(Debug, Default)]
struct Address {
    reach: Option<Reach>,
    dests: BTreeSet<u32>,
    idle: u32,
    /// Ticks for which the way that an earlier daemon found still holds, although nobody has answered this one yet.
    held: u32,
}

/// All addresses of real servers.
#[derive(Debug, Default)]
pub(super) struct Hops {
    addresses: HashMap<IpAddr, Address>,
}

impl Hops {
    /// A server has this address.
    pub(super) fn add(&mut self, address: IpAddr, dest: u32) {
        let a = self.addresses.entry(address).or_default();
        a.dests.insert(dest);
        a.idle = 0;
    }

    /// A server that an earlier daemon knew the way to has this address.
    pub(super) fn hold(&mut self, address: IpAddr, dest: u32) {
        self.add(address, dest);
        if let Some(a) = self.addresses.get_mut(&address) {
            a.held = HOLD_TICKS;
        }
    }

    /// A server has it no more.
    pub(super) fn remove(&mut self, address: IpAddr, dest: u32) {
        if let Some(a) = self.addresses.get_mut(&address) {
            a.dests.remove(&dest);
        }
    }

    /// Addresses to resolve.
    pub(super) fn targets(&self) -> Vec<IpAddr> {
        let mut all: Vec<_> = self.addresses.iter().filter(|(_, a)| !a.dests.is_empty()).map(|(ip, _)| *ip).collect();
        all.sort_unstable();
        all
    }

    /// Remembers how an address is reached; whether that is news.
    pub(super) fn set(&mut self, address: IpAddr, reach: Reach) -> bool {
        // What nobody asked for, or not any more, is not kept for long.
        let a = self.addresses.entry(address).or_default();
        if a.reach.as_ref() == Some(&reach) {
            return false;
        }
        let known = !matches!(reach, Reach::Unresolved(_));
        a.reach = Some(reach);
        if known {
            a.held = 0;
        }
        a.held == 0
    }

    /// Addresses whose old way is not held any longer. Call every two seconds.
    pub(super) fn let_go(&mut self) -> Vec<IpAddr> {
        let mut gone = Vec::new();
        for (ip, a) in self.addresses.iter_mut().filter(|(_, a)| a.held > 0) {
            a.held -= 1;
            if a.held == 0 {
                gone.push(*ip);
            }
        }
        gone
    }

    /// Servers of an address.
    pub(super) fn dests(&self, address: IpAddr) -> impl Iterator<Item = u32> {
        self.addresses.get(&address).into_iter().flat_map(|a| a.dests.iter().copied())
    }

    /// Addresses reached by an interface.
    pub(super) fn by_interface(&self, ifindex: u32) -> Vec<IpAddr> {
        let through = |a: &Address| matches!(a.reach, Some(Reach::Resolved(hop)) if hop.ifindex == ifindex);
        self.addresses.iter().filter(|(_, a)| through(a)).map(|(ip, _)| *ip).collect()
    }

    /// Whether a server is behind an interface.
    pub(super) fn uses(&self, ifindex: u32) -> bool {
        self.addresses
            .values()
            .any(|a| !a.dests.is_empty() && matches!(a.reach, Some(Reach::Resolved(hop)) if hop.ifindex == ifindex))
    }

    /// The way to a server for packets of a service at `vip`.
    pub(super) fn way(&self, address: IpAddr, vip: IpAddr, ports: &Ports) -> Way {
        let Some(reach) = self.addresses.get(&address).and_then(|a| a.reach.as_ref()) else { return Way::default() };
        let hop = match reach {
            Reach::Local => return Way { local: true, ..Way::default() },
            Reach::Unresolved(_) => return Way::default(),
            Reach::Resolved(hop) => hop,
        };
        let Some((port, link)) = ports.get(hop.ifindex) else { return Way::default() };
        let (tunnel_src, tunnel_sum) = match (hop.source, address) {
            (IpAddr::V4(source), IpAddr::V4(to)) => (wide_of(hop.source).0, outer_sum(source, to, vip.is_ipv4())),
            (IpAddr::V6(_), IpAddr::V6(_)) => (wide_of(hop.source).0, 0),
            // No packet can be sent from an address of the other family.
            _ => return Way::default(),
        };
        Way {
            next_hop: next_hop(hop.mac, port),
            src_mac: link.mac,
            mtu: hop.mtu.min(u16::MAX.into()) as u16,
            ifindex: hop.ifindex,
            tunnel_src,
            tunnel_sum,
            local: false,
        }
    }

    /// Forgets addresses that have had no servers for long. Call every two seconds.
    pub(super) fn aged(&mut self) {
        self.addresses.retain(|_, a| {
            a.idle = if a.dests.is_empty() { a.idle + 1 } else { 0 };
            a.idle < REMEMBER_TICKS
        });
    }
}

/// One's complement sum of what is constant in a tunnel's outer IPv4 header: version, length of the header, identification 0, don't
/// fragment, protocol, addresses. TOS, total length, TTL and checksum are left at 0.
fn outer_sum(source: Ipv4Addr, to: Ipv4Addr, inner_v4: bool) -> u32 {
    let mut h = [0u8; 20];
    h[0] = 0x45;
    h[6] = 0x40;
    h[9] = if inner_v4 { IPIP } else { IPV6 };
    h[12..16].copy_from_slice(&source.octets());
    h[16..].copy_from_slice(&to.octets());
    fold(sum_bytes(&h)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Completed with length, TOS and TTL, the sum gives the checksum of the header written whole.
    #[test]
    fn outer_sum_completes_to_a_checksum() {
        let (source, to) = (Ipv4Addr::new(10, 2, 0, 1), Ipv4Addr::new(10, 2, 0, 11));
        for (v4, proto) in [(true, 4), (false, 41)] {
            let header = [0x45u8, 0x10, 0x05, 0xdc, 0, 0, 0x40, 0, 63, proto, 0, 0, 10, 2, 0, 1, 10, 2, 0, 11];
            let variable = sum_bytes(&[0, 0x10, 0x05, 0xdc, 63, 0]);
            assert_eq!(fold(u64::from(outer_sum(source, to, v4)) + variable), fold(sum_bytes(&header)));
        }
    }
}
