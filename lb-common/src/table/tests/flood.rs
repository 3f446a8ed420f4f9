//! A SYN flood of spoofed sources, ten times the table's size, between honest clients.

use super::*;
use crate::time::ticks_of_seconds;
use std::collections::VecDeque;
use std::vec;

const CONNECTIONS: u32 = 4096;

/// What became of the honest clients.
#[derive(Debug, Default)]
struct Outcome {
    tried: u32,
    failed: u32,
    evicted: [u32; 4],
}

/// `share` percent of the table is established before the flood, in one run of records; every 20th SYN is an honest client's, whose
/// acknowledgement comes `round_trip` SYNs later and whose last packet, which leaves the state `last`, as long after that. Connections send all the time.
fn flood(share: u32, round_trip: u32, proto: u8, last: State) -> Outcome {
    let (m, s) = table_for(CONNECTIONS, 2);
    let t = |state: State| ticks_of_seconds(tcp::DEFAULT_TIMEOUTS_S[usize::from(state)]);
    let first = if proto == 6 { tcp::SYN_RECV } else { tcp::UDP };
    let settle = |now: Tick, n: &New<V4>, state: State| {
        let Some(f) = look(&m, &s, &n.tuple) else { return false };
        let done = if proto == 6 {
            change_state::<V4, Raw<V4>>(&m, f.conn, n.dest, f.ctl, state)
        } else {
            confirm::<V4, Raw<V4>>(&m, f.conn, f.ctl)
        };
        // SAFETY: a live record.
        unsafe { (*f.conn).expires = now.wrapping_add(t(state)) };
        done
    };
    let mut now: Tick = 5;
    let mut old = vec![];
    for i in 0..s.records * share / 100 {
        let n = new(tuple(0x0100_0000 + i, 7, 9, proto), 0, first, now.wrapping_add(t(first)));
        assert!(matches!(make(&m, &s, now, &n).0, Created::Made(_)));
        assert!(settle(now, &n, if proto == 6 { tcp::ESTABLISHED } else { tcp::UDP }));
        old.push(n);
    }
    let mut out = Outcome::default();
    let mut acks: VecDeque<(u32, New<V4>)> = VecDeque::new();
    let mut ends: VecDeque<(u32, New<V4>)> = VecDeque::new();
    let mut swept = 0;
    for k in 0..CONNECTIONS * 10 {
        // 100,000 a second, so that the whole takes less than any timeout.
        now = 5 + k / 420;
        let spoofed = new(tuple(0x0200_0000 + k, 9, 9, proto), 1, first, now.wrapping_add(t(first)));
        let (_, kind) = make(&m, &s, now, &spoofed);
        out.evicted[kind as usize] += 1;
        if k % 20 == 0 {
            let n = new(tuple(0x0300_0000 + k, 9, 9, proto), 0, first, now.wrapping_add(t(first)));
            out.tried += 1;
            if matches!(make(&m, &s, now, &n).0, Created::Made(_)) {
                acks.push_back((k + round_trip, n));
            } else {
                out.failed += 1;
            }
        }
        if acks.front().is_some_and(|a| a.0 == k) {
            let (_, n) = acks.pop_front().unwrap();
            if settle(now, &n, if proto == 6 { tcp::ESTABLISHED } else { tcp::UDP }) {
                ends.push_back((k + round_trip, n));
            } else {
                out.failed += 1;
            }
        }
        if ends.front().is_some_and(|a| a.0 == k) {
            let (_, n) = ends.pop_front().unwrap();
            assert!(settle(now, &n, last), "an established connection lost a packet");
        }
        if let Some(n) = old.get(k as usize % old.len().max(1)) {
            let f = look(&m, &s, &n.tuple).expect("an established connection lost a packet");
            assert!(!is_dead::<V4, Raw<V4>>(f.conn, f.ctl, now));
            assert!(look(&m, &s, &back(n)).is_some_and(|b| b.index == f.index));
        }
        swept = (swept + sweep_range(&*m, &s, now, swept, 16).examined) % s.records;
    }
    for n in &old {
        assert!(look(&m, &s, &n.tuple).is_some());
    }
    check(&m, &s, 2);
    out
}

#[test]
fn syn_flood() {
    let nat = [(0, 1500), (50, 500), (80, 200), (90, 100), (95, 50), (95, 20)].map(|c| (c, tcp::TIME_WAIT));
    // Answers are not seen: what is finished stays half-closed, and is hard to tell from what is not.
    let dr = [(0, 500), (30, 100)].map(|c| (c, tcp::FIN_WAIT));
    for ((share, round_trip), last) in nat.into_iter().chain(dr) {
        let out = flood(share, round_trip, 6, last);
        assert!(out.tried > 2000 && out.failed * 100 <= out.tried, "{share} %: {out:?}");
        assert!(out.evicted[Reclaimed::Embryonic as usize] > 30_000, "{share} %: {out:?}");
    }
}

#[test]
fn udp_flood() {
    // Honest flows stay as long as they send; they fill what there is in the end, so fewer of them find a place.
    for (share, round_trip) in [(0, 1500), (40, 500)] {
        let out = flood(share, round_trip, 17, tcp::UDP);
        assert!(out.tried > 2000 && out.failed * 100 <= out.tried, "{share} %: {out:?}");
    }
}

/// Each spoofed SYN for a persistent service makes a template too.
#[test]
fn templates_of_a_flood_give_way_and_those_of_clients_stay() {
    let (m, s) = table_for(CONNECTIONS, 1);
    let both = |client: u32, now: Tick| {
        let t = New { flags: TEMPLATE, ..new(tuple(client, 0, 9, 6), 0, tcp::TEMPLATE, now + 90_000) };
        let Created::Made(ti) = make(&m, &s, now, &t).0 else { return None };
        let mut n = new(tuple(client, 9, 9, 6), 0, tcp::SYN_RECV, now + 15_000);
        n.template = ti + 1;
        matches!(make(&m, &s, now, &n).0, Created::Made(_)).then_some((t, n))
    };
    let mut clients = vec![];
    for client in 0..1000 {
        let (t, n) = both(client, 0).unwrap();
        let f = look(&m, &s, &n.tuple).unwrap();
        assert!(change_state::<V4, Raw<V4>>(&m, f.conn, 0, f.ctl, tcp::ESTABLISHED));
        if client % 2 == 0 {
            // Gone, but to come back.
            assert!(end(&*m, &s, f.index, ctl(&m, f.index)));
        }
        clients.push(t);
    }
    let refused = (0..CONNECTIONS * 10).filter(|k| both(0x0200_0000 + k, 5 + k / 420).is_none()).count();
    assert_eq!(refused, 0);
    for t in &clients {
        assert!(look(&m, &s, &t.tuple).is_some(), "a client's template gave way");
    }
    check(&m, &s, 1);
}
