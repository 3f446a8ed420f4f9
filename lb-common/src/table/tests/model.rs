//! Random operations and time, against a plain model that keeps the live connections by record number.
//!
//! The model does not know which record the table will choose. It checks that what disappeared was allowed to, and that nothing else
//! did.

use super::*;
use crate::conn::CONFIRMED;
use crate::limits::{REAP_GRACE, TEMPLATE_REARM_S};
use crate::time::{Tick, reached, ticks_of_seconds};
use proptest::prelude::*;

const DESTS: u32 = 3;
const FLOWS: u16 = 40;

#[derive(Clone, Debug)]
enum Op {
    /// Of a flow, to a dest, for so many ticks; under the template of its client if it has one.
    Create {
        flow: u16,
        dest: u32,
        life: u32,
        replace: bool,
    },
    State {
        flow: u16,
        event: u8,
    },
    Confirm {
        flow: u16,
    },
    Refresh {
        flow: u16,
        life: u32,
    },
    End {
        flow: u16,
    },
    Wait {
        ticks: u32,
    },
    Sweep {
        from: u32,
        n: u32,
    },
    Recover,
}

fn ops() -> impl Strategy<Value = Op> {
    let flow = 0..FLOWS;
    prop_oneof![
        10 => (flow.clone(), 0..DESTS, 1..300u32, any::<bool>())
            .prop_map(|(flow, dest, life, replace)| Op::Create { flow, dest, life, replace }),
        6 => (flow.clone(), 0..16u8).prop_map(|(flow, event)| Op::State { flow, event }),
        2 => flow.clone().prop_map(|flow| Op::Confirm { flow }),
        2 => (flow.clone(), 1..300u32).prop_map(|(flow, life)| Op::Refresh { flow, life }),
        1 => flow.prop_map(|flow| Op::End { flow }),
        3 => (0..100u32).prop_map(|ticks| Op::Wait { ticks }),
        3 => (0..40u32, 0..40u32).prop_map(|(from, n)| Op::Sweep { from, n }),
        1 => Just(Op::Recover),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Live {
    new: New<V4>,
    state: State,
    confirmed: bool,
    expires: Tick,
}

/// Flows 0 to 3 are templates, of clients 0 to 3; of the others every third is UDP.
fn wanted(flow: u16, dest: u32, expires: Tick) -> New<V4> {
    let client = u32::from(flow % 4);
    if flow < 4 {
        return New { flags: TEMPLATE, ..new(tuple(client, 0, 99, 6), dest, tcp::TEMPLATE, expires) };
    }
    let (proto, state) = if flow.is_multiple_of(3) { (17, tcp::UDP) } else { (6, tcp::SYN_RECV) };
    // Two VIPs, and ports that meet: answers of one server may collide.
    new(tuple(client, flow / 8, 98 + u32::from(flow / 4 % 2), proto), dest, state, expires)
}

struct Pair {
    m: Table,
    s: Shape,
    now: Tick,
    live: HashMap<u32, Live>,
    /// Counts have a memory: overload.
    overloaded: [bool; DESTS as usize],
    thresholds: [(u32, u32); DESTS as usize],
}

impl Pair {
    fn references(&self, index: u32) -> usize {
        self.live.values().filter(|l| l.new.template == index + 1).count()
    }

    fn of(&self, t: &Tuple<V4>) -> Option<(u32, Live)> {
        let same = |l: &Live| {
            l.new.tuple.src == t.src && l.new.tuple.dst == t.dst && l.new.tuple.ports == t.ports && l.new.tuple.proto == t.proto
        };
        self.live.iter().find(|(_, l)| same(l)).map(|(i, l)| (*i, *l))
    }

    fn template(&self, l: &Live) -> bool {
        l.new.flags & TEMPLATE != 0
    }

    fn dead(&self, index: u32, l: &Live) -> bool {
        reached(self.now, l.expires) && !(self.template(l) && self.references(index) > 0)
    }

    fn reapable(&self, index: u32, l: &Live) -> bool {
        reached(self.now.wrapping_sub(REAP_GRACE), l.expires) && !(self.template(l) && self.references(index) > 0)
    }

    fn mark(&mut self) {
        for d in 0..DESTS as usize {
            let n = self.live.values().filter(|l| l.new.dest as usize == d && !self.template(l)).count() as u64;
            let (upper, lower) = self.thresholds[d];
            self.overloaded[d] = overloaded(self.overloaded[d], n, upper, lower);
        }
    }

    fn confirm_template(&mut self, of: &Live) {
        if let Some(t) = of.new.template.checked_sub(1).and_then(|i| self.live.get_mut(&i)) {
            t.confirmed |= t.new.flags & TEMPLATE != 0;
        }
    }

    fn remove(&mut self, index: u32) {
        self.live.remove(&index);
        self.mark();
    }

    /// What left the table, if anything.
    fn gone(&self) -> Vec<u32> {
        let is = |i: u32, l: &Live| {
            snapshot(&*self.m, i).is_some_and(|c| {
                c.client == l.new.tuple.src
                    && c.ports == l.new.tuple.ports
                    && c.vip == l.new.tuple.dst
                    && c.proto == l.new.tuple.proto
            })
        };
        self.live.iter().filter(|(i, l)| !is(**i, l)).map(|(i, _)| *i).collect()
    }

    fn create(&mut self, flow: u16, dest: u32, life: u32, replace: bool) {
        let mut n = wanted(flow, dest, self.now.wrapping_add(life));
        if flow >= 4
            && let Some((i, t)) = self.of(&wanted(flow % 4, 0, 0).tuple)
            && !self.dead(i, &t)
        {
            n.template = i + 1;
        }
        let old = self.of(&n.tuple);
        let old_ctl = old.map(|(i, _)| ctl(&self.m, i));
        let (created, reclaimed) =
            create::<V4, Raw<V4>>(&self.m, &self.s, self.now, &n, old_ctl.filter(|_| replace).map(|c| (c >> 32) << 32 | LIVE));
        if let Some((i, l)) = old {
            if !self.dead(i, &l) && !replace {
                assert_eq!((created, reclaimed), (Created::Exists(i), Reclaimed::Nothing));
                return;
            }
            // Its own record is used again, and nobody else's.
            assert_eq!(reclaimed, Reclaimed::Nothing);
            assert!(
                matches!(created, Created::Made(at) if at == i) || matches!(created, Created::Conflict | Created::Crowded),
                "{created:?}"
            );
            self.remove(i);
        } else {
            // The flow is made anew in a record that another one had: that one's end shows by what is there instead.
            let gone: Vec<u32> = self.gone();
            assert!(gone.len() <= 1, "{gone:?}");
            match (reclaimed, gone.first().map(|i| (*i, self.live[i]))) {
                (Reclaimed::Nothing, None) => {}
                (Reclaimed::Expired, Some((i, l))) => assert!(self.reapable(i, &l)),
                (Reclaimed::Embryonic, Some((i, l))) if self.template(&l) => assert!(!l.confirmed && self.references(i) == 0),
                (Reclaimed::Embryonic, Some((_, l))) => {
                    assert!(tcp::is_embryonic(l.state) || (l.state == tcp::UDP && !l.confirmed), "{l:?}");
                }
                (Reclaimed::Closing, Some((_, l))) => assert!(tcp::is_closing(l.state) || tcp::is_half_closed(l.state), "{l:?}"),
                (kind, gone) => panic!("{kind:?} but {gone:?} is gone"),
            }
            for i in gone {
                self.remove(i);
            }
        }
        let clash = n.flags & REVERSE != 0
            && self.live.iter().any(|(i, l)| {
                let (a, b) = (back(&l.new), back(&n));
                l.new.flags & REVERSE != 0
                    && a.src == b.src
                    && a.dst == b.dst
                    && a.ports == b.ports
                    && a.proto == b.proto
                    && !self.dead(*i, l)
            });
        match created {
            Created::Made(i) => {
                assert!(!clash, "a second connection with the same answers");
                assert!(self.live.insert(i, Live { new: n, state: n.state, confirmed: false, expires: n.expires }).is_none());
                self.mark();
            }
            // Dead and living ones may have the same answers, and the check finds the dead one first; never the other way round.
            Created::Conflict => assert!(clash),
            Created::Full => assert!(self.live.len() as u32 == self.s.records, "a record was free"),
            Created::Crowded => assert!(self.live.len() * 2 > 7 * CHOICES.min(self.s.mask + 1) as usize / 2, "entries were free"),
            other => panic!("{other:?}"),
        }
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Create { flow, dest, life, replace } => self.create(flow, dest, life, replace),
            Op::State { flow, event } => {
                let Some((i, l)) = self.of(&wanted(flow, 0, 0).tuple) else { return };
                if l.new.tuple.proto != 6 || self.template(&l) {
                    return;
                }
                let direction = if event & 4 == 0 { tcp::Direction::Input } else { tcp::Direction::Output };
                let flags = [tcp::FLAG_SYN, tcp::FLAG_FIN, tcp::FLAG_ACK, tcp::FLAG_RST][usize::from(event & 3)];
                let next = tcp::next(l.state, direction, flags);
                assert!(change_state::<V4, Raw<V4>>(&self.m, record(&self.m, i), l.new.dest, ctl(&self.m, i), next));
                self.live.get_mut(&i).unwrap().state = next;
                if next == tcp::ESTABLISHED {
                    self.confirm_template(&l);
                }
            }
            Op::Confirm { flow } => {
                let Some((i, l)) = self.of(&wanted(flow, 0, 0).tuple) else { return };
                if l.new.tuple.proto != 17 {
                    return;
                }
                assert!(confirm::<V4, Raw<V4>>(&self.m, record(&self.m, i), ctl(&self.m, i)));
                self.live.get_mut(&i).unwrap().confirmed = true;
                self.confirm_template(&l);
            }
            Op::Refresh { flow, life } => {
                let Some((i, l)) = self.of(&wanted(flow, 0, 0).tuple) else { return };
                if !self.dead(i, &l) {
                    let expires = self.now.wrapping_add(life);
                    // SAFETY: a live record.
                    unsafe { (*record(&self.m, i)).expires = expires };
                    self.live.get_mut(&i).unwrap().expires = expires;
                }
            }
            Op::End { flow } => {
                let Some((i, _)) = self.of(&wanted(flow, 0, 0).tuple) else { return };
                assert!(end(&*self.m, &self.s, i, ctl(&self.m, i)));
                self.remove(i);
            }
            Op::Wait { ticks } => self.now = self.now.wrapping_add(ticks),
            Op::Sweep { from, n } => {
                let swept = sweep_range(&*self.m, &self.s, self.now, from, n);
                let mut want = Swept::default();
                for i in from..(from + n).min(self.s.records) {
                    want.examined += 1;
                    let Some(l) = self.live.get(&i).copied() else { continue };
                    if self.reapable(i, &l) {
                        want.expired += 1;
                        self.remove(i);
                        continue;
                    }
                    want.live += 1;
                    if !self.template(&l) {
                        want.states[usize::from(l.state)] += 1;
                    }
                    if self.template(&l) && reached(self.now, l.expires) && self.references(i) > 0 {
                        self.live.get_mut(&i).unwrap().expires = self.now.wrapping_add(ticks_of_seconds(TEMPLATE_REARM_S));
                    }
                }
                assert_eq!(swept, want);
            }
            Op::Recover => assert_eq!(recover(&*self.m, &self.s).orphans, 0),
        }
    }

    fn compare(&self) {
        check(&self.m, &self.s, DESTS);
        assert_eq!(self.gone(), Vec::<u32>::new());
        let live = (0..self.s.records).filter(|&i| conn::phase(ctl(&self.m, i)) == LIVE).count();
        assert_eq!(live, self.live.len());
        for (i, l) in &self.live {
            let found = look(&self.m, &self.s, &l.new.tuple).expect("a live connection is found");
            assert_eq!((found.index, found.reverse), (*i, false));
            assert_eq!((conn::state(found.ctl), found.ctl & CONFIRMED != 0), (l.state, l.confirmed));
            let c = snapshot(&*self.m, *i).unwrap();
            assert_eq!((c.expires, c.dest, c.template, c.real), (l.expires, l.new.dest, l.new.template, l.new.real));
            if l.new.flags & REVERSE != 0 {
                let found = look(&self.m, &self.s, &back(&l.new)).expect("so are its answers");
                assert!(found.reverse);
            }
        }
        for flow in 0..FLOWS {
            let t = wanted(flow, 0, 0).tuple;
            assert_eq!(look(&self.m, &self.s, &t).is_some(), self.of(&t).is_some());
        }
        for d in 0..DESTS {
            assert_eq!(conns(&self.m, d).overloaded != 0, self.overloaded[d as usize], "dest {d}");
        }
    }
}

fn run(buckets: u32, records: u32, start: Tick, ops: &[Op]) {
    let mut m = Table::new(buckets, records, DESTS);
    let thresholds = [(0, 0), (5, 3), (8, 0)];
    for (d, (upper, lower)) in (0..).zip(thresholds) {
        m.set_thresholds(d, upper, lower);
    }
    let mut pair = Pair { m, s: shape(buckets, records), now: start, live: HashMap::new(), overloaded: [false; 3], thresholds };
    for op in ops {
        pair.step(op);
        pair.compare();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_roomy_table(ops in proptest::collection::vec(ops(), 1..150), start in any::<u32>()) {
        run(32, 64, start, &ops);
    }

    #[test]
    fn too_few_records(ops in proptest::collection::vec(ops(), 1..150), start in any::<u32>()) {
        run(16, 12, start, &ops);
    }

    #[test]
    fn too_few_entries(ops in proptest::collection::vec(ops(), 1..150), start in any::<u32>()) {
        run(4, 40, start, &ops);
    }
}
