//! Rules as `-S` writes them and `-R` reads them. Unlike ipvsadm's they keep thresholds.

use super::names::Names;
use super::options::About;
use super::print::show_mask;
use super::request::Format;
use super::sort;
use super::values::{show_sched_flags, socket};
use crate::api::Services;
use crate::model::{Forwarding, Protocol};
use std::fmt::Write;

/// All services, one rule a line.
#[must_use]
pub(super) fn rules(services: &Services, format: &Format, names: &Names) -> String {
    let mut out = String::new();
    let numeric = format.has(About::Numeric);
    for s in sort::services(&services.services, true) {
        let id = &s.spec.id;
        let option = match id.protocol {
            Protocol::Tcp => "-t",
            Protocol::Udp => "-u",
        };
        let name = format!("{option} {}", names.show(socket(id.address, id.port), id.protocol, numeric));
        let _ = write!(out, "-A {name} -s {}", s.spec.scheduler);
        if let Some(flags) = show_sched_flags(s.spec.sched_flags, s.spec.scheduler.name()) {
            let _ = write!(out, " -b {flags}");
        }
        if let Some(p) = s.spec.persistence {
            let _ = write!(out, " -p {}", p.timeout_s);
            if let Some(mask) = p.netmask {
                let _ = write!(out, " -M {}", show_mask(mask));
            }
        }
        if s.spec.one_packet {
            out.push_str(" -o");
        }
        out.push('\n');
        for d in sort::servers(&s.servers, true) {
            let d = &d.spec;
            let server = names.show(socket(d.id.address, d.id.port), id.protocol, numeric);
            let forward = match d.forwarding {
                Forwarding::Nat => "-m",
                Forwarding::Dr => "-g",
                Forwarding::Tun => "-i",
            };
            let _ = write!(out, "-a {name} -r {server} {forward} -w {}", d.weight);
            if d.upper_threshold != 0 {
                let _ = write!(out, " -x {}", d.upper_threshold);
            }
            if d.lower_threshold != 0 {
                let _ = write!(out, " -y {}", d.lower_threshold);
            }
            if d.forwarding == Forwarding::Tun {
                out.push_str(" --tun-type ipip");
            }
            out.push('\n');
        }
    }
    out
}
