//! New connections while lvxd is stopped or killed, and schedulers changed under connections: real requests under load.

use anyhow::{Context, Result, ensure};
use lvx_tests::lab::{HttpLab, Layout, Method, Ns, possible, until};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Who served how many.
type Shares = BTreeMap<String, usize>;

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
    let s = ns.run(|| TcpStream::connect_timeout(&at, Duration::from_secs(10)))?;
    s.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(s)
}

/// Requests, one a connection, from some threads until it is stopped. None may fail.
struct Load {
    stop: Arc<AtomicBool>,
    shares: Arc<Mutex<Shares>>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    fn start(ns: &Ns, at: SocketAddr) -> Self {
        let (stop, shares) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Shares::new())));
        let threads = (0..3)
            .map(|_| {
                let (ns, stop, shares) = (ns.clone(), stop.clone(), shares.clone());
                std::thread::spawn(move || {
                    ns.run(|| {
                        while !stop.load(Ordering::Relaxed) {
                            let mut s = TcpStream::connect_timeout(&at, Duration::from_secs(10)).context("connecting")?;
                            s.set_read_timeout(Some(Duration::from_secs(10)))?;
                            let name = get(&mut s).context("a request")?;
                            *shares.lock().expect("nobody panics").entry(name).or_default() += 1;
                        }
                        Ok(())
                    })
                })
            })
            .collect();
        Self { stop, shares, threads }
    }

    fn shares(&self) -> Shares {
        self.shares.lock().expect("nobody panics").clone()
    }

    /// Waits for some more requests: who served them.
    fn more(&self, n: usize) -> Result<Shares> {
        let before = self.shares();
        until(Duration::from_secs(60), || {
            if self.threads.iter().any(JoinHandle::is_finished) {
                return Ok(None);
            }
            let now = self.shares();
            let new: Shares =
                now.iter().map(|(k, v)| (k.clone(), v - before.get(k).unwrap_or(&0))).filter(|(_, v)| *v > 0).collect();
            let served: usize = new.values().sum();
            ensure!(served >= n, "{served} of {n} requests served");
            Ok(Some(new))
        })?
        .context("a request failed")
    }

    /// Waits until some requests more were served, and 20 by each of three servers. Least connection may leave one out for hundreds of
    /// them: as long as a connection is open there that is not elsewhere, as when its machine has no CPU for it.
    fn by_all(&self) -> Result<()> {
        let mut sum = Shares::new();
        until(Duration::from_secs(30), || {
            for (name, n) in self.more(60)? {
                *sum.entry(name).or_default() += n;
            }
            ensure!(sum.len() == 3 && sum.values().all(|n| *n >= 20), "not all take part: {sum:?}");
            Ok(())
        })
    }

    fn end(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for t in self.threads.drain(..) {
            t.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(())
    }
}

/// A test that fails ends its load too: connections that still come would hide why.
impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for t in self.threads.drain(..) {
            let _ = t.join();
        }
    }
}

fn lab(scheduler: &str) -> Result<HttpLab> {
    let h = HttpLab::new(Layout::TwoArms, Method::Nat, false, 3)?;
    h.lvxd.adm(&format!("-E -t {} -s {scheduler}", h.service()))?;
    Ok(h)
}

fn connections(h: &HttpLab, i: usize) -> Result<u64> {
    let list: serde_json::Value = serde_json::from_str(&h.lvxd.adm("-L -n --json")?)?;
    let address = h.server(i).ip().to_string();
    let servers = list["services"][0]["servers"].as_array().context("no servers")?;
    let s = servers.iter().find(|s| s["address"] == address).context("no such server")?;
    Ok(s["active"].as_u64().unwrap_or(0) + s["inactive"].as_u64().unwrap_or(0))
}

/// lvxd stands still: all servers take part all the same, but one that reaches its threshold meanwhile gets no more, and one that was
/// quiesced before none at all. Connections that are open go on.
fn stopped(scheduler: &str) -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let h = lab(scheduler)?;
    let load = Load::start(&h.lab.client, h.service());
    load.more(60)?;
    let mut held = connect(&h.lab.client, h.service())?;
    let holder = get(&mut held)?;

    h.lvxd.process.signal(Signal::STOP)?;
    load.by_all().with_context(|| format!("{scheduler}, stopped"))?;
    h.lvxd.process.signal(Signal::CONT)?;

    // Closed connections stay on the server's account for two minutes: the threshold is reached soon.
    let room = 20;
    let limit = connections(&h, 1)? + room;
    h.lvxd.adm(&format!("-e -t {} -r {} -m -w 1 -x {limit}", h.service(), h.server(1)))?;
    h.lvxd.adm(&format!("-e -t {} -r {} -m -w 0", h.service(), h.server(2)))?;
    h.lvxd.process.signal(Signal::STOP)?;
    let counted = load.shares();
    let since = |name: &str| load.shares()[name] - counted[name];
    until(Duration::from_secs(30), || {
        let shares = load.more(150)?;
        ensure!(shares.keys().eq(["server-0"]), "{scheduler}, at the threshold: {shares:?}");
        Ok(())
    })?;
    // Requests under way when a server was quiesced, or the threshold set, may end afterwards.
    ensure!(since("server-2") <= 3, "{scheduler}, quiesced: {:?} after {counted:?}", load.shares());
    ensure!(since("server-1") as u64 <= room + 3, "{scheduler}, room for {room}: {:?} after {counted:?}", load.shares());
    assert_eq!(get(&mut held)?, holder, "{scheduler}: a connection that was open");

    // Alive again, it makes up for everything at once.
    h.lvxd.process.signal(Signal::CONT)?;
    h.lvxd.adm(&format!("-e -t {} -r {} -m -w 1", h.service(), h.server(1)))?;
    h.lvxd.adm(&format!("-e -t {} -r {} -m -w 1", h.service(), h.server(2)))?;
    until(Duration::from_secs(30), || {
        let shares = load.more(30)?;
        ensure!(shares.len() == 3 || scheduler == "wlc" && shares.len() == 2, "{scheduler}, afterwards: {shares:?}");
        Ok(())
    })?;
    assert_eq!(get(&mut held)?, holder);
    load.end()
}

#[test]
fn rr_while_the_daemon_is_stopped() -> Result<()> {
    stopped("rr")
}

#[test]
fn wrr_while_the_daemon_is_stopped() -> Result<()> {
    stopped("wrr")
}

#[test]
fn wlc_while_the_daemon_is_stopped() -> Result<()> {
    stopped("wlc")
}

/// lvxd is killed and started again: no request fails, connections go on, and the new one plans.
fn killed(scheduler: &str) -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let mut h = lab(scheduler)?;
    let load = Load::start(&h.lab.client, h.service());
    load.more(60)?;
    let mut held = connect(&h.lab.client, h.service())?;
    let holder = get(&mut held)?;

    h.lvxd.process.signal(Signal::KILL)?;
    load.by_all().with_context(|| format!("{scheduler}, killed"))?;
    assert_eq!(get(&mut held)?, holder);

    h.lvxd.kill_and_start_again()?;
    h.resolved(3)?;
    load.by_all().with_context(|| format!("{scheduler}, started again"))?;
    assert_eq!(get(&mut held)?, holder, "{scheduler}: a connection that was open");
    load.end()?;
    // Whatever the first one had not answered any more, the second one hears of counts: idle servers, connection by connection.
    if scheduler == "wlc" {
        let mut names = Vec::new();
        let mut open = vec![held];
        for _ in 0..6 {
            let mut s = connect(&h.lab.client, h.service())?;
            names.push(get(&mut s)?);
            open.push(s);
            std::thread::sleep(Duration::from_millis(20));
        }
        let spread = (0..3).map(|i| names.iter().filter(|n| **n == format!("server-{i}")).count());
        ensure!(spread.clone().all(|n| (1..=3).contains(&n)), "held ones: {names:?}");
    }
    Ok(())
}

#[test]
fn rr_when_the_daemon_is_killed() -> Result<()> {
    killed("rr")
}

#[test]
fn wrr_when_the_daemon_is_killed() -> Result<()> {
    killed("wrr")
}

#[test]
fn wlc_when_the_daemon_is_killed() -> Result<()> {
    killed("wlc")
}

/// A running service goes through all schedulers: its connections stay with their servers, and new ones are served.
#[test]
fn a_change_of_scheduler_touches_no_connection() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let h = HttpLab::new(Layout::TwoArms, Method::Nat, true, 3)?;
    let service = h.service();
    // ovf refuses what is more than the weights.
    for i in 0..3 {
        h.lvxd.adm(&format!("-e -t {service} -r {} -m -w 10", h.server(i)))?;
    }
    let mut held: Vec<_> = (0..6).map(|_| connect(&h.lab.client, service)).collect::<Result<_>>()?;
    let names: Vec<String> = held.iter_mut().map(get).collect::<Result<_>>()?;
    let schedulers = ["wrr", "lc", "wlc", "sed", "nq", "fo", "ovf", "twos", "sh", "dh", "mh", "lblc", "lblcr", "rr"];
    for scheduler in schedulers {
        h.lvxd.adm(&format!("-E -t {service} -s {scheduler}"))?;
        let list = h.lvxd.adm("-L -n")?;
        ensure!(list.contains(&format!("{service} {scheduler}")), "{list}");
        let mut fresh = connect(&h.lab.client, service).with_context(|| format!("under {scheduler}"))?;
        get(&mut fresh)?;
        for (s, name) in held.iter_mut().zip(&names) {
            assert_eq!(get(s)?, *name, "under {scheduler}");
        }
    }
    // Without -s: weighted least connections, as in ipvsadm.
    h.lvxd.adm(&format!("-E -t {service}"))?;
    h.lvxd.adm("-A -t [fd09::1]:81")?;
    let list = h.lvxd.adm("-L -n")?;
    ensure!(list.contains("[fd09::1]:80 wlc") && list.contains("[fd09::1]:81 wlc"), "{list}");
    Ok(())
}
