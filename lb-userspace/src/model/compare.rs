//! What differs between two desired states, for people: `lvxadm plan`.
//!
//! Invariant: two states that are not equal have at least one difference, and equal ones have none, so that "nothing to change" is
//! never said of a change.

use super::{Desired, ServerId, ServerSpec, ServiceId, ServiceSpec, ServiceState};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;

/// What happens to a service, a server or a setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is new.
    Add,
    /// It goes.
    Remove,
    /// It stays, and is changed in place.
    Change,
}

/// A value that changes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Field {
    /// Its name, as in the configuration.
    pub name: String,
    /// As it is; empty if it is added.
    pub old: String,
    /// As it shall be; empty if it is removed.
    pub new: String,
}

/// One change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Change {
    /// What happens.
    pub action: Action,
    /// To which service, or to a server of which; absent for settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceId>,
    /// To which server; absent for the service itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerId>,
    /// Values that change, or those that a new one has.
    pub fields: Vec<Field>,
    /// Live connections that the change touches: those of the server, or of all servers of the service.
    #[serde(default)]
    pub connections: u64,
    /// How many of these are cut: their packets are dropped from then on.
    #[serde(default)]
    pub cut: u64,
}

/// Live connections of a server.
pub type Live<'a> = &'a dyn Fn(&ServiceId, &ServerId) -> u64;

fn field(name: &str, old: impl fmt::Display, new: impl fmt::Display) -> Field {
    Field { name: name.into(), old: old.to_string(), new: new.to_string() }
}

/// Names and values of a service.
fn service_values(s: &ServiceSpec) -> Vec<(&'static str, String)> {
    let ServiceSpec { id: _, scheduler, sched_flags, persistence, one_packet } = s;
    vec![
        ("scheduler", scheduler.to_string()),
        ("scheduler_flags", sched_flags.names(*scheduler).join(",")),
        ("persistence", persistence.map_or_else(|| "none".into(), |p| p.timeout_s.to_string())),
        ("persistence_netmask", persistence.and_then(|p| p.netmask).map_or_else(|| "none".into(), |m| m.to_string())),
        ("one_packet", one_packet.to_string()),
    ]
}

/// Names and values of a server.
fn server_values(s: &ServerSpec) -> Vec<(&'static str, String)> {
    let ServerSpec { id: _, forwarding, weight, upper_threshold, lower_threshold } = s;
    vec![
        ("forwarding", forwarding.to_string()),
        ("weight", weight.to_string()),
        ("upper_threshold", upper_threshold.to_string()),
        ("lower_threshold", lower_threshold.to_string()),
    ]
}

fn differing(old: &[(&'static str, String)], new: &[(&'static str, String)]) -> Vec<Field> {
    old.iter().zip(new).filter(|(a, b)| a != b).map(|(a, b)| field(a.0, &a.1, &b.1)).collect()
}

fn fresh(values: &[(&'static str, String)]) -> Vec<Field> {
    values
        .iter()
        .filter(|v| !matches!(v.1.as_str(), "" | "none" | "false" | "0") || v.0 == "weight")
        .map(|v| field(v.0, "", &v.1))
        .collect()
}

/// The order of what both lists have, where it differs; `names` in the order of adding.
fn order<T: PartialEq + fmt::Display>(old: &[T], new: &[T]) -> Option<Field> {
    let both = |a: &[T], b: &[T]| a.iter().filter(|x| b.contains(x)).map(ToString::to_string).collect::<Vec<_>>();
    let (a, b) = (both(old, new), both(new, old));
    (a != b).then(|| field("order", a.join(" "), b.join(" ")))
}

/// Everything that makes `new` of `old`: settings, then services in the order of `new`, then those that go.
#[must_use]
pub fn compare(old: &Desired, new: &Desired, live: Live<'_>) -> Vec<Change> {
    let mut changes = Vec::new();
    let settings = settings(old, new);
    if !settings.is_empty() {
        changes.push(Change { action: Action::Change, service: None, server: None, fields: settings, connections: 0, cut: 0 });
    }
    let before: HashMap<ServiceId, &ServiceState> = old.services.iter().map(|s| (s.spec.id, &**s)).collect();
    for s in &new.services {
        match before.get(&s.spec.id) {
            Some(was) => changed_service(was, s, live, &mut changes),
            None => added_service(s, &mut changes),
        }
    }
    for s in old.services.iter().filter(|s| new.service(&s.spec.id).is_none()) {
        let n = connections(s, live);
        changes.push(change(Action::Remove, s.spec.id, None, Vec::new(), n, n));
    }
    changes
}

fn settings(old: &Desired, new: &Desired) -> Vec<Field> {
    let mut fields = Vec::new();
    let (a, b) = (old.timeouts, new.timeouts);
    for (name, old, new) in
        [("timeouts.established", a.tcp, b.tcp), ("timeouts.fin_wait", a.tcpfin, b.tcpfin), ("timeouts.udp", a.udp, b.udp)]
    {
        if old != new {
            fields.push(field(name, old, new));
        }
    }
    let (a, b) = (&old.behaviour, &new.behaviour);
    for ((_, name, old), (_, _, new)) in a.timeouts.each().zip(b.timeouts.each()).filter(|(a, b)| a != b) {
        fields.push(field(&format!("timeouts.{name}"), old, new));
    }
    for ((name, old), (_, new)) in a.tcp.each().zip(b.tcp.each()).filter(|(a, b)| a != b) {
        fields.push(field(&format!("tcp.{name}"), old, new));
    }
    let (a, b) = (a.schedulers.mh_tab_index.index(), b.schedulers.mh_tab_index.index());
    if a != b {
        fields.push(field("schedulers.mh_tab_index", a, b));
    }
    let ids = |d: &Desired| d.services.iter().map(|s| s.spec.id).collect::<Vec<_>>();
    let (a, b) = (ids(old), ids(new));
    if a != b {
        fields.extend(order(&a, &b).map(|f| Field { name: "order of services".into(), ..f }));
    }
    fields
}

fn change(
    action: Action,
    service: ServiceId,
    server: Option<ServerId>,
    fields: Vec<Field>,
    connections: u64,
    cut: u64,
) -> Change {
    Change { action, service: Some(service), server, fields, connections, cut }
}

fn connections(s: &ServiceState, live: Live<'_>) -> u64 {
    s.servers.iter().map(|server| live(&s.spec.id, &server.id)).sum()
}

fn added_service(s: &ServiceState, changes: &mut Vec<Change>) {
    changes.push(change(Action::Add, s.spec.id, None, fresh(&service_values(&s.spec)), 0, 0));
    for server in s.servers.iter().rev() {
        changes.push(change(Action::Add, s.spec.id, Some(server.id), fresh(&server_values(server)), 0, 0));
    }
}

fn changed_service(old: &ServiceState, new: &ServiceState, live: Live<'_>, changes: &mut Vec<Change>) {
    if old == new {
        return;
    }
    let id = new.spec.id;
    let mut fields = differing(&service_values(&old.spec), &service_values(&new.spec));
    // Oldest first, as in the configuration.
    let ids = |s: &ServiceState| s.servers.iter().rev().map(|s| s.id).collect::<Vec<_>>();
    let (before, after) = (ids(old), ids(new));
    if before != after {
        fields.extend(order(&before, &after));
    }
    if !fields.is_empty() {
        changes.push(change(Action::Change, id, None, fields, connections(old, live), 0));
    }
    let was: HashMap<ServerId, &ServerSpec> = old.servers.iter().map(|s| (s.id, s)).collect();
    for server in new.servers.iter().rev() {
        match was.get(&server.id) {
            Some(was) => {
                let fields = differing(&server_values(was), &server_values(server));
                if !fields.is_empty() {
                    changes.push(change(Action::Change, id, Some(server.id), fields, live(&id, &server.id), 0));
                }
            }
            None => changes.push(change(Action::Add, id, Some(server.id), fresh(&server_values(server)), 0, 0)),
        }
    }
    for server in old.servers.iter().rev().filter(|s| !after.contains(&s.id)) {
        let n = live(&id, &server.id);
        changes.push(change(Action::Remove, id, Some(server.id), Vec::new(), n, n));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::random::desired;
    use proptest::prelude::*;

    proptest! {
        /// Only equal states have no difference; and what is cut is what is removed.
        #[test]
        fn every_difference_is_told(a in desired(), b in desired()) {
            let live: Live<'_> = &|_, _| 1;
            prop_assert!(compare(&a, &a, live).is_empty());
            let changes = compare(&a, &b, live);
            prop_assert_eq!(changes.is_empty(), a == b, "{:?}", changes);
            for c in &changes {
                prop_assert_eq!(c.cut, if c.action == Action::Remove { c.connections } else { 0 });
            }
            let servers = |d: &Desired| d.services.iter().flat_map(|s| s.servers.iter().map(move |d| (s.spec.id, d.id))).collect::<Vec<_>>();
            let (old, new) = (servers(&a), servers(&b));
            let cut: u64 = changes.iter().map(|c| c.cut).sum();
            prop_assert_eq!(cut as usize, old.iter().filter(|s| !new.contains(s)).count());
        }
    }
}
