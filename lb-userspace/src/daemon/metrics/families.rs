//! Which metrics there are. Names are a contract with whoever made dashboards and alerts of them.

use super::{Kind, Labels, Text, address, protocol};
use crate::daemon::core::Figures;
use crate::engine::{ServerRead, ServiceRead};
use crate::model::{Forwarding, ServerSpec};
use std::time::UNIX_EPOCH;

/// A metric of each service.
pub(super) struct OfService {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) value: fn(&ServiceRead) -> u64,
}

/// A metric of each real server.
pub(super) struct OfServer {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) value: fn(&ServerSpec, &ServerRead) -> u64,
}

use Kind::{Counter, Gauge};

/// Of each service.
pub(super) const SERVICES: &[OfService] = &[
    OfService {
        name: "lvx_service_connections_total",
        kind: Counter,
        help: "Connections made to the service.",
        value: |s| s.totals.connections,
    },
    OfService {
        name: "lvx_service_incoming_packets_total",
        kind: Counter,
        help: "Packets from clients to the service.",
        value: |s| s.totals.in_packets,
    },
    OfService {
        name: "lvx_service_outgoing_packets_total",
        kind: Counter,
        help: "Packets from the service to clients (NAT only).",
        value: |s| s.totals.out_packets,
    },
    OfService {
        name: "lvx_service_incoming_bytes_total",
        kind: Counter,
        help: "Bytes of IP packets from clients to the service.",
        value: |s| s.totals.in_bytes,
    },
    OfService {
        name: "lvx_service_outgoing_bytes_total",
        kind: Counter,
        help: "Bytes of IP packets from the service to clients (NAT only).",
        value: |s| s.totals.out_bytes,
    },
    OfService {
        name: "lvx_service_servers",
        kind: Gauge,
        help: "Real servers of the service.",
        value: |s| s.servers.len() as u64,
    },
];

/// Of each real server.
pub(super) const SERVERS: &[OfServer] = &[
    OfServer {
        name: "lvx_server_connections_total",
        kind: Counter,
        help: "Connections made to the real server for the service.",
        value: |_, s| s.totals.connections,
    },
    OfServer {
        name: "lvx_server_incoming_packets_total",
        kind: Counter,
        help: "Packets from clients to the real server.",
        value: |_, s| s.totals.in_packets,
    },
    OfServer {
        name: "lvx_server_outgoing_packets_total",
        kind: Counter,
        help: "Packets from the real server to clients (NAT only).",
        value: |_, s| s.totals.out_packets,
    },
    OfServer {
        name: "lvx_server_incoming_bytes_total",
        kind: Counter,
        help: "Bytes of IP packets from clients to the real server.",
        value: |_, s| s.totals.in_bytes,
    },
    OfServer {
        name: "lvx_server_outgoing_bytes_total",
        kind: Counter,
        help: "Bytes of IP packets from the real server to clients (NAT only).",
        value: |_, s| s.totals.out_bytes,
    },
    OfServer {
        name: "lvx_server_connections_active",
        kind: Gauge,
        help: "Active connections of the real server.",
        value: |_, s| s.conns.active,
    },
    OfServer {
        name: "lvx_server_connections_inactive",
        kind: Gauge,
        help: "Inactive connections of the real server.",
        value: |_, s| s.conns.inactive,
    },
    OfServer {
        name: "lvx_server_persistence_templates",
        kind: Gauge,
        help: "Persistence templates of the real server.",
        value: |_, s| s.conns.templates,
    },
    OfServer {
        name: "lvx_server_weight",
        kind: Gauge,
        help: "Weight of the real server; 0 is quiesced.",
        value: |spec, _| spec.weight.into(),
    },
    OfServer {
        name: "lvx_server_resolved",
        kind: Gauge,
        help: "Whether the next hop of the real server is known.",
        value: |_, s| s.resolved.into(),
    },
    OfServer {
        name: "lvx_server_overloaded",
        kind: Gauge,
        help: "Whether the real server is over its upper threshold and gets no new connections.",
        value: |spec, s| s.is_overloaded(spec).into(),
    },
];

/// A metric without labels.
fn one(t: &mut Text, name: &str, kind: Kind, help: &str, value: u64) {
    t.metric(name, kind, help);
    t.sample(name, &Labels::default(), value);
}

/// The same, of microseconds.
fn seconds(t: &mut Text, name: &str, kind: Kind, help: &str, micros: u64) {
    t.metric(name, kind, help);
    t.seconds(name, &Labels::default(), micros as f64 / 1e6);
}

/// Of the daemon as a whole, and what each service and server is beside its numbers.
pub(super) fn daemon(t: &mut Text, f: &Figures) {
    let s = &f.status;
    t.metric("lvx_build_info", Gauge, "Version of the daemon.");
    t.sample("lvx_build_info", &Labels::new(&[("version", &s.version)]), 1);
    t.metric("lvx_start_time_seconds", Gauge, "When the daemon started, in seconds since 1970.");
    let since = |at: std::time::SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    t.seconds("lvx_start_time_seconds", &Labels::default(), since(f.started));

    t.metric(
        "lvx_interface_info",
        Gauge,
        "Interfaces to balance on, and where the program is on them: native, generic or absent.",
    );
    for i in &s.interfaces {
        t.sample("lvx_interface_info", &Labels::new(&[("interface", &i.name), ("mode", &i.mode)]), 1);
    }
    t.metric("lvx_packets_total", Counter, "Packets that the program saw, by what became of them.");
    for v in &s.verdicts {
        t.sample("lvx_packets_total", &Labels::new(&[("verdict", &v.name)]), v.packets);
    }
    tables(t, f);
    reloads(t, f);

    one(t, "lvx_services", Gauge, "Virtual services.", f.reading.states().len() as u64);
    t.metric("lvx_service_info", Gauge, "Scheduler of each service.");
    for state in f.reading.states() {
        let (id, scheduler) = (&state.spec.id, state.spec.scheduler.name());
        let labels = [("protocol", protocol(id)), ("service", &address(id)), ("scheduler", scheduler)];
        t.sample("lvx_service_info", &Labels::new(&labels), 1);
    }
    t.metric("lvx_server_info", Gauge, "Forwarding method of each real server.");
    for state in f.reading.states() {
        let id = &state.spec.id;
        let service = address(id);
        for server in &state.servers {
            let forwarding = match server.forwarding {
                Forwarding::Nat => "nat",
                Forwarding::Dr => "dr",
                Forwarding::Tun => "tun",
            };
            let labels = [
                ("protocol", protocol(id)),
                ("service", &service),
                ("server", &server.id.to_string()),
                ("forwarding", forwarding),
            ];
            t.sample("lvx_server_info", &Labels::new(&labels), 1);
        }
    }
}

fn tables(t: &mut Text, f: &Figures) {
    let s = &f.status;
    let family = |name: &str| Labels::new(&[("family", name)]);
    for (name, kind, help, value) in [
        (
            "lvx_table_used",
            Gauge,
            "Connections and templates in the connection table.",
            (|t| t.used) as fn(&crate::api::TableView) -> u64,
        ),
        ("lvx_table_capacity", Gauge, "Connections and templates that the connection table holds at most.", |t| t.size.into()),
        ("lvx_table_templates", Gauge, "Persistence templates in the connection table.", |t| t.templates),
        ("lvx_sweeper_expired_total", Counter, "Connections and templates that the sweeper took down.", |t| t.swept),
    ] {
        t.metric(name, kind, help);
        for table in &s.tables {
            t.sample(name, &family(&table.family), value(table));
        }
    }
    let name = "lvx_connections";
    t.metric(name, Gauge, "Connections by state, as the sweeper found them in its last round.");
    for table in &s.tables {
        for (state, &n) in &table.states {
            t.sample(name, &Labels::new(&[("family", &table.family), ("state", state)]), n);
        }
    }
    let name = "lvx_table_evictions_total";
    t.metric(name, Counter, "Connections that gave way to new ones: expired, embryonic (no handshake seen) or closing.");
    for table in &s.tables {
        for (reason, n) in
            [("expired", table.reclaimed_expired), ("embryonic", table.evicted_embryonic), ("closing", table.evicted_closing)]
        {
            t.sample(name, &Labels::new(&[("family", &table.family), ("reason", reason)]), n);
        }
    }
    let w = &s.sweeper;
    one(t, "lvx_sweeper_rounds_total", Counter, "Rounds of the sweeper through both tables.", w.rounds);
    one(t, "lvx_sweeper_last_round_records", Gauge, "Records that the sweeper's last round looked at.", w.records);
    seconds(t, "lvx_sweeper_last_round_seconds", Gauge, "Time that the sweeper's last round took, pauses included.", w.round_us);
    seconds(t, "lvx_sweeper_last_round_cpu_seconds", Gauge, "CPU time that the sweeper's last round took.", w.cpu_us);
    one(t, "lvx_audit_rounds_total", Counter, "Comparisons of servers' counts with the connection tables.", w.audits);
    one(t, "lvx_audit_healed_total", Counter, "Servers whose counts differed from the tables and were put right.", w.healed);
    let p = &s.planner;
    one(t, "lvx_planner_signals_total", Counter, "Requests of the packet path to plan a service anew.", p.signals);
    one(t, "lvx_planner_plans_total", Counter, "Plans made for services.", p.plans);
    seconds(t, "lvx_planner_plan_seconds_total", Counter, "Time that the making of plans took.", p.plan_us);
}

fn reloads(t: &mut Text, f: &Figures) {
    let r = &f.reloads;
    let name = "lvx_config_reloads_total";
    t.metric(name, Counter, "Times that the configuration was read again, by outcome.");
    t.sample(name, &Labels::new(&[("outcome", "success")]), r.succeeded);
    t.sample(name, &Labels::new(&[("outcome", "failure")]), r.failed);
    one(
        t,
        "lvx_config_last_reload_successful",
        Gauge,
        "Whether the configuration was good when it was last read.",
        r.last_good.into(),
    );
    let name = "lvx_config_last_reload_success_timestamp_seconds";
    t.metric(name, Gauge, "When the configuration was last read and good, in seconds since 1970.");
    let at = r.last_success.unwrap_or(f.started).duration_since(UNIX_EPOCH).unwrap_or_default();
    t.seconds(name, &Labels::default(), at.as_secs_f64());
}
