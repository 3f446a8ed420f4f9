//! The engine: the maps, and what the daemon does with them.
//!
//! [`Engine::reconcile`] makes the maps equal to the desired state, all or nothing; [`Engine::set_reach`] and [`Engine::set_link`] keep
//! the ways to the real servers; [`Engine::services`] and its neighbours read the counters. [`Sweeper`] and [`Connections`] work on
//! the connection table from threads of their own.
//!
//! Invariant: this process is the only writer of everything but the counters, the cursors and the connection table. Whatever
//! packets may still refer to rests before it is used for something else (see `slots`).

mod adopt;
mod answerers;
mod audit;
mod connections;
mod dests;
mod diff;
mod filter;
mod hops;
mod mapped;
mod maps;
mod memory;
mod occupancy;
mod picks;
mod plan;
mod ports;
mod reading;
mod reconcile;
mod replan;
mod services;
mod slots;
mod stats;
mod sweep;
#[cfg(test)]
mod tests;
mod view;

pub use connections::Connections;
pub use maps::{Maps, MapsError, Sizes};
pub use reading::{Reading, ServerRead, ServiceRead};
pub use sweep::{Sweeper, Swept};

use crate::model::{Desired, ServerId, ServiceId};
use crate::net::{LinkInfo, Reach};
use crate::sched::TableSize;
use answerers::Answerers;
use dests::Dests;
use hops::Hops;
use lb_common::config::{ANSWERERS, Config};
use lb_common::limits::ABI_VERSION;
use mapped::Mapped;
use maps::Barrier;
use memory::TableMemory;
use ports::{Changed, Ports};
use services::{Running, Services};
use stats::Counters;
use std::collections::HashMap;
use std::io::Read;
use std::mem::offset_of;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The maps and all that is known about them.
pub struct Engine {
    config: Mapped<Config>,
    services: Services,
    running: HashMap<ServiceId, Running>,
    /// Which service an element is.
    by_slot: HashMap<u32, ServiceId>,
    answerers: Answerers,
    dests: Dests,
    counters: Counters,
    hops: Hops,
    ports: Ports,
    barrier: Barrier,
    /// What the maps were last made equal to.
    applied: Desired,
    /// Of the service made last.
    incarnation: u64,
    /// When the estimator took its last step, on the clock of [`monotonic_ns`].
    stepped_ns: u64,
    /// That was in an earlier daemon.
    resumed: bool,
    /// All rates were 0 when so many packets had been seen.
    at_rest: Option<u64>,
    /// Packets seen and connections swept when plans were last compared with the counts.
    planned_at: Option<(u64, u64)>,
    /// Size of the tables of `mh`.
    mh_table: TableSize,
    /// Whether tables of `mh` may have another size than that.
    mh_differ: bool,
    table4: Arc<TableMemory<lb_common::family::V4>>,
    table6: Arc<TableMemory<lb_common::family::V6>>,
    swept: Arc<sweep::Figures>,
    /// Of the packet path, to plan a service anew.
    signals: u64,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("services", &self.running.len()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Sets [`Config::flags`], but for those that the engine keeps itself.
    pub fn set_flags(&mut self, flags: u32) {
        let word = self.config.u32(0, offset_of!(Config, flags));
        word.store((word.load(Ordering::Relaxed) & ANSWERERS) | (flags & !ANSWERERS), Ordering::Release);
    }

    /// Sets the timeout of a state. Those of `--set` are [`Desired`]'s: [`Engine::reconcile`] sets them.
    pub fn set_timeout(&mut self, state: lb_common::tcp::State, seconds: u32) {
        if usize::from(state) < lb_common::tcp::STATES {
            let word = self.config.u32(0, offset_of!(Config, timeouts) + 4 * usize::from(state));
            word.store(lb_common::time::ticks_of_seconds(seconds), Ordering::Release);
        }
    }

    /// Moves the connection table's clock: it runs `ticks` ahead of the machine's. For tests.
    pub fn set_clock_offset(&mut self, ticks: u32) {
        self.config.u32(0, offset_of!(Config, clock_offset)).store(ticks, Ordering::Release);
    }

    /// Addresses of real servers, to be resolved.
    #[must_use]
    pub fn targets(&self) -> Vec<IpAddr> {
        self.hops.targets()
    }

    /// Sets how an address is reached, for every server that has it.
    pub fn set_reach(&mut self, address: IpAddr, reach: Reach) {
        let opened = match &reach {
            Reach::Resolved(hop) if self.open_port(hop.ifindex) => Some(hop.ifindex),
            _ => None,
        };
        if self.hops.set(address, reach) {
            self.refresh(address);
        }
        if let Some(ifindex) = opened {
            self.refresh_interface(ifindex);
        }
    }

    /// An interface came, changed or went.
    pub fn set_link(&mut self, link: &LinkInfo) {
        let changed = self.ports.set_link(link);
        if changed == Changed::Gone {
            self.bump_next_hops();
        }
        let opened = self.hops.uses(link.index) && self.open_port(link.index);
        if changed != Changed::Nothing || opened {
            self.refresh_interface(link.index);
        }
    }

    /// Makes every connection look up the next hop of its answers again.
    pub fn bump_next_hops(&mut self) {
        let word = self.config.u32(0, offset_of!(Config, next_hop_generation));
        // 0 is the generation of connections that never looked.
        let next = word.load(Ordering::Relaxed).checked_add(1).unwrap_or(1);
        word.store(next, Ordering::Release);
    }

    /// Gives an interface that servers are behind an index, if need be that of one without servers. Whether it got one now.
    fn open_port(&mut self, ifindex: u32) -> bool {
        if !self.ports.wants(ifindex) {
            return false;
        }
        if self.ports.open(ifindex).is_some() {
            return true;
        }
        let Some(victim) = self.ports.open_ones().into_iter().find(|&i| !self.hops.uses(i)) else {
            tracing::warn!(ifindex, "more interfaces lead to real servers than there are ports");
            return false;
        };
        self.ports.clear(victim);
        self.bump_next_hops();
        self.barrier.settle();
        self.ports.open(ifindex).is_some()
    }

    fn refresh_interface(&self, ifindex: u32) {
        for address in self.hops.by_interface(ifindex) {
            self.refresh(address);
        }
    }

    /// Writes the ways to all servers of an address.
    fn refresh(&self, address: IpAddr) {
        for dest in self.hops.dests(address) {
            let Some((service, _)) = self.dests.get(dest).and_then(|s| s.name) else { continue };
            self.dests.set_way(dest, &self.hops.way(address, service.address, &self.ports));
        }
    }
}

/// The clock of notes.
fn monotonic_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (t.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(t.tv_nsec as u64)
}

/// Writes the configuration of fresh maps, or checks that of used ones.
fn set_up(maps: &Maps) -> Result<(), MapsError> {
    let abi = maps.config.u32(0, offset_of!(Config, abi)).load(Ordering::Acquire);
    if abi == 0 {
        let mut random = std::fs::File::open("/dev/urandom").map_err(MapsError::Random)?;
        let mut seed = || {
            let mut bytes = [0; 8];
            random.read_exact(&mut bytes).map_err(MapsError::Random)?;
            Ok(u64::from_ne_bytes(bytes))
        };
        let mut config = Config::new([seed()?, seed()?]);
        config.bucket_mask = [maps.index4.len() - 1, maps.index6.len() - 1];
        config.records = [maps.conns4.len(), maps.conns6.len()];
        config.services = maps.services.len();
        config.servers = maps.dests.len();
        config.picks = maps.picks.len();
        maps.config.write(0, &config);
        return Ok(());
    }
    if abi != ABI_VERSION {
        return Err(MapsError::Version { found: abi });
    }
    Ok(())
}
