//! Services with their counters, read in two steps.
//!
//! [`Engine::reading`] takes along what only the engine knows: names, elements, bases. It is short, as packets' plans and edits wait
//! for it. [`Reading::read`] then adds up the counters of all CPUs, on any thread, while the engine goes on.
//!
//! The trap: an element may become another server's between the two. Elements rest before that (see `slots`) for longer than a
//! reading takes; were it not so, a server that is gone would be shown with a few packets too many, once.

use super::Engine;
use super::dests::{resolved, shown};
use super::mapped::Mapped;
use super::services::Running;
use super::stats::{Counters, minus, plus};
use super::view::connections_for;
use crate::api::{ServerView, ServiceView, Services, Stats};
use crate::model::{ServerSpec, ServiceState};
use lb_common::dest::{Dest, DestConns};
use std::sync::Arc;

/// What is to be read.
#[derive(Debug)]
pub struct Reading {
    counters: Counters,
    conns: Mapped<DestConns>,
    dests: Mapped<Dest>,
    table_size: u32,
    states: Vec<Arc<ServiceState>>,
    services: Vec<ServiceBase>,
    /// Of all services, in their order.
    servers: Vec<ServerBase>,
}

/// What a service counts from.
#[derive(Debug)]
struct ServiceBase {
    servers: usize,
    gone: Stats,
    zeroed: Stats,
    rates: Stats,
}

/// What a server counts from.
#[derive(Debug)]
struct ServerBase {
    slot: u32,
    base: Stats,
    joined: Stats,
    origin: Stats,
    rates: Stats,
}

/// A service, read.
#[derive(Debug)]
pub struct ServiceRead {
    /// How it is configured.
    pub state: Arc<ServiceState>,
    /// Since the last `-Z`.
    pub stats: Stats,
    /// Since it was made.
    pub totals: Stats,
    /// Per second.
    pub rates: Stats,
    /// In the order of `state.servers`.
    pub servers: Vec<ServerRead>,
}

/// A server, read.
#[derive(Debug)]
pub struct ServerRead {
    /// Its connections.
    pub conns: DestConns,
    /// Whether its next hop is known.
    pub resolved: bool,
    /// Since the last `-Z`.
    pub stats: Stats,
    /// Since it was made.
    pub totals: Stats,
    /// Per second.
    pub rates: Stats,
}

impl Engine {
    /// All services, in the order of their making, to be read elsewhere.
    #[must_use]
    pub fn reading(&self) -> Reading {
        self.reading_of(self.applied.services.iter().filter_map(|s| self.running.get(&s.spec.id)))
    }

    pub(super) fn reading_of<'a>(&self, running: impl Iterator<Item = &'a Running>) -> Reading {
        let mut reading = Reading {
            counters: self.counters.clone(),
            conns: self.dests.conns.clone(),
            dests: self.dests.memory.clone(),
            table_size: connections_for(self.table4.conns.len()),
            states: Vec::new(),
            services: Vec::new(),
            servers: Vec::new(),
        };
        for r in running {
            reading.states.push(r.state.clone());
            reading.services.push(ServiceBase {
                servers: r.servers.len(),
                gone: r.gone,
                zeroed: r.zeroed,
                rates: r.estimator.rates(),
            });
            // Every element of a running service has its record.
            reading.servers.extend(r.servers.iter().filter_map(|&slot| {
                let s = self.dests.get(slot)?;
                Some(ServerBase { slot, base: s.base, joined: s.joined, origin: s.origin, rates: s.estimator.rates() })
            }));
        }
        reading
    }
}

impl Reading {
    /// How the services are configured.
    #[must_use]
    pub fn states(&self) -> &[Arc<ServiceState>] {
        &self.states
    }

    /// Adds everything up.
    #[must_use]
    pub fn read(self) -> Vec<ServiceRead> {
        let slots: Vec<u32> = self.servers.iter().map(|s| s.slot).collect();
        let raw = self.counters.dests(&slots);
        let mut servers = self.servers.iter().zip(&raw);
        let services = self.states.into_iter().zip(&self.services);
        services
            .map(|(state, base)| {
                let mut stats = base.gone;
                let mut read = Vec::with_capacity(base.servers);
                for (server, raw) in servers.by_ref().take(base.servers) {
                    stats = plus(&stats, &minus(raw, &server.joined));
                    read.push(ServerRead {
                        conns: shown(&self.conns, server.slot),
                        resolved: resolved(&self.dests, server.slot),
                        stats: minus(raw, &server.base),
                        totals: minus(raw, &server.origin),
                        rates: server.rates,
                    });
                }
                ServiceRead { state, stats, totals: plus(&stats, &base.zeroed), rates: base.rates, servers: read }
            })
            .collect()
    }

    /// The same, as the API shows it.
    #[must_use]
    pub fn services(self) -> Services {
        let table_size = self.table_size;
        Services { table_size, services: self.read().into_iter().map(ServiceRead::view).collect() }
    }
}

impl ServerRead {
    /// Whether it is at its upper threshold, or was and is not yet below the lower one.
    #[must_use]
    pub fn is_overloaded(&self, spec: &ServerSpec) -> bool {
        spec.upper_threshold != 0 && self.conns.overloaded != 0
    }
}

impl ServiceRead {
    /// As the API shows it.
    #[must_use]
    pub fn view(self) -> ServiceView {
        let server = |(spec, s): (&ServerSpec, ServerRead)| ServerView {
            spec: spec.clone(),
            active: s.conns.active,
            inactive: s.conns.inactive,
            persistent: s.conns.templates,
            resolved: s.resolved,
            overloaded: s.is_overloaded(spec),
            stats: s.stats,
            rates: s.rates,
        };
        ServiceView {
            spec: self.state.spec.clone(),
            stats: self.stats,
            rates: self.rates,
            servers: self.state.servers.iter().zip(self.servers).map(server).collect(),
        }
    }
}
