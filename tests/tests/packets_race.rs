//! Two CPUs that see the same new flows at the same time: one connection each.

use anyhow::{Context, Result};
use aya::maps::Array;
use aya::programs::{TestRun, TestRunOptions, Xdp};
use lb_common::bench::Bench;
use lb_userspace::engine::Sizes;
use lb_userspace::model::{Desired, Edit, Forwarding, Protocol, SchedulerKind, ServerId, ServerSpec, ServiceId, ServiceSpec};
use lvx_tests::director::{Director, INGRESS, possible_cpus};
use lvx_tests::lab::possible;
use lvx_tests::packet::{Frame, flag};
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Barrier;

const FLOWS: u32 = 200_000;

fn desired(vip: SocketAddr, method: Forwarding) -> Result<Desired> {
    let id = ServiceId { protocol: Protocol::Tcp, address: vip.ip(), port: vip.port() };
    let service =
        ServiceSpec { id, scheduler: SchedulerKind::Rr, sched_flags: Default::default(), persistence: None, one_packet: false };
    let server = |n: u8| ServerSpec {
        id: ServerId { address: server(vip.is_ipv6(), n), port: 80 },
        forwarding: method,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
    };
    let mut desired = Desired::default();
    let mut edits = vec![Edit::AddService { service }];
    edits.extend((1..=3).map(|n| Edit::AddServer { service: id, server: server(n) }));
    desired.apply(&edits).map_err(|e| anyhow::anyhow!("{e}"))?;
    Ok(desired)
}

fn server(v6: bool, n: u8) -> IpAddr {
    if v6 { IpAddr::from([0xfd00, 0xc, 0, 0, 0, 0, 0, n.into()]) } else { IpAddr::from([172, 16, 0, n]) }
}

/// Wrapped programs take the next client of a count that both CPUs add to without a lock: so they have most clients in common, at the
/// same instant.
fn race(v6: bool, method: Forwarding) -> Result<()> {
    let cpus = possible_cpus()?;
    if !possible() || cpus < 2 {
        return Ok(());
    }
    let name = if v6 { "bench_lvx6" } else { "bench_lvx4" };
    let sizes = Sizes { connections: 2 * FLOWS, services: 4, servers: 8, picks: 256, cpus };
    let mut d = Director::load(lb_userspace::object::BENCH, &sizes, &[name], &[])?;
    d.link(INGRESS, lvx_tests::director::DIRECTOR_MAC, 1500);
    let (client, vip): (SocketAddr, SocketAddr) = if v6 {
        ("[fd00:a::40:0:0]:4".parse()?, "[fd00:b::1]:80".parse()?)
    } else {
        ("10.0.0.0:4".parse()?, "192.0.2.1:80".parse()?)
    };
    d.configure(&desired(vip, method)?)?;
    for n in 1..=3 {
        d.reach(server(v6, n), [2, 0, 0, 0, 1, n], server(v6, 254));
    }
    let frame = Frame::tcp(client, vip, flag::SYN).payload(b"both at once").bytes();
    let mut words = [0; 10];
    for (w, b) in words.iter_mut().zip(frame.chunks_exact(8)) {
        *w = u64::from_ne_bytes(b.try_into()?);
    }
    let bench = Bench { len: frame.len() as u32, mode: 2, clients: 0, reverse: 0, count: 0, template: words };
    let mut map: Array<_, Bench> = Array::try_from(d.ebpf.map_mut("LVX_BENCH").context("no LVX_BENCH")?)?;
    map.set(0, bench, 0)?;

    let program: &Xdp = d.ebpf.program(name).context("no program")?.try_into()?;
    let start = Barrier::new(2);
    std::thread::scope(|s| {
        let runs: Vec<_> = (0..2)
            .map(|cpu| {
                let (start, frame) = (&start, &frame);
                s.spawn(move || -> Result<()> {
                    let mut set = rustix::thread::CpuSet::new();
                    set.set(cpu);
                    rustix::thread::sched_setaffinity(None, &set)?;
                    start.wait();
                    program.test_run(TestRunOptions { data_in: Some(frame), repeat: FLOWS, ..Default::default() })?;
                    Ok(())
                })
            })
            .collect();
        runs.into_iter().try_for_each(|r| r.join().expect("a panic"))
    })?;

    let verdict = |name: &str| d.engine.verdicts().into_iter().find(|v| v.name == name).map_or(0, |v| v.packets);
    let all: Vec<_> = d.engine.connections().collect();
    let distinct: HashSet<_> = all.iter().map(|c| c.client).collect();
    let what = format!("IPv{}, {method:?}", if v6 { 6 } else { 4 });
    assert_eq!(distinct.len(), all.len(), "{what}: flows with more than one connection");
    let service = &d.engine.services().services[0];
    let counted: u64 = service.servers.iter().map(|s| s.active).sum();
    assert_eq!((service.stats.connections, counted), (all.len() as u64, all.len() as u64), "{what}");
    // Not one after the other, or the same flows were never met; and nearly no packet was given up.
    assert!(all.len() < 2 * FLOWS as usize, "{what}: the CPUs had no flow in common");
    let lost = verdict("dropped_table_busy") + verdict("dropped_server_gone");
    assert!(lost < u64::from(FLOWS) / 50, "{what}: {lost} packets given up");
    assert_eq!(service.stats.in_packets + lost, 2 * u64::from(FLOWS), "{what}");
    let mut sweeper = d.engine.sweeper();
    assert_eq!(sweeper.audit(|| true), 0, "{what}: counts differ from the table");
    Ok(())
}

#[test]
fn nat_v4() -> Result<()> {
    race(false, Forwarding::Nat)
}

#[test]
fn nat_v6() -> Result<()> {
    race(true, Forwarding::Nat)
}

#[test]
fn dr_v4() -> Result<()> {
    race(false, Forwarding::Dr)
}

#[test]
fn tun_v6() -> Result<()> {
    race(true, Forwarding::Tun)
}
