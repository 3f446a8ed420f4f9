//! Servers of one-packet services under NAT, known by what they send ([`lb_common::once`]).
//!
//! Invariant: a key of the service map and a bit of the filter for each address and port that such a server answers from, and
//! [`ANSWERERS`] in the configuration exactly while there are any. The map has room for every server.

use super::services::Services;
use crate::engine::mapped::Mapped;
use crate::model::{Forwarding, ServiceId, ServiceState};
use lb_common::config::{ANSWERERS, Config};
use lb_common::family::wide_of;
use lb_common::once::SHARED;
use lb_common::proto::{ANSWERER, UDP};
use lb_common::service::ServiceKey;
use std::collections::{HashMap, HashSet};
use std::mem::offset_of;
use std::sync::atomic::Ordering;

/// A key, and the element of the server.
type Answerer = (ServiceKey, u32);

/// What is written.
#[derive(Debug, Default)]
pub(super) struct Answerers {
    of_service: HashMap<ServiceId, Vec<Answerer>>,
    /// Elements behind each key, in the order in which they came; the first is in the map.
    by_key: HashMap<ServiceKey, Vec<u32>>,
}

/// The answerers of a service whose servers have these elements.
pub(super) fn of(state: &ServiceState, slots: impl Iterator<Item = u32>) -> Vec<Answerer> {
    if !state.spec.one_packet {
        return Vec::new();
    }
    let nat = state.servers.iter().zip(slots).filter(|(s, _)| s.forwarding == Forwarding::Nat);
    nat.map(|(s, slot)| {
        let (addr, family) = wide_of(s.id.address);
        (ServiceKey { addr, port: s.id.port.to_be(), proto: UDP | ANSWERER, family, zero: 0 }, slot)
    })
    .collect()
}

fn value(slots: &[u32]) -> Option<u32> {
    let first = slots.first()?;
    Some(if slots.len() > 1 { first | SHARED } else { *first })
}

impl Answerers {
    /// Takes over those of an earlier daemon: `found` is what its keys lead to, and their bits are set. What is right stays untouched.
    pub(super) fn adopt(
        &mut self,
        services: &mut Services,
        config: &Mapped<Config>,
        wanted: Vec<(ServiceId, Vec<Answerer>)>,
        found: &HashMap<ServiceKey, u32>,
    ) {
        for (id, answerers) in wanted.into_iter().filter(|(_, a)| !a.is_empty()) {
            for (key, slot) in &answerers {
                let slots = self.by_key.entry(*key).or_default();
                // The first is in the map.
                let first = found.get(key).is_some_and(|v| v & !SHARED == *slot);
                slots.insert(if first { 0 } else { slots.len() }, *slot);
            }
            self.of_service.insert(id, answerers);
        }
        let keys: HashSet<ServiceKey> = self.by_key.keys().chain(found.keys()).copied().collect();
        for key in keys {
            self.write(services, &key, found.get(&key).copied());
        }
        self.tell(config);
    }

    /// Says whether there are any.
    fn tell(&self, config: &Mapped<Config>) {
        let flags = config.u32(0, offset_of!(Config, flags));
        if self.by_key.is_empty() {
            flags.fetch_and(!ANSWERERS, Ordering::AcqRel);
        } else {
            flags.fetch_or(ANSWERERS, Ordering::AcqRel);
        }
    }

    /// Sets those of a service; its elements are written.
    pub(super) fn set(&mut self, services: &mut Services, config: &Mapped<Config>, id: &ServiceId, new: Vec<Answerer>) {
        let old = self.of_service.remove(id).unwrap_or_default();
        if old != new {
            let mut before = HashMap::new();
            for (key, _) in old.iter().chain(&new) {
                before.entry(*key).or_insert_with(|| self.by_key.get(key).and_then(|s| value(s)));
            }
            for (key, slot) in old.iter().filter(|a| !new.contains(a)) {
                if let Some(slots) = self.by_key.get_mut(key) {
                    slots.retain(|s| s != slot);
                }
            }
            for (key, slot) in new.iter().filter(|a| !old.contains(a)) {
                self.by_key.entry(*key).or_default().push(*slot);
            }
            for (key, before) in before {
                self.write(services, &key, before);
            }
            self.tell(config);
        }
        if !new.is_empty() {
            self.of_service.insert(*id, new);
        }
    }

    /// Writes a key whose value was `before`.
    fn write(&mut self, services: &mut Services, key: &ServiceKey, before: Option<u32>) {
        let now = self.by_key.get(key).and_then(|s| value(s));
        if now.is_none() {
            self.by_key.remove(key);
        }
        let result = match now {
            Some(now) if before != Some(now) => services.keys.insert(*key, now),
            None if before.is_some() => services.keys.remove(key),
            _ => Ok(()),
        };
        if let Err(error) = result {
            tracing::error!(?key, %error, "answers of a server of a one-packet service leave untranslated");
        }
        if before.is_none() && now.is_some() {
            services.filter.add(key);
        } else if before.is_some() && now.is_none() {
            services.filter.remove(key);
        }
    }
}
