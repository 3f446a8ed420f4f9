//! Large connection tables: listed, swept and audited while the daemon does everything else; and a daemon killed in the middle of it.

use anyhow::{Context, Result, ensure};
use lb_common::dest::DestConns;
use lb_common::tcp;
use lb_userspace::api::Edits;
use lb_userspace::client::Client;
use lb_userspace::model::{Edit, ServiceId};
use lvx_tests::lab::{Generator, Lab, Layout, Lvxd, Method, Ns, PassAll, binary, possible, until};
use lvx_tests::packet::flag;
use lvx_tests::table::{Filling, Tables};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A lab whose daemon has a configuration of its own.
struct Bed {
    lvxd: Lvxd,
    _lab: Lab,
    _config: tempfile::TempDir,
}

const SERVICES: [&str; 2] = ["10.9.0.1:80", "[fd09::1]:80"];

impl Bed {
    /// With tables for so many connections, and a service of one server in each family; more configuration follows.
    fn new(connections: u32, more: &str) -> Result<Self> {
        let lab = Lab::new(Layout::TwoArms, Method::Nat, 1)?;
        let config = tempfile::tempdir()?;
        let path = config.path().join("lvx.toml");
        std::fs::write(&path, format!("[sizes]\nconnections = {connections}\n{more}"))?;
        let path = path.to_str().context("a path that is no text")?;
        let lvxd = Lvxd::start(&lab.director, &lab.interfaces, &["--config", path])?;
        for (service, server) in SERVICES.into_iter().zip(["10.2.0.11:8080", "[fd02::11]:8080"]) {
            lvxd.adm(&format!("-A -t {service} -s rr"))?;
            lvxd.adm(&format!("-a -t {service} -r {server} -m"))?;
        }
        Ok(Self { lvxd, _lab: lab, _config: config })
    }

    /// Fills both tables with so many connections each; how many there are in all.
    fn fill(&self, tables: &Tables, n: u32, seconds: u32) -> Result<u64> {
        let mut made = 0;
        for (v6, dest) in [false, true].into_iter().zip(tables.servers()) {
            made += u64::from(tables.fill(v6, n, Filling { state: tcp::ESTABLISHED, seconds, dest })?);
        }
        Ok(made)
    }
}

/// A number of `/proc/PID/status`, in kB.
fn memory(pid: u32, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).with_context(|| format!("no {name}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Latencies of edits, one after the other, while `during` runs; and its result.
fn edit_meanwhile<T>(lvxd: &Lvxd, during: impl FnOnce() -> Result<T>) -> Result<(T, Duration, usize)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        let edits = s.spawn(|| -> Result<(Duration, usize)> {
            let client = Client::new(&lvxd.socket)?;
            let service: SocketAddr = "10.9.0.7:7".parse()?;
            let id = ServiceId { protocol: lb_userspace::model::Protocol::Tcp, address: service.ip(), port: service.port() };
            let spec = lb_userspace::model::ServiceSpec {
                id,
                scheduler: lb_userspace::model::SchedulerKind::Rr,
                sched_flags: Default::default(),
                persistence: None,
                one_packet: false,
            };
            let (mut longest, mut n) = (Duration::ZERO, 0);
            while !stop.load(Ordering::Relaxed) {
                for edit in [Edit::AddService { service: spec.clone() }, Edit::DeleteService { service: id }] {
                    let began = Instant::now();
                    client.post("/v1/edits", &Edits { edits: vec![edit] })?;
                    longest = longest.max(began.elapsed());
                    n += 1;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok((longest, n))
        });
        let result = during();
        stop.store(true, Ordering::Relaxed);
        let (longest, n) = edits.join().map_err(|_| anyhow::anyhow!("the editor panicked"))??;
        Ok((result?, longest, n))
    })
}

/// `lvxadm -L -n -c`: its lines, how long it took, and the most memory it had, in kB.
fn list(lvxd: &Lvxd, more: &str) -> Result<(u64, Duration, u64)> {
    let mut c = Command::new(binary("lvxadm")?);
    c.env("LVX_SOCKET", &lvxd.socket).args(["-L", "-n", "-c"]).args(more.split_whitespace()).stdout(Stdio::piped());
    let began = Instant::now();
    let mut child = c.spawn()?;
    let mut out = BufReader::with_capacity(1 << 20, child.stdout.take().context("no stdout")?);
    let (mut lines, mut most, mut line) = (0, 0, Vec::new());
    while out.read_until(b'\n', &mut line)? != 0 {
        if lines % 50_000 == 0 {
            most = memory(child.id(), "VmRSS").unwrap_or(0).max(most);
        }
        ensure!(lines < 2 || line.starts_with(b"TCP ") && line.ends_with(b":8080\n"), "{}", String::from_utf8_lossy(&line));
        lines += 1;
        line.clear();
    }
    ensure!(child.wait()?.success(), "lvxadm -L -c failed");
    Ok((lines - 2, began.elapsed(), most))
}

/// Lists both tables with `n` connections each, while edits go on and other clients do not read what they asked for.
fn listing(n: u32, limit: Duration) -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let bed = Bed::new(n, "")?;
    let tables = bed.lvxd.tables()?;
    let made = bed.fill(&tables, n, 3000)?;
    let pid = bed.lvxd.process.child.id();
    let before = memory(pid, "VmRSS")?;
    // The peak from here on.
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    let idle: Vec<_> = (0..20)
        .map(|_| -> Result<UnixStream> {
            let mut s = UnixStream::connect(&bed.lvxd.socket)?;
            s.write_all(b"GET /v1/connections HTTP/1.1\r\nHost: lvxd\r\n\r\n")?;
            Ok(s)
        })
        .collect::<Result<_>>()?;
    let (listed, longest, edits) = edit_meanwhile(&bed.lvxd, || list(&bed.lvxd, ""))?;
    let (lines, took, theirs) = listed;
    let grown = memory(pid, "VmHWM")?.saturating_sub(before);
    drop(idle);
    println!(
        "{lines} connections listed in {took:.2?}; lvxd grew by {grown} kB, lvxadm had {theirs} kB; {edits} edits meanwhile took {longest:.1?} at most"
    );
    assert_eq!(lines, made);
    assert!(took < limit, "{took:?}");
    assert!(grown < 50 << 10, "lvxd grew by {grown} kB");
    assert!(theirs < 50 << 10, "lvxadm had {theirs} kB");
    assert!(edits > 0 && longest < Duration::from_secs(2), "an edit took {longest:?}");
    // Neither of these changes what is listed, as with ipvsadm.
    assert_eq!(list(&bed.lvxd, "--sort")?.0, lines);
    assert_eq!(list(&bed.lvxd, "--persistent-conn")?.0, lines);
    // The sweeper's next round tells how full it is.
    until(Duration::from_secs(20), || {
        ensure!(bed.lvxd.log().contains("ipv4 connection table "), "{}", bed.lvxd.log());
        Ok(())
    })?;
    bed.lvxd.stop()?;
    Ok(())
}

#[test]
fn many_connections_are_listed() -> Result<()> {
    listing(50_000, Duration::from_secs(60))
}

/// Two million, in twice the time that one may take.
#[test]
#[ignore = "slow: a million connections of each family"]
fn a_million_connections_are_listed() -> Result<()> {
    listing(1_000_000, Duration::from_secs(20))
}

/// Counts that were broken from outside are put right, and said to have been.
#[test]
fn broken_counts_are_healed() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let bed = Bed::new(2000, "")?;
    let tables = bed.lvxd.tables()?;
    bed.fill(&tables, 1000, 3000)?;
    bed.lvxd.assert_counts_exact()?;
    let dest = tables.servers()[0];
    tables.set_counts(dest, DestConns { active: 3, inactive: u64::MAX - 4, ..tables.counts(dest) });
    let shown = bed.lvxd.adm("-L -n")?;
    assert!(shown.contains("Masq    1      3          0 "), "never below zero: {shown}");
    until(Duration::from_secs(60), || {
        let healed = bed.lvxd.status()?.sweeper.healed;
        ensure!(healed == 1, "{healed} healed: {}", bed.lvxd.log());
        Ok(())
    })?;
    tables.check()?;
    let log = bed.lvxd.log();
    assert!(log.contains("real server 10.2.0.11:8080: 3 active, -5 inactive, 0 persistent connections were counted"), "{log}");
    // The end of a test takes any healing for a fault.
    let mut lvxd = bed.lvxd;
    lvxd.kill_and_start_again()?;
    lvxd.stop()?;
    Ok(())
}

/// A daemon that is killed while it sweeps, under traffic that makes what it sweeps, leaves nothing behind that the next one does not put
/// right.
#[test]
fn killed_while_sweeping() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut bed = Sink::new()?;
    let stop = AtomicBool::new(false);
    let (lvxd, generator) = (&mut bed.lvxd, &mut bed.generator);
    std::thread::scope(|s| {
        let load = s.spawn(|| -> Result<u32> {
            let mut clients = 0;
            while !stop.load(Ordering::Relaxed) {
                for flags in [flag::SYN, flag::ACK, flag::FIN | flag::ACK] {
                    generator.send(Sink::service(), flags, clients, 5000)?;
                }
                clients += 5000;
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(clients)
        });
        let kills = (0..5u64).try_for_each(|round| {
            std::thread::sleep(Duration::from_millis(1500 + 137 * round));
            lvxd.kill_and_start_again()
        });
        stop.store(true, Ordering::Relaxed);
        let clients = load.join().map_err(|_| anyhow::anyhow!("the generator panicked"))??;
        ensure!(clients > 0);
        kills
    })?;
    let log = lvxd.log();
    assert_eq!(log.matches("took over the maps").count(), 5, "{log}");
    lvxd.all_ended()?;
    // What the kills left is found by the audit if it is not by the start.
    let tables = lvxd.tables()?;
    until(Duration::from_secs(60), || tables.check())?;
    let sweeper = lvxd.status()?.sweeper;
    println!("orphans of the last kill: {}, counts healed since: {}", sweeper.orphans, sweeper.healed);
    // The end of a test takes any healing for a fault.
    lvxd.kill_and_start_again()?;
    Ok(())
}

/// Ten million connections: listed, expired and swept, while edits go on; counters exact.
#[test]
#[ignore = "slow: ten million connections"]
fn ten_million_connections() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    const N: u32 = 10_000_000;
    let bed = Bed::new(N, "")?;
    let tables = bed.lvxd.tables()?;
    let dests = tables.servers();
    let began = Instant::now();
    let made = tables.fill(false, N, Filling { state: tcp::ESTABLISHED, seconds: 240, dest: dests[0] })?;
    println!("filled in {:.1?}", began.elapsed());
    tables.check()?;
    let ((lines, took, _), longest, edits) = edit_meanwhile(&bed.lvxd, || list(&bed.lvxd, ""))?;
    println!("{lines} connections listed in {took:.1?}; {edits} edits meanwhile took {longest:.1?} at most");
    assert_eq!(lines, u64::from(made));
    let live = bed.lvxd.status()?.sweeper;
    println!(
        "a round over {} live records: {} ms of a CPU, {} ms in all",
        live.records,
        live.cpu_us / 1000,
        live.round_us / 1000
    );
    // All of them expire; edits go on.
    let (rounds, longest, edits) = edit_meanwhile(&bed.lvxd, || {
        let mut rounds = Vec::new();
        until(Duration::from_secs(600), || {
            let s = bed.lvxd.status()?;
            if rounds.last().is_none_or(|r: &lb_userspace::api::SweeperView| r.rounds != s.sweeper.rounds) {
                rounds.push(s.sweeper.clone());
            }
            std::thread::sleep(Duration::from_millis(100));
            ensure!(s.tables[0].used == 0, "{} connections left", s.tables[0].used);
            Ok(())
        })?;
        Ok(rounds)
    })?;
    let most = rounds.iter().max_by_key(|r| r.cpu_us).context("no round")?;
    println!(
        "the longest round: {} ms of a CPU over {} records; {edits} edits took {longest:.1?} at most",
        most.cpu_us / 1000,
        most.records
    );
    assert!(longest < Duration::from_secs(5), "an edit took {longest:?}");
    let status = bed.lvxd.status()?;
    assert_eq!(status.tables[0].swept, u64::from(made));
    tables.check()?;
    bed.lvxd.stop()?;
    Ok(())
}

/// A director between a generator and a server that is never heard of, by DR; every state lasts a second.
struct Sink {
    lvxd: Lvxd,
    generator: Generator,
    _drop: PassAll,
    /// Its interface is there as long as this.
    _sink: Ns,
    _config: tempfile::TempDir,
}

impl Sink {
    fn service() -> SocketAddr {
        ([10, 9, 0, 1], 80).into()
    }

    fn new() -> Result<Self> {
        let (client, director, sink) = (Ns::new()?, Ns::new()?, Ns::new()?);
        client.cable("eth0", &director, "out", 1500)?;
        director.cable("in", &sink, "eth0", 1500)?;
        let drop = PassAll::nothing(&sink, "eth0")?;
        director.ip("addr add 10.1.0.1/24 dev out")?;
        director.ip("addr add 10.2.0.1/24 dev in")?;
        director.ip("neigh add 10.2.0.11 lladdr 02:00:00:00:00:11 dev in nud permanent")?;
        let config = tempfile::tempdir()?;
        let path = config.path().join("lvx.toml");
        std::fs::write(&path, "[timeouts]\nsyn_recv = 1\nestablished = 1\nfin_wait = 1\ntime_wait = 1\nclose = 1\n")?;
        let lvxd = Lvxd::start(&director, &["out", "in"], &["--config", path.to_str().context("a path that is no text")?])?;
        lvxd.adm("-A -t 10.9.0.1:80 -s rr")?;
        lvxd.adm("-a -t 10.9.0.1:80 -r 10.2.0.11:80 -g")?;
        until(Duration::from_secs(20), || {
            let list = lvxd.adm("-L -n --json")?;
            ensure!(list.contains("\"resolved\": true"), "{list}");
            Ok(())
        })?;
        let generator = Generator::new(&client, "eth0", &director, "out")?;
        Ok(Self { lvxd, generator, _drop: drop, _sink: sink, _config: config })
    }
}

/// Waits until there are no connections any more.
trait AllEnded {
    fn all_ended(&self) -> Result<()>;
}

impl AllEnded for Lvxd {
    fn all_ended(&self) -> Result<()> {
        until(Duration::from_secs(60), || {
            let used: u64 = self.status()?.tables.iter().map(|t| t.used).sum();
            ensure!(used == 0, "{used} connections are left");
            Ok(())
        })
    }
}

/// Connections made and ended by live frames of these segments, on one CPU.
fn churn(segments: &[u8], rounds: u32, clients: u32) -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let Sink { lvxd, mut generator, _drop: _dropping, _sink: _there, _config: _kept } = Sink::new()?;
    let to = Sink::service();
    let began = Instant::now();
    for round in 0..rounds {
        for &flags in segments {
            // The generator knows four million clients; those that come again are long gone.
            generator.send(to, flags, round * clients % 4_000_000, clients)?;
        }
    }
    let took = began.elapsed();
    let made = u64::from(rounds) * u64::from(clients);
    let sent = segments.len() as u64 * made;
    lvxd.all_ended()?;
    let (tables, status) = (lvxd.tables()?, lvxd.status()?);
    tables.check()?;
    let t = &status.tables[0];
    let ended = t.reclaimed_expired + t.evicted_embryonic + t.evicted_closing + t.swept;
    println!(
        "{made} connections, {:.0} a second ({:.0} packets a second); swept {}, reclaimed {}, evicted {} and {}",
        made as f64 / took.as_secs_f64(),
        sent as f64 / took.as_secs_f64(),
        t.swept,
        t.reclaimed_expired,
        t.evicted_embryonic,
        t.evicted_closing
    );
    let stats = lvxd.adm("-L -n --stats --exact")?;
    let of_server = stats.lines().find(|l| l.contains("10.2.0.11")).with_context(|| stats.clone())?;
    let numbers: Vec<u64> = of_server.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    // The device between may lose frames when its ring is full; what came is what counts. The sink answers nobody who asks for its
    // address, so that in the long run it is not known any more.
    let ours = ["forwarded_dr", "dropped_unresolved"];
    let came: u64 = status.verdicts.iter().filter(|v| ours.contains(&v.name.as_str())).map(|v| v.packets).sum();
    assert_eq!(numbers[..2], [ended, came], "every connection ended once, every packet is counted once: {t:?} {stats}");
    assert!(ended <= made && ended > made * 9 / 10 && came > sent * 9 / 10, "too few frames came: {ended}, {came}");
    lvxd.stop()?;
    Ok(())
}

#[test]
fn churn_leaves_no_drift() -> Result<()> {
    churn(&[flag::SYN, flag::ACK, flag::FIN | flag::ACK], 10, 20_000)
}

#[test]
#[ignore = "slow: six million connections"]
fn long_churn_leaves_no_drift() -> Result<()> {
    // Opened and closed: 200,000 of these a second are what the table has to stand.
    churn(&[flag::SYN, flag::FIN | flag::ACK], 300, 20_000)
}
