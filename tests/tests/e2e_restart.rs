//! lvxd ends in every way, and starts again, as the same and as another release: clients notice nothing, and counters go on.

use anyhow::{Context, Result, ensure};
use lb_userspace::object;
use lvx_tests::lab::{HttpLab, Layout, Method, Ns, Running, Stalls, UdpEcho, possible, until};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A datagram each millisecond, each of which must come back.
struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Seen>>,
}

#[derive(Debug)]
struct Seen {
    sent: u64,
    back: u64,
    longest_gap: Duration,
}

impl Probe {
    fn start(ns: &Ns, at: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (ns, stopped) = (ns.clone(), stop.clone());
        let thread = std::thread::spawn(move || ns.run(|| probe(at, &stopped)));
        Self { stop, thread }
    }

    fn end(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the probe panicked"))?
    }
}

fn probe(at: SocketAddr, stop: &AtomicBool) -> Result<Seen> {
    let any: SocketAddr = if at.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }.parse()?;
    let socket = UdpSocket::bind(any)?;
    socket.connect(at)?;
    socket.set_nonblocking(true)?;
    let mut seen = Seen { sent: 0, back: 0, longest_gap: Duration::ZERO };
    let (mut next, mut last) = (Instant::now(), Instant::now());
    let mut buffer = [0; 256];
    let mut end = None;
    while seen.back < seen.sent || end.is_none() {
        let now = Instant::now();
        if end.is_none() && stop.load(Ordering::Relaxed) {
            end = Some(now + Duration::from_secs(2));
        }
        if end.is_some_and(|end| now > end) {
            break;
        }
        if end.is_none() && now >= next {
            socket.send(&seen.sent.to_be_bytes())?;
            seen.sent += 1;
            next = now + Duration::from_millis(1);
        }
        while socket.recv(&mut buffer).is_ok() {
            seen.back += 1;
            seen.longest_gap = seen.longest_gap.max(last.elapsed());
            last = Instant::now();
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(seen)
}

/// See [`Scene::counted`].
type Counted = ([u64; 2], [u64; 3], BTreeMap<String, u64>);

/// The laboratory, with a UDP service beside HTTP.
struct Scene {
    h: HttpLab,
    udp: SocketAddr,
    _echoes: Vec<UdpEcho>,
}

impl Scene {
    fn new(method: Method, v6: bool) -> Result<Self> {
        let h = HttpLab::with(Layout::TwoArms, method, v6, 3, &["--stay-attached"])?;
        let port = if method == Method::Nat { 9053 } else { 53 };
        let udp = SocketAddr::new(h.lab.vip(v6), 53);
        h.lvxd.adm(&format!("-A -u {udp} -s wlc"))?;
        let mut echoes = Vec::new();
        for (i, s) in h.lab.servers.iter().enumerate() {
            let own = if method == Method::Nat { h.lab.server(v6, i) } else { h.lab.vip(v6) };
            echoes.push(UdpEcho::start(s, "echo", &[(own, port)])?);
            let server = SocketAddr::new(h.lab.server(v6, i), port);
            h.lvxd.adm(&format!("-a -u {udp} -r {server} {}", method.option()))?;
        }
        h.resolved(6)?;
        Ok(Self { h, udp, _echoes: echoes })
    }

    /// Packets from and to clients of all services, and of the one for datagrams; verdicts by name.
    fn counted(&self) -> Result<Counted> {
        let list: serde_json::Value = serde_json::from_str(&self.h.lvxd.adm("-L -n --json")?)?;
        let services = list["services"].as_array().context("no services")?;
        let number = |s: &serde_json::Value, key: &str| s["stats"][key].as_u64().unwrap_or(u64::MAX);
        let sum = |key: &str| services.iter().map(|s| number(s, key)).sum();
        let udp = services.iter().find(|s| s["protocol"] == "udp").context("no UDP service")?;
        let status: serde_json::Value = serde_json::from_str(&self.h.lvxd.adm("status --json")?)?;
        let verdicts = status["verdicts"].as_array().context("no verdicts")?;
        let verdicts = verdicts.iter().filter_map(|v| Some((v["name"].as_str()?.into(), v["packets"].as_u64()?))).collect();
        let three = ["connections", "in_packets", "out_packets"].map(|key| number(udp, key));
        Ok(([sum("in_packets"), sum("out_packets")], three, verdicts))
    }

    /// Timers of TCP that ran out, of client and servers.
    fn timeouts(&self) -> Result<u64> {
        let lab = &self.h.lab;
        let mut sum = 0;
        for ns in lab.servers.iter().chain([&lab.client]) {
            let text = ns.sh("nstat -asz TcpExtTCPTimeouts")?;
            let words = text.lines().find_map(|line| line.strip_prefix("TcpExtTCPTimeouts")).context("no such counter")?;
            sum += words.split_whitespace().next().context("no number")?.parse::<u64>()?;
        }
        Ok(sum)
    }

    /// Tag of the program on an interface.
    fn tag(&self, interface: &str) -> Result<String> {
        let text = self.h.lab.director.ip(&format!("-d -j link show dev {interface}"))?;
        let links: serde_json::Value = serde_json::from_str(&text)?;
        links[0]["xdp"]["prog"]["tag"].as_str().map(Into::into).with_context(|| format!("no program: {text}"))
    }

    /// Pins of links, by inode: a link that is there all the time keeps its own.
    fn links(&self) -> Result<Vec<(String, u64)>> {
        let mut all = Vec::new();
        for e in std::fs::read_dir(&self.h.lvxd.pins)? {
            let e = e?;
            let name = e.file_name().to_string_lossy().into_owned();
            if name.starts_with("link_") {
                all.push((name, e.metadata()?.ino()));
            }
        }
        all.sort();
        Ok(all)
    }
}

fn wrk(ns: &Ns, url: &str, connections: u32, close: bool, seconds: u32) -> Result<Running> {
    let mut c = ns.command("wrk");
    c.args(["-t1", "-c", &connections.to_string(), "-d", &format!("{seconds}s"), "--timeout", "10s"]);
    if close {
        c.args(["-H", "Connection: close"]);
    }
    ns.start(c.arg(url).stdout(Stdio::piped()).stderr(Stdio::null()))
}

/// The longest wait for an answer that wrk saw, which names errors only if there were some.
fn longest_wait(mut wrk: Running) -> Result<Duration> {
    wrk.wait(Duration::from_secs(60))?;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut wrk.child.stdout.take().context("no stdout")?, &mut text)?;
    ensure!(text.contains("requests in"), "{text}");
    ensure!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "{text}");
    // Average, deviation, and this.
    let words = text.lines().find_map(|line| line.trim().strip_prefix("Latency")).context("no latency")?;
    let word = words.split_whitespace().nth(2).context("no maximum")?;
    let at = word.find(char::is_alphabetic).context("no unit")?;
    let unit = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0)].into_iter().find(|(unit, _)| *unit == &word[at..]);
    Ok(Duration::from_secs_f64(word[..at].parse::<f64>()? * unit.with_context(|| word.to_owned())?.1))
}

/// What clients saw of some seconds with 300 connections in use, new ones all the time, a long download, and datagrams.
struct Load {
    many: Duration,
    fresh: Duration,
    datagrams: Seen,
    /// Retransmissions for want of an answer.
    timeouts: u64,
    /// The longest that a CPU did nothing for anybody.
    stall: Duration,
    /// What the laboratory's cables lost, which they do when a ring fills while nobody empties it.
    lost: u64,
}

impl Load {
    fn once(s: &mut Scene, during: impl FnOnce(&mut Scene) -> Result<()>) -> Result<Self> {
        let client = s.h.lab.client.clone();
        let (stalls, lost, before) = (Stalls::watch(), s.h.lab.lost()?, s.timeouts()?);
        let got = s.h.lvxd.files().join("got");
        let mut download = client.command("curl");
        download.args(["-sS", "-f", "-g", "--max-time", "60", "--limit-rate", "3M", "-o"]).arg(&got).arg(s.h.url("long"));
        let mut download = client.start(&mut download)?;
        let (many, fresh) = (wrk(&client, &s.h.url(""), 300, false, 6)?, wrk(&client, &s.h.url(""), 20, true, 6)?);
        let probe = Probe::start(&client, s.udp);
        std::thread::sleep(Duration::from_secs(1));
        during(s)?;
        let (many, fresh, datagrams) = (longest_wait(many)?, longest_wait(fresh)?, probe.end()?);
        ensure!(download.wait(Duration::from_secs(60))?.success(), "the download failed");
        ensure!(std::fs::read(&got)? == long(), "the download is not what was sent");
        let timeouts = s.timeouts()? - before;
        Ok(Self { many, fresh, datagrams, timeouts, stall: stalls.longest(), lost: s.h.lab.lost()? - lost })
    }

    /// Whether all that clients waited for is due to what was done. CPUs that stood still, one after the other, make timers of 200 ms run
    /// out; and so does a loss.
    fn tells(&self) -> bool {
        self.lost == 0 && self.stall < Duration::from_millis(25)
    }
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { many, fresh, datagrams, timeouts, stall, lost } = self;
        write!(f, "300 waited {many:?}, new ones {fresh:?}, {datagrams:?}, {timeouts} timeouts; ")?;
        write!(f, "a CPU stood still for {stall:?}, cables lost {lost}")
    }
}

/// What is downloaded.
fn long() -> Vec<u8> {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as u8
    };
    std::iter::repeat_with(&mut next).take(24 << 20).collect()
}

/// A restart, a crash, and an upgrade to another program and back.
fn four_restarts(s: &mut Scene, next: &str) -> Result<()> {
    let (links, tag) = (s.links()?, s.tag("out")?);
    for (signal, more) in [(Signal::TERM, &[][..]), (Signal::KILL, &[]), (Signal::TERM, &["--object", next])] {
        s.h.lvxd.restart(signal, more)?;
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_ne!(s.tag("out")?, tag, "it is another program");
    assert_eq!(s.links()?, links, "and in the same links");
    s.h.lvxd.restart(Signal::KILL, &[])?;
    assert_eq!(s.tag("out")?, tag);
    Ok(())
}

/// Whether clients waited for restarts: the same load undisturbed, and through them.
fn unnoticed(calm: &Load, busy: &Load) -> Result<()> {
    ensure!((calm.timeouts, busy.timeouts) == (0, 0), "packets were sent again");
    // A busy machine makes clients wait anyway; and a new connection for its turn at the server, up to 210 ms without restarts.
    let waits = |l: &Load| [l.many, l.datagrams.longest_gap];
    for (busy, calm) in waits(busy).into_iter().zip(waits(calm)) {
        ensure!(busy <= Duration::from_millis(50) + 2 * calm, "{busy:?} without an answer; undisturbed {calm:?}");
    }
    Ok(())
}

/// Hundreds of connections, new ones all the time, and a long download see no error, and wait no longer than without restarts; not a packet
/// is lost or left uncounted.
fn nobody_notices(method: Method, v6: bool) -> Result<()> {
    if !possible() {
        return Ok(());
    }
    // Each of them keeps two CPUs busy.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut s = Scene::new(method, v6)?;
    let next = s.h.lvxd.files().join("next.o");
    std::fs::write(&next, object::NEXT)?;
    let next = next.to_str().context("a path")?.to_owned();
    for n in &s.h.nginx {
        n.file("long", &long())?;
    }
    let mut probes = Vec::new();
    for attempt in 1..=5 {
        let calm = Load::once(&mut s, |_| Ok(()))?;
        let busy = Load::once(&mut s, |s| four_restarts(s, &next))?;
        println!("{method:?}: undisturbed {calm}\nthrough four restarts {busy}");
        for Load { datagrams: Seen { sent, back, .. }, lost, .. } in [&calm, &busy] {
            ensure!(sent - back <= *lost, "datagrams were lost: {}", s.h.lvxd.adm("status")?);
        }
        let (judged, tells) = (unnoticed(&calm, &busy), calm.tells() && busy.tells());
        probes.extend([calm.datagrams, busy.datagrams]);
        match judged {
            Ok(()) => break,
            Err(e) if tells => return Err(e.context(s.h.lvxd.adm("status")?)),
            // On a machine that is like this all the time, the rest still holds.
            Err(e) => println!("attempt {attempt}: {e}, and the machine is to blame: {:?}", s.h.lab.losses()?),
        }
    }
    let before = s.h.lab.lost()?;
    let probe = Probe::start(&s.h.lab.client, s.udp);
    four_restarts(&mut s, &next)?;
    let quiet = probe.end()?;
    let lost = s.h.lab.lost()?;
    println!("without other load {quiet:?}");
    ensure!(quiet.sent - quiet.back <= lost - before, "datagrams were lost: {}", s.h.lvxd.adm("status")?);
    probes.push(quiet);

    // To the packet: what services counted is what verdicts did, over all these processes; and of the datagrams none was left out.
    let sent: u64 = probes.iter().map(|seen| seen.sent).sum();
    let arrived = sent - lost.min(sent)..=sent;
    until(Duration::from_secs(10), || {
        let ([all_in, all_out], [connections, ins, outs], verdicts) = s.counted()?;
        ensure!(
            connections == probes.len() as u64 && arrived.contains(&ins),
            "{connections} {ins}, {sent} sent, {lost} lost by cables"
        );
        let answered = if method == Method::Nat { arrived.contains(&outs) } else { outs == 0 };
        ensure!(answered, "{outs}, {sent} sent");
        let forwarded = ["forwarded_nat", "forwarded_dr", "forwarded_tun"].map(|v| verdicts[v]).iter().sum::<u64>();
        ensure!(forwarded == all_in, "{forwarded} packets were forwarded, services counted {all_in}");
        ensure!(verdicts["forwarded_nat_reply"] == all_out, "{verdicts:?}, services counted {all_out}");
        let lost: Vec<_> = verdicts.iter().filter(|(name, n)| name.starts_with("dropped") && **n > 0).collect();
        ensure!(lost.is_empty() && verdicts["passed_unresolved"] == 0, "{verdicts:?}");
        Ok(())
    })
}

#[test]
fn nobody_notices_nat() -> Result<()> {
    nobody_notices(Method::Nat, false)
}

#[test]
fn nobody_notices_dr() -> Result<()> {
    nobody_notices(Method::Dr, true)
}

#[test]
fn nobody_notices_tun() -> Result<()> {
    nobody_notices(Method::Tun, false)
}

/// Counters, the zero they are counted from, removed servers and verdicts, over a kill.
#[test]
fn counters_go_on() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut s = Scene::new(Method::Nat, true)?;
    let ask = |n: usize| -> Result<()> {
        s.h.lab.client.run(|| {
            let socket = UdpSocket::bind("[::]:0")?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            socket.connect(s.udp)?;
            for _ in 0..n {
                socket.send(b"x")?;
                socket.recv(&mut [0; 64])?;
            }
            Ok(())
        })
    };
    ask(7)?;
    s.h.lvxd.adm(&format!("-Z -u {}", s.udp))?;
    for n in 1..=4 {
        ask(n)?;
    }
    let gone = SocketAddr::new(s.h.lab.server(true, 1), 9053);
    s.h.lvxd.adm(&format!("-d -u {} -r {gone}", s.udp))?;
    let before = (s.counted()?.1, s.h.lvxd.adm("-L -n --stats --exact")?, s.h.lvxd.verdict("forwarded_nat")?);
    assert_eq!(before.0, [4, 10, 10]);
    let rates = s.h.lvxd.adm("-L -n --rate --exact")?;
    s.h.lvxd.restart(Signal::KILL, &[])?;
    assert_eq!((s.counted()?.1, s.h.lvxd.adm("-L -n --stats --exact")?, s.h.lvxd.verdict("forwarded_nat")?), before);
    assert_eq!(s.h.lvxd.adm("-L -n --rate --exact")?.lines().count(), rates.lines().count());
    s.h.lvxd.adm(&format!("-a -u {} -r {gone} -m", s.udp))?;
    s.h.resolved(6)?;
    let ask = |n: usize| -> Result<()> {
        s.h.lab.client.run(|| {
            let socket = UdpSocket::bind("[::]:0")?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            socket.connect(s.udp)?;
            for _ in 0..n {
                socket.send(b"x")?;
                socket.recv(&mut [0; 64])?;
            }
            Ok(())
        })
    };
    ask(5)?;
    assert_eq!(s.counted()?.1, [5, 15, 15]);
    Ok(())
}

/// What lvxadm was told is done is done, even if lvxd is killed at once; in the order in which it ran.
#[test]
fn an_edit_that_was_answered_is_there_after_a_kill() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut s = Scene::new(Method::Nat, false)?;
    for round in 0..8u16 {
        let service = format!("10.9.0.1:{}", 1000 + round);
        s.h.lvxd.adm(&format!("-A -t {service} -s wlc"))?;
        s.h.lvxd.adm(&format!("-a -t {service} -r 10.2.0.11:80 -m -w {round}"))?;
        s.h.lvxd.adm(&format!("--set 0 0 {}", 100 + round))?;
        let before = s.h.lvxd.adm("-S -n")?;
        s.h.lvxd.restart(Signal::KILL, &[])?;
        assert_eq!(s.h.lvxd.adm("-S -n")?, before);
        assert_eq!(s.h.lvxd.adm("-L --timeout")?, format!("Timeout (tcp tcpfin udp): 900 120 {}\n", 100 + round));
    }
    Ok(())
}
