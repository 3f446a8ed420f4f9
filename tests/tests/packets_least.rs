//! Schedulers of the least loaded server between two plans: a connection that ends makes room where it was, at once.
//!
//! Nobody plans here but an edit: there is no daemon that hears of counts.

use anyhow::Result;
use lb_userspace::model::{Edit, Forwarding, Protocol, SchedulerKind};
use lvx_tests::lab::possible;
use lvx_tests::packet::flag;
use lvx_tests::scene::Scene;

use flag::{ACK, RST, SYN};

/// A service with servers of these weights, and connections by port.
struct Held {
    s: Scene,
    port: u16,
    /// Port and server.
    held: Vec<(u16, u8)>,
}

impl Held {
    fn new(v6: bool, method: Forwarding, scheduler: SchedulerKind, weights: &[u32]) -> Result<Self> {
        let mut s = Scene::new(v6, Protocol::Tcp, method, weights.len() as u8, v6)?;
        for (n, weight) in (1..).zip(weights) {
            let mut server = s.spec(n, v6);
            server.weight = *weight;
            s.edit(Edit::EditServer { service: s.id, server })?;
        }
        let mut held = Self { s, port: 1000, held: Vec::new() };
        held.schedule(scheduler)?;
        Ok(held)
    }

    fn schedule(&mut self, scheduler: SchedulerKind) -> Result<()> {
        let mut service = self.s.desired.services[0].spec.clone();
        service.scheduler = scheduler;
        self.s.edit(Edit::EditService { service })
    }

    /// New connections that stay: their servers.
    fn open(&mut self, n: usize) -> Vec<u8> {
        let one = |h: &mut Self| {
            h.port += 1;
            let step = h.s.pass(&h.s.from_client(h.port, SYN).bytes());
            if step.verdict == "replied_no_server" {
                return 0;
            }
            h.s.pass(&h.s.from_client(h.port, ACK).bytes());
            h.held.push((h.port, step.frame[5]));
            step.frame[5]
        };
        (0..n).map(|_| one(self)).collect()
    }

    /// Up to `n` connections of a server end.
    fn reset(&mut self, server: u8, n: usize) {
        for _ in 0..n {
            let Some(at) = self.held.iter().position(|(_, s)| *s == server) else { return };
            let (port, _) = self.held.remove(at);
            self.s.pass(&self.s.from_client(port, RST).bytes());
        }
    }

    fn edit(&mut self, server: u8, weight: u32) -> Result<()> {
        let mut spec = self.s.spec(server, self.s.id.address.is_ipv6());
        spec.weight = weight;
        self.s.edit(Edit::EditServer { service: self.s.id, server: spec })
    }
}

#[test]
fn the_next_connections_go_where_others_ended() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    for v6 in [false, true] {
        for method in [Forwarding::Nat, Forwarding::Dr, Forwarding::Tun] {
            let mut h = Held::new(v6, method, SchedulerKind::Lc, &[1, 1, 1])?;
            assert_eq!(h.open(9), [3, 2, 1, 3, 2, 1, 3, 2, 1]);
            h.reset(1, 3);
            assert_eq!(h.open(4), [1, 1, 1, 3], "IPv{}, {method:?}", if v6 { 6 } else { 4 });
            h.reset(2, 1);
            h.reset(3, 1);
            h.reset(2, 1);
            assert_eq!(h.open(2), [2, 2], "two less than the others");
            // From here on all are as busy as each other, and the plan goes on where it was.
            assert_eq!(h.open(3), [2, 1, 3]);
            let counts: Vec<u64> = h.s.d.engine.services().services[0].servers.iter().map(|s| s.active).collect();
            assert_eq!(counts, [4, 4, 4]);
        }
    }
    Ok(())
}

/// Who has less by its own measure, and not whoever lost one.
#[test]
fn a_vacancy_is_compared_with_the_plan() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    // One connection for each unit of weight: server 1 with one less of three is better than server 3, next by the plan, with one of one.
    let mut h = Held::new(false, Forwarding::Dr, SchedulerKind::Wlc, &[3, 2, 1])?;
    h.open(6);
    h.reset(1, 1);
    assert_eq!(h.open(1), [1]);
    // Server 3 has ten times its share, and one less is no reason to take it.
    let mut h = Held::new(false, Forwarding::Dr, SchedulerKind::Wlc, &[0, 0, 1])?;
    h.open(10);
    h.edit(1, 3)?;
    h.edit(2, 2)?;
    h.reset(3, 1);
    assert!(!h.open(5).contains(&3));
    // `sed` counts the new one: (2 + 1) / 3 for server 1, (1 + 1) / 1 for server 3.
    let mut h = Held::new(false, Forwarding::Nat, SchedulerKind::Sed, &[3, 2, 1])?;
    h.open(6);
    h.reset(1, 1);
    assert_eq!(h.open(1), [1]);
    // `nq` takes an idle server, however slow, before a fast one.
    let mut h = Held::new(false, Forwarding::Dr, SchedulerKind::Nq, &[100, 100, 1])?;
    let to = h.open(20);
    assert_eq!(to.iter().filter(|n| **n == 3).count(), 1, "{to:?}");
    h.reset(3, 1);
    assert_eq!(h.open(2).iter().filter(|n| **n == 3).count(), 1);
    // Round robin does not look.
    let mut h = Held::new(false, Forwarding::Dr, SchedulerKind::Rr, &[1, 1, 1])?;
    h.open(9);
    h.reset(1, 3);
    assert_eq!(h.open(3), [3, 2, 1]);
    Ok(())
}

#[test]
fn a_server_that_takes_none_has_no_vacancy() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut h = Held::new(false, Forwarding::Dr, SchedulerKind::Lc, &[1, 1, 1])?;
    h.open(9);
    // Quiesced, then one of its connections ends.
    h.edit(1, 0)?;
    h.reset(1, 1);
    assert!(!h.open(6).contains(&1));
    // Removed.
    h.reset(2, 1);
    let id = h.s.spec(2, false).id;
    h.s.edit(Edit::DeleteServer { service: h.s.id, server: id })?;
    assert_eq!(h.open(3), [3; 3]);
    // Over its threshold until now: there is no plan at all, and the vacancy is the only way.
    let mut limited = h.s.spec(3, false);
    limited.upper_threshold = 4;
    h.s.edit(Edit::EditServer { service: h.s.id, server: limited })?;
    assert_eq!(h.open(1), [0]);
    Ok(())
}

/// More than are remembered: the last ones count, and those before are the next plan's.
#[test]
fn many_at_once() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut h = Held::new(false, Forwarding::Dr, SchedulerKind::Lc, &[1, 1])?;
    h.open(100);
    h.reset(2, 10);
    h.reset(1, 40);
    assert_eq!(h.open(20), [1; 20]);
    // An edit plans anew: nothing of what was remembered disturbs it.
    h.edit(1, 2)?;
    let to = h.open(30);
    let counts: Vec<u64> = h.s.d.engine.services().services[0].servers.iter().map(|s| s.active).collect();
    assert!(counts[0].abs_diff(counts[1]) <= 1, "{counts:?} after {to:?}");
    Ok(())
}

/// A scheduler that does not want vacancies leaves none behind for one that does.
#[test]
fn a_change_of_scheduler() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut h = Held::new(false, Forwarding::Nat, SchedulerKind::Rr, &[1, 1, 1])?;
    h.open(9);
    h.reset(1, 1);
    h.schedule(SchedulerKind::Lc)?;
    assert_eq!(h.open(4), [1, 3, 2, 1]);
    h.reset(1, 2);
    h.schedule(SchedulerKind::Rr)?;
    assert_eq!(h.open(3), [3, 2, 1]);
    Ok(())
}
