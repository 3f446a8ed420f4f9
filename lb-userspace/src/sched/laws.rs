//! Laws that hold for every scheduler and every pool, tested on random ones.

use super::mh::{Entry, fill};
use super::plan::{Plan, Planner};
use super::*;
use lb_common::sched_hash::SIP_SLOTS;
use proptest::prelude::*;
use proptest::sample::select;

fn address(key: u32) -> IpAddr {
    IpAddr::from([10, (key >> 16) as u8, (key >> 8) as u8, key as u8])
}

fn any_weight() -> impl Strategy<Value = u32> {
    prop_oneof![3 => 0..6u32, 2 => 0..200u32, 1 => select(vec![1000, 65_535, i32::MAX as u32, u32::MAX])]
}

fn any_server() -> impl Strategy<Value = Server> {
    let load = prop_oneof![5 => 0..20u64, 1 => select(vec![u64::MAX, u64::from(u32::MAX), 1 << 40])];
    (any_weight(), load.clone(), load, prop_oneof![3 => Just(0u32), 2 => 0..12u32], any::<bool>()).prop_map(
        |(weight, active, inactive, upper, overloaded)| Server {
            // A counter at its very end would overflow by counting: real ones start at 0.
            active: active.min(u64::MAX / 2),
            inactive: inactive.min(u64::MAX / 2),
            overloaded: overloaded && upper > 0,
            upper,
            ..Server::new(0, address(0), 80, weight)
        },
    )
}

/// Servers with distinct keys from a small range, so that pools of one history share some.
fn any_pool(max: usize) -> impl Strategy<Value = Vec<Server>> {
    (prop::collection::vec(any_server(), 0..max), Just((0..max as u32).collect::<Vec<_>>()).prop_shuffle()).prop_map(
        |(mut servers, keys)| {
            for (s, key) in servers.iter_mut().zip(keys) {
                s.key = key;
                s.address = address(key);
            }
            servers
        },
    )
}

fn any_kind() -> impl Strategy<Value = SchedulerKind> {
    select(SchedulerKind::ALL.to_vec())
}

fn any_flow() -> impl Strategy<Value = Flow> {
    (0..40u32, any::<u16>(), 0..4u32, select(vec![0, 1, 100, 100_000, 200_000])).prop_map(|(client, client_port, to, now_s)| {
        Flow {
            client: if client % 3 == 0 { IpAddr::from([client as u16; 8]) } else { address(client) },
            client_port,
            destination: address(0x90_0000 + to),
            now_s,
        }
    })
}

/// A scheduler whose random numbers are the same each time.
fn fixed(kind: SchedulerKind, flags: SchedFlags) -> Box<dyn Scheduler> {
    if kind == SchedulerKind::Twos { Box::new(Twos::seeded(7)) } else { build(kind, flags) }
}

/// The definition, `n` times.
fn one_by_one(scheduler: &mut dyn Scheduler, pool: &mut Pool, flow: &Flow, n: usize) -> Vec<u32> {
    let mut picks = Vec::new();
    for _ in 0..n {
        let Some(at) = scheduler.schedule(pool, flow) else { break };
        picks.push(pool.servers()[at].key);
        pool.count(at);
    }
    picks
}

fn planned(scheduler: &mut dyn Scheduler, pool: &mut Pool, flow: &Flow, n: usize) -> Vec<u32> {
    let mut picks = Vec::new();
    scheduler.plan(pool, flow, n, &mut picks);
    picks
}

/// `wrr` as the kernel walks its list, pass by pass: only for small weights.
fn walk(servers: &[Server], last: &mut Option<usize>, current: &mut i64) -> Option<usize> {
    let gcd = servers.iter().map(|s| s.weight).fold(0, wrr::gcd).max(1);
    let step = i64::from(gcd);
    let top = i64::from(servers.iter().map(|s| s.weight).max().unwrap_or(0)) - (step - 1);
    if top == 0 {
        return None;
    }
    let began = *last;
    let (mut at, mut stop, mut last_pass, mut restarted) = (began.map_or(0, |l| l + 1), None, false, false);
    loop {
        while at < servers.len() {
            if !servers[at].overloaded && i64::from(servers[at].weight) >= *current {
                *last = Some(at);
                return Some(at);
            }
            if stop == Some(at) {
                *last = Some(at);
                return None;
            }
            at += 1;
        }
        at = 0;
        *current -= step;
        if *current <= 0 {
            *current = top;
            if last_pass || began.is_none() {
                *last = None;
                return None;
            }
            restarted = true;
        }
        last_pass = *current <= step;
        if last_pass && restarted && began.is_some() {
            stop = began;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// The plan is what the definition gives one by one, from any state that a history of pools leads to.
    #[test]
    fn plans_agree_with_definitions(
        kind in any_kind(), flags in 0..4u8, history in prop::collection::vec((any_pool(9), any_flow(), 0..40usize), 1..5),
    ) {
        let (mut plain, mut ahead) = (fixed(kind, SchedFlags(flags)), fixed(kind, SchedFlags(flags)));
        let (mut a, mut b) = (Pool::default(), Pool::default());
        for (servers, flow, n) in history {
            a.update(&servers, |pool, change| plain.changed(pool, change));
            b.update(&servers, |pool, change| ahead.changed(pool, change));
            let expected = one_by_one(&mut *plain, &mut a, &flow, n);
            prop_assert_eq!(planned(&mut *ahead, &mut b, &flow, n), expected, "{} {:?}", kind, servers);
            prop_assert_eq!(a.servers(), b.servers());
        }
    }

    /// Taking back all but `k` picks and planning again gives what comes after `k`.
    #[test]
    fn rewinding_equals_a_fresh_replay(
        kind in any_kind(), first in any_pool(8), servers in any_pool(8), flow in any_flow(), n in 1..60usize, k in 0..60usize,
    ) {
        let mut scheduler = fixed(kind, SchedFlags::default());
        let mut pool = Pool::default();
        pool.update(&first, |pool, change| scheduler.changed(pool, change));
        let _ = planned(&mut *scheduler, &mut pool, &flow, 5);
        pool.update(&servers, |pool, change| scheduler.changed(pool, change));

        let picks = planned(&mut *scheduler.boxed(), &mut pool.clone(), &flow, n);
        let k = k.min(picks.len());
        let mut rewound = scheduler.boxed();
        rewound.advance(&pool, &flow, &picks[..k]);
        let mut counted = pool.clone();
        for key in &picks[..k] {
            counted.count(counted.position(*key).expect("picked"));
        }
        prop_assert_eq!(&planned(&mut *rewound, &mut counted, &flow, picks.len() - k)[..], &picks[k..]);
    }

    /// No server of weight 0, no overloaded one; and one of the others whenever there is one. (Hashing refuses a client
    /// whose server is unusable, `ovf` one that would overflow all.)
    #[test]
    fn only_usable_servers_are_chosen(
        kind in any_kind(), flags in 0..4u8, history in prop::collection::vec((any_pool(9), any_flow()), 1..8),
    ) {
        let mut scheduler = fixed(kind, SchedFlags(flags));
        let mut pool = Pool::default();
        for (servers, flow) in history {
            pool.update(&servers, |pool, change| scheduler.changed(pool, change));
            for _ in 0..10 {
                match scheduler.schedule(&pool, &flow) {
                    Some(at) => {
                        prop_assert!(pool.servers()[at].usable());
                        pool.count(at);
                    }
                    None => {
                        let may_refuse = matches!(
                            kind,
                            SchedulerKind::Sh | SchedulerKind::Dh | SchedulerKind::Mh | SchedulerKind::Ovf
                        );
                        prop_assert!(may_refuse || !pool.servers().iter().any(Server::usable), "{}", kind);
                    }
                }
            }
        }
    }

    /// Over a cycle, each server's turns are in the ratio of the weights, from any state.
    #[test]
    fn cycles_respect_weights(
        weighted in any::<bool>(), before in any_pool(6), weights in prop::collection::vec(0..40u32, 1..12), offset in 0..50usize,
    ) {
        let kind = if weighted { SchedulerKind::Wrr } else { SchedulerKind::Rr };
        let mut scheduler = build(kind, SchedFlags::default());
        let mut pool = Pool::default();
        let flow = Flow::to(address(1), 0);
        pool.update(&before, |pool, change| scheduler.changed(pool, change));
        let _ = planned(&mut *scheduler, &mut pool, &flow, offset);
        let servers: Vec<Server> =
            weights.iter().enumerate().map(|(i, w)| Server::new(i as u32, address(i as u32), 80, *w)).collect();
        pool.update(&servers, |pool, change| scheduler.changed(pool, change));
        let cycle = scheduler.cycle_len(&pool, &flow).expect("these have cycles") as usize;
        // The first cycle after a change begins where the current weight stood: look at the second.
        let _ = planned(&mut *scheduler, &mut pool, &flow, cycle + offset);
        let picks = planned(&mut *scheduler, &mut pool, &flow, 2 * cycle);
        prop_assert_eq!(&picks[..cycle], &picks[cycle..]);
        let gcd = weights.iter().copied().fold(0, wrr::gcd).max(1);
        for (key, weight) in weights.iter().enumerate() {
            let turns = picks[..cycle].iter().filter(|k| **k == key as u32).count();
            prop_assert_eq!(turns, if weighted { weight / gcd } else { *weight.min(&1) } as usize);
        }
    }

    /// `wrr` agrees with the kernel's walk, overloaded servers coming and going included.
    #[test]
    fn wrr_walks_as_the_kernel_does(
        weights in prop::collection::vec(0..9u32, 0..7), busy in prop::collection::vec(prop::collection::vec(any::<bool>(), 7), 1..40),
    ) {
        let mut servers: Vec<Server> =
            weights.iter().enumerate().map(|(i, w)| Server::new(i as u32, address(i as u32), 80, *w)).collect();
        let mut scheduler = build(SchedulerKind::Wrr, SchedFlags::default());
        let mut pool = Pool::new(&servers);
        scheduler.start(&pool);
        let gcd = weights.iter().copied().fold(0, wrr::gcd).max(1);
        let mut current = i64::from(weights.iter().max().copied().unwrap_or(0)) - i64::from(gcd - 1);
        let mut last = None;
        for busy in busy {
            for (s, busy) in servers.iter_mut().zip(busy) {
                s.overloaded = busy;
            }
            pool.update(&servers, |_, _| {});
            let expected = walk(&servers, &mut last, &mut current);
            prop_assert_eq!(scheduler.schedule(&pool, &Flow::to(address(1), 0)), expected);
        }
    }

    /// However servers come and go and however much is taken, picks are servers that are there, and tables too.
    #[test]
    fn planners_take_any_history(
        kind in any_kind(), history in prop::collection::vec((any_pool(9), any_flow(), any_kind(), 0..5u8, any::<u32>()), 1..6),
    ) {
        let mut planner = Planner::with(fixed(kind, SchedFlags::default()));
        let mut taken = 0;
        for (servers, flow, other, change, next) in history {
            if change == 0 {
                planner.change(other, SchedFlags(3), TableSize::default());
            }
            let draft = planner.draft(&servers, &flow, taken);
            planner.commit(draft);
            taken = next;
            prop_assert!(planner.plan().keys().len() <= planner.capacity(&servers) as usize);
            for key in planner.plan().keys().iter().filter(|k| **k != table::NO_SERVER) {
                let server = servers.iter().find(|s| s.key == *key).expect("a server that is there");
                prop_assert!(server.weight > 0 || matches!(planner.plan(), Plan::Table(_)));
            }
        }
    }

    /// The table of `mh` does not depend on the order in which servers came.
    #[test]
    fn mh_tables_do_not_depend_on_the_order(mut servers in any_pool(12), seed in any::<u64>()) {
        for s in &mut servers {
            s.weight = s.weight.max(1);
        }
        let slots = |servers: &[Server]| Mh::default().table(&Pool::new(servers)).expect("a table").slots;
        let one = slots(&servers);
        servers.sort_by_key(|s| twos::random(seed, u64::from(s.key)));
        prop_assert_eq!(one, slots(&servers));
    }
}

#[test]
fn twos_draws_by_weight_and_avoids_load() {
    let servers: Vec<Server> = (1..=4).map(|k| Server { active: 0, ..Server::new(k, address(k), 80, k) }).collect();
    let mut pool = Pool::new(&servers);
    let picks = planned(&mut Twos::seeded(3), &mut pool, &Flow::to(address(9), 0), 10_000);
    for key in 1..=4u32 {
        let share = picks.iter().filter(|k| **k == key).count();
        // A tenth of the connections for each unit of weight; two choices keep it close.
        assert!(share.abs_diff(key as usize * 1000) < 60, "{key}: {share}");
    }
}

/// Share of all slots that change hands when a server leaves, beyond those of the server itself: mean and worst.
fn moved_beyond_need(entries: &[Entry], size: u32) -> (f64, f64) {
    let whole = fill(entries, size);
    let (mut worst, mut sum) = (0.0f64, 0.0);
    for gone in entries {
        let rest: Vec<Entry> = entries.iter().filter(|e| e.key != gone.key).copied().collect();
        let after = fill(&rest, size);
        let moved = whole.iter().zip(after.iter()).filter(|(a, b)| **a != gone.key && a != b).count();
        let extra = moved as f64 / f64::from(size);
        worst = worst.max(extra);
        sum += extra;
    }
    (sum / entries.len() as f64, worst)
}

#[test]
fn mh_moves_few_clients() {
    let entries: Vec<Entry> = (0..100).map(|k| Entry { key: k, address: address(k), port: 80, weight: 1 }).collect();
    // The kernel's default table, and one that is large enough for so many servers.
    for (size, limit) in [(SIP_SLOTS, 0.04), (32_749, 0.01), (65_521, 0.01)] {
        let (mean, worst) = moved_beyond_need(&entries, size);
        assert!(worst < limit, "{size} slots: mean {mean:.4}, worst {worst:.4}");
    }
    let whole = fill(&entries, SIP_SLOTS);
    let fills: Vec<usize> = (0..100).map(|k| whole.iter().filter(|s| **s == k).count()).collect();
    assert!(fills.iter().all(|f| (40..=41).contains(f)), "{fills:?}");
}

/// Servers added from the lowest address to the highest stand newest first in the kernel's list: its turns are ours.
#[test]
fn mh_turns_go_as_the_kernels_do_for_servers_added_in_order() {
    let list: Vec<Server> = (0..40).rev().map(|k| Server::new(k, address(k), 80, 1 + k % 3)).collect();
    let as_listed: Vec<Entry> =
        list.iter().map(|s| Entry { key: s.key, address: s.address, port: s.port, weight: s.weight }).collect();
    let slots = |servers: &[Server]| Mh::default().table(&Pool::new(servers)).expect("a table").slots;
    assert_eq!(slots(&list), fill(&as_listed, SIP_SLOTS));
    let reversed: Vec<Entry> = as_listed.iter().rev().copied().collect();
    assert_ne!(slots(&list), fill(&reversed, SIP_SLOTS), "the order does matter");
}

#[test]
fn worked_examples() {
    let pool = |list: &[(u32, u32, u64, u64)]| {
        let server = |&(key, weight, active, inactive)| Server { active, inactive, ..Server::new(key, address(key), 80, weight) };
        Pool::new(&list.iter().map(server).collect::<Vec<_>>())
    };
    let choice = |kind, pool: &Pool| {
        build(kind, SchedFlags::default()).schedule(pool, &Flow::to(address(9), 0)).map(|at| pool.servers()[at].key)
    };
    use SchedulerKind as K;
    // Key, weight, active, inactive.
    let p = pool(&[(3, 1, 1, 0), (2, 2, 1, 255), (1, 4, 3, 0)]);
    assert_eq!(choice(K::Lc, &p), Some(3), "256 against 511 and 768");
    assert_eq!(choice(K::Wlc, &p), Some(1), "256, 255.5 and 192 for each unit of weight");
    assert_eq!(choice(K::Sed, &p), Some(2), "2/1, 2/2, 4/4: the first of equals");
    assert_eq!(choice(K::Fo, &p), Some(1));
    assert_eq!(choice(K::Ovf, &p), Some(1));
    let p = pool(&[(3, 9, 1, 0), (2, 1, 0, 900), (1, 4, 5, 0)]);
    assert_eq!(choice(K::Nq, &p), Some(2), "idle, however small");
    assert_eq!(choice(K::Ovf, &p), Some(3));
    let p = pool(&[(2, 0, 0, 0), (1, 0, 0, 0)]);
    for kind in K::ALL {
        assert_eq!(choice(*kind, &p), None, "{kind}: all quiesced");
        assert_eq!(choice(*kind, &pool(&[])), None, "{kind}: no server");
    }
}

/// A day after its last change, a set of `lblcr` gives up its most loaded server.
#[test]
fn lblcr_sets_grow_and_shrink() {
    let list: Vec<Server> = (1..=3).map(|k| Server::new(k, address(k), 80, 4)).collect();
    let mut pool = Pool::new(&list);
    let mut s = Lblcr::default();
    let mut at_time = |pool: &mut Pool, now_s| {
        let at = s.schedule(pool, &Flow::to(address(9), now_s)).expect("one");
        pool.count(at);
        pool.servers()[at].key
    };
    // Five connections go to the first; then it is busy and the second joins; and so on.
    let picks: Vec<u32> = (0..15).map(|_| at_time(&mut pool, 0)).collect();
    assert_eq!(picks, [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3]);
    // Idle again: within the day all three take part; after it, used each 12 hours, the set shrinks by the most loaded.
    let idle: Vec<Server> = list.iter().map(|s| Server { active: u64::from(s.key == 3), ..*s }).collect();
    pool.update(&idle, |_, _| {});
    assert_eq!(at_time(&mut pool, 43_000), 2);
    assert_eq!(at_time(&mut pool, 86_401), 1);
    let busy: Vec<Server> = list.iter().map(|s| Server { active: if s.key == 3 { 0 } else { 3 }, ..*s }).collect();
    pool.update(&busy, |_, _| {});
    assert_eq!(at_time(&mut pool, 86_500), 2, "3 is no longer in the set");
}
