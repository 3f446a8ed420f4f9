//! Several threads at one table. What they leave must be a table in order; in between, each must see what it is promised.

use super::*;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::Barrier;
use std::thread;

type R = Raw<V4>;

/// Numbers that look random (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 33) as u32) % sides
    }
}

/// As a sender repeats its packet when it was given up.
fn insist(m: &Table, s: &Shape, now: Tick, n: &New<V4>) -> (Created, Reclaimed) {
    loop {
        let r = make(m, s, now, n);
        if r.0 != Created::Busy {
            return r;
        }
        thread::yield_now();
    }
}

#[test]
fn a_flow_seen_by_all_at_once_is_made_once() {
    let (m, s) = table_for(4096, 4);
    let (made, barrier) = (AtomicU32::new(0), Barrier::new(3));
    thread::scope(|scope| {
        for t in 0..3u32 {
            let (m, s, made, barrier) = (&m, &s, &made, &barrier);
            scope.spawn(move || {
                for flow in 0..4000u16 {
                    if flow % 16 == 0 {
                        barrier.wait();
                    }
                    // Each CPU would pick another server.
                    let n = new(tuple(1, flow, 9, 6), t, tcp::SYN_RECV, 1000);
                    match insist(m, s, 0, &n).0 {
                        Created::Made(i) => {
                            made.fetch_add(1, SeqCst);
                            assert_eq!(look(m, s, &n.tuple).unwrap().index, i);
                        }
                        Created::Exists(i) => assert_eq!(look(m, s, &n.tuple).unwrap().index, i),
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    assert_eq!(made.into_inner(), 4000);
    check(&m, &s, 4);
}

/// Three threads make connections and move them on, a fourth sweeps, all of them short of records and of entries.
fn churn(buckets: u32, records: u32, flows: u32) {
    const DESTS: u32 = 3;
    let mut m = Table::new(buckets, records, DESTS);
    m.set_thresholds(1, 10, 0);
    let s = shape(buckets, records);
    let (clock, left) = (AtomicU32::new(u32::MAX - 500), AtomicU32::new(3));
    let (m, s, clock, left) = (&m, &s, &clock, &left);
    thread::scope(|scope| {
        for t in 0..3 {
            scope.spawn(move || {
                let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (t + 1) << 20);
                for _ in 0..20_000 {
                    let now = clock.load(SeqCst);
                    let client = dice.roll(4);
                    let mut n = new(
                        tuple(client, dice.roll(flows) as u16 + 1, 9, 6),
                        dice.roll(DESTS),
                        tcp::SYN_RECV,
                        now.wrapping_add(dice.roll(40)),
                    );
                    let of = New { flags: TEMPLATE, ..new(tuple(client, 0, 9, 6), 0, tcp::TEMPLATE, now.wrapping_add(20)) };
                    match dice.roll(8) {
                        0 => _ = make(m, s, now, &of),
                        1..5 => {
                            if let Some(f) = look(m, s, &of.tuple) {
                                n.template = f.index + 1;
                            }
                            match make(m, s, now, &n).0 {
                                Created::Made(i) | Created::Exists(i) => assert!(i < s.records),
                                _ => {}
                            }
                        }
                        _ => {
                            let Some(f) = look(m, s, &n.tuple) else { continue };
                            let back = look(m, s, &back(&n));
                            // The same owner still: then its answers' entry was there all the time.
                            // SAFETY: a record.
                            let real = unsafe { (&raw const (*f.conn).real).read_volatile() };
                            if real == n.real && conn::same_owner(f.ctl, ctl(m, f.index)) {
                                assert!(back.is_some_and(|b| b.reverse), "one direction without the other");
                            }
                            let state = [tcp::ESTABLISHED, tcp::TIME_WAIT, tcp::CLOSE, tcp::SYN_RECV][dice.roll(4) as usize];
                            // SAFETY: a record; a wrong owner's dest is not used, as the control word tells.
                            let dest = unsafe { (&raw const (*f.conn).dest).read_volatile() };
                            change_state::<V4, R>(m, f.conn, dest, f.ctl, state);
                        }
                    }
                }
                left.fetch_sub(1, SeqCst);
            });
        }
        scope.spawn(move || {
            let mut from = 0;
            while left.load(SeqCst) != 0 {
                let now = clock.fetch_add(1, SeqCst);
                from = (from + sweep_range(&**m, s, now, from, 16).examined) % s.records;
                for i in (0..s.records).step_by(5) {
                    if let Some(c) = snapshot(&**m, i) {
                        // Fields of one owner: the server goes with the dest.
                        assert_eq!(c.real, 0x0a01_0000 + c.dest);
                    }
                }
            }
        });
    });
    check(m, s, DESTS);
    // A minute on and two minutes on, nothing is left: templates went after their connections.
    let mut now = clock.load(SeqCst);
    for _ in 0..3 {
        now = now.wrapping_add(20_000);
        sweep_range(&**m, s, now, 0, u32::MAX);
        check(m, s, DESTS);
    }
    assert!((0..s.records).all(|i| conn::phase(ctl(m, i)) != LIVE));
    assert_eq!(recover(&**m, s).orphans, 0);
    check(m, s, DESTS);
}

#[test]
fn churn_in_a_roomy_table() {
    churn(256, 512, 100);
}

#[test]
fn churn_with_too_few_records() {
    churn(64, 48, 60);
}

#[test]
fn churn_with_too_few_entries() {
    churn(8, 128, 60);
}

#[test]
fn a_daemon_may_start_while_packets_go_on() {
    let (m, s) = (Table::new(64, 64, 1), shape(64, 64));
    let done = AtomicU32::new(0);
    thread::scope(|scope| {
        for t in 0..2u32 {
            let (m, s, done) = (&m, &s, &done);
            scope.spawn(move || {
                for p in 0..10_000u32 {
                    _ = make(m, s, p / 8, &new(tuple(t, p as u16, 9, 6), 0, tcp::SYN_RECV, p / 8 + 3));
                }
                done.fetch_add(1, SeqCst);
            });
        }
        let mut now = 0;
        while done.load(SeqCst) < 2 {
            now += 1;
            sweep_range(&*m, &s, now % 1300, 0, 64);
            recover(&*m, &s);
        }
    });
    check(&m, &s, 1);
    sweep_range(&*m, &s, 10_000, 0, 64);
    check(&m, &s, 1);
}
