//! Changing servers and services under traffic.

use anyhow::{Context, Result, ensure};
use lvx_tests::lab::{HttpLab, Layout, Method, Ns, possible, until};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

fn get(stream: &mut TcpStream) -> Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n")?;
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains("server-") || !text.ends_with('\n') {
        let n = stream.read(&mut buffer)?;
        ensure!(n > 0, "the server closed after {text:?}");
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    Ok(text.lines().last().unwrap_or_default().to_owned())
}

fn connect(ns: &Ns, at: SocketAddr) -> Result<TcpStream> {
    let s = ns.run(|| TcpStream::connect_timeout(&at, Duration::from_secs(5)))?;
    s.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(s)
}

/// Requests, one a connection, from some threads until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    fn start(ns: &Ns, at: SocketAddr) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..4)
            .map(|_| {
                let (ns, stop, served) = (ns.clone(), stop.clone(), served.clone());
                std::thread::spawn(move || {
                    ns.run(|| {
                        while !stop.load(Ordering::Relaxed) {
                            let mut s = TcpStream::connect_timeout(&at, Duration::from_secs(5)).context("connecting")?;
                            s.set_read_timeout(Some(Duration::from_secs(5)))?;
                            get(&mut s).context("a request")?;
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(())
                    })
                })
            })
            .collect();
        Self { stop, served, threads }
    }

    /// Waits for some more requests.
    fn more(&self, n: usize) -> Result<()> {
        let from = self.served.load(Ordering::Relaxed);
        until(Duration::from_secs(20), || {
            let now = self.served.load(Ordering::Relaxed);
            ensure!(now >= from + n, "{} of {n} requests served", now - from);
            Ok(())
        })
    }

    fn end(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        for t in self.threads {
            t.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(self.served.load(Ordering::Relaxed))
    }
}

fn active(h: &HttpLab, i: usize) -> Result<u64> {
    let list: serde_json::Value = serde_json::from_str(&h.lvxd.adm("-L -n --json")?)?;
    let address = h.server(i).ip().to_string();
    let servers = list["services"][0]["servers"].as_array().context("no servers")?;
    Ok(servers.iter().find(|s| s["address"] == address).and_then(|s| s["active"].as_u64()).unwrap_or(0))
}

/// Servers come, are drained by weight 0, and go; no request fails.
fn servers_come_and_go(method: Method, v6: bool) -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let h = HttpLab::new(Layout::TwoArms, method, v6, 4)?;
    let load = Load::start(&h.lab.client, h.service());
    load.more(50)?;
    let option = method.option();
    for i in [3, 1, 0, 2] {
        let (service, server) = (h.service(), h.server(i));
        h.lvxd.adm(&format!("-e -t {service} -r {server} {option} -w 0"))?;
        load.more(20)?;
        until(Duration::from_secs(10), || {
            let n = active(&h, i)?;
            ensure!(n == 0, "{n} connections still active");
            Ok(())
        })?;
        h.lvxd.adm(&format!("-d -t {service} -r {server}"))?;
        load.more(20)?;
        h.add(i)?;
        h.resolved(4)?;
        load.more(20)?;
    }
    ensure!(load.end()? > 200);
    Ok(())
}

#[test]
fn servers_come_and_go_nat() -> Result<()> {
    servers_come_and_go(Method::Nat, false)
}

#[test]
fn servers_come_and_go_dr() -> Result<()> {
    servers_come_and_go(Method::Dr, true)
}

#[test]
fn servers_come_and_go_tun() -> Result<()> {
    servers_come_and_go(Method::Tun, false)
}

/// Removing a server, or another service, does nothing to connections of the others.
#[test]
fn a_removal_disturbs_nobody_else() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let h = HttpLab::new(Layout::TwoArms, Method::Nat, false, 3)?;
    let other = SocketAddr::new(h.service().ip(), 81);
    h.lvxd.adm(&format!("-A -t {other} -s rr"))?;
    h.lvxd.adm(&format!("-a -t {other} -r {} -m", h.server(0)))?;
    let mut held: Vec<_> = (0..9).map(|_| connect(&h.lab.client, h.service())).collect::<Result<_>>()?;
    let names: Vec<String> = held.iter_mut().map(get).collect::<Result<_>>()?;
    let gone = names[0].clone();
    let number: usize = gone.trim_start_matches("server-").parse()?;
    h.lvxd.adm(&format!("-d -t {} -r {}", h.service(), h.server(number)))?;
    h.lvxd.adm(&format!("-D -t {other}"))?;
    for (s, name) in held.iter_mut().zip(&names).filter(|(_, n)| **n != gone) {
        assert_eq!(get(s)?, *name);
    }
    // Those of the removed server are dropped silently, and live again when it comes back.
    let dropped = h.lvxd.verdict("dropped_server_gone")?;
    held[0].set_read_timeout(Some(Duration::from_millis(300)))?;
    assert!(get(&mut held[0]).is_err());
    assert!(h.lvxd.verdict("dropped_server_gone")? > dropped);
    h.add(number)?;
    h.resolved(3)?;
    held[0].set_read_timeout(Some(Duration::from_secs(10)))?;
    // What was dropped is sent again by TCP; two requests are answered then.
    assert_eq!(get(&mut held[0])?, gone);
    Ok(())
}

/// Weight 0: old connections go on, new ones go elsewhere.
#[test]
fn weight_zero_quiesces() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let h = HttpLab::new(Layout::TwoArms, Method::Nat, true, 2)?;
    let mut held: Vec<_> = (0..4).map(|_| connect(&h.lab.client, h.service())).collect::<Result<_>>()?;
    let names: Vec<String> = held.iter_mut().map(get).collect::<Result<_>>()?;
    h.lvxd.adm(&format!("-e -t {} -r {} -m -w 0", h.service(), h.server(0)))?;
    let shares = h.requests(50)?;
    assert_eq!(shares.len(), 1, "{shares:?}");
    assert_eq!(shares.get("server-1"), Some(&50));
    for (s, name) in held.iter_mut().zip(&names) {
        assert_eq!(get(s)?, *name);
    }
    // Nobody left: refused at once, by ICMP.
    h.lvxd.adm(&format!("-e -t {} -r {} -m -w 0", h.service(), h.server(1)))?;
    let began = Instant::now();
    assert!(connect(&h.lab.client, h.service()).is_err());
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(h.lvxd.verdict("replied_no_server")? > 0);
    Ok(())
}
