//! A network interface.

use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

/// What the engine needs to know of an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkInfo {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// MAC; zero where there is none.
    pub mac: [u8; 6],
    /// MTU.
    pub mtu: u32,
    /// Up, and with a carrier.
    pub up: bool,
    /// False once it is gone.
    pub present: bool,
}

impl LinkInfo {
    /// From the kernel's message; `None` if it has no name.
    pub(super) fn of(message: &LinkMessage, present: bool) -> Option<Self> {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: [0; 6],
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            present,
        };
        for a in &message.attributes {
            match a {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().unwrap_or_default(),
                _ => {}
            }
        }
        (!link.name.is_empty()).then_some(link)
    }
}
