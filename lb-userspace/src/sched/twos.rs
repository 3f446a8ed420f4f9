//! `twos`, the power of two choices: two servers drawn at random by weight, of which the one with less overhead for its weight
//! is taken.
//!
//! A number from 0 to the sum of all weights, both included, is drawn for each: the first server in the list is a little more
//! likely than its weight says, as in the kernel. The random numbers are a sequence of their own, so that a plan can be taken
//! back: the state is the place in it.

use super::least::{Load, Measure};
use super::{Flow, Pool, Scheduler};
use crate::model::SchedulerKind;
use std::hash::{BuildHasher, RandomState};

/// See the module.
#[derive(Clone, Debug)]
pub struct Twos {
    seed: u64,
    drawn: u64,
}

impl Default for Twos {
    fn default() -> Self {
        Self::seeded(RandomState::new().hash_one(0))
    }
}

/// Element `n` of the random sequence `seed` (SplitMix64).
pub(super) const fn random(seed: u64, n: u64) -> u64 {
    let z = seed.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A random number below `n`, which is not 0.
pub(super) const fn below(random: u64, n: u64) -> u64 {
    ((random as u128 * n as u128) >> 64) as u64
}

/// Sums of the usable weights up to and including each server.
fn sums(pool: &Pool) -> Vec<u64> {
    let mut sum = 0;
    let add = |s: &super::Server| {
        sum += if s.usable() { u64::from(s.weight) } else { 0 };
        sum
    };
    pool.servers().iter().map(add).collect()
}

impl Twos {
    /// With this random sequence.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    fn draw(&mut self, total: u64) -> u64 {
        let r = below(random(self.seed, self.drawn), total + 1);
        self.drawn += 1;
        r
    }

    fn choose(&mut self, pool: &Pool, sums: &[u64]) -> Option<usize> {
        let total = *sums.last().filter(|total| **total > 0)?;
        let servers = pool.servers();
        // Number 0 belongs to the first usable server too.
        let mut choice = || {
            let r = self.draw(total).max(1);
            sums.partition_point(|sum| *sum < r)
        };
        let (first, second) = (choice(), choice());
        let load = |at: usize| Load::of(Measure::Weighted, &servers[at]);
        Some(if load(first) > load(second) { second } else { first })
    }
}

impl Scheduler for Twos {
    fn kind(&self) -> SchedulerKind {
        SchedulerKind::Twos
    }

    fn boxed(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn schedule(&mut self, pool: &Pool, _flow: &Flow) -> Option<usize> {
        self.choose(pool, &sums(pool))
    }

    fn plan(&mut self, pool: &mut Pool, _flow: &Flow, n: usize, picks: &mut Vec<u32>) {
        let mut weights = sums(pool);
        for _ in 0..n {
            let Some(at) = self.choose(pool, &weights) else { return };
            picks.push(pool.servers()[at].key);
            if pool.count(at) {
                weights = sums(pool);
            }
        }
    }

    fn advance(&mut self, _pool: &Pool, _flow: &Flow, picks: &[u32]) {
        self.drawn += 2 * picks.len() as u64;
    }
}
