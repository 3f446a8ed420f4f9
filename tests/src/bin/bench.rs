//! Cost of a packet, by BPF_PROG_TEST_RUN: a table, and JSON. Run it as `cargo xtask bench`.

#[path = "bench/memory.rs"]
mod memory;
#[path = "bench/sweep.rs"]
mod sweep;

use anyhow::{Context, Result, bail};
use aya::maps::{Array, HashMap};
use clap::Parser;
use lb_common::bench::Bench;
use lb_userspace::engine::Sizes;
use lb_userspace::model::{Desired, Edit, Forwarding, Protocol, SchedulerKind, ServerId, ServerSpec, ServiceId, ServiceSpec};
use lvx_tests::director::{DIRECTOR_MAC, Director, INGRESS, action, possible_cpus};
use lvx_tests::packet::{Frame, flag};
use std::net::{IpAddr, SocketAddr};

/// Per-packet cost of the XDP program, as ratios to a program that parses and does one hash lookup.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Args {
    /// `sweep`: the sweeper's cost an entry, at 1,000,000 and 10,000,000 entries, instead of packets'.
    #[arg(value_parser = ["sweep"])]
    what: Option<String>,
    /// Entries for `sweep`, instead.
    #[arg(long, value_delimiter = ',')]
    entries: Vec<u32>,
    /// Rounds; in each, the program, its wrapper and the floor have one run, and what a tenth of the runs are below is the figure.
    #[arg(long, default_value_t = 25)]
    runs: usize,
    /// Packets in a run.
    #[arg(long, default_value_t = 300_000)]
    packets: u32,
    /// Established connections that spread packets belong to.
    #[arg(long, default_value_t = 1_000_000)]
    connections: u32,
    /// Write the figures as JSON to this file.
    #[arg(long)]
    json: Option<std::path::PathBuf>,
    /// Only cases whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Spread {
    Hot,
    Random,
    /// In a table that stays in the caches.
    New,
    /// In a large one.
    NewInLarge,
}

/// Connections in the table that new ones are measured hot in.
const HOT_TABLE: u32 = 8192;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Forward(Forwarding),
    Reply,
    Foreign,
}

struct Bed {
    d: Director,
    desired: Desired,
    v6: bool,
    packets: u32,
    runs: usize,
}

struct Addresses {
    client: SocketAddr,
    vip: SocketAddr,
    server: SocketAddr,
    foreign: SocketAddr,
    source: IpAddr,
}

fn addresses(v6: bool) -> Addresses {
    let (client, vip, server, foreign, source) = if v6 {
        ("[fd00:a::40:0:0]:4", "[fd00:b::1]:80", "[fd00:c::1]:8080", "[fd00:b::2]:443", "fd00:c::fe")
    } else {
        ("10.0.0.0:4", "192.0.2.1:80", "172.16.0.1:8080", "192.0.2.2:443", "172.16.0.254")
    };
    let a = |s: &str| s.parse().expect("an address");
    Addresses {
        client: a(client),
        vip: a(vip),
        server: a(server),
        foreign: a(foreign),
        source: source.parse().expect("an address"),
    }
}

const PROGRAMS4: [&str; 5] = ["bench_empty", "bench_wrapper4", "bench_floor4", "bench_lvx4", "bench_grow4"];
const PROGRAMS6: [&str; 5] = ["bench_empty", "bench_wrapper6", "bench_floor6", "bench_lvx6", "bench_grow6"];

impl Bed {
    /// A director with one service on one server, and `connections` established.
    fn new(v6: bool, method: Forwarding, connections: u32, args: &Args) -> Result<Self> {
        Self::with_floor(v6, method, connections, connections + 1, args)
    }

    /// The same, with room for other than so many keys in the floor's hash.
    fn with_floor(v6: bool, method: Forwarding, connections: u32, keys: u32, args: &Args) -> Result<Self> {
        let sizes = Sizes {
            connections: connections + connections / 4,
            services: 16_384,
            servers: 64,
            picks: 65_536,
            cpus: possible_cpus()?,
        };
        let programs = if v6 { PROGRAMS6 } else { PROGRAMS4 };
        let floor = [("LVX_FLOOR4", keys), ("LVX_FLOOR6", keys)];
        let mut d = Director::load(lb_userspace::object::BENCH, &sizes, &programs, &floor)?;
        d.link(INGRESS, DIRECTOR_MAC, 1500);
        let a = addresses(v6);
        let id = ServiceId { protocol: Protocol::Tcp, address: a.vip.ip(), port: a.vip.port() };
        let service = ServiceSpec {
            id,
            scheduler: SchedulerKind::Rr,
            sched_flags: Default::default(),
            persistence: None,
            one_packet: false,
        };
        let server = ServerSpec {
            id: ServerId { address: a.server.ip(), port: a.server.port() },
            forwarding: method,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
        };
        let mut desired = Desired::default();
        desired
            .apply(&[Edit::AddService { service }, Edit::AddServer { service: id, server }])
            .map_err(|e| anyhow::anyhow!("{e}"))?;
        d.configure(&desired)?;
        d.reach(a.server.ip(), [2, 0, 0, 0, 1, 1], a.source);
        Ok(Self { d, desired, v6, packets: args.packets, runs: args.runs })
    }

    fn program(&self, n: usize) -> &'static str {
        if self.v6 { PROGRAMS6[n] } else { PROGRAMS4[n] }
    }

    fn set(&mut self, frame: &[u8], mode: u32, clients: u32, reverse: bool, count: u64) -> Result<()> {
        let mut template = [0u8; 80];
        let n = frame.len().min(80);
        template[..n].copy_from_slice(&frame[..n]);
        let mut words = [0; 10];
        for (w, b) in words.iter_mut().zip(template.chunks_exact(8)) {
            *w = u64::from_ne_bytes(b.try_into().expect("eight bytes"));
        }
        let bench = Bench { len: frame.len() as u32, mode, clients, reverse: reverse.into(), count, template: words };
        let mut map: Array<_, Bench> = Array::try_from(self.d.ebpf.map_mut("LVX_BENCH").context("no LVX_BENCH")?)?;
        map.set(0, bench, 0)?;
        Ok(())
    }

    fn frame(&self, case: Case, flags: u8) -> Vec<u8> {
        let a = addresses(self.v6);
        let (src, dst) = match case {
            Case::Forward(_) => (a.client, a.vip),
            Case::Reply => (a.server, a.client),
            Case::Foreign => (a.client, a.foreign),
        };
        Frame::tcp(src, dst, flags).payload(b"benchmark").bytes()
    }

    /// Adds services on other addresses, each with the same server.
    fn more_services(&mut self, n: u32) -> Result<()> {
        let mut edits = Vec::new();
        for i in 0..n {
            let [_, b, c, d] = (i + 1).to_be_bytes();
            let id = ServiceId { protocol: Protocol::Tcp, address: [198, 18 + b, c, d].into(), port: 80 };
            let service = ServiceSpec {
                id,
                scheduler: SchedulerKind::Rr,
                sched_flags: Default::default(),
                persistence: None,
                one_packet: false,
            };
            edits.push(Edit::AddService { service });
        }
        self.desired.apply(&edits).map_err(|e| anyhow::anyhow!("{e}"))?;
        self.d.configure(&self.desired)
    }

    /// Makes `connections` established connections.
    fn establish(&mut self, connections: u32) -> Result<()> {
        let n = connections + 1;
        for flags in [flag::SYN, flag::ACK] {
            let frame = self.frame(Case::Forward(Forwarding::Dr), flags);
            self.set(&frame, 2, n, false, u64::MAX)?;
            let (_, verdict) = self.d.time(self.program(3), &frame, n)?;
            if verdict != action::TX {
                let verdicts: Vec<_> = self.d.engine.verdicts().into_iter().filter(|v| v.packets != 0).collect();
                bail!("establishing connections: action {verdict}, verdicts {verdicts:?}");
            }
        }
        let live: u64 = self.d.engine.tables().iter().map(|t| t.used).sum();
        if live != u64::from(n) {
            bail!("{live} connections instead of {n}");
        }
        Ok(())
    }

    /// Fills the floor's hash with the clients that spread packets come from.
    fn fill_floor(&mut self, connections: u32) -> Result<()> {
        let frame = self.frame(Case::Forward(Forwarding::Dr), flag::ACK);
        let word = |at: usize| u32::from_ne_bytes(frame[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_ne_bytes(frame[at..at + 8].try_into().expect("eight bytes"));
        for client in 0..=connections {
            let port = |ports: u32| (ports & 0xffff_0000) | u32::from(client as u16 | 0x400);
            if self.v6 {
                let mut map: HashMap<_, [u64; 5], u64> = HashMap::try_from(self.d.ebpf.map_mut("LVX_FLOOR6").context("no map")?)?;
                let last = long(30) ^ u64::from(client.to_be()) << 32;
                let ports = port(word(54));
                map.insert([long(22), last, long(38), long(46), u64::from(ports) << 32 | 6], 1, 0)?;
            } else {
                let mut map: HashMap<_, [u64; 2], u64> = HashMap::try_from(self.d.ebpf.map_mut("LVX_FLOOR4").context("no map")?)?;
                let src = word(26) ^ client.to_be();
                map.insert([u64::from(src) << 32 | u64::from(word(30)), u64::from(port(word(34))) << 32 | 6], 1, 0)?;
            }
        }
        Ok(())
    }

    /// One run of a program, ns a packet.
    fn sample(&mut self, program: usize, frame: &[u8], expect: u32) -> Result<f64> {
        let packets = self.packets;
        let (t, got) = self.d.time(self.program(program), frame, packets)?;
        if got != expect {
            bail!("{}: action {got} instead of {expect}", self.program(program));
        }
        Ok(t.as_nanos() as f64)
    }

    /// Cost of a program, ns a packet.
    fn measure(&mut self, program: usize, frame: &[u8], expect: u32) -> Result<f64> {
        let all: Result<Vec<f64>> = (0..self.runs).map(|_| self.sample(program, frame, expect)).collect();
        Ok(least_disturbed(all?))
    }
}

/// What a tenth of the runs are below. Whatever else a machine does makes a run longer, never shorter: a virtual machine that is given less
/// of its host for a second would make a median of anything.
fn least_disturbed(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 10]
}

struct Row {
    name: String,
    total: f64,
    cost: f64,
    floor: f64,
    target: Option<f64>,
}

fn name_of(case: Case, spread: Spread) -> String {
    let what = match case {
        Case::Forward(Forwarding::Nat) => "NAT forward",
        Case::Forward(Forwarding::Dr) => "DR",
        Case::Forward(Forwarding::Tun) => "TUN",
        Case::Reply => "NAT reply",
        Case::Foreign => "no service",
    };
    match spread {
        Spread::Hot => format!("{what}, hot"),
        Spread::Random => format!("{what}, spread"),
        Spread::New => format!("{what}, new, hot"),
        Spread::NewInLarge => format!("{what}, new, spread"),
    }
}

fn target(v6: bool, case: Case, spread: Spread) -> Option<f64> {
    match (case, spread) {
        (_, Spread::New) => Some(10.0),
        (_, Spread::NewInLarge) => None,
        (Case::Foreign, _) => Some(1.2),
        (_, Spread::Hot) => Some(if v6 { 2.0 } else { 1.8 }),
        (_, Spread::Random) => Some(1.6),
    }
}

/// All cases of one family and method.
fn cases(v6: bool, method: Forwarding, args: &Args, rows: &mut Vec<Row>) -> Result<()> {
    let family = if v6 { "IPv6" } else { "IPv4" };
    let wanted = |name: &str| args.only.as_ref().is_none_or(|o| name.contains(o.as_str()));
    let mut list = vec![(Case::Forward(method), Spread::Hot), (Case::Forward(method), Spread::Random)];
    if method == Forwarding::Nat {
        list.extend([(Case::Reply, Spread::Hot), (Case::Reply, Spread::Random)]);
        list.extend([(Case::Foreign, Spread::Hot), (Case::Foreign, Spread::Random)]);
    }
    list.push((Case::Forward(method), Spread::NewInLarge));
    list.retain(|&(c, s)| wanted(&format!("{family} {}", name_of(c, s))));
    if !list.is_empty() {
        let mut bed = Bed::new(v6, method, args.connections, args)?;
        bed.establish(args.connections)?;
        bed.fill_floor(args.connections)?;
        measure(&mut bed, &list, method, args.connections, rows)?;
    }
    if wanted(&format!("{family} {}", name_of(Case::Forward(method), Spread::New))) {
        let mut bed = Bed::new(v6, method, HOT_TABLE, args)?;
        bed.packets = HOT_TABLE;
        bed.runs = 4 * args.runs;
        bed.establish(HOT_TABLE)?;
        bed.fill_floor(HOT_TABLE)?;
        measure(&mut bed, &[(Case::Forward(method), Spread::New)], method, HOT_TABLE, rows)?;
    }
    Ok(())
}

/// Measures the cases of a list on a bed.
fn measure(bed: &mut Bed, list: &[(Case, Spread)], method: Forwarding, connections: u32, rows: &mut Vec<Row>) -> Result<()> {
    let family = if bed.v6 { "IPv6" } else { "IPv4" };
    let v6 = bed.v6;
    for &(case, spread) in list {
        let name = format!("{family} {}", name_of(case, spread));
        let reverse = case == Case::Reply;
        let n = connections;
        let fresh = matches!(spread, Spread::New | Spread::NewInLarge);
        let flags = if fresh { flag::SYN } else { flag::ACK };
        let frame = bed.frame(case, flags);
        let mode = match spread {
            Spread::Hot => 0,
            Spread::Random => 1,
            Spread::New | Spread::NewInLarge => 2,
        };
        // The floor is a hit, hot and spread alike, in the client's direction.
        let forward = bed.frame(Case::Forward(method), flag::ACK);
        let floor_mode = if mode == 1 { 1 } else { 0 };
        let expect = if case == Case::Foreign { action::PASS } else { action::TX };
        let tunnels = method == Forwarding::Tun && case == Case::Forward(method);
        let (mut epoch, mut runs) = (0, <[Vec<f64>; 6]>::default());
        for _ in 0..bed.runs {
            let mut note = |which: usize, ns: f64| runs[which].push(ns);
            bed.set(&forward, floor_mode, n, false, 0)?;
            note(0, bed.sample(0, &forward, action::PASS)?);
            note(1, bed.sample(1, &forward, action::PASS)?);
            note(2, bed.sample(2, &forward, action::PASS)?);
            bed.set(&frame, mode, n, reverse, 0)?;
            note(3, bed.sample(1, &frame, action::PASS)?);
            // Under TUN the wrapper takes the last packet's outer header off, too: half of what two moves of the head cost.
            note(5, bed.sample(if tunnels { 4 } else { 1 }, &frame, action::PASS)?);
            if fresh {
                // Everything expires and is swept: each run starts with an empty table.
                epoch += 1;
                bed.d.engine.set_clock_offset(epoch * 500_000);
                let mut sweeper = bed.d.engine.sweeper();
                while !sweeper.step(u32::MAX).round {}
                bed.set(&frame, mode, n, reverse, 0)?;
            }
            note(4, bed.sample(3, &frame, expect)?);
        }
        let [empty, floor_wrapper, floor, wrapper, total, grown] = runs.map(least_disturbed);
        let wrapper = if tunnels { wrapper + (grown - wrapper) / 2.0 } else { wrapper };
        let floor = floor - (floor_wrapper - empty);
        let row = Row { name, total, cost: total - (wrapper - empty), floor, target: target(v6, case, spread) };
        print_row(&row, wrapper - empty);
        rows.push(row);
    }
    Ok(())
}

/// Cost of a packet with few services and with many.
fn services(args: &Args, rows: &mut Vec<Row>) -> Result<()> {
    for (case, flags) in [(Case::Forward(Forwarding::Dr), flag::ACK), (Case::Foreign, flag::ACK)] {
        for count in [1u32, 100, 10_000] {
            let mut bed = Bed::new(false, Forwarding::Dr, HOT_TABLE, args)?;
            bed.more_services(count - 1)?;
            bed.establish(HOT_TABLE)?;
            let frame = bed.frame(case, flags);
            bed.set(&frame, 0, HOT_TABLE, false, 0)?;
            let empty = bed.measure(0, &frame, action::PASS)?;
            let wrapper = bed.measure(1, &frame, action::PASS)?;
            let expect = if case == Case::Foreign { action::PASS } else { action::TX };
            let total = bed.measure(3, &frame, expect)?;
            let cost = total - (wrapper - empty);
            let what = if case == Case::Foreign { "no service" } else { "DR" };
            let floor = rows.last().filter(|_| count > 1).map_or(cost, |r| if r.floor > 0.0 { r.floor } else { cost });
            let row = Row { name: format!("IPv4 {what}, hot, {count} services"), total, cost, floor, target: None };
            print_row(&row, wrapper - empty);
            rows.push(row);
        }
    }
    Ok(())
}

fn print_row(r: &Row, wrapper: f64) {
    let ratio = r.cost / r.floor;
    let target = r.target.map_or(String::new(), |t| format!("{t:4.1}{}", if ratio <= t { "" } else { "  missed" }));
    println!("{:<32}{:>8.0}{:>9.0}{:>8.0}{:>8.0}{:>8.2}  {target}", r.name, r.total, wrapper, r.cost, r.floor, ratio);
}

fn main() -> Result<()> {
    let args = Args::parse();
    if args.what.is_some() {
        let sizes = if args.entries.is_empty() { &[1_000_000, 10_000_000] } else { &args.entries[..] };
        return write_json(&args, &sweep::run(&args, sizes)?);
    }
    println!("{} rounds of {} packets, ns; {} connections", args.runs, args.packets, args.connections);
    println!("{:<32}{:>8}{:>9}{:>8}{:>8}{:>8}  target", "case", "total", "wrapper", "cost", "floor", "ratio");
    let mut rows = Vec::new();
    for v6 in [false, true] {
        for method in [Forwarding::Nat, Forwarding::Dr, Forwarding::Tun] {
            cases(v6, method, &args, &mut rows)?;
        }
    }
    let mut sizes = Vec::new();
    if args.only.is_none() {
        println!("\nratio here: to the same with one service");
        services(&args, &mut rows)?;
        println!();
        sizes = memory::memory(&args)?;
    }
    if args.json.is_some() {
        let mut all: Vec<_> = rows
            .iter()
            .map(|r| serde_json::json!({"case": r.name, "ns": r.cost, "floor_ns": r.floor, "ratio": r.cost / r.floor, "target": r.target}))
            .collect();
        all.extend(
            sizes
                .iter()
                .map(|(family, bytes)| serde_json::json!({"case": format!("{family} map memory"), "bytes_a_connection": bytes})),
        );
        write_json(&args, &all)?;
    }
    Ok(())
}

/// Writes figures where they are wanted.
fn write_json(args: &Args, all: &[serde_json::Value]) -> Result<()> {
    let Some(path) = &args.json else { return Ok(()) };
    std::fs::write(path, serde_json::to_string_pretty(all)?).with_context(|| format!("writing {}", path.display()))
}
