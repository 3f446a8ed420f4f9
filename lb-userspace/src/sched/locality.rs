//! What `lblc` and `lblcr` share: a memory of each destination, and when a server is too busy to keep it.
//!
//! Destinations that were not asked for in a day are forgotten; above [`MAX_DESTINATIONS`] those of the last six minutes are
//! kept, and if even they are too many, the oldest go.

use super::{Pool, Server};
use std::collections::HashMap;
use std::net::IpAddr;

/// A destination is forgotten after this, and a set of servers shrinks by one.
pub(super) const EXPIRATION_S: u64 = 24 * 60 * 60;
/// Destinations used within this are not the first to go when there are too many.
const YOUNG_S: u64 = 6 * 60;
/// Destinations that a service remembers.
pub(super) const MAX_DESTINATIONS: usize = 16_384;

/// A server that a destination's connections go to. One that was removed is passed over and not forgotten: the kernel's memory holds on to
/// it, and when it is added again it is the same (`ip_vs_trash_get_dest`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Its key, as long as it is there; it may have another, and another server this one, when it returns.
    key: u32,
    address: IpAddr,
    port: u16,
}

impl Place {
    pub(super) fn of(s: &Server) -> Self {
        Self { key: s.key, address: s.address, port: s.port }
    }

    pub(super) fn is(&self, s: &Server) -> bool {
        (self.address, self.port) == (s.address, s.port)
    }

    pub(super) fn position(&self, pool: &Pool) -> Option<usize> {
        let servers = pool.servers();
        let by_key = pool.position(self.key).filter(|&at| self.is(&servers[at]));
        by_key.or_else(|| servers.iter().position(|s| self.is(s)))
    }
}

#[derive(Clone, Debug)]
struct Entry<T> {
    value: T,
    used_s: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Memory<T> {
    entries: HashMap<IpAddr, Entry<T>>,
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self { entries: HashMap::new() }
    }
}

impl<T> Memory<T> {
    /// What is remembered of a destination, which counts as a use of it.
    pub(super) fn get(&mut self, destination: IpAddr, now_s: u64) -> Option<&mut T> {
        let entry = self.entries.get_mut(&destination)?;
        if now_s.saturating_sub(entry.used_s) >= EXPIRATION_S {
            self.entries.remove(&destination);
            return None;
        }
        entry.used_s = now_s;
        self.entries.get_mut(&destination).map(|e| &mut e.value)
    }

    pub(super) fn put(&mut self, destination: IpAddr, now_s: u64, value: T) {
        if self.entries.len() >= MAX_DESTINATIONS && !self.entries.contains_key(&destination) {
            self.make_room(now_s);
        }
        self.entries.insert(destination, Entry { value, used_s: now_s });
    }

    fn make_room(&mut self, now_s: u64) {
        self.entries.retain(|_, e| now_s.saturating_sub(e.used_s) < YOUNG_S);
        if self.entries.len() >= MAX_DESTINATIONS {
            let mut used: Vec<u64> = self.entries.values().map(|e| e.used_s).collect();
            let (_, limit, _) = used.select_nth_unstable(MAX_DESTINATIONS / 4);
            let limit = *limit;
            let mut surplus = MAX_DESTINATIONS / 4;
            self.entries.retain(|_, e| {
                let goes = e.used_s <= limit && surplus > 0;
                surplus -= usize::from(goes);
                !goes
            });
        }
    }
}

/// Has fewer than half the active connections that its weight stands for. Quiesced ones never have.
fn is_light(s: &Server) -> bool {
    s.active.saturating_mul(2) < u64::from(s.weight)
}

/// The number of light servers, kept up while picks are counted.
pub(super) struct Light {
    servers: usize,
}

impl Light {
    pub(super) fn new(pool: &Pool) -> Self {
        Self { servers: pool.servers().iter().filter(|s| is_light(s)).count() }
    }

    /// [`Pool::count`], followed.
    pub(super) fn count(&mut self, pool: &mut Pool, at: usize) {
        let was = is_light(&pool.servers()[at]);
        pool.count(at);
        self.servers -= usize::from(was && !is_light(&pool.servers()[at]));
    }

    /// More active connections than its weight stands for, while another is light: a server to move away from.
    pub(super) fn is_busy(&self, s: &Server) -> bool {
        s.active > u64::from(s.weight) && self.servers > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: usize) -> IpAddr {
        IpAddr::from([10, (n >> 16) as u8, (n >> 8) as u8, n as u8])
    }

    #[test]
    fn a_day_without_use_forgets() {
        let mut m = Memory::default();
        m.put(ip(1), 0, 7);
        assert_eq!(m.get(ip(1), EXPIRATION_S - 1), Some(&mut 7));
        assert_eq!(m.get(ip(1), 2 * EXPIRATION_S - 2), Some(&mut 7));
        assert_eq!(m.get(ip(1), 3 * EXPIRATION_S - 2), None);
    }

    #[test]
    fn memory_is_bounded_and_keeps_the_young() {
        let mut m = Memory::default();
        for n in 0..3 * MAX_DESTINATIONS {
            m.put(ip(n), (n / 100) as u64, n);
            assert!(m.entries.len() <= MAX_DESTINATIONS);
        }
        let last = 3 * MAX_DESTINATIONS - 1;
        assert_eq!(m.get(ip(last), (last / 100) as u64), Some(&mut last.clone()));
        for n in 0..2 * MAX_DESTINATIONS {
            m.put(ip(n), 1_000_000, n);
            assert!(m.entries.len() <= MAX_DESTINATIONS);
        }
    }
}
