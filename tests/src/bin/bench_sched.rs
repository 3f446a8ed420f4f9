//! Schedulers under a clock: plans, `mh` tables, reaction to counts, many new flows, idle services, and `lc` against an oracle that sees
//! every event. Run it as `cargo xtask bench sched`.
//!
//! The engine and its core thread are the daemon's own; packets go through the program by test runs on a veth pair in a namespace of its
//! own. Everything is measured while the machine's two CPUs also make the traffic: figures are upper bounds.

#[path = "bench_sched/pure.rs"]
mod pure;
#[path = "bench_sched/speed.rs"]
mod speed;

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::maps::Array;
use aya::programs::xdp::XdpMode;
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp};
use clap::Parser;
use lb_common::bench::{Bench, event};
use lb_common::dest::DestConns;
use lb_common::service::Service;
use lb_userspace::daemon::core::{Core, Handle};
use lb_userspace::daemon::load::signals;
use lb_userspace::engine::Sizes;
use lb_userspace::model::{
    Desired, Edit, Forwarding, Protocol, SchedFlags, SchedulerKind, ServerId, ServerSpec, ServiceId, ServiceSpec,
};
use lb_userspace::net::{LinkInfo, NextHop, Reach};
use lb_userspace::sched::plan::Planner;
use lb_userspace::sched::{Flow, Mh, Pool, Scheduler, Server, TableSize, build};
use lvx_tests::director::{DIRECTOR_MAC, Director, possible_cpus};
use lvx_tests::lab::{Ns, PassAll, until};
use lvx_tests::packet::{Frame, flag};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Figures of planner and schedulers.
#[derive(Parser)]
#[command(name = "cargo xtask bench sched")]
struct Args {
    /// Only parts whose name contains this: plans, mh, reaction, flows, idle, lc.
    part: Option<String>,
    /// Seconds of each part that runs for some time.
    #[arg(long, default_value_t = 6.0)]
    seconds: f64,
    /// New flows a second of the part lc.
    #[arg(long, default_value_t = 50_000.0)]
    rate: f64,
    /// Send what the program forwards, by live frames.
    #[arg(long)]
    live: bool,
    /// Servers of the part lc.
    #[arg(long, default_value_t = 100)]
    servers: u32,
    /// The scheduler of the part lc.
    #[arg(long, default_value = "lc", value_parser = |s: &str| s.parse::<SchedulerKind>().map_err(|()| "no such scheduler"))]
    scheduler: SchedulerKind,
}

/// See [`Args::live`].
static LIVE: AtomicBool = AtomicBool::new(false);

const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PROGRAM: &str = "bench_lvx4";

fn address(n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0xac10_0000 | (n + 1)))
}

fn server(n: u32) -> ServerSpec {
    ServerSpec {
        id: ServerId { address: address(n), port: 80 },
        forwarding: Forwarding::Dr,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
    }
}

fn service(address: IpAddr, scheduler: SchedulerKind) -> ServiceSpec {
    let id = ServiceId { protocol: Protocol::Tcp, address, port: 80 };
    ServiceSpec { id, scheduler, sched_flags: SchedFlags::default(), persistence: None, one_packet: false }
}

/// Median and worst.
fn middle(mut all: Vec<Duration>) -> (Duration, Duration) {
    all.sort();
    (all[all.len() / 2], all[all.len() - 1])
}

fn verdict(good: bool) -> &'static str {
    if good { "" } else { "  MISSED" }
}

/// The daemon's core over the packet path with its wrapper, and a way in for frames.
struct Rig {
    ebpf: Ebpf,
    core: Handle,
    thread: Option<std::thread::JoinHandle<Core>>,
    runtime: tokio::runtime::Runtime,
    ifindex: u32,
    _drop: PassAll,
}

impl Rig {
    /// Within the namespace of the calling thread, where `eth0` is. `events` are fed later.
    ///
    /// The core's thread and the one that feeds are on two CPUs, as a daemon and a busy network card are. On one they would take turns at
    /// every frame, as a test run lets a woken thread go first; and where the kernel puts them differs from run to run.
    fn new(peer: &Ns, desired: &Desired, events: &[u64]) -> Result<Self> {
        stay_on(1);
        let sizes = Sizes { connections: 1_000_000, services: 16_384, servers: 32_768, picks: 1 << 22, cpus: possible_cpus()? };
        let more = [("LVX_EVENTS", events.len().max(1) as u32)];
        let Director { mut ebpf, mut engine } = Director::load(lb_userspace::object::BENCH, &sizes, &[PROGRAM], &more)?;
        let drop = PassAll::nothing(peer, "eth0")?;
        let ifindex = lb_userspace::daemon::attach::index_of("eth0")?;
        engine.set_link(&LinkInfo { index: ifindex, name: "eth0".into(), mac: DIRECTOR_MAC, mtu: 1500, up: true, present: true });
        engine.reconcile(desired).map_err(|e| anyhow::anyhow!("{e}"))?;
        for target in engine.targets() {
            let hop =
                NextHop { mac: [2, 0, 0, 0, 1, 1], ifindex, source: IpAddr::V4(Ipv4Addr::new(172, 16, 255, 254)), mtu: 1500 };
            engine.set_reach(target, Reach::Resolved(hop));
        }
        {
            let mut map: Array<_, u64> = Array::try_from(ebpf.map_mut("LVX_EVENTS").context("no LVX_EVENTS")?)?;
            for (at, e) in (0..).zip(events) {
                map.set(at, e, 0)?;
            }
        }
        // A program that is on no interface costs each test run the time in which the kernel rewrites its dispatcher: 20 ms and more.
        let program: &mut Xdp = ebpf.program_mut(PROGRAM).context("no program")?.try_into()?;
        program.attach("eth0", XdpMode::Driver)?;
        let mut core = Core::new(engine, Box::new(|_| {}));
        core.set_signals(signals(&mut ebpf)?);
        let (more, network) = tokio::sync::mpsc::unbounded_channel();
        std::mem::forget(more);
        let (core, thread) = core.spawn(network)?;
        stay_on(0);
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let rig = Self { ebpf, core, thread: Some(thread), runtime, ifindex, _drop: drop };
        rig.template()?;
        Ok(rig)
    }

    fn frame() -> Vec<u8> {
        let client = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 0), 4));
        Frame::tcp(client, SocketAddr::from((VIP, 80)), flag::SYN).payload(b"benchmark").bytes()
    }

    fn template(&self) -> Result<()> {
        let frame = Self::frame();
        let mut words = [0u64; 10];
        for (w, b) in words.iter_mut().zip(frame.chunks_exact(8)) {
            *w = u64::from_ne_bytes(b.try_into().expect("eight bytes"));
        }
        let bench = Bench { len: frame.len() as u32, mode: 3, clients: 0, reverse: 0, count: 0, template: words };
        let map = self.ebpf.map("LVX_BENCH").context("no LVX_BENCH")?;
        let aya::maps::Map::Array(data) = map else { anyhow::bail!("LVX_BENCH is no array") };
        let id = data.info()?.id();
        let mut map: Array<_, Bench> = Array::try_from(aya::maps::Map::Array(aya::maps::MapData::from_id(id)?))?;
        map.set(0, bench, 0)?;
        Ok(())
    }

    /// The next `n` events.
    fn feed(&self, n: u32) -> Result<()> {
        if n == 0 {
            return Ok(());
        }
        let program: &Xdp = self.ebpf.program(PROGRAM).context("no program")?.try_into()?;
        let frame = Self::frame();
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let words = [0, frame.len() as u32, 0, self.ifindex, 0, 0];
        let context: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        program.test_run(TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            repeat: n,
            attrs: if LIVE.load(Ordering::Relaxed) {
                TestRunAttrs::new().xdp_live_frames(n.min(64))
            } else {
                TestRunAttrs::new()
            },
            ..Default::default()
        })?;
        Ok(())
    }

    fn active(&self, servers: u32) -> Result<Vec<u64>> {
        let map: Array<_, DestConns> = Array::try_from(self.ebpf.map("LVX_DEST_CONNS").context("no LVX_DEST_CONNS")?)?;
        (0..servers).map(|n| Ok(map.get(&n, 0)?.active)).collect()
    }

    fn element(&self) -> Result<Service> {
        let map: Array<_, Service> = Array::try_from(self.ebpf.map("LVX_SERVICES").context("no LVX_SERVICES")?)?;
        Ok(map.get(&0, 0)?)
    }

    fn edit(&self, edits: Vec<Edit>) -> Result<()> {
        let result = self.runtime.block_on(self.core.with(move |core| core.edit(&edits).map_err(|e| e.to_string())))?;
        result.map_err(anyhow::Error::msg)
    }

    /// Time on a CPU of the core's thread so far. A thread that was just started takes a moment to have its name.
    fn core_time() -> Result<Duration> {
        until(Duration::from_secs(2), || {
            for task in std::fs::read_dir("/proc/self/task")? {
                let dir = task?.path();
                if std::fs::read_to_string(dir.join("comm")).is_ok_and(|name| name.trim() == "core") {
                    let stat = std::fs::read_to_string(dir.join("schedstat"))?;
                    let ns: u64 = stat.split_whitespace().next().context("an empty schedstat")?.parse()?;
                    return Ok(Duration::from_nanos(ns));
                }
            }
            anyhow::bail!("no core thread")
        })
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(self.core.with(Core::end));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn desired(kind: SchedulerKind, servers: u32) -> Result<Desired> {
    let spec = service(IpAddr::V4(VIP), kind);
    let id = spec.id;
    let mut edits = vec![Edit::AddService { service: spec }];
    edits.extend((0..servers).map(|n| Edit::AddServer { service: id, server: server(n) }));
    let mut desired = Desired::default();
    desired.apply(&edits).map_err(|e| anyhow::anyhow!("{e}"))?;
    Ok(desired)
}

fn on_a_wire<T: Send>(f: impl FnOnce(&Ns) -> Result<T> + Send) -> Result<T> {
    let (here, peer) = (Ns::new()?, Ns::new()?);
    // What a host says of itself in IPv6 would be taken for frames of the benchmark.
    for ns in [&here, &peer] {
        ns.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")?;
    }
    here.cable("eth0", &peer, "eth0", 1500)?;
    here.run(|| f(&peer))
}

/// Keeps this thread, and those that it starts from here on, on one CPU, if there are that many.
fn stay_on(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

const EPOCH: u64 = 0x3fff_ffff;

fn epoch(element: &Service) -> u64 {
    element.cursor >> 32 & EPOCH
}

/// From a connection's packet to the plan that follows from it, when nothing else goes on.
fn reaction(servers: u32) -> Result<()> {
    let events: Vec<u64> = (0..400).map(|c| event(c, flag::SYN)).collect();
    let times = on_a_wire(|peer| {
        let rig = Rig::new(peer, &desired(SchedulerKind::Lc, servers)?, &events)?;
        let mut times = Vec::new();
        for _ in 0..events.len() {
            std::thread::sleep(Duration::from_millis(3));
            let before = epoch(&rig.element()?);
            let start = Instant::now();
            rig.feed(1)?;
            while epoch(&rig.element()?) == before {
                ensure!(start.elapsed() < Duration::from_secs(3), "no new plan");
                std::thread::yield_now();
            }
            times.push(start.elapsed());
        }
        Ok(times)
    })?;
    let mut sorted = times.clone();
    sorted.sort();
    let (median, worst) = middle(times);
    println!(
        "  {servers:>4} servers: median {} us, 99 % {} us, worst {} us{}",
        median.as_micros(),
        sorted[sorted.len() * 99 / 100].as_micros(),
        worst.as_micros(),
        verdict(median < Duration::from_millis(1))
    );
    Ok(())
}

/// New flows at a rate: are plans made fast enough?
fn flows(rate: f64, servers: u32, seconds: f64) -> Result<()> {
    let count = (rate * seconds).min(900_000.0) as u32;
    let events: Vec<u64> = (0..count).map(|c| event(c, flag::SYN)).collect();
    let text = on_a_wire(|peer| {
        let rig = Rig::new(peer, &desired(SchedulerKind::Lc, servers)?, &events)?;
        let (start, cpu, first) = (Instant::now(), Rig::core_time()?, epoch(&rig.element()?));
        let (mut fed, mut most) = (0u32, 0);
        let mut beyond = 0u32;
        while fed < count {
            let due = ((start.elapsed().as_secs_f64() * rate) as u32).min(count);
            rig.feed((due - fed).min(256))?;
            fed += (due - fed).min(256);
            let element = rig.element()?;
            let taken = Service::taken(element.cursor);
            most = most.max(taken);
            beyond += u32::from(taken > element.again[Service::plan_of(element.cursor)]);
        }
        let took = start.elapsed().as_secs_f64();
        let plans = epoch(&rig.element()?).wrapping_sub(first) & EPOCH;
        let cpu = (Rig::core_time()? - cpu).as_secs_f64();
        std::thread::sleep(Duration::from_millis(20));
        let active = rig.active(servers)?;
        let (least, greatest) = (active.iter().min().copied().unwrap_or(0), active.iter().max().copied().unwrap_or(0));
        let total: u64 = active.iter().sum();
        Ok(format!(
            "  {servers:>4} servers: {:.0} flows a second reached; {:.0} plans a second; most picks of one plan {most}; \
             cycle behind the plan reached {beyond} times; core thread {:.0} % of a CPU; {total} connections, {least} to {greatest} a server{}",
            f64::from(count) / took,
            plans as f64 / took,
            cpu * 100.0 / took,
            verdict(total == u64::from(count) && greatest - least <= (total / u64::from(servers) / 50).max(2)),
        ))
    })?;
    println!("{text}");
    Ok(())
}

/// Ten thousand services and no packet.
fn idle(seconds: f64) -> Result<()> {
    let mut edits = Vec::new();
    for n in 0..10_000u32 {
        let spec = service(IpAddr::V4(Ipv4Addr::from_bits(0xc612_0000 + n)), SchedulerKind::Wlc);
        let id = spec.id;
        edits.push(Edit::AddService { service: spec });
        edits.extend((0..3).map(|s| Edit::AddServer { service: id, server: server(s) }));
    }
    let (took, used) = on_a_wire(|peer| {
        let rig = Rig::new(peer, &Desired::default(), &[])?;
        let start = Instant::now();
        rig.edit(edits)?;
        println!("  10,000 services of 3 servers made in {:.2} s", start.elapsed().as_secs_f64());
        std::thread::sleep(Duration::from_secs(3));
        let (start, cpu) = (Instant::now(), Rig::core_time()?);
        std::thread::sleep(Duration::from_secs_f64(seconds));
        Ok((start.elapsed().as_secs_f64(), (Rig::core_time()? - cpu).as_secs_f64()))
    })?;
    println!(
        "  core thread: {:.1} ms of CPU in {took:.1} s: {:.2} % of a CPU{}",
        used * 1e3,
        used * 100.0 / took,
        verdict(used / took < 0.02)
    );
    Ok(())
}

fn main() -> Result<()> {
    let args = Args::parse();
    LIVE.store(args.live, Ordering::Relaxed);
    let wanted = |name: &str| args.part.as_ref().is_none_or(|p| name.contains(p.as_str()));
    if wanted("plans") {
        pure::plans();
    }
    if wanted("mh") {
        pure::mh();
    }
    if wanted("reaction") {
        println!("lc: from a new connection's frame to the next plan, one at a time (target: below 1 ms)");
        for servers in [3, 100, 1000] {
            reaction(servers)?;
        }
    }
    if wanted("flows") {
        println!("lc: 200,000 new flows a second of one service");
        for servers in [3, 100, 1000] {
            flows(200_000.0, servers, args.seconds)?;
        }
    }
    if wanted("idle") {
        println!("ten thousand idle services");
        idle(args.seconds)?;
    }
    if wanted("lc") {
        println!("{} at speed, 90 % short connections (50 ms), 10 % long (2.5 s)", args.scheduler);
        speed::at_speed(&args)?;
    }
    Ok(())
}
