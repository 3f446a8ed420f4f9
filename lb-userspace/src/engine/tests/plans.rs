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
