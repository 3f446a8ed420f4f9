//! Changing plans while picks are taken.

use super::*;
use std::sync::atomic::AtomicBool;

#[test]
fn rr_goes_on_where_it_was() {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(104), add(104, 1), add(104, 2)]);
    assert_eq!(d.picks(104, 4), [2, 1, 2, 1]);
    d.edit(&[add(104, 3)]);
    assert_eq!(d.picks(104, 4), [3, 2, 1, 3]);
    // Edits that say nothing to the scheduler, or nothing new.
    d.edit(&[edit(104, server(1, 7))]);
    assert_eq!(d.pick(104), Some(2));
    d.edit(&[edit(104, ServerSpec { upper_threshold: 9, ..server(1, 7) })]);
    assert_eq!(d.picks(104, 2), [1, 3]);
    d.edit(&[delete(104, 3)]);
    assert_eq!(d.picks(104, 3), [2, 1, 2]);
    d.edit(&[add(104, 3), delete(104, 1)]);
    assert_eq!(d.picks(104, 3), [3, 2, 3]);
}

#[test]
fn a_plan_changes_between_two_picks() {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(80), add(80, 1), add(80, 2)]);
    let slot = d.lookup(&key_of(&vip(80))).unwrap();
    let before = d.engine.services.memory.read(slot).unwrap();
    d.picks(80, 3);
    d.edit(&[add(80, 3)]);
    let after = d.engine.services.memory.read(slot).unwrap();
    assert_ne!(Service::plan_of(before.cursor), Service::plan_of(after.cursor));
    assert_eq!(Service::taken(after.cursor), 0);
    assert_ne!(before.cursor >> 32 & 0x3fff_ffff, after.cursor >> 32 & 0x3fff_ffff);
    assert_eq!(after.plans[Service::plan_of(after.cursor)].len, 3);
    assert_eq!(after.low_water, u32::MAX);
}

fn with(n: u16, scheduler: SchedulerKind) -> ServiceSpec {
    ServiceSpec { scheduler, ..spec(vip(n)) }
}

/// `-E -s wrr`: the scheduler starts on the servers that are there, whose weights it all knows; added one by one it would start lower.
#[test]
fn a_scheduler_that_comes_later_starts_on_the_servers_that_are_there() {
    let mut d = Director::new(&SIZES);
    let add = |n, weight| Edit::AddServer { service: vip(80), server: server(n, weight) };
    d.edit(&[add_service(80), add(1, 3), add(2, 2), add(3, 1)]);
    assert_eq!(d.picks(80, 2), [3, 2]);
    d.edit(&[Edit::EditService { service: with(80, SchedulerKind::Wrr) }]);
    assert_eq!(d.picks(80, 6), [1, 2, 1, 3, 2, 1]);
}

/// Nobody plans while the daemon is gone: what the last plan goes on with is shared by weight.
#[test]
fn a_plan_that_is_used_up_goes_on_by_weight() {
    let mut d = Director::new(&Sizes { picks: 1024, ..SIZES });
    d.edit(&[Edit::AddService { service: with(80, SchedulerKind::Wlc) }, add(80, 1), add(80, 2)]);
    for n in [1, 2] {
        let slot = d.slot(80, n);
        d.conns.write(slot, &DestConns { active: 1_000_000, ..DestConns::default() });
    }
    d.edit(&[add(80, 3)]);
    assert_eq!(d.picks(80, 64), [3; 64], "what it lacks, for as long as the plan lasts");
    let rest = d.picks(80, 300);
    for n in 1..=3 {
        assert_eq!(rest.iter().filter(|p| **p == n).count(), 100);
    }
    // Somebody plans again: it goes on as the counts say.
    let slot = d.lookup(&key_of(&vip(80))).unwrap();
    d.engine.replan(&[slot]);
    assert_eq!(d.picks(80, 5), [3; 5]);
}

/// A turn that is long enough to hide others is left out while its server is overloaded, and comes back with it.
#[test]
fn an_overloaded_server_comes_back_into_the_plan() {
    let mut d = Director::new(&Sizes { picks: 8192, ..SIZES });
    let add = |n, weight| Edit::AddServer { service: vip(80), server: ServerSpec { upper_threshold: 5, ..server(n, weight) } };
    d.edit(&[Edit::AddService { service: with(80, SchedulerKind::Wrr) }, add(1, 500), add(2, 1)]);
    let slot = d.slot(80, 1);
    d.conns.write(slot, &DestConns { active: 5, overloaded: 1, ..DestConns::default() });
    let element = d.lookup(&key_of(&vip(80))).unwrap();
    d.engine.replan(&[element]);
    assert_eq!(d.picks(80, 70), [2; 70]);
    assert_eq!(d.engine.services.memory.read(element).unwrap().low_water, 1, "each further pick asks again");
    d.conns.write(slot, &DestConns::default());
    d.count(0, slot, 0, 0);
    d.engine.estimate();
    assert!(d.picks(80, 501).iter().filter(|p| **p == 1).count() >= 499);
    assert_eq!(
        d.engine.services.memory.read(element).unwrap().low_water,
        0,
        "whole cycles, looked at as its threshold may hide the other"
    );
}

/// The table's size changes under a running service, or not at all.
#[test]
fn mh_tables_change_their_size() {
    let mut d = Director::new(&Sizes { picks: 16_384, ..SIZES });
    d.edit(&[Edit::AddService { service: with(80, SchedulerKind::Mh) }, add(80, 1), add(80, 2), add_service(81)]);
    let element = d.lookup(&key_of(&vip(80))).unwrap();
    let len = |d: &Director| {
        let s = d.engine.services.memory.read(element).unwrap();
        s.plans[Service::plan_of(s.cursor)].len
    };
    assert_eq!(len(&d), 4093);
    let sized = |d: &Director, i| {
        let mut desired = d.desired.clone();
        desired.behaviour.schedulers.mh_tab_index = TableSize::from_index(i).unwrap();
        desired
    };
    d.desired = sized(&d, 11);
    d.engine.reconcile(&d.desired).unwrap();
    assert_eq!(len(&d), 2039);
    // With another change beside it, which must not come through either.
    let mut larger = sized(&d, 16);
    larger.apply(&[add(81, 7), delete(80, 2), Edit::AddService { service: spec(vip(82)) }]).unwrap();
    let error = d.engine.reconcile(&larger).unwrap_err();
    assert!(error.message.contains("TCP 10.9.0.10:80: no room for 65521 picks twice in a table of 16384"), "{error}");
    assert_eq!(len(&d), 2039);
    assert_eq!(d.engine.services().services.iter().map(|s| s.servers.len()).collect::<Vec<_>>(), [2, 0]);
    d.edit(&[delete(80, 1)]);
    assert_eq!(len(&d), 2039);
    // Another service of the kind has the size too.
    d.edit(&[Edit::EditService { service: with(81, SchedulerKind::Mh) }, add(81, 1)]);
    let other = d.lookup(&key_of(&vip(81))).unwrap();
    let s = d.engine.services.memory.read(other).unwrap();
    assert_eq!(s.plans[Service::plan_of(s.cursor)].len, 2039);
}

/// The next daemon goes on with the size that is kept, also where the one before was ended between maps and file.
#[test]
fn mh_tables_keep_their_size_over_a_restart() {
    let mut d = Director::new(&Sizes { picks: 65_536, ..SIZES });
    d.desired.behaviour.schedulers.mh_tab_index = TableSize::from_index(9).unwrap();
    d.edit(&[Edit::AddService { service: with(80, SchedulerKind::Mh) }, add(80, 1), add(80, 2)]);
    let element = d.lookup(&key_of(&vip(80))).unwrap();
    let plan = |d: &Director| {
        let s = d.engine.services.memory.read(element).unwrap();
        s.plans[Service::plan_of(s.cursor)]
    };
    assert_eq!(plan(&d).len, 509);
    let mut e = d.restarted();
    e.edit(&[]);
    assert_eq!(plan(&e).len, 509);
    e.engine.replan(&[element]);
    e.edit(&[edit(80, server(2, 3))]);
    assert_eq!(plan(&e).len, 509);
    let mut f = e.restarted();
    f.desired.behaviour.schedulers.mh_tab_index = TableSize::from_index(8).unwrap();
    f.edit(&[]);
    assert_eq!(plan(&f).len, 251);
    let mut g = f.restarted();
    g.desired.behaviour = crate::model::Behaviour::default();
    g.edit(&[]);
    assert_eq!(plan(&g).len, 4093);
}

/// A mark that a killed daemon left behind, its message lost: the next one takes it off, so that it hears of counts again.
#[test]
fn a_mark_without_a_message_does_not_outlive_its_daemon() {
    let maps = Maps::in_memory(&Sizes { picks: 1024, ..SIZES });
    let memory = maps.services.clone();
    for slot in 0..memory.len() {
        memory.u32(slot, offset_of!(Service, signalled)).store(1, Ordering::Relaxed);
    }
    let mut d = Director::over(maps);
    d.edit(&[Edit::AddService { service: with(80, SchedulerKind::Wlc) }, add(80, 1)]);
    assert!((0..memory.len()).all(|slot| memory.read(slot).unwrap().signalled == 0));
}

/// While one thread takes picks, the other changes plans whose order is always the same: not a pick may be repeated or left out.
#[test]
fn no_pick_is_lost_or_repeated_while_plans_change() {
    let mut d = Director::new(&SIZES);
    d.edit(&[add_service(80), add(80, 1), add(80, 2), add(80, 3)]);
    let slot = d.lookup(&key_of(&vip(80))).unwrap();
    let order: Vec<u32> = [3, 2, 1].map(|n| d.slot(80, n)).into();
    let (services, picks) = (d.engine.services.memory.clone(), d.engine.services.picks_memory.clone());
    let stop = AtomicBool::new(false);
    let wrong = std::thread::scope(|scope| {
        let taker = scope.spawn(|| {
            let (mut expected, mut wrong, mut checked) = (0, 0, 0u32);
            while !stop.load(Ordering::Relaxed) || checked == 0 {
                let cursor = services.u64(slot, 0).fetch_add(1, Ordering::AcqRel);
                let plan = services.read(slot).unwrap().plans[Service::plan_of(cursor)];
                let dest = picks.read(plan.base + Service::taken(cursor) % plan.len).unwrap();
                let now = services.u64(slot, 0).load(Ordering::Acquire);
                // This thread, unlike a packet, can be held up for long enough that its region is written anew: no verdict then.
                let epochs = (now >> 32 & 0x3fff_ffff) - (cursor >> 32 & 0x3fff_ffff);
                if epochs <= 1 {
                    checked += 1;
                    wrong += u32::from(dest != order[expected % 3]);
                }
                expected += 1;
                // Connections do not come so fast that no gap is left between two: else the change would be forced in the end.
                for _ in 0..2000 {
                    std::hint::spin_loop();
                }
            }
            (wrong, checked)
        });
        for i in 0..3000u32 {
            d.edit(&[edit(80, server(2, 1 + i % 2))]);
        }
        stop.store(true, Ordering::Relaxed);
        taker.join().unwrap()
    });
    assert_eq!(wrong.0, 0, "of {} picks", wrong.1);
}
