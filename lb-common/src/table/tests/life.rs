//! Single stories of connections: expiry, templates, stack, recovery, audits, thresholds.

use super::*;
use crate::conn::CONFIRMED;
use crate::limits::{REAP_GRACE, TEMPLATE_REARM_S};
use crate::time::ticks_of_seconds;
use std::vec;

const NOW: Tick = u32::MAX - 100;

fn made(r: (Created, Reclaimed)) -> u32 {
    match r.0 {
        Created::Made(i) => i,
        other => panic!("{other:?}"),
    }
}

#[test]
fn both_directions_lead_to_one_record_and_end_together() {
    let (m, s) = table_for(16, 2);
    let n = new(tuple(1, 1000, 9, 6), 1, tcp::SYN_RECV, NOW.wrapping_add(50));
    let i = made(make(&m, &s, NOW, &n));
    let f = look(&m, &s, &n.tuple).unwrap();
    let r = look(&m, &s, &back(&n)).unwrap();
    assert_eq!((f.index, f.reverse, r.index, r.reverse), (i, false, i, true));
    assert_eq!(make(&m, &s, NOW, &n).0, Created::Exists(i));
    assert_eq!(conns(&m, 1), DestConns { active: 1, ..Default::default() });
    check(&m, &s, 2);
    // Not one tick before its deadline and the grace.
    let deadline = NOW.wrapping_add(50);
    let early = deadline.wrapping_add(REAP_GRACE - 1);
    let mut states = [0; tcp::STATES];
    states[usize::from(tcp::SYN_RECV)] = 1;
    assert_eq!(sweep_range(&*m, &s, early, 0, u32::MAX), Swept { examined: s.records, live: 1, expired: 0, states });
    assert!(look(&m, &s, &n.tuple).is_some());
    let gone = Swept { examined: s.records, live: 0, expired: 1, ..Swept::default() };
    assert_eq!(sweep_range(&*m, &s, early.wrapping_add(1), 0, 100), gone);
    assert!(look(&m, &s, &n.tuple).is_none() && look(&m, &s, &back(&n)).is_none());
    check(&m, &s, 2);
    // The free record is taken before one that was never used.
    assert_eq!(made(make(&m, &s, NOW, &n)), i);
    assert!(snapshot(&*m, i).is_some_and(|c| c.client == 1 && c.reply == n.reply));
    assert!(snapshot(&*m, i + 1).is_none() && snapshot(&*m, u32::MAX).is_none());
    let word = ctl(&m, i);
    assert!(end(&*m, &s, i, word) && !end(&*m, &s, i, word));
    check(&m, &s, 2);
}

#[test]
fn sweeping_in_pieces_looks_at_each_record_once() {
    let (m, s) = table_for(100, 1);
    for p in 0..100 {
        made(make(&m, &s, 0, &new(tuple(1, p, 9, 17), 0, tcp::UDP, u32::from(p) + 1)));
    }
    let (mut from, mut sum) = (0, Swept::default());
    while from < s.records {
        let got = sweep_range(&*m, &s, 50 + REAP_GRACE, from, 7);
        assert!(got.examined == 7 || from + got.examined == s.records);
        from += got.examined;
        sum.live += got.live;
        sum.expired += got.expired;
    }
    assert_eq!((sum.live, sum.expired), (50, 50));
    assert_eq!(sweep_range(&*m, &s, 50, s.records, 7), Swept::default());
    check(&m, &s, 1);
}

#[test]
fn a_template_lives_as_long_as_its_connections_and_a_minute() {
    let (m, s) = table_for(64, 1);
    let mut t = new(tuple(1, 0, 9, 6), 0, tcp::TEMPLATE, 100);
    t.flags = TEMPLATE;
    let ti = made(make(&m, &s, 0, &t));
    let mut c = new(tuple(1, 1000, 9, 6), 0, tcp::ESTABLISHED, 50_000);
    c.template = ti + 1;
    let ci = made(make(&m, &s, 0, &c));
    assert_eq!(references::<V4, Raw<V4>>(record(&m, ti)), 1);
    check(&m, &s, 1);
    assert!(!is_dead::<V4, Raw<V4>>(record(&m, ti), ctl(&m, ti), 200));
    // Its deadline past, its key is still taken, and no new connection may have its record.
    assert_eq!(make(&m, &s, 200, &t).0, Created::Exists(ti));
    assert_eq!(sweep_range(&*m, &s, 200, 0, 100).expired, 0);
    assert_eq!(snapshot(&*m, ti).unwrap().expires, 200 + ticks_of_seconds(TEMPLATE_REARM_S));
    assert!(end(&*m, &s, ci, ctl(&m, ci)));
    assert!(!is_dead::<V4, Raw<V4>>(record(&m, ti), ctl(&m, ti), 300));
    assert_eq!(sweep_range(&*m, &s, 60_000, 0, 100).expired, 1);
    check(&m, &s, 1);
}

#[test]
fn established_connections_templates_and_confirmed_udp_never_give_way() {
    let (m, s) = (Table::new(16, 8, 1), shape(16, 8));
    for p in 0..8 {
        let (proto, state, flags) = match p % 4 {
            0 => (6, tcp::ESTABLISHED, REVERSE),
            1 => (17, tcp::UDP, REVERSE | CONFIRMED),
            2 => (6, tcp::TEMPLATE, TEMPLATE | CONFIRMED),
            _ => (6, tcp::ESTABLISHED, REVERSE),
        };
        let n = New { flags, ..new(tuple(1, p, 9, proto), 0, state, 1000) };
        assert_eq!(make(&m, &s, 0, &n).1, Reclaimed::Nothing);
    }
    for p in 100..200 {
        assert_eq!(make(&m, &s, 0, &new(tuple(1, p, 9, 6), 0, tcp::SYN_RECV, 1000)), (Created::Full, Reclaimed::Nothing));
    }
    check(&m, &s, 1);
    // One closes: it gives way, if not in this second.
    assert!(change_state::<V4, Raw<V4>>(&m, record(&m, 4), 0, ctl(&m, 4), tcp::TIME_WAIT));
    let n = new(tuple(1, 300, 9, 17), 0, tcp::UDP, 2000);
    assert_eq!(make(&m, &s, 500, &n), (Created::Made(4), Reclaimed::Closing));
    // A UDP flow of one packet gives way, and does no more once it is confirmed.
    let other = new(tuple(1, 301, 9, 17), 0, tcp::UDP, 2000);
    assert_eq!(make(&m, &s, 500, &other), (Created::Made(4), Reclaimed::Embryonic));
    assert!(confirm::<V4, Raw<V4>>(&m, record(&m, 4), ctl(&m, 4)));
    assert_eq!(make(&m, &s, 500, &n), (Created::Full, Reclaimed::Nothing));
    check(&m, &s, 1);
}

#[test]
fn free_embryonic_oldest_first_then_closing() {
    let (m, s) = (Table::new(16, 8, 1), shape(16, 8));
    for p in 0..8 {
        let state = if p < 4 { tcp::TIME_WAIT } else { tcp::SYN_RECV };
        made(make(&m, &s, 0, &new(tuple(1, p, 9, 6), 0, state, 1000)));
    }
    let got: Vec<_> = (10..16)
        .map(|p| make(&m, &s, 0, &new(tuple(1, p, 9, 6), 0, tcp::ESTABLISHED, 1000)))
        .map(|(c, r)| (made((c, r)), r))
        .collect();
    let embryonic = (4..8).map(|i| (i, Reclaimed::Embryonic));
    assert_eq!(got, embryonic.chain([(0, Reclaimed::Closing), (1, Reclaimed::Closing)]).collect::<Vec<_>>());
    check(&m, &s, 1);
}

#[test]
fn holes_among_long_runs_of_established_connections_are_found_at_once() {
    let (m, s) = table_for(20_000, 1);
    let at = |i: u32| new(tuple(i, 1, 9, 6), 0, tcp::ESTABLISHED, if i == 17_000 { 10 } else { 1_000_000 });
    for i in 0..s.records {
        assert_eq!(made(make(&m, &s, 0, &at(i))), i);
    }
    assert_eq!(make(&m, &s, 0, &at(1 << 20)).0, Created::Full);
    assert_eq!(sweep_range(&*m, &s, 20, 0, u32::MAX).expired, 1);
    assert_eq!(make(&m, &s, 20, &at(1 << 20)).0, Created::Made(17_000));
    check(&m, &s, 1);
}

#[test]
fn a_full_index_refuses_whole_connections() {
    let (m, s) = (Table::new(2, 64, 1), shape(2, 64));
    let mut full = 0;
    for p in 0..64 {
        match make(&m, &s, 0, &new(tuple(1, p, 9, 6), 0, tcp::ESTABLISHED, 1000)).0 {
            Created::Made(_) => {}
            Created::Crowded => full += 1,
            other => panic!("{other:?}"),
        }
        check(&m, &s, 1);
    }
    // Two buckets of seven entries take seven connections, whichever way round they were tried.
    assert_eq!(full, 64 - 7);
    assert_eq!(sweep_range(&*m, &s, 2000, 0, 64).expired, 7);
    check(&m, &s, 1);
}

#[test]
fn thresholds_follow_the_table() {
    let (mut m, s) = table_for(64, 1);
    m.set_thresholds(0, 4, 2);
    let mut marks = vec![];
    for p in 0..5 {
        made(make(&m, &s, 0, &new(tuple(1, p, 9, 6), 0, tcp::ESTABLISHED, 10 + u32::from(p))));
        marks.push(conns(&m, 0).overloaded);
    }
    for p in 0..5 {
        sweep_range(&*m, &s, 10 + p + REAP_GRACE, 0, 64);
        marks.push(conns(&m, 0).overloaded);
    }
    assert_eq!(marks, [0, 0, 0, 1, 1, 1, 1, 1, 0, 0]);
    check(&m, &s, 1);
}

/// The daemon is killed at each point of taking a connection down, and at each of pushing its record.
#[test]
fn what_a_killed_daemon_left_is_put_right() {
    for killed_after in 0..6 {
        let (m, s) = table_for(16, 1);
        let mut t = new(tuple(1, 0, 9, 6), 0, tcp::TEMPLATE, 10_000);
        t.flags = TEMPLATE;
        let ti = made(make(&m, &s, 0, &t));
        let kept = made(make(&m, &s, 0, &new(tuple(2, 1, 9, 6), 0, tcp::ESTABLISHED, 10_000)));
        let freed = made(make(&m, &s, 0, &new(tuple(3, 1, 9, 6), 0, tcp::ESTABLISHED, 10_000)));
        let mut n = new(tuple(1, 1, 9, 6), 0, tcp::ESTABLISHED, 10_000);
        n.template = ti + 1;
        let i = made(make(&m, &s, 0, &n));
        assert!(end(&*m, &s, freed, ctl(&m, freed)));
        let (word, c, number) = (ctl(&m, i), record(&m, i), u64::from(i) + 1);
        type R = Raw<V4>;
        // SAFETY: the record is claimed so.
        unsafe {
            R::store(&raw mut (*c).ctl, conn::with_phase(word, SWEPT));
            if killed_after > 0 {
                remove_entry::<V4, R>(&m, &s, index::hash_of(&s, &n.tuple), number);
            }
            if killed_after > 1 {
                remove_entry::<V4, R>(&m, &s, index::hash_of(&s, &back(&n)), number | ENTRY_REVERSE);
            }
            if killed_after > 2 {
                count::<V4, R>(&m, 0, word, 1u64.wrapping_neg());
            }
            if killed_after > 3 {
                (*c).template = 0;
                records::drop_reference::<V4, R>(&m, ti + 1);
            }
            if killed_after > 4 {
                R::store(&raw mut (*c).ctl, conn::with_phase(conn::freed(word), STACKED));
            }
        }
        let orphans = u32::from(killed_after < 5);
        assert_eq!(recover(&*m, &s), Recovered { orphans, free: 2 });
        let mut audit = Audit::default();
        let mut healed: Vec<Vec<u32>> = vec![];
        for _ in 0..3 {
            audit.begin::<V4, R>(&m, 1, |_| Some(4));
            audit.go_through::<V4, R>(&m, &s, 0, 5);
            audit.go_through::<V4, R>(&m, &s, 5, s.records);
            healed.push(audit.finish::<V4, R>(&m, |_| Some(4)).into_iter().map(|h| h.dest).collect());
        }
        // The second audit in a row to find it puts it right.
        assert_eq!(healed, [vec![], if killed_after < 3 { vec![0] } else { vec![] }, vec![]]);
        assert_eq!(conns(&m, 0), DestConns { active: 1, templates: 1, ..Default::default() });
        check(&m, &s, 1);
        assert!(look(&m, &s, &n.tuple).is_none());
        assert_eq!(look(&m, &s, &tuple(2, 1, 9, 6)).unwrap().index, kept);
        // Both free records can be had.
        let again = [made(make(&m, &s, 0, &n)), made(make(&m, &s, 0, &new(tuple(3, 1, 9, 6), 0, tcp::ESTABLISHED, 10_000)))];
        assert!(again.contains(&i) && again.contains(&freed), "{again:?}");
        check(&m, &s, 1);
    }
}

#[test]
fn an_audit_leaves_alone_what_moved() {
    let (m, s) = table_for(16, 1);
    type R = Raw<V4>;
    let mut audit = Audit::default();
    for round in 0..4u16 {
        // A connection more than the audit sees, each time.
        audit.begin::<V4, R>(&m, 1, |_| Some(u64::from(round)));
        made(make(&m, &s, 0, &new(tuple(1, round, 9, 6), 0, tcp::ESTABLISHED, 10_000)));
        assert_eq!(audit.finish::<V4, R>(&m, |_| Some(u64::from(round) + 1)), vec![]);
        check(&m, &s, 1);
    }
    // Of the other family.
    for _ in 0..3 {
        audit.begin::<V4, R>(&m, 1, |_| None);
        assert_eq!(audit.finish::<V4, R>(&m, |_| None), vec![]);
    }
    check(&m, &s, 1);
}

#[test]
fn who_is_late_at_the_stack_finds_it_changed() {
    let (m, s) = table_for(16, 1);
    let n = new(tuple(1, 1, 9, 6), 0, tcp::ESTABLISHED, 1000);
    let i = made(make(&m, &s, 0, &n));
    // SAFETY: the family's words.
    let head = || unsafe { *Memory::<V4>::hand(&*m).unwrap().add(STACK) };
    assert!(end(&*m, &s, i, ctl(&m, i)));
    let (seen_head, seen_ctl) = (head(), ctl(&m, i));
    // The same record comes to lie on the same stack again.
    assert_eq!(made(make(&m, &s, 0, &n)), i);
    assert!(end(&*m, &s, i, ctl(&m, i)));
    assert_eq!(head() as u32, seen_head as u32);
    assert_ne!(head(), seen_head);
    assert_ne!(ctl(&m, i), seen_ctl);
    // A packet that took the record from the stack, but has not claimed it, before the stack was rebuilt.
    let seen_ctl = ctl(&m, i);
    assert_eq!(recover(&*m, &s).free, 1);
    assert_ne!(ctl(&m, i), seen_ctl);
    check(&m, &s, 1);
}
