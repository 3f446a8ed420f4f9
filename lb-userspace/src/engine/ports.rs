//! The interfaces that packets may leave by: elements of the ports map, of the device map, and the hash between them.
//!
//! An interface gets an index when it comes up, or when a server behind it needs one. Connections hold indices in the cached next
//! hops of their answers and may go on using one when the kernel has no better answer, so an interface that comes back gets
//! the index that it had, and an index goes to another interface only when no other is left.

use super::mapped::Mapped;
use super::maps::{Devices, Table};
use crate::net::LinkInfo;
use lb_common::dest::Port;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem::offset_of;
use std::sync::atomic::Ordering;

/// What came of a link's change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Changed {
    /// Nothing that packets see.
    Nothing,
    /// The interface can be used, or goes by another MAC or MTU.
    Usable,
    /// It cannot be used any more.
    Gone,
}

/// All ports.
pub(super) struct Ports {
    memory: Mapped<Port>,
    pub(super) port_of: Table<u32, u32>,
    pub(super) devices: Devices,
    /// Indices without an interface, longest first, and the one that each had.
    free: VecDeque<(u32, u32)>,
    /// Links that could be used, by interface.
    links: HashMap<u32, LinkInfo>,
    /// Index by interface.
    used: HashMap<u32, u32>,
}

const FIRST: usize = 0;
const MAC: usize = offset_of!(Port, mac);
const _: () = assert!(offset_of!(Port, ifindex) == FIRST && offset_of!(Port, mtu) == 4 && MAC == 8);

/// The two words of a port's element.
fn words(link: &LinkInfo) -> (u64, u64) {
    let (i, m, a) = (link.index.to_ne_bytes(), link.mtu.to_ne_bytes(), link.mac);
    (
        u64::from_ne_bytes([i[0], i[1], i[2], i[3], m[0], m[1], m[2], m[3]]),
        u64::from_ne_bytes([a[0], a[1], a[2], a[3], a[4], a[5], 0, 0]),
    )
}

impl Ports {
    /// Takes over what an earlier daemon left: interfaces that are still there keep their indices, which servers' and connections' next
    /// hops name.
    pub(super) fn new(memory: Mapped<Port>, mut port_of: Table<u32, u32>, mut devices: Devices) -> io::Result<Self> {
        let entries: HashMap<u32, u32> = port_of.entries()?.into_iter().collect();
        let (mut free, mut used) = (VecDeque::new(), HashMap::new());
        for index in 0..memory.len() {
            let ifindex = memory.u32(index, FIRST).load(Ordering::Acquire);
            // The kernel refuses an interface that is gone.
            if ifindex != 0 && entries.get(&ifindex) == Some(&index) && devices.set(index, ifindex).is_ok() {
                used.insert(ifindex, index);
                continue;
            }
            if ifindex != 0 {
                memory.write(index, &Port::default());
            }
            devices.set(index, 0)?;
            free.push_back((index, 0));
        }
        for ifindex in entries.keys().filter(|ifindex| !used.contains_key(ifindex)) {
            port_of.remove(ifindex)?;
        }
        Ok(Self { memory, port_of, devices, free, links: HashMap::new(), used })
    }

    /// A link changed.
    pub(super) fn set_link(&mut self, link: &LinkInfo) -> Changed {
        let usable = link.present && link.up && link.mac != [0; 6] && link.index != 0;
        if !usable {
            self.links.remove(&link.index);
            return if self.clear(link.index) { Changed::Gone } else { Changed::Nothing };
        }
        let before = self.links.insert(link.index, link.clone());
        let Some(&index) = self.used.get(&link.index) else {
            return if self.open(link.index).is_some() { Changed::Usable } else { Changed::Nothing };
        };
        if before.is_some_and(|b| (b.mac, b.mtu) == (link.mac, link.mtu)) {
            return Changed::Nothing;
        }
        let (first, mac) = words(link);
        self.memory.u64(index, MAC).store(mac, Ordering::Release);
        self.memory.u64(index, FIRST).store(first, Ordering::Release);
        Changed::Usable
    }

    /// Index and link of an interface that is in use.
    pub(super) fn get(&self, ifindex: u32) -> Option<(u16, &LinkInfo)> {
        Some((*self.used.get(&ifindex)? as u16, self.links.get(&ifindex)?))
    }

    /// Whether an interface could be used if it had an index.
    pub(super) fn wants(&self, ifindex: u32) -> bool {
        self.links.contains_key(&ifindex) && !self.used.contains_key(&ifindex)
    }

    /// Gives an interface an index; `None` if there is none, or the kernel refuses.
    pub(super) fn open(&mut self, ifindex: u32) -> Option<u32> {
        let link = self.links.get(&ifindex)?;
        let own = self.free.iter().position(|&(_, had)| had == ifindex);
        let own = own.or_else(|| self.free.iter().position(|&(_, had)| had == 0)).unwrap_or(0);
        let (index, _) = self.free.remove(own)?;
        let (first, mac) = words(link);
        self.memory.u64(index, MAC).store(mac, Ordering::Release);
        self.memory.u64(index, FIRST).store(first, Ordering::Release);
        let set = self.devices.set(index, ifindex).and_then(|()| self.port_of.insert(ifindex, index));
        if let Err(error) = set {
            tracing::warn!(interface = %link.name, %error, "packets cannot be sent by this interface");
            self.memory.write(index, &Port::default());
            if let Err(error) = self.devices.set(index, 0) {
                tracing::debug!(interface = %link.name, %error, "the device map's element was not set");
            }
            self.free.push_back((index, 0));
            return None;
        }
        self.used.insert(ifindex, index);
        Some(index)
    }

    /// Takes an interface's index away; whether it had one.
    pub(super) fn clear(&mut self, ifindex: u32) -> bool {
        let Some(index) = self.used.remove(&ifindex) else { return false };
        if let Err(error) = self.port_of.remove(&ifindex) {
            tracing::warn!(ifindex, %error, "the index of a removed interface stays behind");
        }
        // The kernel empties the device map itself when an interface goes.
        if let Err(error) = self.devices.set(index, 0) {
            tracing::warn!(ifindex, %error, "the device map keeps a removed interface");
        }
        self.memory.u64(index, FIRST).store(0, Ordering::Release);
        self.memory.u64(index, MAC).store(0, Ordering::Release);
        self.free.push_back((index, ifindex));
        true
    }

    /// Interfaces that have an index.
    pub(super) fn open_ones(&self) -> Vec<u32> {
        self.used.keys().copied().collect()
    }
}
