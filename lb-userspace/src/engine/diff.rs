//! What differs between two lists of services, and between two lists of one service's servers.
//!
//! Lists mostly share their beginning and their end; those are passed over by pointer, and only what is between is looked at.

use crate::model::{ServerSpec, ServiceId, ServiceState};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A shared service.
pub(super) type State = Arc<ServiceState>;

/// The difference between two lists of services.
#[derive(Debug, Default)]
pub(super) struct Diff {
    /// New ones.
    pub(super) added: Vec<State>,
    /// Ones that differ, as they shall be.
    pub(super) changed: Vec<State>,
    /// Ones that go.
    pub(super) removed: Vec<ServiceId>,
}

fn same(a: &State, b: &State) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

/// Lengths of the common start and the common end of two lists.
pub(super) fn common_ends<A, B>(old: &[A], new: &[B], same: impl Fn(&A, &B) -> bool) -> (usize, usize) {
    let start = old.iter().zip(new).take_while(|(a, b)| same(a, b)).count();
    let end = old[start..].iter().rev().zip(new[start..].iter().rev()).take_while(|(a, b)| same(a, b)).count();
    (start, end)
}

/// What makes `new` of `old`.
pub(super) fn diff(old: &[State], new: &[State]) -> Diff {
    let (start, end) = common_ends(old, new, same);
    let (old, new) = (&old[start..old.len() - end], &new[start..new.len() - end]);
    let mut before: HashMap<ServiceId, &State> = old.iter().map(|s| (s.spec.id, s)).collect();
    let mut diff = Diff::default();
    for s in new {
        match before.remove(&s.spec.id) {
            Some(was) if same(was, s) => {}
            Some(_) => diff.changed.push(s.clone()),
            None => diff.added.push(s.clone()),
        }
    }
    // In their order.
    diff.removed = old.iter().map(|s| s.spec.id).filter(|id| before.contains_key(id)).collect();
    diff
}

/// The element of each of the new servers that a service has already, and the elements of those that go.
pub(super) fn places(old: &[ServerSpec], elements: &[u32], new: &[ServerSpec]) -> (Vec<Option<u32>>, Vec<u32>) {
    let (start, end) = common_ends(old, new, |a, b| a.id == b.id);
    let (from, to) = (start..old.len() - end, start..new.len() - end);
    let mut slots: HashMap<_, _> = old[from.clone()].iter().map(|s| s.id).zip(elements[from.clone()].iter().copied()).collect();
    let mut found: Vec<Option<u32>> = elements[..start].iter().copied().map(Some).collect();
    found.extend(new[to].iter().map(|s| slots.remove(&s.id)));
    found.extend(elements[from.end..].iter().copied().map(Some));
    let left: HashSet<u32> = slots.into_values().collect();
    let gone = elements[from].iter().copied().filter(|slot| left.contains(slot)).collect();
    (found, gone)
}

/// What of `old` is still in `new`, as it was.
pub(super) fn remainder(old: &[State], new: &[State]) -> Vec<State> {
    let stay: HashMap<ServiceId, &State> = new.iter().map(|s| (s.spec.id, s)).collect();
    old.iter()
        .filter_map(|s| {
            let next = stay.get(&s.spec.id)?;
            let ids: HashSet<_> = next.servers.iter().map(|s| s.id).collect();
            if s.servers.iter().all(|s| ids.contains(&s.id)) {
                return Some(s.clone());
            }
            let servers = s.servers.iter().filter(|s| ids.contains(&s.id)).cloned().collect();
            Some(Arc::new(ServiceState { spec: s.spec.clone(), servers }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Forwarding, Protocol, SchedFlags, SchedulerKind, ServerId, ServiceSpec};

    fn server(n: u8) -> ServerSpec {
        let id = ServerId { address: [10, 2, 0, n].into(), port: 80 };
        ServerSpec { id, forwarding: Forwarding::Nat, weight: 1, upper_threshold: 0, lower_threshold: 0 }
    }

    fn service(port: u16, servers: &[u8]) -> State {
        let id = ServiceId { protocol: Protocol::Tcp, address: [10, 9, 0, 1].into(), port };
        let spec =
            ServiceSpec { id, scheduler: SchedulerKind::Rr, sched_flags: SchedFlags(0), persistence: None, one_packet: false };
        Arc::new(ServiceState { spec, servers: servers.iter().map(|&n| server(n)).collect() })
    }

    fn ports(services: &[State]) -> Vec<u16> {
        services.iter().map(|s| s.spec.id.port).collect()
    }

    #[test]
    fn added_changed_removed() {
        let a = [service(1, &[1]), service(2, &[1]), service(3, &[1]), service(4, &[])];
        let b = [a[0].clone(), service(3, &[2]), service(5, &[]), service(4, &[])];
        let d = diff(&a, &b);
        assert_eq!((ports(&d.added), ports(&d.changed)), (vec![5], vec![3]));
        assert_eq!(d.removed.iter().map(|id| id.port).collect::<Vec<_>>(), [2]);
        let turned: Vec<_> = a.iter().rev().cloned().collect();
        let d = diff(&a, &turned);
        assert!(d.added.is_empty() && d.changed.is_empty() && d.removed.is_empty(), "order is nothing to the maps");
    }

    #[test]
    fn servers_keep_their_elements() {
        let old: Vec<_> = [5, 4, 3, 2, 1].map(server).into();
        let elements = [50, 40, 30, 20, 10];
        let new: Vec<_> = [6, 5, 3, 4, 1].map(server).into();
        let (found, mut gone) = places(&old, &elements, &new);
        gone.sort_unstable();
        assert_eq!(found, [None, Some(50), Some(30), Some(40), Some(10)]);
        assert_eq!(gone, [20]);
        assert_eq!(places(&old, &elements, &[]).1.len(), 5);
        assert_eq!(places(&[], &[], &old).0, [None; 5]);
    }

    #[test]
    fn the_remainder_is_what_both_have() {
        let old = [service(1, &[3, 2, 1]), service(2, &[1])];
        let new = [service(1, &[4, 2])];
        let left = remainder(&old, &new);
        assert_eq!(left, [service(1, &[2])]);
    }
}
