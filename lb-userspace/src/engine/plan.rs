//! What a scheduler has to say to the engine: the next picks.
//!
//! A plan is used over and over by the packet path until it is replaced, and when it is, the number of picks taken from it
//! is known exactly. A planner goes on from there: changing servers never starts a service's schedule anew.

use crate::model::{SchedulerKind, ServiceSpec};
use std::fmt::Debug;

/// A server as planners see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Candidate {
    /// Its element in the dests map.
    pub(super) dest: u32,
    /// Its weight; a server of weight 0 takes part in the order, but is never picked.
    pub(super) weight: u32,
}

/// Makes plans for one service.
pub(super) trait Planner: Send + Debug {
    /// The most picks that a plan for `servers` may have. Does not grow when servers go.
    fn capacity(&self, servers: &[Candidate]) -> u32;

    /// Picks that go on after `taken` picks of the plan that was committed last. `servers` are newest first.
    fn plan(&self, servers: &[Candidate], taken: u32) -> Vec<u32>;

    /// `plan` is in use from now on, and `taken` picks were taken of the one before it.
    fn commit(&mut self, servers: &[Candidate], taken: u32, plan: Vec<u32>);
}

/// The planner for a service.
pub(super) fn planner(spec: &ServiceSpec) -> Box<dyn Planner> {
    match spec.scheduler {
        SchedulerKind::Rr => Box::new(RoundRobin::default()),
        // Refused before: see `SchedulerKind::is_available`.
        _ => Box::new(RoundRobin::default()),
    }
}

/// `rr`: one server after the other.
///
/// As in the kernel, the place in the list of servers is what is kept: a new server at its head is picked when the list starts over,
/// and when the server at that place goes, its neighbour before it takes over.
#[derive(Debug, Default)]
struct RoundRobin {
    /// The list when the plan was made.
    list: Vec<u32>,
    /// The plan in use.
    plan: Vec<u32>,
    /// Picked last before the plan in use; `None` is the head of the list.
    last: Option<u32>,
}

impl RoundRobin {
    fn last_after(&self, taken: u32) -> Option<u32> {
        if taken == 0 || self.plan.is_empty() {
            return self.last;
        }
        Some(self.plan[(taken - 1) as usize % self.plan.len()])
    }
}

impl Planner for RoundRobin {
    fn capacity(&self, servers: &[Candidate]) -> u32 {
        servers.len() as u32
    }

    fn plan(&self, servers: &[Candidate], taken: u32) -> Vec<u32> {
        let at = |dest: u32| servers.iter().position(|s| s.dest == dest);
        let start = self
            .last_after(taken)
            .and_then(|last| {
                let was = self.list.iter().position(|&d| d == last)?;
                self.list[..=was].iter().rev().find_map(|&d| at(d))
            })
            .map_or(0, |p| p + 1);
        servers[start..].iter().chain(&servers[..start]).filter(|s| s.weight > 0).map(|s| s.dest).collect()
    }

    fn commit(&mut self, servers: &[Candidate], taken: u32, plan: Vec<u32>) {
        self.last = self.last_after(taken);
        // A place that is gone is carried over to where the new plan starts from.
        if let Some(last) = self.last
            && !servers.iter().any(|s| s.dest == last)
        {
            let was = self.list.iter().position(|&d| d == last).unwrap_or(0);
            self.last = self.list[..was].iter().rev().copied().find(|&d| servers.iter().any(|s| s.dest == d));
        }
        self.list.clear();
        self.list.extend(servers.iter().map(|s| s.dest));
        self.plan = plan;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(list: &[(u32, u32)]) -> Vec<Candidate> {
        list.iter().map(|&(dest, weight)| Candidate { dest, weight }).collect()
    }

    /// Plans for each list in turn and takes so many picks; all that was picked.
    fn run(steps: &[(&[(u32, u32)], u32)]) -> Vec<u32> {
        let mut p = RoundRobin::default();
        let mut taken = 0;
        let mut picked = Vec::new();
        for (list, n) in steps {
            let s = servers(list);
            let plan = p.plan(&s, taken);
            p.commit(&s, taken, plan.clone());
            taken = *n;
            picked.extend((0..*n as usize).filter_map(|i| plan.get(i % plan.len().max(1))));
        }
        picked
    }

    const THREE: &[(u32, u32)] = &[(3, 1), (2, 1), (1, 1)];

    #[test]
    fn newest_first() {
        assert_eq!(run(&[(&[], 0), (&[(1, 1)], 0), (&[(2, 1), (1, 1)], 0), (THREE, 7)]), [3, 2, 1, 3, 2, 1, 3]);
    }

    #[test]
    fn a_server_added_after_four_connections() {
        assert_eq!(run(&[(&[(2, 1), (1, 1)], 4), (THREE, 5)]), [2, 1, 2, 1, 3, 2, 1, 3, 2]);
        assert_eq!(run(&[(&[(2, 1), (1, 1)], 3), (THREE, 5)]), [2, 1, 2, 1, 3, 2, 1, 3]);
    }

    #[test]
    fn the_server_picked_last_is_removed() {
        assert_eq!(run(&[(THREE, 2), (&[(3, 1), (1, 1)], 3)]), [3, 2, 1, 3, 1]);
        assert_eq!(run(&[(THREE, 1), (&[(2, 1), (1, 1)], 3)]), [3, 2, 1, 2]);
        assert_eq!(run(&[(THREE, 2), (&[(3, 1), (1, 1)], 0), (&[(2, 1), (3, 1), (1, 1)], 3)]), [3, 2, 1, 2, 3]);
    }

    #[test]
    fn weight_zero_is_left_out_and_keeps_its_place() {
        assert_eq!(run(&[(THREE, 2), (&[(3, 1), (2, 0), (1, 1)], 3), (THREE, 3)]), [3, 2, 1, 3, 1, 3, 2, 1]);
        assert!(run(&[(&[(1, 0)], 5)]).is_empty());
        assert!(run(&[(&[], 5)]).is_empty());
    }
}
