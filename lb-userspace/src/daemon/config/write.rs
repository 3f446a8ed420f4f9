//! The running configuration as a file: `lvxadm export`.
//!
//! Invariant: read again, it is what was written ([`super::Config::parse`]).

use crate::model::{Desired, Schedulers, ServerSpec, ServiceSpec, StateTimeouts, Switches, Timeouts};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use toml::Table;

/// What is set at the start, then timeouts and switches that differ from the defaults, then services.
#[must_use]
pub fn write(fixed: &Table, desired: &Desired) -> String {
    let mut out = String::from("# The running configuration of lvxd, for lvxd --config or lvxadm apply.\n");
    out.push_str(&fixed.to_string());
    let t = desired.timeouts;
    let usual = Timeouts::default();
    let set = [("established", t.tcp, usual.tcp), ("fin_wait", t.tcpfin, usual.tcpfin), ("udp", t.udp, usual.udp)];
    let states = desired
        .behaviour
        .timeouts
        .each()
        .zip(StateTimeouts::default().each())
        .map(|((_, key, n), (_, _, usual))| (key, n, usual));
    let changed: Vec<_> = set.into_iter().chain(states).filter(|(_, n, usual)| n != usual).collect();
    section(&mut out, "timeouts", changed.into_iter().map(|(key, n, _)| (key, n.to_string())));
    let switches = desired.behaviour.tcp.each().zip(Switches::default().each()).filter(|(a, b)| a != b);
    section(&mut out, "tcp", switches.map(|((key, on), _)| (key, on.to_string())));
    let (size, usual) = (desired.behaviour.schedulers.mh_tab_index, Schedulers::default().mh_tab_index);
    section(&mut out, "schedulers", (size != usual).then(|| ("mh_tab_index", size.index().to_string())).into_iter());
    for service in &desired.services {
        write_service(&mut out, &service.spec);
        // Newest first in memory, in the order of adding here.
        for server in service.servers.iter().rev() {
            write_server(&mut out, server);
        }
    }
    out
}

fn section(out: &mut String, name: &str, keys: impl Iterator<Item = (&'static str, String)>) {
    for (i, (key, value)) in keys.enumerate() {
        if i == 0 {
            let _ = writeln!(out, "\n[{name}]");
        }
        let _ = writeln!(out, "{key} = {value}");
    }
}

fn write_service(out: &mut String, s: &ServiceSpec) {
    let address = SocketAddr::new(s.id.address, s.id.port);
    let protocol = s.id.protocol.to_string().to_lowercase();
    let _ = writeln!(out, "\n[[service]]\nprotocol = \"{protocol}\"\naddress = \"{address}\"\nscheduler = \"{}\"", s.scheduler);
    if !s.sched_flags.is_empty() {
        let _ = writeln!(out, "scheduler_flags = {:?}", s.sched_flags.names(s.scheduler));
    }
    if let Some(p) = s.persistence {
        let _ = writeln!(out, "persistence = {}", p.timeout_s);
        match p.netmask {
            Some(IpAddr::V4(mask)) => drop(writeln!(out, "persistence_netmask = \"{mask}\"")),
            Some(IpAddr::V6(mask)) => drop(writeln!(out, "persistence_netmask = {}", u128::from(mask).leading_ones())),
            None => {}
        }
    }
    if s.one_packet {
        let _ = writeln!(out, "one_packet = true");
    }
}

fn write_server(out: &mut String, s: &ServerSpec) {
    let address = SocketAddr::new(s.id.address, s.id.port);
    let _ =
        writeln!(out, "\n[[service.server]]\naddress = \"{address}\"\nforwarding = \"{}\"\nweight = {}", s.forwarding, s.weight);
    for (key, n) in [("upper_threshold", s.upper_threshold), ("lower_threshold", s.lower_threshold)] {
        if n != 0 {
            let _ = writeln!(out, "{key} = {n}");
        }
    }
}
