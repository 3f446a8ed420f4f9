//! A flood of SYNs from spoofed sources, at ten times what a small connection table holds: who is established loses nothing, and who is new
//! gets in.

use anyhow::{Context, Result, ensure};
use lvx_tests::lab::{Generator, Lab, Layout, Lvxd, Method, Ns, UdpEcho, possible, until};
use lvx_tests::packet::flag;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const TCP_PORT: u16 = 8080;
const UDP_PORT: u16 = 9053;
/// So long, a client waits for anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends back what it gets, on each connection.
struct TcpEcho {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TcpEcho {
    fn start(ns: &Ns, at: IpAddr) -> Result<Self> {
        let listener = ns.run(|| TcpListener::bind((at, TCP_PORT)))?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Ok((mut s, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                };
                // Ends with its client.
                std::thread::spawn(move || {
                    let mut buffer = [0; 256];
                    if s.set_nonblocking(false).is_err() {
                        return;
                    }
                    while let Ok(n @ 1..) = s.read(&mut buffer) {
                        if s.write_all(&buffer[..n]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for TcpEcho {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

fn connect(at: SocketAddr) -> Result<TcpStream> {
    let s = TcpStream::connect_timeout(&at, PATIENCE)?;
    s.set_read_timeout(Some(PATIENCE))?;
    s.set_nodelay(true)?;
    Ok(s)
}

/// Sends something and gets it back.
fn echo(s: &mut TcpStream, n: u64) -> Result<()> {
    let message = n.to_ne_bytes();
    s.write_all(&message)?;
    let mut back = [0; 8];
    s.read_exact(&mut back)?;
    ensure!(back == message, "another answer");
    Ok(())
}

/// Segments that a connection had to send again.
fn sent_again(s: &TcpStream) -> Result<u32> {
    // SAFETY: plain numbers.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tcp_info>() as u32;
    // SAFETY: the structure's own size, and both outlive the call.
    let r = unsafe { libc::getsockopt(s.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut len) };
    ensure!(r == 0, "TCP_INFO: {}", std::io::Error::last_os_error());
    Ok(info.tcpi_total_retrans)
}

/// What the established clients and the new ones came to.
#[derive(Default)]
struct Counts {
    exchanges: AtomicU64,
    datagrams: AtomicU64,
    new: AtomicU64,
    failed: AtomicU64,
}

/// The number of a verdict, from a list of them.
fn verdicts(lvxd: &Lvxd, names: impl Fn(&str) -> bool) -> Result<Vec<(String, u64)>> {
    let all = lvxd.status()?.verdicts;
    Ok(all.into_iter().filter(|v| names(&v.name) && v.packets != 0).map(|v| (v.name, v.packets)).collect())
}

fn flood(v6: bool, connections: u32, times: u32) -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let lab = Lab::new(Layout::TwoArms, Method::Nat, 2)?;
    let attacker = Ns::new()?;
    attacker.cable("eth0", &lab.director, "att", 1500)?;
    let mut servers = Vec::new();
    for (i, s) in lab.servers.iter().enumerate() {
        let at = lab.server(v6, i);
        servers.push((TcpEcho::start(s, at)?, UdpEcho::start(s, "server", &[(at, UDP_PORT)])?));
    }
    let config = tempfile::tempdir()?;
    let path = config.path().join("lvx.toml");
    std::fs::write(&path, format!("[sizes]\nconnections = {connections}\n"))?;
    let path = path.to_str().context("a path that is no text")?;
    let lvxd = Lvxd::start(&lab.director, &["out", "in", "att"], &["--config", path])?;
    let (tcp, udp) = (SocketAddr::new(lab.vip(v6), 80), SocketAddr::new(lab.vip(v6), 53));
    for (letter, service, port) in [('t', tcp, TCP_PORT), ('u', udp, UDP_PORT)] {
        lvxd.adm(&format!("-A -{letter} {service} -s rr"))?;
        for i in 0..2 {
            lvxd.adm(&format!("-a -{letter} {service} -r {} -m", SocketAddr::new(lab.server(v6, i), port)))?;
        }
    }
    until(Duration::from_secs(20), || {
        let list = lvxd.adm("-L -n --json")?;
        ensure!(list.matches("\"resolved\": true").count() == 4, "{list}");
        Ok(())
    })?;

    let mut held = lab.client.run(|| (0..100).map(|_| connect(tcp)).collect::<Result<Vec<_>>>())?;
    let flows = lab.client.run(|| {
        let any: SocketAddr = if v6 { "[::]:0" } else { "0.0.0.0:0" }.parse()?;
        (0..20)
            .map(|_| -> Result<UdpSocket> {
                let s = UdpSocket::bind(any)?;
                s.connect(udp)?;
                s.set_read_timeout(Some(PATIENCE))?;
                Ok(s)
            })
            .collect::<Result<Vec<_>>>()
    })?;
    // A datagram there and back: established.
    let datagram = |s: &UdpSocket, n: u64| -> Result<()> {
        s.send(&n.to_ne_bytes())?;
        let mut buffer = [0; 64];
        let len = s.recv(&mut buffer).context("a datagram was lost")?;
        ensure!(buffer[..len].ends_with(&n.to_ne_bytes()), "the answer to another datagram: one was lost");
        Ok(())
    };
    for (n, s) in held.iter_mut().enumerate() {
        echo(s, n as u64)?;
    }
    flows.iter().try_for_each(|s| datagram(s, 1))?;

    let mut generator = Generator::new(&attacker, "eth0", &lab.director, "att")?;
    let (stop, counts) = (AtomicBool::new(false), Counts::default());
    let mut sent = 0;
    std::thread::scope(|s| -> Result<()> {
        let (stop, counts, client) = (&stop, &counts, &lab.client);
        let mut threads = Vec::new();
        threads.push(s.spawn(|| -> Result<()> {
            let mut n = 2;
            while !stop.load(Ordering::Relaxed) {
                for s in &mut held {
                    echo(s, n).context("an established connection")?;
                    counts.exchanges.fetch_add(1, Ordering::Relaxed);
                }
                for s in &flows {
                    datagram(s, n).context("an established flow")?;
                    counts.datagrams.fetch_add(1, Ordering::Relaxed);
                }
                n += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(())
        }));
        for _ in 0..2 {
            threads.push(s.spawn(|| {
                client.run(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let done = connect(tcp).and_then(|mut s| echo(&mut s, 7));
                        counts.new.fetch_add(1, Ordering::Relaxed);
                        if let Err(e) = done {
                            eprintln!("a new connection: {e:#}");
                            counts.failed.fetch_add(1, Ordering::Relaxed);
                        }
                        // A client has 28,000 ports for a minute.
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    Ok(())
                })
            }));
        }
        let began = Instant::now();
        let flooded = (|| -> Result<()> {
            // Until the table was filled so many times over, and there were enough who tried.
            // A call costs some milliseconds however little it sends; and a veth's ring takes 256 frames, of which what it has no room for
            // is lost behind the balancer, whoever's it is.
            let burst = (connections / 64).clamp(64, 128);
            while sent < times * connections
                || counts.new.load(Ordering::Relaxed) < 200 && began.elapsed() < Duration::from_secs(60)
            {
                generator.send(tcp, flag::SYN, sent, burst)?;
                sent += burst;
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        })();
        println!("{sent} SYNs in {:.1?}", began.elapsed());
        stop.store(true, Ordering::Relaxed);
        for t in threads {
            t.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        flooded
    })?;
    let again: u32 = held.iter().map(sent_again).sum::<Result<u32>>()?;
    let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
    let (new, failed) = (get(&counts.new), get(&counts.failed));
    let status = lvxd.status()?;
    let t = &status.tables[usize::from(v6)];
    println!(
        "{} exchanges and {} datagrams of established ones, {again} segments sent again; {new} new connections, {failed} failed; {t:?}",
        get(&counts.exchanges),
        get(&counts.datagrams)
    );
    let lost = verdicts(&lvxd, |name| name.starts_with("dropped_") || name == "passed_no_connection")?;
    println!("{lost:?}");
    assert!(get(&counts.exchanges) > 100 && new >= 100, "too little happened");
    // Whoever fails has at most his SYN-ACK's acknowledgement and what he sends before he hears of it turned away.
    let turned_away: u64 = lost.iter().map(|(_, n)| n).sum();
    assert!(turned_away <= 8 * new / 100, "{lost:?}");
    assert!(failed * 100 <= new, "{failed} of {new} new connections failed");
    assert!(
        u64::from(sent) <= t.evicted_embryonic + t.reclaimed_expired + t.swept + t.used,
        "SYNs that made no connection: {t:?}"
    );
    assert!(t.evicted_embryonic >= u64::from((times - 2) * connections), "{t:?}");
    assert!(t.used <= u64::from(connections + connections / 16 + 1), "{t:?}");
    until(Duration::from_secs(20), || {
        ensure!(lvxd.log().contains(if v6 { "ipv6 connection table" } else { "ipv4 connection table" }), "{}", lvxd.log());
        Ok(())
    })?;
    lvxd.stop()?;
    Ok(())
}

#[test]
fn ten_times_a_small_table_v4() -> Result<()> {
    flood(false, 1024, 10)
}

#[test]
fn ten_times_a_small_table_v6() -> Result<()> {
    flood(true, 1024, 10)
}

#[test]
#[ignore = "slow: 327,680 SYNs"]
fn ten_times_a_larger_table() -> Result<()> {
    flood(false, 16_384, 20)
}
