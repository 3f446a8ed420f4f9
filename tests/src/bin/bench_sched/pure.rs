//! What needs no packets: plans, and tables of `mh`.

use super::*;

/// Plans of 1,000 servers, as the daemon makes them when counts changed.
pub(super) fn plans() {
    println!("plans of 1,000 servers, microseconds: median, worst of 200 (target: below 1,000)");
    let flow = Flow::to(IpAddr::V4(VIP), 0);
    for spread in [13u32, 65_521] {
        for kind in SchedulerKind::ALL {
            let mut pool: Vec<Server> = (0..1000u32)
                .map(|i| Server { active: u64::from(i * 7 % 50), ..Server::new(i, address(i), 80, 1 + i * 7919 % spread) })
                .collect();
            let mut planner = Planner::new(*kind, SchedFlags::default());
            planner.commit(planner.draft(&pool, &flow, 0));
            let times = (0..200usize).map(|n| {
                pool[n].active += 3;
                let start = Instant::now();
                planner.commit(planner.draft(&pool, &flow, 50));
                start.elapsed()
            });
            let (median, worst) = middle(times.collect());
            let good = median < Duration::from_millis(1);
            println!(
                "  {:<6} weights to {spread:<6} {:>8} {:>8}{}",
                kind.name(),
                median.as_micros(),
                worst.as_micros(),
                verdict(good)
            );
        }
    }
}

/// Tables of `mh`: time, and clients that move beyond need when one of 100 servers leaves.
pub(super) fn mh() {
    println!(
        "mh: table of 1,000 servers, ms (target 50); of 100 servers one leaves: clients that move without need, % (target 1)"
    );
    let pool = |n: u32| (0..n).map(|i| Server::new(i, address(i), 80, 1)).collect::<Vec<_>>();
    let slots = |servers: &[Server], size| Mh::sized(size).table(&Pool::new(servers)).expect("mh has a table").slots;
    for size in TableSize::ALL.into_iter().filter_map(TableSize::new) {
        let thousand = pool(1000);
        let (time, _) = middle(
            (0..5)
                .map(|_| {
                    let s = Instant::now();
                    slots(&thousand, size);
                    s.elapsed()
                })
                .collect(),
        );
        let hundred = pool(100);
        let whole = slots(&hundred, size);
        let (mut sum, mut worst) = (0.0, 0.0f64);
        for gone in 0..100u32 {
            let rest: Vec<Server> = hundred.iter().filter(|s| s.key != gone).copied().collect();
            let moved = whole.iter().zip(slots(&rest, size).iter()).filter(|(a, b)| **a != gone && a != b).count();
            let extra = moved as f64 * 100.0 / f64::from(size.slots());
            sum += extra;
            worst = worst.max(extra);
        }
        println!(
            "  {:>6} slots {:>8.2} ms   mean {:>5.2} %  worst {:>5.2} %",
            size.slots(),
            time.as_secs_f64() * 1e3,
            sum / 100.0,
            worst
        );
    }
}
