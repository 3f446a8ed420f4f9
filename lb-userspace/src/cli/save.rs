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

#[cfg(test)]
mod tests {
    //! Whatever is configured, the rules that are saved restore it.

    use super::*;
    use crate::api::{ServerView, ServiceView, Stats};
    use crate::cli::Name;
    use crate::cli::request::{Request, parse};
    use crate::model::{
        Desired, Edit, MAX_TIMEOUT_S, MAX_WEIGHT, Persistence, SchedFlags, SchedulerKind, ServerId, ServerSpec, ServiceId,
        ServiceSpec,
    };
    use proptest::prelude::*;
    use std::net::IpAddr;

    const NAMES: &str = "http 80/tcp\ndomain 53/udp\ndomain 53/tcp\nhttps 443/tcp\n";

    fn ip(v6: bool) -> BoxedStrategy<IpAddr> {
        if v6 {
            (0u16..300).prop_map(|i| format!("2001:db8::{i:x}").parse().unwrap()).boxed()
        } else {
            (1u8..224, any::<u8>(), 1u8..255).prop_map(|(a, b, c)| IpAddr::from([a, b, 0, c])).boxed()
        }
    }

    fn port() -> impl Strategy<Value = u16> {
        prop_oneof![Just(80), Just(53), Just(443), Just(0), any::<u16>()]
    }

    fn number(max: u32) -> impl Strategy<Value = u32> {
        prop_oneof![Just(0), Just(1), 0..1000u32, Just(max)]
    }

    fn persistence(v6: bool) -> impl Strategy<Value = Persistence> {
        let mask = if v6 {
            (1u32..128).prop_map(|bits| IpAddr::from((u128::MAX << (128 - bits)).to_be_bytes())).boxed()
        } else {
            // Any, for IPv4; all ones is the same as none.
            (0..u32::MAX).prop_map(|m| IpAddr::from(m.to_be_bytes())).boxed()
        };
        (1..=MAX_TIMEOUT_S, proptest::option::of(mask)).prop_map(|(timeout_s, netmask)| Persistence { timeout_s, netmask })
    }

    fn servers(v6: bool, service_port: u16) -> impl Strategy<Value = Vec<ServerSpec>> {
        let one = (any::<bool>(), 0..3u8).prop_flat_map(move |(other, method)| {
            let forwarding = [Forwarding::Nat, Forwarding::Dr, Forwarding::Tun][usize::from(method)];
            let family = if forwarding == Forwarding::Tun { v6 ^ other } else { v6 };
            (ip(family), port(), number(MAX_WEIGHT), number(MAX_WEIGHT), 0..=100u32).prop_map(
                move |(address, port, weight, upper, lower)| ServerSpec {
                    id: ServerId { address, port: if forwarding == Forwarding::Nat { port } else { service_port } },
                    forwarding,
                    weight,
                    upper_threshold: upper,
                    lower_threshold: lower.min(upper),
                },
            )
        });
        proptest::collection::vec(one, 0..6)
    }

    fn service() -> impl Strategy<Value = (ServiceSpec, Vec<ServerSpec>)> {
        (any::<bool>(), any::<bool>()).prop_flat_map(|(v6, udp)| {
            let kind = proptest::sample::select(SchedulerKind::ALL);
            (ip(v6), port(), kind, 0..8u8, proptest::option::of(persistence(v6)), any::<bool>()).prop_flat_map(
                move |(address, port, scheduler, flags, persistence, one_packet)| {
                    let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
                    let port = if persistence.is_none() { port.max(1) } else { port };
                    let id = ServiceId { protocol, address, port };
                    let one_packet = one_packet && udp;
                    let spec = ServiceSpec { id, scheduler, sched_flags: SchedFlags(flags), persistence, one_packet };
                    (Just(spec), servers(v6, port))
                },
            )
        })
    }

    fn desired(services: Vec<(ServiceSpec, Vec<ServerSpec>)>) -> Desired {
        let mut desired = Desired::default();
        for (spec, servers) in services {
            let id = spec.id;
            // The same twice is refused, and left out.
            if desired.apply(&[Edit::AddService { service: spec }]).is_ok() {
                for server in servers {
                    let _ = desired.apply(&[Edit::AddServer { service: id, server }]);
                }
            }
        }
        desired
    }

    fn views(desired: &Desired) -> Services {
        let server = |s: &ServerSpec| ServerView {
            spec: s.clone(),
            active: 0,
            inactive: 0,
            persistent: 0,
            resolved: true,
            overloaded: false,
            stats: Stats::default(),
            rates: Stats::default(),
        };
        let service = |s: &std::sync::Arc<crate::model::ServiceState>| ServiceView {
            spec: s.spec.clone(),
            stats: Stats::default(),
            rates: Stats::default(),
            servers: s.servers.iter().map(server).collect(),
        };
        Services { services: desired.services.iter().map(service).collect(), ..Services::default() }
    }

    /// Without what rules do not keep: the order.
    fn sorted(desired: &Desired) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for s in &desired.services {
            all.push(format!("{:?}", s.spec));
            all.extend(s.servers.iter().map(|d| format!("{} {d:?}", s.spec.id)));
        }
        all.sort();
        all
    }

    proptest! {
        #[test]
        fn what_is_saved_restores_the_same(
            services in proptest::collection::vec(service(), 0..8),
            numeric in any::<bool>(),
        ) {
            let names = Names::of(NAMES).offline();
            let before = desired(services);
            let format = if numeric { Format::of([About::Numeric]) } else { Format::default() };
            let text = rules(&views(&before), &format, &names);
            let mut after = Desired::default();
            for line in text.lines() {
                let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
                let Ok(Request::Edit(edit)) = parse(&words, &names, Name::Lvxadm).map(|l| l.request) else {
                    return Err(TestCaseError::fail(format!("{line}: {:?}", parse(&words, &names, Name::Lvxadm))));
                };
                prop_assert_eq!(after.apply(&[edit]), Ok(()), "{}", line);
            }
            prop_assert_eq!(sorted(&after), sorted(&before), "{}", text);
            // The same lines; ipvsadm's way of sorting makes the order depend on the order before.
            let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
            prop_assert_eq!(lines(&rules(&views(&after), &format, &names)), lines(&text));
        }
    }
}
