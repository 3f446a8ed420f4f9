//! `GET /metrics`: everything that is counted, for Prometheus.
//!
//! Counters here are since a server joined its service (or the daemon took the maps over): `-Z` does not touch them, as a counter that goes
//! backwards is taken for a restart, and what came between two scrapes would be lost.
//!
//! A page is made piece by piece as it is read, from a picture taken at its start: 10,000 servers make some megabytes of text, which
//! no slow reader shall keep in memory.

mod families;
mod text;

pub(super) use text::CONTENT_TYPE;

use super::core::Figures;
use crate::engine::ServiceRead;
use crate::model::{ServerId, ServiceId};
use axum::body::Bytes;
use families::{SERVERS, SERVICES};
use text::{Kind, Labels, Text};

/// Bytes made at a time.
const PIECE: usize = 64 << 10;

/// A page, an iterator over its pieces.
#[derive(Debug)]
pub(super) struct Page {
    text: Text,
    services: Vec<(Labels, ServiceRead)>,
    /// Labels of all servers, in the order of their services.
    servers: Vec<Labels>,
    /// What comes next: metric, service.
    at: (usize, usize),
    /// Servers before that service.
    server: usize,
}

impl Page {
    /// Of what is so now.
    pub(super) fn new(figures: Figures) -> Self {
        let mut text = Text::default();
        families::daemon(&mut text, &figures);
        let services: Vec<_> = figures.reading.read().into_iter().map(|s| (service_labels(&s.state.spec.id), s)).collect();
        let servers =
            services.iter().flat_map(|(_, s)| s.state.servers.iter().map(|r| server_labels(&s.state.spec.id, &r.id))).collect();
        Self { text, services, servers, at: (0, 0), server: 0 }
    }

    /// Makes one service's lines of the metric that is due. False at the end.
    fn step(&mut self) -> bool {
        let (metric, service) = self.at;
        let Some(per_server) = metric.checked_sub(SERVICES.len()) else {
            let m = &SERVICES[metric];
            if service == 0 {
                self.text.metric(m.name, m.kind, m.help);
            }
            if let Some((labels, s)) = self.services.get(service) {
                self.text.sample(m.name, labels, (m.value)(s));
            }
            self.next();
            return true;
        };
        let Some(m) = SERVERS.get(per_server) else { return false };
        if service == 0 {
            self.text.metric(m.name, m.kind, m.help);
            self.server = 0;
        }
        if let Some((_, s)) = self.services.get(service) {
            for (spec, read) in s.state.servers.iter().zip(&s.servers) {
                if let Some(labels) = self.servers.get(self.server) {
                    self.text.sample(m.name, labels, (m.value)(spec, read));
                }
                self.server += 1;
            }
        }
        self.next();
        true
    }

    fn next(&mut self) {
        let (metric, service) = self.at;
        self.at = if service + 1 < self.services.len() { (metric, service + 1) } else { (metric + 1, 0) };
    }
}

impl Iterator for Page {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        while self.text.len() < PIECE && self.step() {}
        let piece = self.text.take();
        (!piece.is_empty()).then(|| piece.into())
    }
}

fn protocol(id: &ServiceId) -> &'static str {
    match id.protocol {
        crate::model::Protocol::Tcp => "tcp",
        crate::model::Protocol::Udp => "udp",
    }
}

fn address(id: &ServiceId) -> String {
    ServerId { address: id.address, port: id.port }.to_string()
}

fn service_labels(id: &ServiceId) -> Labels {
    Labels::new(&[("protocol", protocol(id)), ("service", &address(id))])
}

fn server_labels(id: &ServiceId, server: &ServerId) -> Labels {
    Labels::new(&[("protocol", protocol(id)), ("service", &address(id)), ("server", &server.to_string())])
}
