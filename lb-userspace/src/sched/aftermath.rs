//! What a plan goes on with when it was used up and nobody makes another one: the daemon was stopped, or killed, or cannot keep up.
//!
//! A plan of `lc` or `wlc` is right for the counts that it was made for, once. One that gives a new server, say, its first 64
//! connections would give it all others too if it were simply repeated. So it is followed by a cycle in which every server
//! has turns by its weight (by one, where the scheduler does not look at weights), spread evenly; the packet path repeats that cycle
//! alone, and passes over servers that are quiesced or overloaded by then. Overloaded servers have their turns in it, so that they
//! come back by themselves.
//!
//! Invariant: every server with weight has a turn, and at most [`MAX_TURNS`] in a row, so that the packet path, which looks at a bounded
//! number of picks, gets past an overloaded one.

use super::least::{Heap, Measure};
use super::{Pool, Server};

/// Most turns of a server in one cycle.
pub(super) const MAX_TURNS: u64 = 32;

/// How turns are shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shares {
    /// One each.
    Equal,
    /// By weight.
    Weighted,
}

/// Most picks of a cycle for so many servers.
pub(super) const fn room(servers: usize) -> u32 {
    aim(servers) as u32 + servers as u32
}

/// Picks that a cycle is scaled to, where the weights ask for more; one for each server can come on top.
const fn aim(servers: usize) -> u64 {
    let n = servers as u64 * 2;
    if n < 32 {
        32
    } else if n > 4096 {
        4096
    } else {
        n
    }
}

/// The cycle, as keys.
pub(super) fn cycle(pool: &Pool, shares: Shares) -> Vec<u32> {
    let weights = || pool.servers().iter().map(|s| if shares == Shares::Equal { s.weight.min(1) } else { s.weight });
    let gcd = u64::from(weights().fold(0, super::wrr::gcd).max(1));
    let sum = weights().map(u64::from).sum::<u64>() / gcd;
    let most = u64::from(weights().max().unwrap_or(0)) / gcd;
    let aim = aim(pool.servers().len());
    // Turns for a weight of `over`: as large as both limits allow, and never more than the weights ask for.
    let over = [most.div_ceil(MAX_TURNS), sum.div_ceil(aim), 1].into_iter().max().unwrap_or(1);
    let turns = |w: u32| if w == 0 { 0 } else { (u64::from(w) / gcd / over).max(1) as u32 };
    let idle: Vec<Server> = pool
        .servers()
        .iter()
        .zip(weights())
        .map(|(s, w)| Server { weight: turns(w), active: 0, inactive: 0, overloaded: false, upper: 0, ..*s })
        .collect();
    let len = idle.iter().map(|s| s.weight as usize).sum();
    let mut picks = Vec::with_capacity(len);
    let mut idle = Pool::new(&idle);
    Heap::new(&idle, Measure::Expected).plan(&mut idle, len, &mut picks);
    picks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn pool(weights: &[u32]) -> Pool {
        let server = |(key, w): (usize, &u32)| Server {
            active: 7 * key as u64,
            overloaded: key % 2 == 1,
            upper: 3,
            ..Server::new(key as u32, IpAddr::from([10, 2, (key >> 8) as u8, key as u8]), 80, *w)
        };
        Pool::new(&weights.iter().enumerate().map(server).collect::<Vec<_>>())
    }

    #[test]
    fn turns_are_spread_by_weight() {
        assert_eq!(cycle(&pool(&[1, 2, 3]), Shares::Weighted), [2, 1, 2, 0, 1, 2]);
        assert_eq!(cycle(&pool(&[10, 20]), Shares::Weighted), [1, 0, 1]);
        assert_eq!(cycle(&pool(&[1, 2, 0]), Shares::Equal), [0, 1]);
        assert_eq!(cycle(&pool(&[0, 0]), Shares::Weighted), [0; 0]);
        // A thousand to one is more than the packet path could look past.
        let picks = cycle(&pool(&[1, 1000]), Shares::Weighted);
        assert_eq!((picks.iter().filter(|k| **k == 1).count(), picks.len()), (31, 32));
    }

    proptest! {
        #[test]
        fn every_server_with_weight_has_a_turn(
            weights in prop::collection::vec(prop_oneof![0..4u32, 0..1000u32, any::<u32>()], 0..300), equal in any::<bool>(),
        ) {
            let picks = cycle(&pool(&weights), if equal { Shares::Equal } else { Shares::Weighted });
            prop_assert!(picks.len() <= room(weights.len()) as usize);
            for (key, weight) in weights.iter().enumerate() {
                let turns = picks.iter().filter(|k| **k == key as u32).count();
                prop_assert!((turns > 0) == (*weight > 0) && turns as u64 <= MAX_TURNS, "{} of weight {}", turns, weight);
            }
        }
    }
}
