//! What a real IPVS was recorded to keep of connections: states, what remains of their time, counters and statistics, listed after the
//! same commands and the same conversations (`lb-userspace/tests/golden/sequences.txt`). Schedulers are in `e2e_sched`.

use anyhow::{Context, Result, ensure};
use lvx_tests::lab::{Lab, Layout, Lvxd, Method, Nginx, UdpEcho, ask, connected, possible, until};
use std::collections::VecDeque;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

const TEXT: &str = include_str!("../../lb-userspace/tests/golden/sequences.txt");

/// A recorded case, read from its beginning.
struct Case<'a> {
    title: &'static str,
    lines: VecDeque<&'static str>,
    lab: &'a Lab,
    lvxd: &'a Lvxd,
    port: u16,
}

/// Whether a line is an entry of a connection.
fn is_entry(line: &str) -> bool {
    (line.starts_with("TCP ") || line.starts_with("UDP ")) && line.as_bytes().get(4).is_some_and(u8::is_ascii_digit)
}

/// What identifies an entry but the client's port, and its seconds.
fn entry(line: &str) -> Result<(Vec<String>, i64)> {
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    ensure!(words.len() >= 6, "{line:?} is no entry");
    let left = words.remove(1);
    let (minutes, seconds) = left.split_once(':').with_context(|| format!("{line:?} has no time"))?;
    let (address, port) = words[2].split_once(':').with_context(|| format!("{line:?} has no client"))?;
    words[2] = format!("{address}:{}", if port == "0" { "0" } else { "any" });
    Ok((words, minutes.parse::<i64>()? * 60 + seconds.parse::<i64>()?))
}

impl<'a> Case<'a> {
    fn new(title: &str, lab: &'a Lab, lvxd: &'a Lvxd, port: u16) -> Result<Self> {
        let mut all = TEXT.lines().skip_while(|l| l.strip_prefix("=== ").is_none_or(|t| !t.starts_with(title)));
        let title = all.next().with_context(|| format!("no case `{title}`"))?;
        let lines = all.take_while(|l| !l.starts_with("===") && !l.starts_with("# end")).filter(|l| !l.is_empty()).collect();
        lvxd.adm("-C")?;
        Ok(Self { title, lines, lab, lvxd, port })
    }

    fn next(&mut self) -> Result<&'static str> {
        self.lines.pop_front().with_context(|| format!("{}: too short", self.title))
    }

    /// The recorded commands that change something.
    fn commands(&mut self) -> Result<()> {
        while let Some(command) = self.lines.front().and_then(|l| l.strip_prefix("$ ipvsadm ")).filter(|c| !c.starts_with("-L")) {
            self.lvxd.adm(command)?;
            self.lines.pop_front();
        }
        until(Duration::from_secs(5), || {
            // Nobody is at 10.2.0.99.
            let all = self.lvxd.adm("-L -n --json")?;
            let unresolved = all.matches("\"resolved\": false").count() - all.matches("10.2.0.99").count().min(1);
            ensure!(unresolved == 0, "{all}");
            Ok(())
        })
    }

    /// A recorded list, byte for byte.
    fn list(&mut self) -> Result<()> {
        let line = self.next()?;
        let command = line.strip_prefix("$ ipvsadm -L").with_context(|| format!("{}: {line:?} lists nothing", self.title))?;
        let mut expected = String::new();
        while let Some(l) = self
            .lines
            .front()
            .filter(|l| !is_entry(l) && ["Prot", "  ->", "TCP", "UDP", "Timeout"].iter().any(|p| l.starts_with(p)))
        {
            expected.push_str(l);
            expected.push('\n');
            self.lines.pop_front();
        }
        // What expired is in the counters until it is swept.
        until(Duration::from_secs(8), || {
            let got = self.lvxd.adm(&format!("-L{command}"))?;
            ensure!(got == expected, "{}: {line}\n{expected}but\n{got}", self.title);
            Ok(())
        })
    }

    /// The entries of a service as they are now.
    fn listed(&self, service: &str) -> Result<Vec<String>> {
        let all = self.lvxd.adm("-L -n -c")?;
        Ok(all.lines().filter(|l| is_entry(l) && l.split_whitespace().nth(4) == Some(service)).map(str::to_owned).collect())
    }

    /// Compares entries, in any order; what remains of their time by two seconds.
    fn same(&self, expected: &[&str], got: &[String]) -> Result<()> {
        let sorted = |lines: Vec<&str>| -> Result<Vec<_>> {
            let mut all: Vec<_> = lines.into_iter().map(entry).collect::<Result<_>>()?;
            all.sort();
            Ok(all)
        };
        let (want, have) = (sorted(expected.to_vec())?, sorted(got.iter().map(String::as_str).collect())?);
        let same = want.len() == have.len() && want.iter().zip(&have).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() <= 2);
        ensure!(same, "{}:\n{}\nbut\n{}", self.title, expected.join("\n"), got.join("\n"));
        Ok(())
    }

    /// Recorded entries of a service: those lines that follow each other.
    fn entries(&mut self) -> Result<()> {
        let mut expected = Vec::new();
        while let Some(l) = self.lines.front().filter(|l| is_entry(l)) {
            expected.push(*l);
            self.lines.pop_front();
        }
        let first = expected.first().with_context(|| format!("{}: no entry at {:?}", self.title, self.lines.front()))?;
        let service = first.split_whitespace().nth(4).unwrap_or_default();
        self.same(&expected, &self.listed(service)?)
    }

    /// One recorded entry, alone or beside others of the service.
    fn one(&mut self) -> Result<()> {
        let line = self.next()?;
        let service = line.split_whitespace().nth(4).unwrap_or_default().to_owned();
        let server = line.split_whitespace().nth(5).unwrap_or_default().to_owned();
        let got: Vec<_> = self.listed(&service)?.into_iter().filter(|l| l.ends_with(&server)).collect();
        self.same(&[line], &got)
    }

    /// Lines `WHAT t=SECONDS ENTRY`, each that long after `start`.
    fn watch(&mut self, what: &str, start: Instant, service: &str, server: &str) -> Result<()> {
        while let Some(rest) = self.lines.front().and_then(|l| l.strip_prefix(what)?.strip_prefix(" t=")) {
            self.lines.pop_front();
            let (at, expected) = rest.split_once(' ').context("no time")?;
            let at = Duration::from_secs_f64(at.parse()?);
            std::thread::sleep(at.saturating_sub(start.elapsed()));
            let got: Vec<_> = self.listed(service)?.into_iter().filter(|l| l.ends_with(server)).collect();
            if expected == "(no entry)" {
                ensure!(got.is_empty(), "{}: {what} at {at:?}: {got:?}", self.title);
            } else if start.elapsed() < at + Duration::from_millis(500) {
                self.same(&[expected], &got)?;
            }
        }
        Ok(())
    }

    fn connect(&mut self, host: u8, to: SocketAddrV4) -> Result<Option<TcpStream>> {
        self.port += 1;
        connected(&self.lab.client, SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, host), self.port), to)
    }

    /// Connections with a request each, as many as numbers stand in the next line, and to those servers.
    fn choices(&mut self, hosts: &[u8], to: SocketAddrV4) -> Result<Vec<TcpStream>> {
        let line = self.next()?;
        let numbers = line.rsplit_once(": ").map_or(line, |l| l.1);
        let mut held = Vec::new();
        for (i, expected) in numbers.split_whitespace().enumerate() {
            let mut stream = self.connect(hosts[i % hosts.len()], to)?.with_context(|| format!("{}: refused", self.title))?;
            let got = ask(&mut stream)?.to_string();
            ensure!(got == expected, "{}: {line}: {got} at {i}", self.title);
            held.push(stream);
            std::thread::sleep(Duration::from_millis(3));
        }
        // Acknowledgements of answers may wait for 40 ms.
        std::thread::sleep(Duration::from_millis(60));
        Ok(held)
    }

    /// All of it was played.
    fn end(self) -> Result<u16> {
        ensure!(self.lines.is_empty(), "{}: left over: {:?}", self.title, self.lines);
        Ok(self.port)
    }
}

fn reset(stream: TcpStream) -> Result<()> {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    drop(stream);
    std::thread::sleep(Duration::from_millis(20));
    Ok(())
}

/// Closes, and waits for the server's side of it.
fn close(streams: impl IntoIterator<Item = TcpStream>) {
    drop(streams.into_iter().collect::<Vec<_>>());
    std::thread::sleep(Duration::from_millis(100));
}

fn vip(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 9, 0, 10), port)
}

struct Bench {
    lab: Lab,
    lvxd: Lvxd,
    _servers: Vec<(Nginx, UdpEcho)>,
}

fn bench(method: Method) -> Result<Bench> {
    let lab = Lab::new(Layout::TwoArms, method, 3)?;
    if method != Method::Nat {
        for s in &lab.servers {
            for n in [11, 12, 16, 17] {
                s.ip(&format!("addr add 10.9.0.{n}/32 dev lo"))?;
            }
        }
    }
    // The kernel answers for it what is no connection's.
    lab.director.ip("addr add 10.9.0.10/32 dev lo")?;
    for host in 11..=16 {
        lab.client.ip(&format!("addr add 10.1.0.{host}/24 dev eth0"))?;
    }
    let serve = |(i, s)| {
        let echo = UdpEcho::start(s, &format!("{}", i + 1), &[(Ipv4Addr::UNSPECIFIED.into(), 53)])?;
        Ok((Nginx::start(s, &format!("server-{i}\n"), &[80, 8080])?, echo))
    };
    let servers = lab.servers.iter().enumerate().map(serve).collect::<Result<Vec<_>>>()?;
    let lvxd = lab.start()?;
    Ok(Bench { lab, lvxd, _servers: servers })
}

#[test]
fn states_and_times() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let b = bench(Method::Nat)?;
    let mut c = Case::new("server listed but not listening", &b.lab, &b.lvxd, 40000)?;
    c.commands()?;
    for _ in c.next()?.split_whitespace() {
        ensure!(c.connect(2, vip(111))?.is_none(), "answered");
    }
    c.list()?;
    c.entries()?;
    let port = c.end()?;

    let mut c = Case::new("TCP states of an entry", &b.lab, &b.lvxd, port)?;
    c.commands()?;
    let mut first = c.connect(2, vip(128))?.context("refused")?;
    std::thread::sleep(Duration::from_millis(20));
    c.one()?;
    ask(&mut first)?;
    c.one()?;
    close([first]);
    c.one()?;
    c.one()?;
    let second = c.connect(2, vip(128))?.context("refused")?;
    reset(second)?;
    c.one()?;
    c.list()?;
    c.commands()?;
    ensure!(c.next()? == "SYN only:");
    // Nobody answers; the socket goes on trying behind our back until it is dropped.
    let socket = b.lab.client.run(|| -> Result<_> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
        let fd = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
        let _ = connect(&fd, &std::net::SocketAddr::V4(vip(129)));
        Ok(fd)
    })?;
    std::thread::sleep(Duration::from_millis(100));
    c.entries()?;
    c.list()?;
    drop(socket);
    let port = c.end()?;

    let mut c = Case::new("does --set change the timer", &b.lab, &b.lvxd, port)?;
    c.commands()?;
    let mut held = c.connect(2, vip(127))?.context("refused")?;
    std::thread::sleep(Duration::from_millis(20));
    c.one()?;
    c.commands()?;
    c.one()?;
    ask(&mut held)?;
    c.one()?;
    c.commands()?;
    c.end()?;
    Ok(())
}

#[test]
fn times_run_out() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let b = bench(Method::Nat)?;
    let mut c = Case::new("timeouts: --set 4 2 3", &b.lab, &b.lvxd, 40000)?;
    c.commands()?;
    c.list()?;
    c.commands()?;
    let mut held = c.connect(2, vip(125))?.context("refused")?;
    c.watch("idle held", Instant::now(), "10.9.0.10:125", "10.2.0.13:80")?;
    c.list()?;
    ensure!(c.next()?.starts_with("request on the held connection after its entry expired: ECONNRESET"));
    let error = ask(&mut held).expect_err("an answer");
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    ensure!(kind == Some(std::io::ErrorKind::ConnectionReset), "{error:#}");
    let mut second = c.connect(2, vip(125))?.context("refused")?;
    ensure!(ask(&mut second)? == 2, "not the next server");
    drop(second);
    c.watch("closed", Instant::now(), "10.9.0.10:125", "10.2.0.12:80")?;
    c.commands()?;
    ensure!(c.next()? == "1");
    let socket = udp(&b.lab)?;
    ensure!(datagram(&socket, vip(126))? == "1");
    c.watch("udp", Instant::now(), "10.9.0.10:126", "10.2.0.11:53")?;
    c.commands()?;
    c.end()?;
    Ok(())
}

fn udp(lab: &Lab) -> Result<UdpSocket> {
    let socket = lab.client.run(|| UdpSocket::bind("10.1.0.2:0"))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket)
}

/// One there and one back: the server's number.
fn datagram(socket: &UdpSocket, to: SocketAddrV4) -> Result<String> {
    socket.send_to(b"x", to)?;
    let mut buffer = [0; 64];
    let (n, _) = socket.recv_from(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..n]).split(' ').next().unwrap_or_default().to_owned())
}

#[test]
fn datagrams() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let b = bench(Method::Nat)?;
    let mut c = Case::new("UDP: one socket (same source port), 12 datagrams, rr without --ops", &b.lab, &b.lvxd, 40000)?;
    c.commands()?;
    let socket = udp(&b.lab)?;
    for expected in c.next()?.split_whitespace() {
        ensure!(datagram(&socket, vip(123))? == expected);
    }
    c.list()?;
    c.entries()?;
    let line = c.next()?;
    for expected in line.strip_prefix("12 new sockets: ").context("another case")?.split_whitespace() {
        ensure!(datagram(&udp(&b.lab)?, vip(123))? == expected);
    }
    c.list()?;
    c.end()?;
    Ok(())
}

#[test]
fn templates() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let b = bench(Method::Nat)?;
    let mut c = Case::new("persistence: rr -p 60", &b.lab, &b.lvxd, 40000)?;
    c.commands()?;
    for hosts in [&[2][..], &[11], &[12, 13, 14], &[2]] {
        close(c.choices(hosts, vip(119))?);
    }
    c.list()?;
    c.list()?;
    ensure!(c.next()? == "$ ipvsadm -L -n -c | grep 119");
    c.entries()?;
    c.commands()?;
    close(c.choices(&[2], vip(119))?);
    // The last line is a setting, which `packets_persist` has.
    ensure!(c.next()?.starts_with("expire_quiescent_template=1"));
    let port = c.end()?;

    let mut c = Case::new("persistence: the template timer restarts", &b.lab, &b.lvxd, port)?;
    c.commands()?;
    ensure!(c.next()? == "3 3 3");
    for n in 0..3 {
        let mut stream = c.connect(2, vip(121))?.context("refused")?;
        ensure!(ask(&mut stream)? == 3);
        reset(stream)?;
        std::thread::sleep(Duration::from_millis(if n < 2 { 3200 } else { 0 }));
    }
    c.entries()?;
    let port = c.end()?;

    let mut c = Case::new("persistence: -p 60 -M 255.255.255.0", &b.lab, &b.lvxd, port)?;
    c.commands()?;
    close(c.choices(&[11, 12, 13, 14, 15, 16], vip(122))?);
    c.entries()?;
    c.end()?;
    Ok(())
}

/// Held, listed, counted, then closed: what a director knows that sees one direction alone.
fn one_direction(b: &Bench, title: &str, to: &str) -> Result<()> {
    let mut c = Case::new(title, &b.lab, &b.lvxd, 40000)?;
    c.commands()?;
    let held = c.choices(&[2], to.parse()?)?;
    c.list()?;
    c.entries()?;
    c.list()?;
    ensure!(c.next()?.starts_with("closed by the client"));
    close(held);
    c.list()?;
    c.entries()?;
    c.end()?;
    Ok(())
}

#[test]
fn direct_routing() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let b = bench(Method::Dr)?;
    one_direction(&b, "DR: rr, port 80 -> 80, held", "10.9.0.11:80")?;
    let mut c = Case::new("DR: --set 900 3 300", &b.lab, &b.lvxd, 41000)?;
    c.commands()?;
    let mut stream = c.connect(2, "10.9.0.17:8080".parse()?)?.context("refused")?;
    ask(&mut stream)?;
    stream.flush()?;
    drop(stream);
    c.watch("closed", Instant::now(), "10.9.0.17:8080", "10.2.0.13:8080")?;
    c.commands()?;
    c.end()?;
    Ok(())
}

#[test]
fn tunnels_and_all_methods_in_one_service() -> Result<()> {
    if !possible() {
        return Ok(());
    }
    let b = bench(Method::Tun)?;
    one_direction(&b, "TUN: rr, port 80 -> 80, held", "10.9.0.12:80")?;
    // Under NAT answers come by the director.
    b.lab.servers[0].ip("route replace default via 10.2.0.1")?;
    let mut c = Case::new("mixed: one service with one server each", &b.lab, &b.lvxd, 42000)?;
    c.commands()?;
    let held = c.choices(&[2], "10.9.0.16:80".parse()?)?;
    // Which addresses the servers saw.
    while c.lines.front().is_some_and(|l| l.starts_with("rs")) {
        c.lines.pop_front();
    }
    c.list()?;
    drop(held);
    c.end()?;
    Ok(())
}
