//! The real servers of a service as schedulers see them, and the changes that lead from one list to the next.
//!
//! Invariant: newest first, keys are distinct. The trap: schedulers keep their place across changes, so a change is told
//! while its place can still be found ([`Pool::update`] keeps that order).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A real server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Server {
    /// The caller's name for it; what plans and tables are made of.
    pub key: u32,
    /// Weight; 0 takes no new connections.
    pub weight: u32,
    /// Active connections.
    pub active: u64,
    /// Inactive ones.
    pub inactive: u64,
    /// Over its threshold now.
    pub overloaded: bool,
    /// Upper threshold; 0 is none.
    pub upper: u32,
    /// Lower threshold; only a change of it matters here.
    pub lower: u32,
    /// Address.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
}

impl Server {
    /// An idle server without thresholds.
    #[must_use]
    pub const fn new(key: u32, address: IpAddr, port: u16, weight: u32) -> Self {
        Self { key, weight, active: 0, inactive: 0, overloaded: false, upper: 0, lower: 0, address, port }
    }

    /// May take a new connection.
    #[must_use]
    pub const fn usable(&self) -> bool {
        self.weight > 0 && !self.overloaded
    }

    /// The kernel's measure of load: an active connection costs as much as 256 inactive ones.
    #[must_use]
    pub const fn overhead(&self) -> u64 {
        self.active.saturating_mul(256).saturating_add(self.inactive)
    }

    const fn settings(&self) -> (u32, u32, u32) {
        (self.weight, self.upper, self.lower)
    }
}

/// What happened to the server at that position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// It came. It stands first in the finished list; only the server itself may be looked at.
    Added(Server),
    /// It goes; it is still in the list.
    Removed(usize),
    /// Its weight or thresholds are new.
    Edited(usize),
}

/// Servers, newest first.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    servers: Vec<Server>,
    /// The last weight above zero: `mh` keeps the places of a quiesced server.
    last_weights: Vec<u32>,
    positions: Arc<HashMap<u32, usize>>,
}

impl Pool {
    /// A pool of these; of servers with the same key the first counts.
    #[must_use]
    pub fn new(servers: &[Server]) -> Self {
        let mut pool = Self::default();
        pool.update(servers, |_, _| {});
        pool
    }

    /// Newest first.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Weight of the server at that position, or its last weight above zero if it is quiesced; 0 if it never had one.
    #[must_use]
    pub fn last_weight(&self, at: usize) -> u32 {
        self.last_weights[at]
    }

    /// Position of a key.
    #[must_use]
    pub fn position(&self, key: u32) -> Option<usize> {
        self.positions.get(&key).copied()
    }

    /// The server of a key.
    #[must_use]
    pub fn get(&self, key: u32) -> Option<&Server> {
        self.position(key).map(|at| &self.servers[at])
    }

    /// Counts one more active connection. Gives `true` if the server is overloaded from now on.
    pub fn count(&mut self, at: usize) -> bool {
        let s = &mut self.servers[at];
        s.active += 1;
        if s.upper != 0 && !s.overloaded && s.active.saturating_add(s.inactive) >= u64::from(s.upper) {
            s.overloaded = true;
            return true;
        }
        false
    }

    /// Sets the counters of one server.
    pub fn set_counters(&mut self, at: usize, active: u64, inactive: u64, overloaded: bool) {
        let s = &mut self.servers[at];
        (s.active, s.inactive, s.overloaded) = (active, inactive, overloaded);
    }

    /// Forgets thresholds: for plans in which the packet path passes over overloaded servers by itself.
    pub fn clear_overload(&mut self) {
        for s in &mut self.servers {
            s.overloaded = false;
            s.upper = 0;
        }
    }

    /// Makes the list what `servers` says and tells each change: removals, then edits, then additions, oldest first.
    ///
    /// What stays is the longest common end of both lists, as servers are only ever added in front. One that went and came
    /// back between two updates is therefore removed and added (unless it was first and is first again: then nothing
    /// tells it from one that stayed).
    pub fn update(&mut self, servers: &[Server], mut tell: impl FnMut(&Self, Change)) {
        let mut added = servers.len();
        let mut kept = self.servers.len();
        let mut stays = vec![false; self.servers.len()];
        while added > 0 {
            let key = servers[added - 1].key;
            let Some(found) = self.servers[..kept].iter().rposition(|s| s.key == key) else { break };
            stays[found] = true;
            kept = found;
            added -= 1;
        }
        let mut structural = added > 0;
        for at in (0..self.servers.len()).rev() {
            if !stays[at] {
                tell(self, Change::Removed(at));
                self.servers.remove(at);
                self.last_weights.remove(at);
                structural = true;
            }
        }
        for at in 0..self.servers.len() {
            let new = servers[added + at];
            let edited = self.servers[at].settings() != new.settings();
            self.servers[at] = new;
            if edited {
                if new.weight != 0 {
                    self.last_weights[at] = new.weight;
                }
                tell(self, Change::Edited(at));
            }
        }
        if added > 0 {
            for s in servers[..added].iter().rev() {
                tell(self, Change::Added(*s));
            }
            self.servers.splice(0..0, servers[..added].iter().copied());
            self.last_weights.splice(0..0, servers[..added].iter().map(|s| s.weight));
        }
        if structural {
            let mut positions = HashMap::with_capacity(self.servers.len());
            for (at, s) in self.servers.iter().enumerate() {
                positions.entry(s.key).or_insert(at);
            }
            self.positions = Arc::new(positions);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(key: u32) -> Server {
        Server::new(key, IpAddr::from([10, 2, 0, key as u8]), 80, 1)
    }

    fn told(old: &[u32], new: &[u32]) -> Vec<String> {
        let list = |keys: &[u32]| keys.iter().map(|&k| server(k)).collect::<Vec<_>>();
        let mut pool = Pool::new(&list(old));
        let mut seen = Vec::new();
        pool.update(&list(new), |pool, change| {
            seen.push(match change {
                Change::Added(s) => format!("+{}", s.key),
                Change::Removed(at) => format!("-{}", pool.servers()[at].key),
                Change::Edited(at) => format!("={}", pool.servers()[at].key),
            });
        });
        assert_eq!(pool.servers().iter().map(|s| s.key).collect::<Vec<_>>(), new);
        assert!(new.iter().enumerate().all(|(i, k)| pool.position(*k) == Some(i)));
        seen
    }

    #[test]
    fn changes_are_found_from_the_old_end() {
        assert_eq!(told(&[3, 2, 1], &[3, 2, 1]), Vec::<String>::new());
        assert_eq!(told(&[], &[3, 2, 1]), ["+1", "+2", "+3"]);
        assert_eq!(told(&[3, 2, 1], &[4, 3, 1]), ["-2", "+4"]);
        assert_eq!(told(&[3, 2, 1], &[1, 3, 2]), ["-1", "+1"]);
        assert_eq!(told(&[3, 2, 1], &[]), ["-1", "-2", "-3"]);
        assert_eq!(told(&[3, 2, 1], &[9, 8]), ["-1", "-2", "-3", "+8", "+9"]);
    }

    #[test]
    fn quiescing_keeps_the_last_weight() {
        let mut pool = Pool::new(&[Server { weight: 5, ..server(1) }, Server { weight: 0, ..server(2) }]);
        pool.update(&[Server { weight: 0, ..server(1) }, Server { weight: 0, ..server(2) }], |_, _| {});
        assert_eq!((pool.last_weight(0), pool.last_weight(1)), (5, 0));
    }

    #[test]
    fn counting_reaches_the_upper_threshold() {
        let mut pool = Pool::new(&[Server { upper: 2, inactive: 1, ..server(1) }]);
        assert!(pool.count(0));
        assert!(!pool.servers()[0].usable());
        pool.clear_overload();
        assert!(pool.servers()[0].usable());
    }
}
