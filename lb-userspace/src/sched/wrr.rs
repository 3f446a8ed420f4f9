//! `wrr`, weighted round robin, interleaved: in each pass over the list the servers whose weight reaches the current weight
//! are taken; each pass lowers it by the greatest common divisor of the weights, down to 1, then it starts at the top again.
//!
//! State is the place in the list and the current weight. Any change of the servers sends the place back to the front and
//! keeps the current weight, rounded into the new steps: what stood in for a step before need not be one now. That is why
//! three servers added one by one start at weight 1 and not at the top.

use super::{Change, Flow, Pool, Scheduler};
use crate::model::SchedulerKind;

/// See the module.
#[derive(Clone, Debug)]
pub struct Wrr {
    /// Key of the server chosen last; `None` before the first in the list.
    last: Option<u32>,
    /// Current weight.
    current: i64,
    /// Where a cycle starts: the largest weight less (step - 1), so that the last pass is at 1.
    top: i64,
    /// Greatest common divisor of the weights; 1 without any.
    step: i64,
}

impl Default for Wrr {
    fn default() -> Self {
        Self { last: None, current: 0, top: 0, step: 1 }
    }
}

pub(super) const fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl Wrr {
    /// Takes over the greatest common divisor (0 without weights) and the maximum of the weights.
    fn set_steps(&mut self, gcd: u32, max: u32) {
        self.step = i64::from(gcd.max(1));
        self.top = i64::from(max) - (self.step - 1);
    }

    fn reset(&mut self) {
        self.last = None;
        if self.current > self.top || self.current == 0 {
            self.current = self.top;
        } else if self.step > 1 {
            self.current = self.current / self.step * self.step + 1;
        }
    }

    /// The state that the kernel is left with when every server is overloaded.
    fn fail(&mut self) {
        if self.last.is_none() || self.current > self.step {
            self.last = None;
            self.current = self.top;
        } else {
            self.current = (self.top - 1) % self.step + 1;
        }
    }

    /// One pass ended without a server: the next current weight that `heaviest`, the largest usable weight, reaches.
    fn lower(&mut self, heaviest: u32) {
        self.current -= self.step;
        if self.current <= 0 {
            self.current = self.top;
        }
        let over = self.current - i64::from(heaviest);
        if over > 0 {
            self.current = (self.current - (over + self.step - 1) / self.step * self.step).max(1);
        }
    }
}

/// Positions of the usable servers that reach a current weight, kept for as long as it stays between two weights.
#[derive(Default)]
struct Reach {
    at: Vec<usize>,
    /// Valid for current weights above this one
    above: i64,
    /// and up to this one.
    to: i64,
}

impl Reach {
    fn at(&mut self, pool: &Pool, current: i64) -> &[usize] {
        if current <= self.above || current > self.to {
            self.at.clear();
            (self.above, self.to) = (0, i64::MAX);
            for (at, s) in pool.servers().iter().enumerate().filter(|(_, s)| s.usable()) {
                let weight = i64::from(s.weight);
                if weight >= current {
                    self.at.push(at);
                    self.to = self.to.min(weight);
                } else {
                    self.above = self.above.max(weight);
                }
            }
        }
        &self.at
    }
}

impl Scheduler for Wrr {
    fn kind(&self) -> SchedulerKind {
        SchedulerKind::Wrr
    }

    fn boxed(&self) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn start(&mut self, pool: &Pool) {
        let weights = || pool.servers().iter().map(|s| s.weight);
        self.set_steps(weights().fold(0, gcd), weights().max().unwrap_or(0));
        self.last = None;
        self.current = self.top;
    }

    fn changed(&mut self, pool: &Pool, change: Change) {
        match change {
            Change::Added(s) => {
                // What is known of the others is enough: the list need not be looked through for each of a thousand.
                let max = (self.top + (self.step - 1)) as u32;
                let before = if max == 0 { 0 } else { self.step as u32 };
                self.set_steps(gcd(before, s.weight), max.max(s.weight));
            }
            Change::Removed(gone) => {
                let rest = || pool.servers().iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, s)| s.weight);
                self.set_steps(rest().fold(0, gcd), rest().max().unwrap_or(0));
            }
            Change::Edited(_) => {
                let weights = || pool.servers().iter().map(|s| s.weight);
                self.set_steps(weights().fold(0, gcd), weights().max().unwrap_or(0));
            }
        }
        self.reset();
    }

    fn schedule(&mut self, pool: &Pool, _flow: &Flow) -> Option<usize> {
        if self.top == 0 {
            return None;
        }
        let servers = pool.servers();
        let Some(heaviest) = servers.iter().filter(|s| s.usable()).map(|s| s.weight).max() else {
            self.fail();
            return None;
        };
        let mut first = self.last.and_then(|key| pool.position(key)).map_or(0, |at| at + 1);
        loop {
            let reached = |at: &usize| servers[*at].usable() && i64::from(servers[*at].weight) >= self.current;
            if let Some(found) = (first..servers.len()).find(reached) {
                self.last = Some(servers[found].key);
                return Some(found);
            }
            self.lower(heaviest);
            first = 0;
        }
    }

    fn plan(&mut self, pool: &mut Pool, flow: &Flow, n: usize, picks: &mut Vec<u32>) {
        let mut reach = Reach::default();
        let mut heaviest = None;
        let mut first = self.last.and_then(|key| pool.position(key)).map_or(0, |at| at + 1);
        for _ in 0..n {
            let usable = || pool.servers().iter().filter(|s| s.usable()).map(|s| s.weight).max();
            if self.top == 0 {
                return;
            }
            let Some(heaviest_now) = heaviest.or_else(usable) else {
                // No server: let the definition find its words.
                self.schedule(pool, flow);
                return;
            };
            heaviest = Some(heaviest_now);
            let found = loop {
                let at = reach.at(pool, self.current);
                if let Some(found) = at.get(at.partition_point(|&at| at < first)) {
                    break *found;
                }
                self.lower(heaviest_now);
                first = 0;
            };
            let key = pool.servers()[found].key;
            self.last = Some(key);
            first = found + 1;
            picks.push(key);
            if pool.count(found) {
                reach = Reach::default();
                heaviest = None;
            }
        }
    }

    fn cycle_len(&self, pool: &Pool, _flow: &Flow) -> Option<u64> {
        Some(pool.servers().iter().map(|s| u64::from(s.weight)).sum::<u64>() / self.step as u64)
    }
}
