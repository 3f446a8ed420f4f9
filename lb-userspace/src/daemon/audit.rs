//! The log of requests: what changed, or was to change, by whom, and what came of it, at info level; reading at debug.
//!
//! The trap: reasons quote what a client sent. Nothing that could end a line or move a terminal's cursor gets into the log.

use super::serve::Peer;
use crate::model::{Edit, ServerSpec, ServiceSpec};
use axum::extract::Request;
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use std::fmt::Write as _;
use std::time::Instant;

/// Edits of one request that are told one by one.
const TOLD: usize = 8;

/// With an answer: what was to be changed.
#[derive(Clone, Debug)]
pub(super) struct Change(pub(super) String);

/// With an answer: why it was refused.
#[derive(Clone, Debug)]
pub(super) struct Reason(pub(super) String);

/// One line a request.
pub(super) async fn log(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let peer = request.extensions().get().copied().unwrap_or(Peer::Process { uid: None, pid: None });
    let start = Instant::now();
    let response = next.run(request).await;
    let (status, took) = (response.status(), start.elapsed());
    let change = response.extensions().get::<Change>().map_or_else(|| format!("{method} {path}"), |c| c.0.clone());
    match response.extensions().get::<Reason>() {
        _ if method == Method::GET || method == Method::HEAD => {
            tracing::debug!("{peer}: {method} {path}: {}, {took:.1?}", status.as_u16());
        }
        Some(reason) => tracing::info!("{peer}: {change}: refused ({}): {}", status.as_u16(), reason.0),
        None => tracing::info!("{peer}: {change}: done, {took:.1?}"),
    }
    response
}

/// Text without control characters.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// What a list of edits is about, in a line.
pub(super) fn edits(edits: &[Edit]) -> String {
    let mut out = String::new();
    for (i, edit) in edits.iter().take(TOLD).enumerate() {
        let _ = write!(out, "{}{}", if i == 0 { "" } else { "; " }, one(edit));
    }
    match edits.len() {
        0 => out.push_str("no edits"),
        n if n > TOLD => {
            let _ = write!(out, "; and {} more edits", n - TOLD);
        }
        _ => {}
    }
    out
}

fn one(edit: &Edit) -> String {
    match edit {
        Edit::AddService { service } => format!("add service {}", of_service(service)),
        Edit::EditService { service } => format!("edit service {}", of_service(service)),
        Edit::DeleteService { service } => format!("delete service {service}"),
        Edit::Clear => "delete all services".into(),
        Edit::AddServer { service, server } => format!("add to {service} server {}", of_server(server)),
        Edit::EditServer { service, server } => format!("edit of {service} server {}", of_server(server)),
        Edit::DeleteServer { service, server } => format!("delete from {service} server {server}"),
        Edit::SetTimeouts { timeouts: t } => format!("set timeouts tcp {} tcpfin {} udp {}", t.tcp, t.tcpfin, t.udp),
    }
}

fn of_service(s: &ServiceSpec) -> String {
    let mut out = format!("{} ({}", s.id, s.scheduler);
    if !s.sched_flags.is_empty() {
        let _ = write!(out, ", flags {:#b}", s.sched_flags.0);
    }
    if let Some(p) = s.persistence {
        let _ = write!(out, ", persistent {} s", p.timeout_s);
        if let Some(mask) = p.netmask {
            let _ = write!(out, " by {mask}");
        }
    }
    if s.one_packet {
        out.push_str(", one-packet");
    }
    out + ")"
}

fn of_server(s: &ServerSpec) -> String {
    let method = match s.forwarding {
        crate::model::Forwarding::Nat => "nat",
        crate::model::Forwarding::Dr => "dr",
        crate::model::Forwarding::Tun => "tun",
    };
    let mut out = format!("{} ({method}, weight {}", s.id, s.weight);
    if s.upper_threshold != 0 || s.lower_threshold != 0 {
        let _ = write!(out, ", thresholds {} {}", s.upper_threshold, s.lower_threshold);
    }
    out + ")"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: serde_json::Value) -> Vec<Edit> {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn edits_are_told_by_name_and_value() {
        let id = serde_json::json!({"protocol": "tcp", "address": "2001:db8::1", "port": 80});
        let told = edits(&parse(serde_json::json!([
            {"op": "add_service", "service": {"protocol": "udp", "address": "192.0.2.1", "port": 53, "scheduler": "sh",
                "sched_flags": 3, "persistence": {"timeout_s": 60, "netmask": "255.255.255.0"}, "one_packet": true}},
            {"op": "edit_server", "service": id, "server": {"address": "2001:db8::2", "port": 80, "forwarding": "tun", "weight": 0,
                "upper_threshold": 10, "lower_threshold": 5}},
            {"op": "delete_server", "service": id, "server": {"address": "2001:db8::2", "port": 80}},
            {"op": "set_timeouts", "timeouts": {"tcp": 1, "tcpfin": 2, "udp": 3}},
        ])));
        assert_eq!(
            told,
            "add service UDP 192.0.2.1:53 (sh, flags 0b11, persistent 60 s by 255.255.255.0, one-packet); \
             edit of TCP [2001:db8::1]:80 server [2001:db8::2]:80 (tun, weight 0, thresholds 10 5); \
             delete from TCP [2001:db8::1]:80 server [2001:db8::2]:80; set timeouts tcp 1 tcpfin 2 udp 3"
        );
    }

    #[test]
    fn many_are_told_as_a_number() {
        let clear = Edit::Clear;
        assert_eq!(edits(&[]), "no edits");
        assert!(edits(&vec![clear.clone(); TOLD]).ends_with("; delete all services"));
        assert!(edits(&vec![clear; TOLD + 3]).ends_with("; and 3 more edits"));
    }

    #[test]
    fn nothing_ends_a_line_of_the_log() {
        assert_eq!(printable("a\nb\r\u{1b}[2J\u{85}ü\u{7f}"), "a\\nb\\r\\u{1b}[2J\\u{85}ü\\u{7f}");
    }
}
