//! Random desired states, for property tests.

use super::{
    Behaviour, Desired, Forwarding, Persistence, Protocol, SchedFlags, SchedulerKind, Schedulers, ServerId, ServerSpec,
    ServiceId, ServiceSpec, ServiceState, StateTimeouts, Switches, Timeouts,
};
use crate::sched::TableSize;
use proptest::prelude::*;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

fn server(v6: bool, port: u16) -> impl Strategy<Value = ServerSpec> {
    let forwarding = prop::sample::select(vec![Forwarding::Nat, Forwarding::Dr, Forwarding::Tun]);
    (1u8..=9, any::<bool>(), forwarding, 1u16..=3, prop_oneof![0u32..4, Just(super::MAX_WEIGHT)], 0u32..9, 0u32..9).prop_map(
        move |(n, other, forwarding, real, weight, a, b)| {
            let v6 = v6 != (other && forwarding == Forwarding::Tun);
            let address = if v6 { IpAddr::from([0xfd02, 0, 0, 0, 0, 0, 0, n.into()]) } else { [10, 2, 0, n].into() };
            let port = if forwarding == Forwarding::Nat { 8000 + real } else { port };
            let (upper_threshold, lower_threshold) = (a.max(b), a.min(b));
            ServerSpec { id: ServerId { address, port }, forwarding, weight, upper_threshold, lower_threshold }
        },
    )
}

fn persistence(v6: bool) -> impl Strategy<Value = Persistence> {
    let netmask = if v6 {
        (1u32..=128).prop_map(|n| IpAddr::from(Ipv6Addr::from(u128::MAX << (128 - n)))).boxed()
    } else {
        any::<u32>().prop_map(|m| IpAddr::from(Ipv4Addr::from(m))).boxed()
    };
    (1u32..=super::MAX_TIMEOUT_S, prop::option::of(netmask)).prop_map(|(timeout_s, netmask)| Persistence { timeout_s, netmask })
}

fn service() -> impl Strategy<Value = ServiceState> {
    (any::<bool>(), 0u16..=4, any::<bool>()).prop_flat_map(|(v6, port, udp)| {
        let scheduler = prop::sample::select(SchedulerKind::ALL.to_vec());
        let persistence =
            if port == 0 { persistence(v6).prop_map(Some).boxed() } else { prop::option::of(persistence(v6)).boxed() };
        let servers = prop::collection::vec(server(v6, port), 0..5);
        (scheduler, 0u8..8, persistence, servers, 1u8..=2).prop_map(move |(scheduler, flags, persistence, mut servers, n)| {
            let address = if v6 { IpAddr::from([0xfd09, 0, 0, 0, 0, 0, 0, n.into()]) } else { [10, 9, 0, n].into() };
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let mut seen = HashSet::new();
            servers.retain(|s| seen.insert(s.id));
            let id = ServiceId { protocol, address, port };
            let spec = ServiceSpec { id, scheduler, sched_flags: SchedFlags(flags), persistence, one_packet: false };
            ServiceState { spec, servers }
        })
    })
}

/// Anything that the configuration can say.
pub(crate) fn desired() -> impl Strategy<Value = Desired> {
    let seconds = || 1u32..=super::MAX_TIMEOUT_S;
    let timeouts = (seconds(), seconds(), seconds()).prop_map(|(tcp, tcpfin, udp)| Timeouts { tcp, tcpfin, udp });
    let states = prop::array::uniform13(seconds()).prop_map(|all| StateTimeouts::of(&all));
    let tcp = prop::array::uniform4(any::<bool>()).prop_map(|[a, b, c, d]| Switches {
        sloppy_tcp: a,
        expire_nodest_conn: b,
        expire_quiescent_template: c,
        conn_reuse: d,
    });
    let schedulers = (8..=17u32).prop_map(|i| Schedulers { mh_tab_index: TableSize::from_index(i).unwrap_or_default() });
    let behaviour = prop_oneof![
        Just(Behaviour::default()),
        (states, tcp, schedulers).prop_map(|(timeouts, tcp, schedulers)| Behaviour { timeouts, tcp, schedulers })
    ];
    let timeouts = prop_oneof![Just(Timeouts::default()), timeouts];
    (prop::collection::vec(service(), 0..6), timeouts, behaviour).prop_map(|(mut services, timeouts, behaviour)| {
        let mut seen = HashSet::new();
        services.retain(|s| seen.insert(s.spec.id));
        Desired { services: services.into_iter().map(Arc::new).collect(), timeouts, behaviour }
    })
}
