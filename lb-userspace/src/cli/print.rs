//! Lists as ipvsadm prints them, blanks at the ends of lines included.

use super::names::Names;
use super::options::About;
use super::request::Format;
use super::sort;
use super::values::{show_sched_flags, socket};
use crate::api::{Connection, ServerView, ServiceView, Services, Stats};
use crate::model::{Forwarding, Protocol};
use std::fmt::Write;
use std::net::IpAddr;

/// The version of IPVS whose output this is.
const IPVS: &str = "1.2.1";

/// What a list shows of each entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Columns {
    Usual,
    Stats,
    Rate,
    Thresholds,
    Persistent,
    Tunnel,
}

fn columns(f: &Format) -> Columns {
    // One wins, in this order.
    for (about, columns) in [
        (About::Stats, Columns::Stats),
        (About::Rate, Columns::Rate),
        (About::Thresholds, Columns::Thresholds),
        (About::PersistentConn, Columns::Persistent),
        (About::TunInfo, Columns::Tunnel),
    ] {
        if f.has(about) {
            return columns;
        }
    }
    Columns::Usual
}

/// A list of services; of `all` of them with the title.
#[must_use]
pub fn list(services: &Services, all: bool, format: &Format, names: &Names) -> String {
    let mut out = String::new();
    if all {
        let _ = writeln!(out, "IP Virtual Server version {IPVS} (size={})", services.table_size);
    }
    let columns = columns(format);
    let head = "Prot LocalAddress:Port";
    let _ = match columns {
        Columns::Stats => {
            writeln!(out, "{head:<33} {:>8} {:>8} {:>8} {:>8} {:>8}", "Conns", "InPkts", "OutPkts", "InBytes", "OutBytes")
        }
        Columns::Rate => writeln!(out, "{head:<33} {:>8} {:>8} {:>8} {:>8} {:>8}", "CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"),
        Columns::Thresholds => {
            writeln!(out, "{head:<33} {:<10} {:<10} {:<10} {:<10}", "Uthreshold", "Lthreshold", "ActiveConn", "InActConn")
        }
        Columns::Persistent => {
            writeln!(out, "{head:<33} {:<9} {:<11} {:<10} {:<10}", "Weight", "PersistConn", "ActiveConn", "InActConn")
        }
        Columns::Usual | Columns::Tunnel => writeln!(out, "{head} Scheduler Flags"),
    };
    out.push_str(match columns {
        Columns::Usual => "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n",
        Columns::Tunnel => "  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n",
        _ => "  -> RemoteAddress:Port\n",
    });
    for s in sort::services(&services.services, !format.has(About::NoSort)) {
        service(&mut out, s, columns, format, names);
    }
    out
}

fn service(out: &mut String, s: &ServiceView, columns: Columns, format: &Format, names: &Names) {
    let (id, numeric) = (&s.spec.id, format.has(About::Numeric));
    let name = format!("{:<4} {}", id.protocol.to_string(), names.show(socket(id.address, id.port), id.protocol, numeric));
    match columns {
        Columns::Stats => {
            let _ = write!(out, "{name:<33}");
            numbers(out, &s.stats, format);
        }
        Columns::Rate => {
            let _ = write!(out, "{name:<33}");
            numbers(out, &s.rates, format);
        }
        _ => {
            let _ = write!(out, "{name} {}", s.spec.scheduler);
            if let Some(flags) = show_sched_flags(s.spec.sched_flags, s.spec.scheduler.name()) {
                let _ = write!(out, " ({flags})");
            }
            if let Some(p) = s.spec.persistence {
                let _ = write!(out, " persistent {}", p.timeout_s);
                if let Some(mask) = p.netmask {
                    let _ = write!(out, " mask {}", show_mask(mask));
                }
            }
            if s.spec.one_packet {
                out.push_str(" ops");
            }
            out.push('\n');
        }
    }
    for d in sort::servers(&s.servers, !format.has(About::NoSort)) {
        server(out, d, id.protocol, columns, format, names);
    }
}

/// A mask: IPv4 as an address, IPv6 as a prefix length.
#[must_use]
pub fn show_mask(mask: IpAddr) -> String {
    match mask {
        IpAddr::V4(m) => m.to_string(),
        IpAddr::V6(m) => u128::from(m).leading_ones().to_string(),
    }
}

fn server(out: &mut String, d: &ServerView, protocol: Protocol, columns: Columns, format: &Format, names: &Names) {
    let id = &d.spec.id;
    let mut name = names.show(socket(id.address, id.port), protocol, format.has(About::Numeric));
    if id.address.is_ipv4() {
        name = name.chars().take(28).collect();
    }
    let forward = match d.spec.forwarding {
        Forwarding::Nat => "Masq",
        Forwarding::Dr => "Route",
        Forwarding::Tun => "Tunnel",
    };
    let (weight, active, inactive) = (d.spec.weight, d.active, d.inactive);
    let _ = write!(out, "  -> {name:<28}");
    let _ = match columns {
        Columns::Stats => {
            numbers(out, &d.stats, format);
            Ok(())
        }
        Columns::Rate => {
            numbers(out, &d.rates, format);
            Ok(())
        }
        Columns::Thresholds => {
            let (upper, lower) = (d.spec.upper_threshold, d.spec.lower_threshold);
            writeln!(out, " {upper:<10} {lower:<10} {active:<10} {inactive:<10}")
        }
        Columns::Persistent => writeln!(out, " {weight:<9} {:<11} {active:<10} {inactive:<10}", d.persistent),
        Columns::Tunnel => {
            let info = if d.spec.forwarding == Forwarding::Tun { "ipip" } else { "n/a" };
            writeln!(out, " {forward:<7} {info:<13} {weight:<6} {active:<10} {inactive:<10}")
        }
        Columns::Usual => writeln!(out, " {forward:<7} {weight:<6} {active:<10} {inactive:<10}"),
    };
}

fn numbers(out: &mut String, s: &Stats, format: &Format) {
    for n in [s.connections, s.in_packets, s.out_packets, s.in_bytes, s.out_bytes] {
        number(out, n, format.has(About::Exact));
    }
    out.push('\n');
}

/// A number in nine columns; a large one in thousands and so on unless it shall be exact.
fn number(out: &mut String, n: u64, exact: bool) {
    let _ = if exact || n < 100_000_000 {
        write!(out, " {n:>8}")
    } else if n < 1_000_000_000 {
        write!(out, " {:>7}K", n / 1_000)
    } else if n < 100_000_000_000 {
        write!(out, " {:>7}M", n / 1_000_000)
    } else if n < 100_000_000_000_000 {
        write!(out, " {:>7}G", n / 1_000_000_000)
    } else {
        write!(out, " {:>7}T", n / 1_000_000_000_000)
    };
}

/// Title of the connection list.
#[must_use]
pub fn connections_title(format: &Format) -> String {
    let end = if format.has(About::PersistentConn) { "        pe name          pe_data" } else { "" };
    format!("IPVS connection entries\npro expire state       source             virtual            destination{end}\n")
}

/// A line of the connection list.
#[must_use]
pub fn connection(c: &Connection, format: &Format, names: &Names) -> String {
    let show = |at| names.show(at, c.protocol, format.has(About::Numeric));
    let seconds = c.expires_ms / 1000;
    format!(
        "{:<3} {:02}:{:02}  {:<11} {:<18} {:<18} {}\n",
        c.protocol.to_string(),
        seconds / 60,
        seconds % 60,
        c.state,
        show(c.client),
        show(c.service),
        show(c.server)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers() {
        let show = |n, exact| {
            let mut s = String::new();
            number(&mut s, n, exact);
            s
        };
        assert_eq!(show(0, false), "        0");
        assert_eq!(show(99_999_999, false), " 99999999");
        assert_eq!(show(837_355_762, false), "  837355K");
        assert_eq!(show(1_650_982_277, false), "    1650M");
        assert_eq!(show(1_650_982_277, true), " 1650982277");
        assert_eq!(show(u64::MAX, false), " 18446744T");
    }
}
