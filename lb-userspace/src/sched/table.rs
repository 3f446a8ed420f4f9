//! Lookup tables of the schedulers that hash: `sh`, `dh`, `mh`.
//!
//! A table says which server each hash value belongs to; the packet path computes the same hash ([`lb_common::sched_hash`]) and
//! reads the slot. A server that is quiesced or overloaded keeps its slots: its clients are refused, or, with the fallback
//! flag, go where further slots say.

use super::{Flow, Pool};
use lb_common::sched_hash::{self, Kind};
use std::net::IpAddr;
use std::sync::Arc;

/// Slot without a server.
pub const NO_SERVER: u32 = u32::MAX;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// How slots are found.
    pub kind: Kind,
    /// The destination is hashed instead of the client.
    pub by_destination: bool,
    /// The client's port is hashed too.
    pub port: bool,
    /// An unusable choice is replaced.
    pub fallback: bool,
    /// Keys of servers, or [`NO_SERVER`].
    pub slots: Arc<[u32]>,
}

impl Table {
    /// What is hashed of a connection: address, folded, and port.
    #[must_use]
    pub fn input(&self, flow: &Flow) -> (u32, u16) {
        let address = if self.by_destination { flow.destination } else { flow.client };
        (fold(address), if self.port { flow.client_port } else { 0 })
    }

    /// The usable server of a connection, as a position in the pool.
    #[must_use]
    pub fn choose(&self, pool: &Pool, flow: &Flow) -> Option<usize> {
        let (folded, port) = self.input(flow);
        let len = self.slots.len() as u32;
        if len == 0 {
            return None;
        }
        let at = |slot: u32| pool.position(self.slots[slot as usize]);
        let usable = |at: &usize| pool.servers()[*at].usable();
        let first = sched_hash::slot(self.kind, folded, port, len);
        let found = at(first)?;
        if usable(&found) {
            return Some(found);
        }
        if !self.fallback {
            return None;
        }
        // A slot without a server ends the search, as it does in the kernel: then none has one.
        let tries = (0..len).map(|try_| at(sched_hash::fallback_slot(self.kind, folded, port, len, first, try_)));
        tries.take_while(Option::is_some).flatten().find(usable)
    }
}

/// See [`lb_common::sched_hash::fold`].
pub(super) fn fold(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(a) => a.to_bits(),
        IpAddr::V6(a) => {
            let bits = a.to_bits();
            (bits >> 96) as u32 ^ (bits >> 64) as u32 ^ (bits >> 32) as u32 ^ bits as u32
        }
    }
}
