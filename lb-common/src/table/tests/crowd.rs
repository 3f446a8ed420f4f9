//! A table of N connections holds N: its index has a place for each, at the worst ratio of buckets to connections, after much coming
//! and going.

use super::*;
use std::vec;

/// The most connections for which the index has so many buckets.
const fn worst(buckets: u32) -> u32 {
    (buckets as u64 * BUCKET_ENTRIES as u64 * 60 / 100 / 2) as u32
}

/// Fills a table for `n` connections up to its last record, then replaces random ones `rounds` times as many. How many found no place.
fn crowd(n: u32, seed: u64, rounds: u32) -> u32 {
    crowd_with(n, records_for(n), seed, rounds)
}

/// The same with `filled` connections.
fn crowd_with(n: u32, filled: u32, seed: u64, rounds: u32) -> u32 {
    let records = records_for(n);
    let buckets = buckets_for(n);
    let m = Table::new(buckets, records, 1);
    let s = Shape { seed: [SEED[0] ^ seed, SEED[1]], ..shape(buckets, records) };
    let mut dice = seed | 1;
    let mut crowded = 0;
    let mut next = 0u32;
    let mut make_one = || loop {
        next += 1;
        match make(&m, &s, 0, &new(tuple(next, next as u16, 9, 6), 0, tcp::ESTABLISHED, 1 << 30)).0 {
            Created::Made(i) => return i,
            Created::Crowded => crowded += 1,
            other => panic!("{other:?}"),
        }
    };
    let live: Vec<u32> = (0..filled).map(|_| make_one()).collect();
    for _ in 0..u64::from(filled) * u64::from(rounds) {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let i = live[(dice >> 20) as usize % live.len()];
        assert!(end(&*m, &s, i, ctl(&m, i)));
        assert_eq!(make_one(), i, "the free record");
    }
    if n < 20_000 {
        check(&m, &s, 1);
    }
    crowded
}

#[test]
fn every_configured_connection_has_its_place() {
    assert_eq!(buckets_for(worst(1 << 14)), 1 << 14);
    assert_eq!(buckets_for(worst(1 << 14) + 1), 1 << 15, "no ratio is worse");
    for seed in 0..4 {
        assert_eq!(crowd(worst(1 << 12), seed, 2), 0);
    }
    assert_eq!(crowd(worst(1 << 14), 4, 2), 0);
}

#[test]
fn small_tables_too() {
    for n in 1..200 {
        assert_eq!(crowd(n, n.into(), 3), 0, "{n} connections");
    }
}

/// 1,100,000 connections at the worst ratio; at 10,000,000 the index is 36 % full. Filled to what is configured, not to the last of the
/// spare records: there about one creation in a million finds no place, and its record is back only when the hand comes round.
#[test]
#[ignore = "slow"]
fn a_million_at_the_worst_ratio() {
    let n = worst(1 << 19);
    for seed in 5..8 {
        assert_eq!(crowd_with(n, n, seed, 2), 0, "{seed}");
    }
}

/// Of all sizes the fullest is the one tested: entries are never more than 64 % of what the index has room for.
#[test]
fn no_size_is_fuller() {
    let mut sizes = vec![1, 1_000_000, 10_000_000, crate::limits::MAX_CONNECTIONS];
    sizes.extend((3..25).flat_map(|k| [worst(1 << k), worst(1 << k) + 1]));
    for n in sizes.into_iter().filter(|n| *n > 200) {
        let room = u64::from(buckets_for(n)) * BUCKET_ENTRIES as u64;
        assert!(u64::from(records_for(n)) * 2 * 100 <= room * 64, "{n} connections");
    }
    let at = |n: u32| u64::from(records_for(n)) * 2 * 100 / (u64::from(buckets_for(n)) * BUCKET_ENTRIES as u64);
    assert_eq!((at(1_000_000), at(10_000_000)), (57, 36));
}
