//! What the kernel knows of neighbours.

use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use std::collections::HashMap;
use std::net::IpAddr;

/// A neighbour's state, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Neighbour {
    /// It has this MAC, and may not have been asked for a while.
    Known([u8; 6]),
    /// The kernel is asking.
    Asked,
    /// It did not answer.
    Silent,
}

/// All neighbours by interface and address.
#[derive(Debug, Default)]
pub(super) struct Neighbours(HashMap<(u32, IpAddr), Neighbour>);

impl Neighbours {
    pub(super) fn get(&self, ifindex: u32, address: IpAddr) -> Option<Neighbour> {
        self.0.get(&(ifindex, address)).copied()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes a message in; the neighbour's address if what packets are sent to changed.
    pub(super) fn update(&mut self, message: &NeighbourMessage, present: bool) -> Option<IpAddr> {
        if !matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6) {
            return None;
        }
        let mut address = None;
        let mut mac = None;
        for a in &message.attributes {
            match a {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(IpAddr::V4(*ip)),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => address = Some(IpAddr::V6(*ip)),
                NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
                _ => {}
            }
        }
        let key = (message.header.ifindex, address?);
        let now = match (message.header.state, mac) {
            _ if !present => None,
            (NeighbourState::Failed, _) => Some(Neighbour::Silent),
            (NeighbourState::Incomplete | NeighbourState::None, _) | (_, None) => Some(Neighbour::Asked),
            (_, Some(mac)) => Some(Neighbour::Known(mac)),
        };
        let before = match now {
            Some(n) => self.0.insert(key, n),
            None => self.0.remove(&key),
        };
        (before != now).then_some(key.1)
    }
}
