//! What is shown, made of what the daemon says: states, and rates between two samples.
//!
//! Rates are differences of counters over the time between two answers, so that they are exact and follow at once; the daemon's
//! own are averages over many seconds, and stand in only until there are two samples. A counter that went backwards was set
//! to 0 in between: what it counted since is all that is known.

use crate::api::{ServerView, ServiceView, Services, Stats};
use crate::model::{Forwarding, ServerId, ServiceId};
use serde::Deserialize;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// An answer of the daemon.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// When it was made, as near as can be told.
    pub(super) at: Instant,
    pub(super) services: Services,
    pub(super) status: Status,
}

/// Of `GET /v1/status`, what is shown.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Status {
    pub(super) version: String,
    pub(super) pid: u32,
    pub(super) tables: Vec<Fill>,
    pub(super) verdicts: Vec<Verdict>,
}

/// How full a connection table is.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Fill {
    pub(super) family: String,
    pub(super) size: u64,
    pub(super) used: u64,
}

/// Packets that ended so.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Verdict {
    pub(super) name: String,
    pub(super) packets: u64,
}

/// A service, or a server of a service.
pub(super) type Key = (ServiceId, Option<ServerId>);

/// Per second.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Rates {
    pub(super) connections: f64,
    pub(super) in_packets: f64,
    pub(super) out_packets: f64,
    pub(super) in_bytes: f64,
    pub(super) out_bytes: f64,
}

impl Rates {
    fn estimated(s: &Stats) -> Self {
        Self {
            connections: s.connections as f64,
            in_packets: s.in_packets as f64,
            out_packets: s.out_packets as f64,
            in_bytes: s.in_bytes as f64,
            out_bytes: s.out_bytes as f64,
        }
    }

    fn between(before: &Stats, now: &Stats, over: Duration) -> Self {
        let per_s = |before: u64, now: u64| now.checked_sub(before).unwrap_or(now) as f64 / over.as_secs_f64();
        Self {
            connections: per_s(before.connections, now.connections),
            in_packets: per_s(before.in_packets, now.in_packets),
            out_packets: per_s(before.out_packets, now.out_packets),
            in_bytes: per_s(before.in_bytes, now.in_bytes),
            out_bytes: per_s(before.out_bytes, now.out_bytes),
        }
    }

    fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.in_packets += other.in_packets;
        self.out_packets += other.out_packets;
        self.in_bytes += other.in_bytes;
        self.out_bytes += other.out_bytes;
    }
}

/// How a server, or a service, is. In order of the attention that it wants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum State {
    /// Takes new connections.
    Up,
    /// Weight 0.
    Quiesced,
    /// At its upper threshold, and not yet below the lower one.
    Overloaded,
    /// Its next hop is not known: no neighbour answers, or there is no route.
    Unresolved,
    /// A service: so many of so many servers are up.
    Servers(usize, usize),
}

impl State {
    fn of(server: &ServerView) -> Self {
        // What keeps connections away for the longest is said first.
        if server.spec.weight == 0 {
            Self::Quiesced
        } else if !server.resolved {
            Self::Unresolved
        } else if server.overloaded {
            Self::Overloaded
        } else {
            Self::Up
        }
    }

    pub(super) fn text(self) -> String {
        match self {
            Self::Up => "up".into(),
            Self::Quiesced => "quiesced".into(),
            Self::Overloaded => "overloaded".into(),
            Self::Unresolved => "unresolved".into(),
            Self::Servers(up, all) => format!("{up}/{all}"),
        }
    }
}

/// A line of the table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) label: String,
    pub(super) forwarding: Option<Forwarding>,
    pub(super) weight: Option<u32>,
    pub(super) state: State,
    pub(super) active: u64,
    pub(super) inactive: u64,
    pub(super) rates: Rates,
}

/// A service and its servers, in the daemon's order.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) service: Entry,
    pub(super) servers: Vec<Entry>,
}

/// Everything that is shown at one time.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) groups: Vec<Group>,
    pub(super) rates: Rates,
    pub(super) active: u64,
    pub(super) inactive: u64,
    /// Packets dropped a second, and the reason of most of them.
    pub(super) dropped: f64,
    pub(super) reason: Option<String>,
}

fn counters(services: &Services) -> HashMap<Key, Stats> {
    let mut all = HashMap::new();
    for s in &services.services {
        all.insert((s.spec.id, None), s.stats);
        all.extend(s.servers.iter().map(|r| ((s.spec.id, Some(r.spec.id)), r.stats)));
    }
    all
}

impl Table {
    /// Of a sample, and of the one before it.
    pub(super) fn new(before: Option<&Sample>, now: &Sample) -> Self {
        let over = before.map(|b| now.at.saturating_duration_since(b.at)).filter(|d| !d.is_zero());
        let earlier = before.filter(|_| over.is_some()).map(|b| counters(&b.services)).unwrap_or_default();
        let rates = |key: &Key, stats: &Stats, estimated: &Stats| match (over, earlier.get(key)) {
            (Some(over), Some(before)) => Rates::between(before, stats, over),
            _ => Rates::estimated(estimated),
        };
        let mut table = Self::default();
        for s in &now.services.services {
            let group = group(s, &rates);
            table.active += group.service.active;
            table.inactive += group.service.inactive;
            table.rates.add(&group.service.rates);
            table.groups.push(group);
        }
        if let (Some(before), Some(over)) = (before, over) {
            table.drops(&before.status, &now.status, over);
        }
        table
    }

    fn drops(&mut self, before: &Status, now: &Status, over: Duration) {
        let was: HashMap<&str, u64> = before.verdicts.iter().map(|v| (v.name.as_str(), v.packets)).collect();
        let mut most = 0;
        for v in now.verdicts.iter().filter(|v| v.name.starts_with("dropped")) {
            let n = v.packets.checked_sub(was.get(v.name.as_str()).copied().unwrap_or(0)).unwrap_or(v.packets);
            self.dropped += n as f64 / over.as_secs_f64();
            if n > most {
                most = n;
                self.reason = Some(v.name.clone());
            }
        }
    }

    pub(super) fn group(&self, service: &ServiceId) -> Option<&Group> {
        self.groups.iter().find(|g| g.service.key.0 == *service)
    }
}

fn group(s: &ServiceView, rates: &impl Fn(&Key, &Stats, &Stats) -> Rates) -> Group {
    let servers: Vec<Entry> = s
        .servers
        .iter()
        .map(|r| {
            let key = (s.spec.id, Some(r.spec.id));
            Entry {
                key,
                label: format!("-> {}", r.spec.id),
                forwarding: Some(r.spec.forwarding),
                weight: Some(r.spec.weight),
                state: State::of(r),
                active: r.active,
                inactive: r.inactive,
                rates: rates(&key, &r.stats, &r.rates),
            }
        })
        .collect();
    let key = (s.spec.id, None);
    let up = servers.iter().filter(|r| r.state == State::Up).count();
    let service = Entry {
        key,
        label: format!("{} {}", s.spec.id, s.spec.scheduler.name()),
        forwarding: None,
        weight: None,
        state: State::Servers(up, servers.len()),
        active: servers.iter().map(|r| r.active).sum(),
        inactive: servers.iter().map(|r| r.inactive).sum(),
        rates: rates(&key, &s.stats, &s.rates),
    };
    Group { service, servers }
}
