//! The law of `twos`, which draws lots: how often each server may be chosen, given the counters at each choice.
//!
//! For each server, the difference between its choices and the sum of its chances is a martingale: it strays from 0 by no more than a few
//! times the root of the sum of `p (1 - p)`.

use super::{History, model};
use anyhow::{Result, bail};
use lb_userspace::sched::Pool;
use std::collections::BTreeMap;

/// Each server's chance of being chosen next.
///
/// Twice a number from 0 to the sum of the weights, both included, is drawn, and goes to the first server up to which weights sum up
/// to it; the lower load for its weight wins, and the first on a tie.
#[must_use]
pub fn chances(pool: &Pool) -> Vec<(u32, f64)> {
    let usable: Vec<_> = pool.servers().iter().filter(|s| s.usable()).collect();
    let total: u64 = usable.iter().map(|s| u64::from(s.weight)).sum();
    let once: Vec<f64> =
        usable.iter().enumerate().map(|(at, s)| (u64::from(s.weight) + u64::from(at == 0)) as f64 / (total + 1) as f64).collect();
    let mut chances: Vec<(u32, f64)> = usable.iter().map(|s| (s.key, 0.0)).collect();
    for (i, first) in usable.iter().enumerate() {
        for (j, second) in usable.iter().enumerate() {
            let heavier = first.overhead() * u64::from(second.weight) > second.overhead() * u64::from(first.weight);
            chances[if heavier { j } else { i }].1 += once[i] * once[j];
        }
    }
    chances
}

/// Whether the choices of a recorded history keep to the law, within six standard deviations.
///
/// # Errors
/// The server that was chosen too often or too rarely.
pub fn check(history: &History) -> Result<()> {
    let mut strays: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
    let mut impossible = None;
    let mut at = 0;
    model::choices(history, |pool, got| {
        at += 1;
        let chances = chances(pool);
        let possible = match got {
            Some(key) => chances.iter().any(|(k, p)| *k == key && *p > 0.0),
            None => chances.is_empty(),
        };
        if !possible {
            impossible.get_or_insert((at, got));
        }
        for (key, p) in chances {
            let (stray, variance) = strays.entry(key).or_default();
            *stray += f64::from(got == Some(key)) - p;
            *variance += p * (1.0 - p);
        }
    });
    if let Some((at, got)) = impossible {
        bail!("choice {at} cannot be {got:?}: {history}");
    }
    for (key, (stray, variance)) in strays {
        if stray.abs() > 6.0 * variance.sqrt() + 1.0 {
            bail!("server {key} was chosen {stray:+.1} times, where {:.1} is usual: {history}", variance.sqrt());
        }
    }
    Ok(())
}
